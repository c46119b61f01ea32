#!/usr/bin/env python3
"""What `massl index` spends its time on: the whole run, decoding alone and the encoder alone, side by side in one run.

    benchmarks/index.py IMAGES [ENCODER.onnx]

Prints images a second of each, and the encoder's share: how long it alone takes, over how long the whole run takes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from indexer import Collection, Encoder
from indexer.indexing import BATCH, batches
from massl.images import ImageFile, walk


def main(images: str, encoder_file: str | None = None) -> None:
    root = Path(images)
    encoder = Encoder.load(encoder_file)
    files = [item for item in walk(root) if isinstance(item, ImageFile)]

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        report = Collection.create(root, encoder, folder).update()
        whole = time.perf_counter() - started

    started = time.perf_counter()
    loaded = [item.pixels for batch in batches(root, files, encoder) for item in batch if item.pixels is not None]
    decoding = time.perf_counter() - started

    pixels = np.stack(loaded)
    started = time.perf_counter()
    for start in range(0, len(pixels), BATCH):
        encoder.embed(pixels[start : start + BATCH])
    alone = time.perf_counter() - started

    count = report.embedded
    print(f"{count} images, encoder {encoder.name} at {encoder.image_size} px on {encoder.device}")
    for name, seconds in (("whole run", whole), ("decoding alone", decoding), ("encoder alone", alone)):
        print(f"{name:<15} {seconds:7.2f} s  {count / seconds:8.1f} images/s  {seconds / whole:6.1%} of the whole run")


if __name__ == "__main__":
    main(*sys.argv[1:])
