"""Reading and decoding images that each take long to begin, as in an object store, by how many are read at a time.

    benchmarks/latency.py [--milliseconds 30] [--images 600]

The bundled pictures, again and again, each read after a wait, and prepared for the built-in encoder. They are not
embedded: that takes the same time however they came. Each number of readers is measured three times.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from indexer import Encoder
from indexer.ingest.indexing import batches
from massl.core.files.scan import ImageFile
from massl.core.machine import cores
from massl.data.objects import READERS
from massl.data.sources import find_source

PICTURES = Path(__file__).parents[1] / "cli" / "pictures"


def main() -> None:
    """Prints a line a number of readers, of the median time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--milliseconds", type=float, default=30.0)
    parser.add_argument("--images", type=int, default=600)
    told = parser.parse_args()
    source, _ = find_source(PICTURES)
    encoder = Encoder.load()
    files = [ImageFile(str(number), 0, 0) for number in range(told.images)]

    def read(file: ImageFile) -> bytes:
        time.sleep(told.milliseconds / 1000)
        return source.read(int(file.path) % len(source))

    took: dict[int, list[float]] = {cores(): [], 8: [], READERS: []}
    for _ in range(3):
        for readers, seconds in took.items():
            started = time.perf_counter()
            loaded = sum(len(batch) for batch in batches(Path(), files, encoder, read=read, readers=readers))
            seconds.append(time.perf_counter() - started)
            if loaded != told.images:
                raise SystemExit("some were not read")
    for readers, seconds in took.items():
        print(f"{readers:3} readers on {cores()} cores: {told.images / statistics.median(seconds):7.1f} images/s")


if __name__ == "__main__":
    main()
