"""A picture read strip by strip, from the top down, so that large ones need not lie in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image

from massl.core.images.decoding import MAX_PIXELS, decode
from massl.core.images.rendering import EACH_FILE, Rendering


def strips(
    data: bytes,
    rows: Sequence[tuple[int, int]],
    max_pixels: int = MAX_PIXELS,
    rendering: Rendering = EACH_FILE,
) -> Iterator[Image.Image]:
    """Strips of a picture, in the colours and the orientation that `massl.core.images.decoding.decode` gives it.

    Args:
        data: the file's content.
        rows: the first row of each strip and how many it has, in pixels, from the top down; they may overlap.
        max_pixels: larger pictures are refused.
        rendering: see `decode`.

    Raises:
        ImageError: as `decode`, also after strips were given.
    """
    picture = decode(data, None, max_pixels, rendering).picture
    for top, height in rows:
        yield picture.crop((0, top, picture.width, top + height))
