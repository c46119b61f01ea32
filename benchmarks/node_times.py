#!/usr/bin/env python3
"""Where an encoder's time goes: the share of each kind of operation, by ONNX Runtime's own profile.

    benchmarks/node_times.py [ENCODER.onnx] [--image-size 126] [--batches 40] [--images FOLDER]

It runs batches of four pictures on one thread, as one core does where many are embedded. Of each operation the shortest
of its times counts: on a busy machine the others hold waiting.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer import Encoder
from indexer.encoder import small_batches
from indexer.encoder.embedding_graph import embedding_alone
from massl.core.errors import MasslError
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image

PICTURES = Path(__file__).parent.parent / "cli" / "pictures"
Times = Mapping[tuple[str, str], Sequence[float]]  # seconds of each run, by kind and name of an operation


def profiled(model: bytes, size: int, batches: Iterator[NDArray[np.uint8]], folder: Path) -> Times:
    """Runs batches of uint8 `[N, S, S, 3]`; the profile is written to `folder`."""
    import onnxruntime  # once the switches of what it reports are off

    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("S", size)
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for pixels in batches:
        session.run(["embedding"], {"pixels": pixels})
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text("utf-8")):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e6)
    return times


def tell(name: str, times: Times, pictures: int) -> None:
    """Prints a table of shares, the largest first."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for (kind, _), seconds in times.items():
        kinds[kind].append(min(seconds))
    total = sum(map(sum, kinds.values()))
    print(f"\n{name}: {1000 * total / pictures:.2f} ms a picture\n")
    print("| operation | number | share |\n| --- | --- | --- |")
    for kind, seconds in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        if sum(seconds) >= 0.002 * total:
            print(f"| {kind} | {len(seconds)} | {sum(seconds) / total:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", nargs="?")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--images", type=Path, default=PICTURES)
    given = parser.parse_args()
    encoder = Encoder.load(given.encoder, image_size=given.image_size)
    model = embedding_alone(encoder.path.read_bytes())
    files = find_images(given.images)[0][:64]
    pictures = [encoder.prepare(open_image(given.images / file)) for file in files]
    endless, count = cycle(pictures), small_batches.BATCH
    batches = (np.stack(list(islice(endless, count))) for _ in range(given.batches))
    with tempfile.TemporaryDirectory() as folder:
        times = profiled(model, encoder.image_size, batches, Path(folder))
    tell(f"{encoder.name} at {encoder.image_size} pixels", times, count)


if __name__ == "__main__":
    try:
        main()
    except MasslError as error:
        sys.exit(str(error))
