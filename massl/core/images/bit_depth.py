"""Numbers of any type and depth, to the 8 bits a channel that everything here works with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_DEPTHS = (8, 10, 12, 14, 16)  # of cameras, scanners and microscopes
_BLOCK = 1 << 20  # numbers that are scaled at a time


class RowNumbers:
    """Numbers of a large picture, read some rows at a time, and anew each time that somebody goes through them.

    Attributes:
        shape: `(H, W, C)`.
        dtype: their type.
    """

    def __init__(
        self, shape: tuple[int, int, int], dtype: np.dtype[Any], read: Callable[[], Iterable[NDArray[Any]]]
    ) -> None:
        """`read` gives arrays `[h, W, C]`, from the top to the bottom."""
        self.shape = shape
        self.dtype = dtype
        self._read = read

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self._read())


Numbers: TypeAlias = NDArray[Any] | RowNumbers


def channels(values: Numbers, part: slice) -> Numbers:
    """Some of the channels, `[H, W, c]`."""
    if isinstance(values, RowNumbers):
        height, width, count = values.shape
        shape = height, width, len(range(count)[part])
        return RowNumbers(shape, values.dtype, lambda: (rows[..., part] for rows in values))
    return values[..., part]


def greatest_of_depth(value: int) -> int:
    """The greatest number of the depth that is in use, if `value` is the greatest that occurs.

    A 12-bit camera writes numbers up to 4095 into 16 bits: they are taken for what they are.
    """
    return next((2**bits - 1 for bits in _DEPTHS if value < 2**bits), 2 ** int(value).bit_length() - 1)


def extremes(values: Numbers, no_data: float | None = None) -> tuple[float, float]:
    """The least and the greatest finite number that isn't `no_data`; 0 and 0 where there is none."""
    low, high = np.inf, -np.inf
    for block in blocks(values):
        if no_data is not None:
            block = block[block != no_data]
        if block.dtype.kind == "f":
            block = block[np.isfinite(block)]
        if block.size:
            low, high = min(low, block.min()), max(high, block.max())
    return (float(low), float(high)) if low <= high else (0.0, 0.0)


def range_of(values: Numbers, no_data: float | None = None) -> tuple[float, float]:
    """What becomes 0 and what becomes 255.

    Integers go from 0 to the greatest of the depth that they use. Floating point and negative numbers have no depth to
    go by, and go from the least to the greatest that occur.
    """
    low, high = extremes(values, no_data)
    return (low, high) if values.dtype.kind == "f" or low < 0 else (0.0, float(greatest_of_depth(int(high))))


def alpha_range(alpha: Numbers, colours: float, bits: int) -> float:
    """The number at which `alpha` is opaque: that of the `colours`, unless alpha uses more of its `bits`."""
    if alpha.dtype.kind == "f":
        return 1.0
    top = 2**bits - 1
    greatest = max((int(block.max(initial=0)) for block in blocks(alpha)), default=0)
    return colours if greatest <= colours <= top else float(top)


def to_8_bits(
    values: np.ndarray, limits: tuple[float, float] | None = None, no_data: float | None = None
) -> np.ndarray:
    """Scales numbers to uint8 of the same shape, all by the same rule.

    Args:
        values: `[H, W]` or `[H, W, C]`, of any type. What is no number becomes 0.
        limits: what becomes 0 and what becomes 255, as `range_of` says if left out.
        no_data: a number that stands for nothing: it becomes 0, and no limit is taken from it.
    """
    low, high = limits or range_of(values, no_data)
    if values.dtype in (np.uint8, np.uint16) and no_data is None:
        every = np.arange(2 ** (8 * values.dtype.itemsize))
        return _scaled(every, low, high)[values]
    result = np.empty(values.shape, np.uint8)
    step = _rows(values)
    for top in range(0, len(values), step):
        block = values[top : top + step]
        result[top : top + step] = _scaled(block, low, high)
        if no_data is not None:
            result[top : top + step][block == no_data] = 0
    return result


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    with np.errstate(all="ignore"):  # what is no number, and ranges that no number holds
        share = (values.astype(np.float64) - low) * (255.0 / (high - low) if high > low else 0.0)
    np.nan_to_num(share, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return np.rint(np.clip(share, 0, 255, out=share), out=share).astype(np.uint8)


def _rows(values: Numbers) -> int:
    return max(1, _BLOCK // max(1, math.prod(values.shape[1:])))


def blocks(values: Numbers) -> Iterator[NDArray[Any]]:
    """Some rows at a time, so that what is made of them stays small."""
    for array in (values,) if isinstance(values, np.ndarray) else values:
        step = _rows(array)
        for top in range(0, len(array), step):
            yield array[top : top + step]


def middle(values: Numbers) -> NDArray[Any]:
    """Some rows from the middle of `[H, W]` or `[H, W, C]`, the same whether all rows are there or not."""
    step = _rows(values)
    first = -(-values.shape[0] // step) // 2 * step
    if isinstance(values, np.ndarray):
        return values[first : first + step]
    top, found = 0, []
    for rows in values:
        found.append(rows[max(0, first - top) : max(0, first + step - top)])
        top += len(rows)
    return np.concatenate(found)
