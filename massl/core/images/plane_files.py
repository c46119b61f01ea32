"""Planes of a stack as files that lie on no disk: `stack.tif#12` is the twelfth plane of `stack.tif`.

The content of such a file is a TIFF of this plane alone: its pages, copied from the stack as they are stored there. So
whatever reads, hashes or decodes files needs to know nothing of planes, and no more than one plane is in memory. Where
a file is really called so, it is that file.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import quoteattr

from massl.core.images import stacks, tiff
from massl.core.images.content import Content
from massl.core.images.formats import PlaneCounter
from massl.core.images.rendering import EACH
from massl.core.images.stacks import NotInStack, Stack
from massl.core.memory_budget import BUDGET
from massl.core.regular_files import open_regular

_NAMED = re.compile(r"(.+)#([1-9][0-9]{0,5})", re.DOTALL)
_MOST_BYTES = 1 << 30  # of a stack
_MOST_KNOWN = 1 << 20  # pages of stacks that are known at a time

_OFFSETS, _COUNTS, _DESCRIPTION, _SOFTWARE = (273, 324), (279, 325), 270, 305
# What it takes to read a page, and its scale and date. What it says of the whole stack stays behind.
_COPIED = frozenset(
    {256, 257, 258, 259, 262, 266, 277, 278, 282, 283, 284, 292, 293, 296, 306, 317, 320, 322, 323, 332, 338, 339, 347}
    | {529, 530, 531, 532, 42113}
)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {3: "H", 4: "L", 16: "Q"}
_MOST_ENTRIES = 4_096  # of a directory, as `massl.core.images.tiff_pages` has it
_ASCII, _OFFSET = 2, {False: 4, True: 16}


def split(path: Path) -> tuple[Path, int] | None:
    """The stack and the number, from 1, of a plane; None for the name of a file, and where there is no such stack."""
    found = _NAMED.fullmatch(path.name)
    if found is None or os.path.lexists(path):
        return None
    stack = path.with_name(found[1])
    return (stack, int(found[2])) if stack.is_file() else None


def file_of(path: Path) -> Path:
    """The file in which a picture lies: for a plane its stack, else the same path."""
    plane = split(path)
    return path if plane is None else plane[0]


def is_plane(data: Content) -> bool:
    """Whether a content is that of a plane, which is always in memory."""
    return isinstance(data, bytes) and stacks.PLANE.encode() in data


def is_there(path: Path) -> bool:
    """Whether a file lies there, or the stack of a plane."""
    return file_of(path).exists()


def counter(plane: str, channels: Sequence[str]) -> PlaneCounter | None:
    """What counts the planes of files where each is to be a file of its own; None where that isn't asked for.

    Args:
        plane: of stacks, as `massl.core.images.rendering.Rendering` has it.
        channels: as there.
    """
    if plane != EACH:
        return None
    names = tuple(channels)
    return PlaneCounter(lambda path: count(path, names), f"{stacks.can_read()} {','.join(names)}")


def count(path: Path, channels: Sequence[str] = ()) -> int | None:
    """How many planes a file holds: 1 for what is no stack, None for one of which nobody can say.

    Args:
        path: a file.
        channels: that are to be shown, as `massl.core.images.rendering.Rendering` has them.
    """
    try:
        with open_regular(path) as file:
            head = file.read(16)
            if not head.startswith(stacks.MAGIC) or not _has_more_than_one_page(file, head):
                return 1
        stack = _known(path)
        if stack is None:
            return 1
        stacks.places_of(stack, channels)
        return len(stack.pages)
    except (NotInStack, tiff.Unsupported, OSError, MemoryError, ValueError, struct.error, zlib.error):
        return None  # whoever reads the file will say why


def read(stack: Path, number: int, admit: Callable[[int], None]) -> bytes:
    """The content of a plane.

    Args:
        stack: the file.
        number: of the plane, from 1.
        admit: given the bytes that it takes, before they are; raises to refuse.

    Raises:
        NotInStack: the file has no such plane, or is no stack.
        tiff.Unsupported: it can't be taken out of it.
        OSError: the file can't be read, or is truncated.
    """
    found = _known(stack)
    if found is None:
        raise NotInStack(f"no plane {number}: {stack.name} is no stack")
    (row,) = stacks.plane_numbers(len(found.pages), str(number))
    with open_regular(stack) as file:
        source = _Source(file)
        pages = [source.directory(int(place)) for place in found.pages[row]]
        admit(2 * sum(sum(page.counts) for page in pages))
        pieces = [[source.at(*piece) for piece in zip(page.offsets, page.counts, strict=True)] for page in pages]
    return _written(source, pages, pieces, _described(found, pages[0], source.order))


class _Structures:
    """Where the pages of the last stacks are. Safe to share by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, int, int], Stack | None] = OrderedDict()
        self._pages = 0

    def get(self, key: tuple[str, int, int, int], find: Callable[[], Stack | None]) -> Stack | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = find()  # without the lock, as it may have to wait for memory
        with self._lock:
            if key not in self._kept:
                self._kept[key] = found
                self._pages += _weight(found)
            while self._pages > _MOST_KNOWN and len(self._kept) > 1:
                self._pages -= _weight(self._kept.popitem(last=False)[1])
        return found


