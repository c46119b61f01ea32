"""What reading dates and words, and measuring pixels, adds to indexing, as a share of its CPU time.

    python benchmarks/facts.py FOLDER…

Each folder is copied and indexed in this process. What these two steps take is counted in their own threads, and the
share is of the CPU time of the whole process, so that other work on the machine changes neither.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from indexer import Collection
from indexer.ingest import indexing


class Counted:
    """A function that counts the CPU seconds which it takes, in whichever thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self.seconds = 0.0

    def __call__(self, *given: Any, **named: Any) -> Any:
        started = time.thread_time()
        try:
            return self._function(*given, **named)
        finally:
            with self._lock:
                self.seconds += time.thread_time() - started


def shares(folder: Path, most: int) -> tuple[int, float, float, float]:
    """Images, CPU seconds of indexing them, and the shares of reading metadata and of measuring."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        for number, path in enumerate(files[:: max(1, len(files) // most)][:most]):
            shutil.copy(path, root / f"{number}{path.suffix}")
        collection = Collection.create(root)
        assert collection.encoder  # loaded before the clock starts
        read, measured = Counted(indexing.metadata_of), Counted(indexing.measure)
        with patch.object(indexing, "metadata_of", read), patch.object(indexing, "measure", measured):
            started = time.process_time()
            report = collection.update()
            seconds = time.process_time() - started
        collection.close()
        return report.embedded, seconds, read.seconds / seconds, measured.seconds / seconds


def main() -> None:
    """Prints a row for each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=300)
    given = parser.parse_args()
    print("| folder | images | CPU ms an image | dates and words | measures |")
    print("| --- | --- | --- | --- | --- |")
    for folder in given.folders:
        images, seconds, read, measured = shares(folder, given.images)
        print(f"| {folder.name} | {images} | {1000 * seconds / images:.1f} | {read:.1%} | {measured:.1%} |", flush=True)


if __name__ == "__main__":
    main()
