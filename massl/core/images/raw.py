"""RAW photographs: recognised by content, developed by LibRaw where the extra `raw` is installed."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from massl.core.images.content import Content, stream

# Most cameras' RAW files are TIFFs; these are those that can be told by their first bytes.
_MAGIC = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"\0MRM", b"FOVb")

_NEW_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_IFDS, _DNG_VERSION = 254, 259, 262, 271, 330, 50706
_SENSOR_COMPRESSIONS = (32767, 32770, 34713, 65000, 65535)  # Sony, Samsung, Nikon, Kodak, Pentax
_COLOUR_FILTER_ARRAY = 32803


def can_develop() -> bool:
    """Whether LibRaw is here: `pip install 'massl[raw]'`."""
    return importlib.util.find_spec("rawpy") is not None


def is_raw(data: Content) -> bool:
    """Whether a file's content is a sensor's, whatever its name.

    By content, as a RAW file that is a TIFF too would otherwise open as the thumbnail in it.
    """
    if data.startswith(_MAGIC) or data[4:12] == b"ftypcrx " or data[6:14] == b"HEAPCCDR":
        return True
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if data[8:10] == b"CR":
        return True
    try:
        first = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = stream(data)
        file.seek(first.next)
        first.load(file)
        tags = {tag: first.get(tag) for tag in (_NEW_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_IFDS)}
        if _DNG_VERSION in first or tags[_PHOTOMETRIC] == _COLOUR_FILTER_ARRAY:
            return True
    except Exception:  # a damaged TIFF, which the decoder will say more of
        return False
    if tags[_COMPRESSION] in _SENSOR_COMPRESSIONS:
        return True
    # A camera's thumbnail, with the sensor's data in a directory below it.
    return bool(tags[_NEW_SUBFILE_TYPE] == 1 and tags[_MAKE] and tags[_SUB_IFDS])


def develop(data: bytes, shortest: int | None, check: Callable[[int, int, int], Any]) -> tuple[Image.Image, int, int]:
    """Develops a RAW file as the camera's settings say, upright, in sRGB.

    Args:
        data: the file's content.
        shortest: the shorter side, in pixels, that the caller needs; developed at half size where that suffices.
        check: given width and height, and how many pixels the sensor has, before anything is developed; raises to
            refuse.

    Returns:
        The picture, and the width and height of the whole photograph in pixels.

    Raises:
        ImportError: the extra `raw` is not installed.
        rawpy.LibRawError: LibRaw can't read it.
    """
    import rawpy

    with rawpy.imread(io.BytesIO(data)) as raw:
        width, height = raw.sizes.iwidth, raw.sizes.iheight
        if raw.sizes.flip in (5, 6):  # by a quarter turn
            width, height = height, width
        check(width, height, max(width * height, raw.sizes.raw_width * raw.sizes.raw_height))
        half = bool(shortest and min(width, height) // 2 >= shortest)
        pixels = raw.postprocess(use_camera_wb=True, half_size=half, output_bps=8)
    return Image.fromarray(np.ascontiguousarray(pixels)), width, height
