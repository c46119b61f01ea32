"""Thumbnails: the only image files that the page ever serves."""

from __future__ import annotations

import hashlib
from pathlib import Path

from massl.images import MAX_PIXELS, ImageError, decode, read_bytes
from massl.scan import THUMBNAILS
from massl.writing import whole

SIDE = 256  # pixels of the longer side
LARGE = 1024  # of one that is looked at by itself


def make(original: Path, digest: str, folder: Path, max_pixels: int = MAX_PIXELS, side: int = SIDE) -> Path | None:
    """The thumbnail of a file, from the cache or made now: WebP, upright, sRGB, without any metadata.

    Named by the content's SHA-256 in hexadecimal, so that it is never stale. None if the original can't be read, is no
    longer of that content (changed, or another that took its name), or nothing can be written.
    """
    path = folder / THUMBNAILS / digest[:2] / (f"{digest}.webp" if side == SIDE else f"{digest}-{side}.webp")
    if path.is_symlink() or path.parent.is_symlink():  # we make none: it would be written, and served, through it
        return None
    if path.exists():
        return path
    try:
        content = read_bytes(original)
        if hashlib.sha256(content).hexdigest() != digest:
            return None
        picture = decode(content, side, max_pixels).picture
        picture.thumbnail((side, side), reducing_gap=2.0)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A fresh picture of the pixels alone: nothing of the file's metadata can come along.
        clean = picture.copy()
        clean.info.clear()
        with whole(path, flush=False) as written:  # the next one needn't wait for the disk
            clean.save(written, "WEBP", quality=80, method=2)
    except (ImageError, OSError):
        return None
    return path
