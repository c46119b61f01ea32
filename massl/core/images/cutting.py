"""Parts of a picture at its full size, without a copy of the whole in sRGB beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from massl.core.images import dicom, raw, stacks, tiff
from massl.core.images.content import Content
from massl.core.images.decoding import MAX_PIXELS, Reading, mended
from massl.core.images.file_reading import whole
from massl.core.images.image_errors import Truncated
from massl.core.images.rendering import EACH_FILE, Rendering, Uncounted
from massl.core.images.row_reading import Box
from massl.core.images.srgb import averaged, finished

BoxesOf = Callable[[int, int], Sequence[Box]]
"""Which parts of a picture are wanted, by its width and height in pixels, upright."""


def cut(
    data: Content, boxes: Sequence[Box] | BoxesOf, max_pixels: int = MAX_PIXELS, rendering: Rendering = EACH_FILE
) -> Iterator[tuple[Box, Image.Image]]:
    """Parts of what `decode` gives of a file: each box with its pixels, in the order of their lower edges.

    Large TIFFs and PNGs are read a few rows at a time, where `massl.core.images.row_reading` can. Of other
    pictures the whole is held as its decoder gives it.

    Args:
        data: the file's content.
        boxes: x, y, width and height in pixels of the upright picture, inside of it; or what says them once the
            picture's size is known, before anything is decoded where it is read by rows. What that raises is passed on.
        max_pixels: larger pictures are refused.
        rendering: how numbers of more than 8 bits are shown.

    Raises:
        ImageError: as `decode`, before the first part or between two.
        Unmeasured: as `decode`.
    """
    reading = Reading(max_pixels, Uncounted(rendering))
    try:
        with reading.of(data):
            yield from _parts(reading, data, boxes)
    except Truncated:
        complete = mended(whole(data), reading.width * reading.height) if data[:2] == b"\xff\xd8" else None
        if complete is None:
            raise
        yield from cut(complete, boxes, max_pixels, rendering)  # a JPEG, of which nothing was cut yet


def _parts(reading: Reading, data: Content, boxes: Sequence[Box] | BoxesOf) -> Iterator[tuple[Box, Image.Image]]:
    if raw.is_raw(data) or dicom.is_dicom(data) or stacks.is_asked_for(data, reading.scaling.rendering):
        picture = reading.decoded(data, None).picture
        yield from ((box, picture.crop(_edges(box))) for box in _ordered(boxes, *picture.size))
        return
    stored = tiff.layout(data)
    if large := reading.by_rows(data, stored):
        ordered = _ordered(boxes, large.width, large.height)
        reading.take(large.held_for(ordered))
        yield from large.parts(ordered)
        return
    image, alpha, profile = reading.as_it_is(whole(data), stored)
    image, alpha = averaged(image, alpha)
    for box in _ordered(boxes, *image.size):
        part = _edges(box)
        yield box, finished(image.crop(part), alpha and alpha.crop(part), profile)


def _ordered(boxes: Sequence[Box] | BoxesOf, width: int, height: int) -> Sequence[Box]:
    return sorted(boxes(width, height) if callable(boxes) else boxes, key=lambda box: box[1] + box[3])


def _edges(box: Box) -> tuple[int, int, int, int]:
    x, y, width, height = box
    return x, y, x + width, y + height
