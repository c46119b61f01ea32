#!/usr/bin/env python3
"""Pack a pool into small tar shards, to be carried to the machine that trains on it.

    pack.py POOL OUT [SIDE [BYTES]]      pixels of the shorter side, and bytes of images a shard: 80 and 48 million
                                         unless told otherwise

Every image of POOL, in an order drawn by chance so that any shards are a fair sample of it, turned upright, shrunk to
SIDE where it is larger, as WebP. `massl train OUT` reads what it writes.
"""

from __future__ import annotations

import io
import random
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from PIL import Image

from massl.core.files.scan import find_images
from massl.core.images.decoding import decode
from massl.core.images.image_errors import ImageError

QUALITY = 80


def shrunk(path: Path, side: int) -> bytes | None:
    """The image as WebP; None where it can't be read."""
    try:
        picture = decode(path.read_bytes(), side).picture
    except ImageError:
        return None
    factor = side / min(picture.size)
    if factor < 1:
        picture = picture.resize([max(1, round(length * factor)) for length in picture.size], Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY)
    return out.getvalue()


def pack(pool: Path, out: Path, side: int = 80, shard: int = 48_000_000) -> int:
    """Writes the shards and returns how many images they hold."""
    paths, _ = find_images(pool)
    random.Random(0).shuffle(paths)
    out.mkdir(parents=True)
    count, held, shards = 0, shard, 0
    with ProcessPoolExecutor() as workers, ExitStack() as opened:
        for data in workers.map(partial(shrunk, side=side), (pool / path for path in paths), chunksize=64):
            if data is None:
                continue
            if held >= shard:
                opened.close()
                tar = opened.enter_context(tarfile.open(out / f"images-{shards:03d}.tar", "w"))
                held, shards = 0, shards + 1
            entry = tarfile.TarInfo(f"{count:07d}.webp")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            held, count = held + len(data), count + 1
    return count


if __name__ == "__main__":
    print(pack(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])), "images")