_STRUCTURES = _Structures()


def _weight(stack: Stack | None) -> int:
    return 100 + (0 if stack is None else stack.pages.size)


def _known(path: Path) -> Stack | None:
    """The stack in a file, which is looked through once; None where it holds none."""
    state = path.stat()
    if state.st_size > _MOST_BYTES:
        raise tiff.Unsupported(f"{state.st_size / 2**30:.1f} GiB, more than the limit of 1 GiB a file")

    def find() -> Stack | None:
        with ExitStack() as taken:
            taken.enter_context(BUDGET.take(state.st_size))
            with open_regular(path) as file:
                data = file.read(state.st_size)
            if not data.startswith(stacks.MAGIC):
                return None
            return stacks.find(data, lambda needed: taken.enter_context(BUDGET.take(needed)))

    return _STRUCTURES.get((str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ctime_ns), find)


def _has_more_than_one_page(file: BinaryIO, head: bytes) -> bool:
    """By what follows the first directory."""
    order, big = ">" if head[:2] == b"MM" else "<", head[2:4] in (b"+\0", b"\0+")
    number, head_of, entry = ("Q", "Q", 20) if big else ("L", "H", 12)
    (first,) = struct.unpack_from(order + number, head, 8 if big else 4)
    file.seek(first)
    (entries,) = struct.unpack(order + head_of, file.read(8 if big else 2))
    file.seek(entries * entry, os.SEEK_CUR)
    (after,) = struct.unpack(order + number, file.read(8 if big else 4))
    return bool(after)


@dataclass(frozen=True)
class _Page:
    """A directory: `values` by tag, each its type, how many and their bytes; and where the pieces of its pixels are."""

    values: dict[int, tuple[int, int, bytes]]
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]


