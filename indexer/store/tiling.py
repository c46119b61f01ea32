"""How large pictures are cut into tiles: the size and the overlap that a collection remembers, and where tiles lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from massl.core.errors import MasslError
from massl.core.images.row_reading import Box as Box

LEAST = 32  # pixels of a tile's side: twice the patch of the encoders in use
LARGEST = 16_384
MOST = 100_000  # tiles of one picture
_TEXT = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")


@dataclass(frozen=True)
class Tiling:
    """Square tiles of `size` pixels, each of which shares `overlap` with the next one; of size 0, there are none."""

    size: int = 0
    overlap: int = 0

    def __bool__(self) -> bool:
        return self.size > 0

    def __str__(self) -> str:
        if not self:
            return "none"
        return f"{self.size}:{self.overlap}" if self.overlap else str(self.size)

    @classmethod
    def of(cls, text: str) -> Tiling:
        """From `512`, `512:64` or `none`: the reverse of `str`.

        Raises:
            MasslError: it is none of these, a tile has fewer than 32 pixels, or more than half of it overlaps.
        """
        if text == "none":
            return cls()
        if not (found := _TEXT.fullmatch(text)):
            raise MasslError(f"tiles are a size in pixels, with an overlap if wanted, as 512 or 512:64, not {text!r}")
        size, overlap = int(found[1]), int(found[2] or 0)
        if not LEAST <= size <= LARGEST:
            raise MasslError(f"a tile has {LEAST} to {LARGEST:,} pixels on a side, not {size:,}; 512 suits most scans")
        if overlap > size // 2:
            raise MasslError(
                f"tiles of {size} pixels can overlap by {size // 2} at most, not by {overlap:,}; a quarter is usual"
            )
        return cls(size, overlap)

    def boxes(self, width: int, height: int, least: int = LEAST) -> list[Box]:
        """Where the tiles of a picture lie, row by row. All of the picture lies in at least one of them.

        A picture that is no larger than a tile is one tile. Otherwise tiles are square; of a picture that is smaller
        than a tile on one side, they are as large as that side. The last of a row or column ends at the picture's edge,
        and overlaps more.

        Args:
            width: of the picture, in pixels.
            height: likewise.
            least: pixels, below which a tile isn't made smaller to be square: the encoder's input.

        Raises:
            MasslError: there would be more than 100,000.
        """
        if max(width, height) <= self.size:
            return [(0, 0, width, height)]
        side = self.side(width, height, least)
        step = max(1, side - self.overlap * side // self.size)
        across, down = min(side, width), min(side, height)
        if (-(-width // step)) * (-(-height // step)) > MOST:
            raise MasslError(
                f"more than {MOST:,} tiles of {self} pixels; take larger ones: --tiles {4 * self.size} --rebuild"
            )
        return [(x, y, across, down) for y in _starts(height, down, step) for x in _starts(width, across, step)]

    def side(self, width: int, height: int, least: int = LEAST) -> int:
        """Of the tiles of a picture, in pixels; the arguments are as for `boxes`."""
        return min(self.size, max(min(width, height), min(least, self.size)))

    def about(self, part: Box, width: int, height: int, least: int = LEAST) -> Box:
        """A part of a picture, grown to the size of its tiles on the sides that are shorter; else as for `boxes`."""
        side = self.side(width, height, least)
        x, across = _grown(part[0], part[2], min(side, width), width)
        y, down = _grown(part[1], part[3], min(side, height), height)
        return x, y, across, down


def _grown(start: int, length: int, least: int, whole: int) -> tuple[int, int]:
    """Where a part of a picture's side begins once it is at least so long, and how long it is."""
    grown = max(length, least)
    return min(max(0, start - (grown - length) // 2), whole - grown), grown


def _starts(length: int, side: int, step: int) -> Iterator[int]:
    """Where tiles of `side` begin in `length` pixels: a step apart, and the last at the end."""
    yield from range(0, length - side, step)
    yield length - side
