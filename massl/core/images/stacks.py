"""Stacks: TIFFs of several channels and planes, as microscopes write them, to one picture of what is asked for.

tifffile (the extra `sci`) says what the pages are, from the file's own metadata: OME-XML, ImageJ's, and others'. The
numbers are read by `massl.core.images.tiff`, which allocates nothing before its size was admitted.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from PIL import Image

from massl.core.images import bit_depth, ome, planes, tiff, tiff_pages
from massl.core.images.content import Content
from massl.core.images.rendering import EACH, Rendering, Scaling, kind_of

MOST_PIXELS = 16  # times the most that a picture may have: what is read of a stack for one picture
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PLANE = "massl: a plane of a stack"  # what the tag for the program says in a file of one; see `plane_files`
_WHAT = {"Z": "planes", "T": "points in time", "I": "pages", "Q": "pages"}
_MOST_UNLIKE = 500  # pages that tifffile sorts by what they are, comparing each with all others
_MOST_SHAPED = 200  # series that it looks for smaller versions in, likewise
# Programs whose metadata isn't read, as nothing bounds what tifffile makes of it; what else such a file says counts.
_LEFT_OUT = ("mmstack", "ndtiff", "ndpi", "scanimage", "stk")
_SLIDES = ("svs", "scn", "qpi", "bif", "avs", "eer", "philips")
_TYPES = {1: "u", 2: "i", 3: "f"}  # of numbers, as `Layout.number` has them


class NotInStack(Exception):
    """What is asked for is not in a file, or nobody can say where. The message is a reason to skip it."""


@dataclass(frozen=True)
class Stack:
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


def is_asked_for(data: Content, rendering: Rendering) -> bool:
    """Whether a file may be a stack, and somebody chose what to see of it."""
    return rendering.picks and data.startswith(MAGIC)


def read(
    data: bytes,
    scaling: Scaling,
    take: Callable[[int], object],
    admit: Callable[[tiff.Layout, int, int], None],
    what: Rendering,
) -> Image.Image | None:
    """The picture of the channels and the plane that are asked for; None for a file that is no stack.

    Args:
        data: the file's content.
        scaling: how its numbers become 8 bits; each channel has its own range.
        take: given the bytes that finding the pages takes, before any are; raises to refuse.
        admit: given how a page is stored, the number of pages to be read, and the bytes that are kept
            meanwhile, before any is; raises to refuse.
        what: its `channels` and `plane`.

    Returns:
        an image of mode `L` or `RGB`.

    Raises:
        NotInStack: a plane or channel that isn't there, or a file that doesn't say which they are.
        tiff.Unsupported: its pages can't be read.
        OSError, zlib.error: truncated, damaged.
    """
    stack = find(data, take)
    if stack is None:
        return None
    chosen = places_of(stack, what.channels)
    rows = plane_numbers(len(stack.pages), what.plane)
    first = _layout(data, int(stack.pages[rows[0], 0 if stack.on_page else chosen[0]]))
    whole = first.height * -(-first.width * first.samples * first.bits // 8)
    kept = (2 * first.kind.itemsize + 4) * max(3, len(chosen)) * first.width * first.height
    admit(first, len(rows) * len(chosen), kept + 3 * whole)

    def page(row: int, at: int) -> np.ndarray:
        layout = _layout(data, int(stack.pages[row, 0 if stack.on_page else at]))
        if (layout.width, layout.height, layout.bits, layout.samples, layout.number) != (
            first.width, first.height, first.bits, first.samples, first.number,
        ):  # fmt: skip
            raise NotInStack(
                f"a stack whose pages differ: {first.width} x {first.height} pixels of {first.bits} bits, and "
                f"{layout.width} x {layout.height} of {layout.bits}"
            )
        if layout.piece_bytes > max(first.piece_bytes, whole):
            raise NotInStack("a stack whose pages differ: one is stored in pieces larger than it")
        return tiff.numbers(data, layout)

    shown = []
    for place, at in enumerate(chosen):
        columns = slice(0, 3) if stack.colours else at if stack.on_page else 0
        values = reduce(np.fmax, (page(row, at)[..., columns] for row in rows))
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


def find(data: bytes, take: Callable[[int], object]) -> Stack | None:
    """What tifffile says of a file; None where it has one page of one channel or of colours.

    Args:
        data: the file's content.
        take: given the bytes that finding the pages takes, before any are; raises to refuse.

    Raises:
        NotInStack: it doesn't say what its pages are, or nobody can read it.
        tiff.Unsupported: it claims more than it holds.
    """
    several = planes.of_tiff(data)
    if not can_read():
        if several > 1:
            raise NotInStack(f"a stack of {several:,} pages: to read its channels and planes, pip install 'massl[sci]'")
        return None
    weight = tiff_pages.weigh(data)
    if not weight.pages:
        return None  # whoever reads it as a picture will say why it is none
    if weight.metamorph:
        most = max(weight.metamorph, several)
        if most > 1:
            raise NotInStack(f"a MetaMorph stack of {most:,} pages, which is not supported; save it as OME-TIFF")
        return None
    take(weight.memory)
    # It says on standard error what it doesn't like; what matters of it becomes a reason.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with _opened(data, weight) as file:
        names: tuple[str, ...] = ()
        if file.is_ome and (told := file.ome_metadata):
            take(ome.memory(told))
            names = ome.checked(told, weight.pages, max(1, int(file.pages.first.samplesperpixel)), weight.smallest)
        elif file.is_imagej and (most := _told_by_imagej(file)) > several * int(file.pages.first.samplesperpixel):
            raise NotInStack(f"a stack of {most:,} pages of which {several:,} are there")
        # Not the smaller versions that lie beside, as in an LSM.
        series = [each for each in file.series if each.ndim >= 2 and not each.keyframe.is_reduced]
        if not series:
            return None
        if len(series) > 1:
            sizes = ", ".join(sorted({f"{each.shape[-2]} x {each.shape[-1]}" for each in series})[:10])
            raise NotInStack(f"a file of {len(series)} pictures that are no stack ({sizes}); save each as a file")
        found = _described(series[0], names, file.pages.first.software == PLANE)
    if found is not None and found.pages.size < several:
        raise NotInStack(
            f"a stack of {several:,} pages whose metadata tells of {found.pages.size:,}; save it as OME-TIFF"
        )
    return found


def _told_by_imagej(file: Any) -> int:
    """The pages that ImageJ's metadata claims."""
    told = file.imagej_metadata or {}
    sizes = (told.get(name, 1) for name in ("frames", "slices", "channels"))
    return math.prod(size for size in sizes if isinstance(size, int))


