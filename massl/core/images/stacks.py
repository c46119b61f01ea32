"""Stacks: TIFFs of several channels and planes, as microscopes write them, to one picture of what is asked for.

tifffile (the extra `sci`) says what the pages are, from the file's own metadata: OME-XML, ImageJ's, and others'. The
numbers are read by `massl.core.images.tiff`, which allocates nothing before its size was admitted.
"""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from massl.core.images import bit_depth, planes, tiff
from massl.core.images.rendering import Rendering, Scaling, kind_of

MOST_PIXELS = 16  # times the most that a picture may have: what is read of a stack for one picture
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHAT = {"Z": "planes", "T": "points in time", "I": "pages", "Q": "pages"}
_TYPES = {1: "u", 2: "i", 3: "f"}  # of numbers, as `Layout.number` has them


class NotInStack(Exception):
    """What is asked for is not in a file, or nobody can say where. The message is a reason to skip it."""


@dataclass(frozen=True)
class _Stack:
    """Where a file's pages are: directories `[planes, channels]`, or `[planes, 1]` where a page holds all channels.

    Attributes:
        pages: where each directory begins, in bytes.
        names: of the channels, as the file tells; empty texts where it doesn't.
        on_page: the channels lie side by side on each page.
        colours: each page is a picture in colour.
    """

    pages: np.ndarray
    names: tuple[str, ...]
    on_page: bool
    colours: bool


def can_read() -> bool:
    """Whether tifffile is here: `pip install 'massl[sci]'`."""
    return importlib.util.find_spec("tifffile") is not None


def is_asked_for(data: bytes, rendering: Rendering) -> bool:
    """Whether a file may be a stack, and somebody chose what to see of it."""
    return rendering.picks and data.startswith(_MAGIC)


def read(
    data: bytes,
    scaling: Scaling,
    admit: Callable[[tiff.Layout, int, int], None],
    what: Rendering,
) -> Image.Image | None:
    """The picture of the channels and the plane that are asked for; None for a file that is no stack.

    Args:
        data: the file's content.
        scaling: how its numbers become 8 bits; each channel has its own range.
        admit: given how a page is stored, the number of pages to be read, and the bytes that are kept of each pixel
            meanwhile, before any is; raises to refuse.
        what: its `channels` and `plane`.

    Returns:
        an image of mode `L` or `RGB`.

    Raises:
        NotInStack: a plane or channel that isn't there, or a file that doesn't say which they are.
        tiff.Unsupported: its pages can't be read.
        OSError, zlib.error: truncated, damaged.
    """
    stack = _find(data)
    if stack is None:
        return None
    chosen = _channels(stack, what.channels)
    rows = plane_numbers(len(stack.pages), what.plane)
    layouts = [[_layout(data, int(stack.pages[row, 0 if stack.on_page else at])) for at in chosen] for row in rows]
    first = layouts[0][0]
    for layout in (layout for row in layouts for layout in row):
        if (layout.width, layout.height, layout.bits, layout.samples) != (
            first.width, first.height, first.bits, first.samples,
        ):  # fmt: skip
            raise NotInStack(
                f"a stack whose pages differ: {first.width} x {first.height} pixels of {first.bits} bits, and "
                f"{layout.width} x {layout.height} of {layout.bits}"
            )
    admit(first, len(rows) * len(chosen), (2 * first.kind.itemsize + 4) * max(3, len(chosen)))
    shown = []
    for place, at in enumerate(chosen):
        columns = slice(0, 3) if stack.colours else at if stack.on_page else 0
        values = reduce(np.fmax, (tiff.numbers(data, row[place])[..., columns] for row in layouts))
        kind = kind_of(_TYPES[first.number], first.bits, 3 if stack.colours else 1)
        if what.channels:
            kind += f" {what.channels[place]}"
        no_data = None if stack.colours else first.no_data
        limits = scaling.limits(values, kind, no_data)
        if limits is None and first.bits <= 8:
            limits = 0.0, 2.0**first.bits - 1
        pixels = bit_depth.to_8_bits(values, limits, no_data)
        shown.append(255 - pixels if first.photometric == tiff.WHITE_IS_ZERO else pixels)
    if len(shown) == 1:
        return Image.fromarray(shown[0])
    while len(shown) < 3:
        shown.append(np.zeros_like(shown[0]))
    return Image.fromarray(np.stack(shown, axis=-1))


