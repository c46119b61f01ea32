"""Large pictures read a few rows at a time: averaged down as they come, or cut into parts.

Each pixel is what decoding the whole would give. What a picture's pixels depend on as a whole, the range of its numbers
or whether its alpha is used, is found in a first pass over its rows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from massl.core.images import bit_depth, deep_png, row_files, tiff
from massl.core.images.content import Content
from massl.core.images.rendering import Scaling
from massl.core.images.row_files import PngRows, TiffRows
from massl.core.images.srgb import averaged, finished, load_8_bits

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels of the upright picture, as `massl search --crop` takes them."""

LARGE = 1 << 24  # pixels from which it is worth the while
_A_PIXEL = 24  # bytes that a pixel takes at most while it is decoded and converted
_A_NUMBER = 16  # bytes that a deep number takes beside itself while it is scaled
_BESIDE = 16 << 20

Band = tuple[Image.Image, Image.Image | None]
"""Some rows of 8 bits a channel, and their alpha where that has no place in them."""


@dataclass(frozen=True)
class RowPicture:
    """A picture of which some rows are held at a time. Sides are pixels, of an upright picture.

    Attributes:
        memory: bytes that reading takes at most, beside what is made of the rows.
        unpacked: bytes of all its pixels as they are stored.
        profile: its colour profile.
        bands: reads it, from the top to the bottom, each time anew.
    """

    width: int
    height: int
    memory: int
    unpacked: int
    profile: bytes | None
    bands: Callable[[], Iterator[Band]]

    def reduced(self, factor: int) -> Image.Image:
        """The whole in sRGB, each `factor` x `factor` pixels averaged to one."""
        found: list[Image.Image | None] = [None, None]
        top = 0
        for band in _of_multiples(self.bands(), factor):
            for place, part in enumerate(averaged(*band, factor)):
                if part is None:
                    continue
                if (whole := found[place]) is None:
                    size = -(-self.width // factor), -(-self.height // factor)
                    whole = found[place] = Image.new(part.mode, size)
                whole.paste(part, (0, top // factor))
            top += band[0].height
        image, alpha = found
        assert image is not None
        return finished(image, alpha, self.profile)

    def held_for(self, boxes: Sequence[Box]) -> int:
        """Bytes of the rows that are held while parts are cut out."""
        return 5 * self.width * max((height for *_, height in boxes), default=0) + self.memory

    def parts(self, boxes: Sequence[Box]) -> Iterator[tuple[Box, Image.Image]]:
        """Parts of it in sRGB, in the order of their lower edges; of equal ones in that in which they are given."""
        waiting = sorted(boxes, key=_bottom)[::-1]
        held: list[tuple[int, Band]] = []
        top = 0
        for band in self.bands():
            held.append((top, averaged(*band)))
            top += band[0].height
            while waiting and _bottom(waiting[-1]) <= top:
                box = waiting.pop()
                yield box, finished(*_joined(held, box), self.profile)
            first = min((box[1] for box in waiting), default=top)
            held = [(start, rows) for start, rows in held if start + rows[0].height > first]


def find(
    content: Content, stored: tiff.Layout | None, header: Image.Image | None, scaling: Scaling
) -> RowPicture | None:
    """A large picture that can be read so, and is stored upright; None for any other.

    Args:
        content: the file's.
        stored: how it is stored, if it is a TIFF that Pillow can't read.
        header: the open file, nothing of it decoded, if Pillow can read it.
        scaling: how its numbers become 8 bits.
    """
    files = files_of(content)
    if files is None:
        return None
    pixels = files.width * files.band
    memory = pixels * _A_PIXEL + 4 * files.band_bytes + _BESIDE
    if stored is not None:
        if stored.orientation != 1 or (stored.width, stored.height) != (files.width, files.height):
            return None
        memory += pixels * len(stored.kept) * (2 * stored.kind.itemsize + _A_NUMBER)
        return RowPicture(
            stored.width, stored.height, memory, files.unpacked, stored.profile, _deep_bands(files, stored, scaling)
        )
    if header is None or header.size != (files.width, files.height):
        return None
    if isinstance(files, PngRows) and files.is_deep:
        memory += pixels * files.channels * _A_NUMBER
        bands = _deep_png_bands(files, header.info.get("transparency"), scaling)
        return RowPicture(files.width, files.height, memory, files.unpacked, header.info.get("icc_profile"), bands)

    bands = _pillow_bands(files, scaling)
    return RowPicture(files.width, files.height, memory, files.unpacked, header.info.get("icc_profile"), bands)


def files_of(content: Content) -> TiffRows | PngRows | None:
    """The small files that a large picture can be cut into; None where it isn't large or can't be."""
    files = row_files.of_png(content) or row_files.of_tiff(content)
    if files is None or files.width * files.height < LARGE or 2 * files.band > files.height:
        return None
    return files


def _pillow_bands(files: TiffRows | PngRows, scaling: Scaling) -> Callable[[], Iterator[Band]]:
    def bands() -> Iterator[Band]:
        for file in files.files():
            with Image.open(io.BytesIO(file), formats=("TIFF", "PNG")) as image:
                yield load_8_bits(image, file, scaling), None

    return bands


def _deep_bands(files: TiffRows | PngRows, stored: tiff.Layout, scaling: Scaling) -> Callable[[], Iterator[Band]]:
    def numbers() -> Iterator[tuple[tiff.Layout, NDArray[Any]]]:
        for file in files.files():
            layout = tiff.layout(file)
            assert layout is not None
            yield layout, tiff.numbers(file, layout)

    shape = stored.height, stored.width, len(stored.kept)
    values = bit_depth.RowNumbers(shape, stored.kind, lambda: (rows for _, rows in numbers()))
    scale: list[tiff.Scale] = []

    def bands() -> Iterator[Band]:
        if not scale:
            scale.append(tiff.scale_of(values, stored, scaling))
        for layout, rows in numbers():
            yield tiff.picture(rows, layout, scale[0])

    return bands


def _deep_png_bands(files: PngRows, clear: deep_png.Clear, scaling: Scaling) -> Callable[[], Iterator[Band]]:
    shape = files.height, files.width, files.channels
    values = bit_depth.RowNumbers(shape, np.dtype(np.uint16), files.numbers)
    scale: list[deep_png.PngScale] = []

    def bands() -> Iterator[Band]:
        if not scale:
            scale.append(deep_png.scale_of(values, clear, scaling))
        for rows in files.numbers():
            yield deep_png.picture(rows, clear, scale[0]), None

    return bands


def _bottom(box: Box) -> int:
    return box[1] + box[3]


def _of_multiples(bands: Iterator[Band], factor: int) -> Iterator[Band]:
    """The same rows, in bands that have a multiple of `factor` rows but for the last."""
    rest: list[tuple[int, Band]] = []
    height = 0
    for band in bands:
        rest.append((height, band))
        height += band[0].height
        if whole := height // factor * factor:
            width = band[0].width
            yield _joined(rest, (0, 0, width, whole))
            left = _joined(rest, (0, whole, width, height - whole)) if height > whole else None
            rest, height = ([(0, left)] if left else []), height - whole
    if rest:
        yield _joined(rest, (0, 0, rest[0][1][0].width, height))


def _joined(held: Sequence[tuple[int, Band]], box: Box) -> Band:
    """A part of bands that lie below one another, each of which begins at its number of pixels from the top."""
    x, y, width, height = box
    touched = [(top, band) for top, band in held if top < y + height and top + band[0].height > y]
    if len(touched) == 1:
        top, (image, alpha) = touched[0]
        here = (x, y - top, x + width, y - top + height)
        return image.crop(here), alpha and alpha.crop(here)
    joined: list[Image.Image | None] = []
    for place in range(2):
        first = touched[0][1][place]
        if first is None:
            joined.append(None)
            continue
        whole = first.crop((0, 0, 1, 1)).resize((width, height))  # of the same mode, palette and information
        for top, band in touched:
            part = band[place]
            assert part is not None
            first_row, end = max(y, top), min(y + height, top + part.height)
            whole.paste(part.crop((x, first_row - top, x + width, end - top)), (0, first_row - y))
        joined.append(whole)
    assert joined[0] is not None
    return joined[0], joined[1]