def _opened(data: bytes, weight: tiff_pages.Weight) -> Any:
    """The file as tifffile sees it, of which nothing is asked that could take more than in proportion to its size."""
    import tifffile

    class BoundedFile(tifffile.TiffFile):  # type: ignore[misc]
        def _series_generic(self) -> Any:
            if weight.pages > _MOST_UNLIKE:
                raise NotInStack(f"a stack of {weight.pages:,} pages that are not alike; save it as OME-TIFF")
            return super()._series_generic()

    # Not the files that the metadata names beside it: they may be anybody's.
    left_out: Any = {f"is_{kind}": False for kind in _LEFT_OUT}
    file: Any = BoundedFile(io.BytesIO(data), _multifile=False, **left_out)
    first = file.pages.first
    if first.is_scanimage:
        file.is_scanimage = True  # not before: it would guess where the pages are
    if any(getattr(file, f"is_{kind}") for kind in _SLIDES):
        raise NotInStack("a whole slide, which is not read; export the part that you want as OME-TIFF")
    if file.is_shaped and weight.described > _MOST_SHAPED:
        raise NotInStack(f"a file of {weight.described:,} pictures that are no stack; save each as a file")
    if file.is_lsm:
        # What it needs of the record alone, as the lists that the record leads to may have any length.
        tag = first.tags[34412]
        record = np.dtype(tifffile.TIFF.CZ_LSMINFO).newbyteorder("<")
        fields = np.frombuffer(data, record, 1, tag.valueoffset)[0]
        tag.value = {name: fields[name].tolist() for name in record.names or ()}
    return file


def _described(series: Any, told: Sequence[str], of_stack: bool) -> Stack | None:
    axes, shape = series.axes, series.shape
    before = axes.index("Y")
    # Channels of a page lie before its rows, if each is stored by itself, or behind its columns.
    of_page = {axis: size for axis, size in zip(axes, shape, strict=True) if axis == "S"}
    samples = of_page.get("S", 1)
    colours = samples in (3, 4) and series.keyframe.photometric.value in (tiff.RGB, tiff.YCBCR)
    outer = [(axis, size) for axis, size in zip(axes[:before], shape[:before], strict=True) if axis != "S"]
    if not outer and (samples == 1 or colours) and not of_stack:
        return None
    several = [axis for axis, size in outer if size > 1 and axis != "C"]
    unknown = [axis for axis in several if axis not in _WHAT]
    if unknown or len(several) > 1:
        sizes = ", ".join(f"{size} {_WHAT.get(axis, f'of axis {axis}')}" for axis, size in outer if axis in several)
        raise NotInStack(f"a stack of {sizes}: only one of these can be looked through; save it in parts")
    pages = [None if page is None else page.offset for page in series.pages]
    count = math.prod(size for _, size in outer)
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
    channels = samples if on_page else channels
    names = tuple(told[at] if at < len(told) else "" for at in range(channels))
    return Stack(grid, names, on_page, colours)


def places_of(stack: Stack, wanted: Sequence[str]) -> list[int]:
    """The places of the channels that are asked for: the first, if none is.

    Raises:
        NotInStack: one of them isn't there, or the file doesn't say which there are.
    """
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
    if wanted == EACH and count > 1:
        raise NotInStack(f"{count:,} planes in one file; name one of them, as FILE#1")
    if wanted == "middle":
        return [count // 2]
    at = 1 if wanted == EACH else int(wanted or 1)
    if at > count:
        raise NotInStack(f"no plane {at}: it has {count}")
    return [at - 1]


def _layout(data: bytes, page: int) -> tiff.Layout:
    found = tiff.layout(data, page)
    if found is None:
        raise tiff.Unsupported("a stack whose pages are compressed as pictures or damaged, which is not supported")
    return found