class _Source:
    """A TIFF that is read in parts, of which no more is read than it holds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = os.fstat(file.fileno()).st_size
        head = self.at(0, 16)
        self.order = ">" if head[:2] == b"MM" else "<"
        self.big = head[2:4] in (b"+\0", b"\0+")
        self.number = "Q" if self.big else "L"

    def at(self, place: int, count: int) -> bytes:
        """So many bytes of a place."""
        self._left -= count
        if self._left < 0:
            raise tiff.Unsupported("damaged: a page of a TIFF claims more than the file holds")
        self._file.seek(place)
        data = self._file.read(count)
        if len(data) < count:
            raise OSError("truncated: the file ends before the image does")
        return data

    def directory(self, place: int) -> _Page:
        """The page that begins at a place."""
        head, inline = ("Q", 8) if self.big else ("H", 4)
        (count,) = struct.unpack(self.order + head, self.at(place, struct.calcsize("=" + head)))
        if count > _MOST_ENTRIES:
            raise tiff.Unsupported(f"damaged: a page of a TIFF with {count:,} entries")
        values: dict[int, tuple[int, int, bytes]] = {}
        entry = f"{self.order}HH{self.number}{inline}s"
        entries = self.at(place + struct.calcsize("=" + head), count * struct.calcsize(entry))
        for tag, kind, number, raw in struct.iter_unpack(entry, entries):
            size = _SIZES.get(kind, 0) * number
            if tag in _COPIED or tag in _OFFSETS or tag in _COUNTS:
                (at,) = struct.unpack(self.order + self.number, raw)
                values[tag] = (kind, number, raw[:size] if size <= inline else self.at(at, size))
        tiled = _OFFSETS[1] in values
        offsets, counts = (self._numbers(values.pop(tags[tiled], None)) for tags in (_OFFSETS, _COUNTS))
        if not offsets or len(counts) < len(offsets) or (not any(counts) and any(offsets)):
            raise tiff.Unsupported("a stack that doesn't say how long the pieces of its pages are")
        counts = tuple(count if offset else 0 for offset, count in zip(offsets, counts, strict=False))
        return _Page(values, tiled, offsets, counts)

    def _numbers(self, value: tuple[int, int, bytes] | None) -> tuple[int, ...]:
        if value is None or value[0] not in _INTEGERS:
            return ()
        return struct.unpack(f"{self.order}{value[1]}{_INTEGERS[value[0]]}", value[2])


def _described(stack: Stack, page: _Page, order: str) -> bytes:
    """OME-XML of a plane with channels; nothing where there is only one, without a name, or they are colours."""
    if stack.colours or (len(stack.names) < 2 and not any(stack.names)):
        return b""

    def first(tag: int) -> int:
        kind, _, value = page.values.get(tag, (3, 1, struct.pack(order + "H", 1)))
        return int(struct.unpack_from(order + _INTEGERS[kind], value)[0])

    count, bits = len(stack.names), first(258)
    kind = {1: f"uint{bits}", 2: f"int{bits}", 3: "double" if bits == 64 else "float"}.get(first(339), "uint16")
    channels = "".join(
        f'<Channel ID="Channel:0:{at}" Name={quoteattr(name)} SamplesPerPixel="1"/>'
        for at, name in enumerate(stack.names)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{kind}" '
        f'SizeX="{first(256)}" SizeY="{first(257)}" SizeC="{count}" SizeZ="1" SizeT="1">{channels}'
        f'<TiffData IFD="0" PlaneCount="{1 if stack.on_page else count}"/></Pixels></Image></OME>'
    ).encode()


def _written(source: _Source, pages: Sequence[_Page], pieces: Sequence[Sequence[bytes]], said: bytes) -> bytes:
    """A TIFF of some pages, in the byte order and the kind of the one that they are from."""
    order, number, inline = source.order, source.number, 8 if source.big else 4
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(f"{order}HHH", 43, 8, 0) if source.big else struct.pack(f"{order}H", 42)
    link = len(out)
    out += bytes(inline)

    def put(value: bytes) -> int:
        out.extend(bytes(-len(out) % 8))
        out.extend(value)
        return len(out) - len(value)

    for at, (page, data) in enumerate(zip(pages, pieces, strict=True)):
        offsets = [put(piece) if piece else 0 for piece in data]
        values = {tag: value for tag, value in page.values.items() if tag in _COPIED}
        values[_SOFTWARE] = (_ASCII, len(stacks.PLANE) + 1, stacks.PLANE.encode() + b"\0")
        if said and at == 0:
            values[_DESCRIPTION] = (_ASCII, len(said) + 1, said + b"\0")
        for tags, numbers in ((_OFFSETS, offsets), (_COUNTS, page.counts)):
            packed = struct.pack(f"{order}{len(numbers)}{number}", *numbers)
            values[tags[page.tiled]] = (_OFFSET[source.big], len(numbers), packed)
        entries = b"".join(
            struct.pack(f"{order}HH{number}", tag, kind, count)
            + (value.ljust(inline, b"\0") if len(value) <= inline else struct.pack(order + number, put(value)))
            for tag, (kind, count, value) in sorted(values.items())
        )
        head = struct.pack(f"{order}{'Q' if source.big else 'H'}", len(values))
        place = put(head + entries + bytes(inline))
        struct.pack_into(order + number, out, link, place)
        link = len(out) - inline
    return bytes(out)
