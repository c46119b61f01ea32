"""JPEGs of which any decoder makes the same picture, so that one may decode them that is not Pillow's."""

from __future__ import annotations

from typing import NamedTuple

from massl.core.images import jpeg
from massl.core.images.decoding import opened
from massl.core.images.orientation import orientation_of
from massl.core.images.srgb import factor_of, is_converted

MOST_PIXELS = (
    1 << 25
)  # of a file: whoever can decode at a reduced size is faster with larger ones, and takes less memory

_HUFFMAN = (0xC0, 0xC1, 0xC2)  # how the pixels are coded: baseline, extended and progressive, not by arithmetic
_NAMED_RGB = (82, 71, 66)  # the letters R, G and B for the channels, which some readers take for colours, some do not


class PlainJpeg(NamedTuple):
    """What the header says.

    Attributes:
        size: width and height in pixels as `decode` would give them: reduced by `factor`, and upright.
        factor: 1, 2, 4 or 8, by how much `decode` would reduce each side.
        orientation: EXIF's, from 1 to 8.
    """

    size: tuple[int, int]
    factor: int
    orientation: int


def plain_jpeg(data: bytes, shortest: int) -> PlainJpeg | None:
    """A JPEG that needs nothing but decoding, reducing and turning; None for any other file, damaged ones among them.

    It has 8-bit grey or YCbCr pixels, which are sRGB, coded in one of the common ways, and ends where a JPEG ends.

    Args:
        data: the file's content.
        shortest: the shorter side, in pixels, that is needed of it, as of `massl.core.images.decoding.decode`.
    """
    if not data.startswith(b"\xff\xd8") or not data.endswith(b"\xff\xd9") or jpeg.coding(data) not in _HUFFMAN:
        return None
    try:
        with opened(data) as image:
            width, height = image.size
            channels = tuple(layer[0] for layer in getattr(image, "layer", ()))
            stored_as_rgb = image.info.get("adobe_transform", 1) != 1 or channels == _NAMED_RGB
            if (
                image.mode not in ("L", "RGB")
                or (image.mode == "RGB" and stored_as_rgb)
                or width * height > MOST_PIXELS
            ):
                return None
            if is_converted(image.info.get("icc_profile"), image.mode):
                return None
            orientation = orientation_of(image)
            reduced = image.draft("RGB", (shortest, shortest))
            factor = round(width / reduced[1][2]) if reduced else 1
            size = image.size
    except Exception:  # of any kind, on damaged data; whoever decodes it says which
        return None
    if factor_of(size, shortest) > 1:
        return None
    return PlainJpeg(size[::-1] if orientation > 4 else size, factor, orientation)
