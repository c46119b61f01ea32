"""How many pictures a file holds: pages of a TIFF, planes of a microscope's, frames of an animation."""

from __future__ import annotations

import struct

from PIL import Image

from massl.core.images.content import Content, unpacked

MOST = 100_000  # pages that are counted

_NEW_SUBFILE_TYPE, _REDUCED, _MASK = 254, 1, 4
_SHORT = 3  # the type of a number of 16 bits
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "HEIF", "TIFF")  # an MPO's others are previews, and views for two eyes


def of_picture(image: Image.Image) -> int:
    """Of an open file, by its header."""
    return max(1, int(getattr(image, "n_frames", 1))) if image.format in _ANIMATED else 1


def of_tiff(data: Content) -> int:
    """Of a TIFF: the pages that are no smaller versions or masks of others."""
    order = ">" if data[:2] == b"MM" else "<"
    big = data[2:4] in (b"+\0", b"\0+")
    pointer, head, entry = ("Q", "Q", 20) if big else ("L", "H", 12)
    (at,) = unpacked(order + pointer, data, 8 if big else 4)
    seen: set[int] = set()
    found = spent = 0
    # Pages don't lie within each other: those of an honest file take no more than it has.
    while at and at not in seen and len(seen) < MOST and spent <= len(data):
        seen.add(at)
        try:
            (count,) = unpacked(order + head, data, at)
            spent += count * entry
            start = at + struct.calcsize(order + head)
            found += not _is_aside(data, order, start, min(count, 1_000), entry)
            (at,) = unpacked(order + pointer, data, start + count * entry)
        except struct.error:  # cut off
            break
    return max(1, found)


def _is_aside(data: Content, order: str, start: int, count: int, entry: int) -> bool:
    """Whether a page is a smaller version of another, or a mask. Entries stand in the order of their tags."""
    for place in range(start, start + count * entry, entry):
        tag, kind = unpacked(order + "HH", data, place)
        if tag >= _NEW_SUBFILE_TYPE:
            (value,) = unpacked(order + ("H" if kind == _SHORT else "L"), data, place + (12 if entry == 20 else 8))
            return tag == _NEW_SUBFILE_TYPE and bool(value & (_REDUCED | _MASK))
    return False
