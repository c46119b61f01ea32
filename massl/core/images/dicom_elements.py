"""The elements of a DICOM file that make its picture, found without an object for each of the others.

pydicom makes an object of every item of a sequence whose length a file doesn't say, also of what isn't asked for. A
file of a few megabytes can hold a million. So pydicom is given a small file of the few elements that matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MOST = 4_000_000  # elements and items that are passed over, some seconds of work

_DICM = 132  # bytes before the first element
_TRANSFER_SYNTAX, _PIXELS, _MODALITY_LUT = 0x0002_0010, 0x7FE0_0010, 0x0028_3000
_ROWS = 0x0028_0010
_EXTENDED_OFFSETS = (0x7FE0_0001, 0x7FE0_0002)
_SOP_CLASS, _MODALITY = 0x0008_0016, 0x0008_0060
_OF_GROUP_28 = (
    0x0002, 0x0004, 0x0006, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103, 0x0120,  # the picture
    0x1050, 0x1051, 0x1052, 0x1053, 0x1056,  # the window, and how numbers are rescaled
)  # fmt: skip
# The most bytes of each: several values are allowed where one is meant, and each would become an object.
_WANTED = dict.fromkeys((_SOP_CLASS, _MODALITY, *(0x0028_0000 + each for each in _OF_GROUP_28)), 1 << 14)
_WANTED |= {_MODALITY_LUT: 1 << 18} | dict.fromkeys(_EXTENDED_OFFSETS, 1 << 20)

_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_UNDEFINED = 0xFFFF_FFFF
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # types whose length has four bytes
_IMPLICIT_SYNTAX, _BIG_ENDIAN_SYNTAX = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"


class Unreadable(Exception):
    """A DICOM file that makes no picture here. The message says why, and is a reason to skip it."""


@dataclass(frozen=True, slots=True)
class _Element:
    """Where an element lies, in bytes: its tag at `start`, its value from `value` to `end`; `after` is the next one."""

    tag: int
    kind: bytes
    start: int
    value: int
    end: int
    after: int
    undefined: bool


@dataclass(frozen=True)
class PictureElements:
    """What makes the picture of a file.

    Attributes:
        small: a DICOM file of the elements that are wanted, but for the pixels.
        pixels: the value of the pixels, as it is stored; None where there are none.
        kind: the type of that value; `OW` where the encoding has no types.
        in_fragments: its length isn't said, as of what is compressed.
    """

    small: bytes
    pixels: memoryview | None = None
    kind: str = "OW"
    in_fragments: bool = False


def picture_elements(data: bytes) -> PictureElements:
    """Finds what makes the picture of a file, in a time that is at most in proportion to its size.

    Raises:
        Unreadable: its elements can't be followed, or are too many; or it is deflated.
    """
    syntax, start = _ElementWalk(data, "<").beginning()
    if syntax == _DEFLATED:  # unpacks to any size, before anything of it can be looked at
        raise Unreadable("DICOM that is deflated as a whole, which is not supported")
    walk = _ElementWalk(data, ">" if syntax == _BIG_ENDIAN_SYNTAX else "<")
    found: dict[int, _Element] = {}
    for element in walk.elements(start, walk.is_implicit(start, syntax == _IMPLICIT_SYNTAX)):
        if element.tag == _PIXELS:
            found[_PIXELS] = element
            if _ROWS in found:
                break  # what follows is no part of the picture, and may be millions of noughts
        elif (most := _WANTED.get(element.tag)) is not None:
            if element.after - element.start > most:
                named = f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
                raise Unreadable(f"DICOM whose element {named} takes more than {most:,} bytes")
            found[element.tag] = element
    pixels = found.pop(_PIXELS, None)
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    small = [data[:_DICM], struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)), uid]
    small += [data[each.start : each.after] for _, each in sorted(found.items())]
    if pixels is None:
        return PictureElements(b"".join(small))
    value = memoryview(data)[pixels.value : pixels.end]
    return PictureElements(b"".join(small), value, pixels.kind.decode() or "OW", pixels.undefined)


class _ElementWalk:
    """Goes through elements in one byte order, and counts them."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._implicit = struct.Struct(f"{order}HHL")
        self._explicit = struct.Struct(f"{order}HH2sH")
        self._length = struct.Struct(f"{order}L")
        self._steps = 0

    def beginning(self) -> tuple[str, int]:
        """The transfer syntax, and where the part that says it ends."""
        syntax, at = "", _DICM
        while int.from_bytes(self._data[at : at + 2], "little") == 2:
            element = self._element(at, False)
            if element.tag == _TRANSFER_SYNTAX:
                syntax = self._data[element.value : min(element.end, element.value + 64)].decode("ascii", "replace")
            at = element.after
        return syntax.strip("\0 "), at

    def is_implicit(self, at: int, said: bool) -> bool:
        """Whether elements have no types: as the first one shows, whatever the file says of itself."""
        kind = self._data[at + 4 : at + 6]
        return not _is_type(kind) if len(kind) == 2 else said

    def elements(self, at: int, implicit: bool) -> Iterator[_Element]:
        """Those that aren't within others."""
        while at + 8 <= len(self._data):
            element = self._element(at, implicit)
            if element.tag == _END_OF_ITEM:
                return
            yield element
            at = element.after

    def _element(self, at: int, implicit: bool) -> _Element:
        tag, kind, value, length = self._header(at, implicit)
        if length != _UNDEFINED:
            end = min(value + length, len(self._data))
            return _Element(tag, kind, at, value, end, value + length, False)
        after = self._after_items(value, implicit)
        return _Element(tag, kind, at, value, after - 8, after, True)

    def _header(self, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, type, where the value begins, and its length."""
        self._steps += 1
        if self._steps > MOST:
            raise Unreadable(f"DICOM of more than {MOST:,} elements, which is not supported")
        try:
            if not implicit:
                group, number, kind, length = self._explicit.unpack_from(self._data, at)
                if kind in _LONG:
                    return group << 16 | number, kind, at + 12, self._length.unpack_from(self._data, at + 8)[0]
                if _is_type(kind):
                    return group << 16 | number, kind, at + 8, length
            # Also where types are said elsewhere: some programs leave them out within sequences.
            group, number, length = self._implicit.unpack_from(self._data, at)
        except struct.error:
            raise Unreadable("truncated: the file ends before the image does") from None
        return group << 16 | number, b"", at + 8, length

    def _after_items(self, at: int, implicit: bool) -> int:
        """Where a value of items ends whose length isn't said, the mark of its end included."""
        among_items = [True]  # of each level: whether items come next, or the elements of one
        while among_items:
            tag, _, value, length = self._header(at, implicit or among_items[-1])
            at = value if length == _UNDEFINED else value + length
            if among_items[-1]:
                if tag == _END_OF_SEQUENCE:
                    among_items.pop()
                    at = value
                elif tag != _ITEM:
                    raise Unreadable("damaged: a DICOM sequence without an end")
                elif length == _UNDEFINED:
                    among_items.append(False)
            elif tag == _END_OF_ITEM:
                among_items.pop()
                at = value
            elif length == _UNDEFINED:
                among_items.append(True)
        return at


def _is_type(kind: bytes) -> bool:
    return b"AA" <= kind <= b"ZZ" and kind.isalpha()
