"""The pages of a TIFF, weighed before anything is made of them: what their directories claim, each as often as it does.

A small file can claim much: thousands of directories that all name one list of strips, or that overlap. No honest file
does, as each page has pixels of its own. So what is claimed is bounded by the file's size, and so is the work.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from massl.core.images import planes
from massl.core.images.tiff import Unsupported

_WIDTH, _LENGTH, _DESCRIPTION, _SUB_PAGES = 256, 257, 270, 330
_METAMORPH_PLANES = 33629  # as many values as planes
_METAMORPH = (33628, _METAMORPH_PLANES, 33630, 33631)
_SIZES = np.zeros(1 << 16, np.int64)  # bytes of a number of each type
_SIZES[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18]] = [1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8]
_TEXTS = (1, 2, 6, 7)  # types that are read as bytes
_MOST_ENTRIES = 4_096  # of a directory, as tifffile has it

_OF_A_PAGE, _OF_AN_ENTRY, _AS_OBJECTS = 4_000, 400, 20  # bytes of Python objects; the last for each byte of numbers
_SHARED_NUMBERS, _SHARED_TEXTS = 2 << 10, 64 << 10  # bytes of a page that others may name too, as a colour profile


@dataclass(frozen=True)
class Weight:
    """What the pages of a file claim.

    Attributes:
        pages: directories, smaller versions of a page among them.
        memory: bytes that it takes to look through them.
        smallest: the pixels of the smallest page.
        described: pages that have a description of their own.
        metamorph: the planes of a MetaMorph file; 0 for any other.
    """

    pages: int
    memory: int
    smallest: int
    described: int
    metamorph: int


def weigh(data: bytes) -> Weight:
    """Goes through all directories of a TIFF.

    Raises:
        Unsupported: there are too many, or they claim more than the file can hold.
    """
    pages = entries = numbers = texts = described = metamorph = 0
    spent, smallest = 0, 1 << 62
    for directory in _directories(data):
        pages, entries, spent = pages + 1, entries + len(directory.tags), spent + directory.tags.nbytes
        if pages > planes.MOST:
            raise Unsupported(f"a stack of more than {planes.MOST:,} pages")
        tags, kinds, claimed = directory.tags["tag"], directory.tags["type"], directory.claimed
        as_texts = np.isin(kinds, _TEXTS)
        texts += int(claimed[as_texts].sum())
        numbers += int(claimed[~as_texts].sum())
        sides = [max(1, directory.first(tag)) for tag in (_WIDTH, _LENGTH)]
        smallest = min(smallest, sides[0] * sides[1])
        described += bool((tags == _DESCRIPTION).any())
        if np.isin(tags, _METAMORPH).any():
            counts = directory.tags["count"][tags == _METAMORPH_PLANES]
            metamorph = max(metamorph, 1, *(int(count) for count in counts))
        if (
            spent > len(data)
            or numbers > 2 * len(data) + pages * _SHARED_NUMBERS
            or texts > 2 * len(data) + pages * _SHARED_TEXTS
        ):
            raise Unsupported("damaged: the pages of a TIFF claim more than the file holds")
    memory = pages * _OF_A_PAGE + entries * _OF_AN_ENTRY + _AS_OBJECTS * numbers + 2 * texts
    return Weight(pages, memory, smallest, described, metamorph)


class _Directory:
    """The entries of a directory: `tags`, with `tag`, `type`, `count`, `value`; `claimed`, the bytes outside of it."""

    def __init__(self, data: bytes, order: str, big: bool, at: int) -> None:
        self._data, self._order = data, order
        number = f"{order}u{8 if big else 4}"
        entry = np.dtype([("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", number), ("value", number)])
        head = 8 if big else 2
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)
        if count > _MOST_ENTRIES:
            raise Unsupported(f"damaged: a page of a TIFF with {count:,} entries")
        self.tags = np.frombuffer(data, entry, count, at + head)
        self.after = at + head + self.tags.nbytes
        self._inline = 8 if big else 4
        sizes = _SIZES[self.tags["type"]] * np.minimum(self.tags["count"], len(data)).astype(np.int64)
        held = len(data) - np.minimum(self.tags["value"], len(data)).astype(np.int64)
        self.claimed = np.where(sizes > self._inline, np.minimum(sizes, held), 0)

    def first(self, tag: int) -> int:
        """The first number of an entry; 0 if there is none."""
        values = self.numbers(tag, 1)
        return int(values[0]) if len(values) else 0

    def numbers(self, tag: int, most: int | None = None) -> np.ndarray:
        """The numbers of an entry, as far as the file holds them."""
        found = np.flatnonzero(self.tags["tag"] == tag)
        if not len(found):
            return np.empty(0, np.int64)
        entry = self.tags[found[0]]
        size, count = int(_SIZES[entry["type"]]), int(entry["count"])
        if size not in (2, 4, 8):
            return np.empty(0, np.int64)
        inline = size * count <= self._inline
        source: bytes = entry["value"].tobytes() if inline else self._data
        start = 0 if inline else int(entry["value"])
        count = min(count, max(0, len(source) - start) // size, count if most is None else most)
        return np.frombuffer(source, f"{self._order}u{size}", count, start if count else 0)


def _directories(data: bytes) -> Iterator[_Directory]:
    """The directory of each page, and behind it those of its smaller versions, each as often as it is named."""
    order, big = ">" if data[:2] == b"MM" else "<", data[2:4] in (b"+\0", b"\0+")
    pointer = f"{order}{'Q' if big else 'L'}"
    seen: set[int] = set()
    try:
        (at,) = struct.unpack_from(pointer, data, 8 if big else 4)
        while at:
            if at in seen:
                raise Unsupported("damaged: the pages of a TIFF lead back to one another")
            seen.add(at)
            page = _Directory(data, order, big, at)
            yield page
            for inside in page.numbers(_SUB_PAGES):
                if 8 <= inside < len(data) - 8:
                    yield _Directory(data, order, big, int(inside))
            (at,) = struct.unpack_from(pointer, data, page.after)
    except (struct.error, ValueError, OverflowError):
        return  # cut off