def _find(data: bytes) -> _Stack | None:
    """What tifffile says of a file; None where it has one page of one channel or of colours."""
    if not can_read():
        several = planes.of_tiff(data)
        if several > 1:
            raise NotInStack(f"a stack of {several:,} pages: to read its channels and planes, pip install 'massl[sci]'")
        return None
    import tifffile

    # It says on standard error what it doesn't like; what matters of it becomes a reason.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    if planes.of_tiff(data) >= planes.MOST:
        raise NotInStack(f"a stack of more than {planes.MOST:,} pages")
    # Not the files that the metadata names beside it: they may be anybody's.
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as file:
        series = [each for each in file.series if each.ndim >= 2]
        if not series:
            return None
        if len(series) > 1:
            sizes = ", ".join(sorted({f"{each.shape[-2]} x {each.shape[-1]}" for each in series}))
            raise NotInStack(f"a file of {len(series)} pictures that are no stack ({sizes}); save each as a file")
        return _described(series[0], file.ome_metadata if file.is_ome else None)


def _described(series: Any, ome: str | None) -> _Stack | None:
    axes, shape = series.axes, series.shape
    before = axes.index("Y")
    # Channels of a page lie before its rows, if each is stored by itself, or behind its columns.
    of_page = {axis: size for axis, size in zip(axes, shape, strict=True) if axis == "S"}
    samples = of_page.get("S", 1)
    colours = samples in (3, 4) and series.keyframe.photometric.value in (tiff.RGB, tiff.YCBCR)
    outer = [(axis, size) for axis, size in zip(axes[:before], shape[:before], strict=True) if axis != "S"]
    if not outer and (samples == 1 or colours):
        return None
    several = [axis for axis, size in outer if size > 1 and axis != "C"]
    unknown = [axis for axis in several if axis not in _WHAT]
    if unknown or len(several) > 1:
        sizes = ", ".join(f"{size} {_WHAT.get(axis, f'of axis {axis}')}" for axis, size in outer if axis in several)
        raise NotInStack(f"a stack of {sizes}: only one of these can be looked through; save it in parts")
    pages = [None if page is None else page.offset for page in series.pages]
    count = int(np.prod([size for _, size in outer], dtype=np.int64))
    if len(pages) != count or None in pages:
        raise NotInStack(f"a stack of {count:,} pages of which {sum(page is not None for page in pages):,} are there")
    grid = np.array(pages, np.int64).reshape([size for _, size in outer] or [1])
    place = next((at for at, (axis, _) in enumerate(outer) if axis == "C"), None)
    channels = 1 if place is None else outer[place][1]
    grid = grid.reshape(-1, 1) if place is None else np.moveaxis(grid, place, -1).reshape(-1, channels)
    if samples > 1 and not colours and channels > 1:
        raise NotInStack(f"a stack with channels both on pages ({samples}) and of pages ({channels})")
    on_page = samples > 1 and not colours
    if several and several[0] in "IQ" and place is None:
        channels = 0  # the file doesn't say whether they are channels or planes
    return _Stack(grid, _names(ome, samples if on_page else channels), on_page, colours)


def _names(ome: str | None, channels: int) -> tuple[str, ...]:
    names = [""] * channels
    if ome and "<!DOCTYPE" not in ome:  # which could define entities without end
        try:
            told = [each for each in ElementTree.fromstring(ome).iter() if each.tag.rpartition("}")[2] == "Channel"]
        except ElementTree.ParseError:
            told = []
        for at, each in enumerate(told[:channels]):
            names[at] = each.get("Name") or ""
    return tuple(names)


def _channels(stack: _Stack, wanted: Sequence[str]) -> list[int]:
    """The places of the channels that are asked for: the first, if none is."""
    if not wanted:
        return [0]
    count = len(stack.names)
    if stack.colours:
        raise NotInStack("a stack of pictures in colour, which has no channels to choose from")
    if not count:
        raise NotInStack(
            f"a stack of {len(stack.pages):,} pages that doesn't say which are channels; save it as OME-TIFF"
        )
    found = []
    for name in wanted:
        named = [at for at, each in enumerate(stack.names) if each.casefold() == name.casefold()]
        if not named and name.isdecimal() and 1 <= int(name) <= count:
            named = [int(name) - 1]
        if not named:
            known = ", ".join(each or str(at) for at, each in enumerate(stack.names, 1))
            raise NotInStack(f"no channel {name!r}: it has {known}")
        found.append(named[0])
    return found


def plane_numbers(count: int, wanted: str) -> Sequence[int]:
    """The numbers from 0 of the planes that are asked for, of so many: the first, if none is.

    Raises:
        NotInStack: there is no such plane.
    """
    if wanted == "max":
        return range(count)
    if wanted == "middle":
        return [count // 2]
    at = int(wanted or 1)
    if at > count:
        raise NotInStack(f"no plane {at}: it has {count}")
    return [at - 1]


def _layout(data: bytes, page: int) -> tiff.Layout:
    found = tiff.layout(data, page)
    if found is None:
        raise tiff.Unsupported("a stack whose pages are compressed as pictures or damaged, which is not supported")
    return found
