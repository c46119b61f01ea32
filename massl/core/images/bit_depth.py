"""Numbers of any type and depth, to the 8 bits a channel that everything here works with."""

from __future__ import annotations

import numpy as np

_DEPTHS = (8, 10, 12, 14, 16)  # of cameras, scanners and microscopes
_BLOCK = 1 << 20  # numbers that are scaled at a time


def greatest_of_depth(value: int) -> int:
    """The greatest number of the depth that is in use, if `value` is the greatest that occurs.

    A 12-bit camera writes numbers up to 4095 into 16 bits: they are taken for what they are.
    """
    return next((2**bits - 1 for bits in _DEPTHS if value < 2**bits), 2 ** int(value).bit_length() - 1)


def extremes(values: np.ndarray, no_data: float | None = None) -> tuple[float, float]:
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


def range_of(values: np.ndarray, no_data: float | None = None) -> tuple[float, float]:
    """What becomes 0 and what becomes 255.

    Integers go from 0 to the greatest of the depth that they use. Floating point and negative numbers have no depth to
    go by, and go from the least to the greatest that occur.
    """
    low, high = extremes(values, no_data)
    return (low, high) if values.dtype.kind == "f" or low < 0 else (0.0, float(greatest_of_depth(int(high))))


def alpha_range(alpha: np.ndarray, colours: float, bits: int) -> float:
    """The number at which `alpha` is opaque: that of the `colours`, unless alpha uses more of its `bits`."""
    if alpha.dtype.kind == "f":
        return 1.0
    top = 2**bits - 1
    return colours if alpha.max(initial=0) <= colours <= top else float(top)


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


def _rows(values: np.ndarray) -> int:
    return max(1, _BLOCK // max(1, values[:1].size))


def blocks(values: np.ndarray) -> list[np.ndarray]:
    """Some rows at a time, so that what is made of them stays small."""
    step = _rows(values)
    return [values[top : top + step] for top in range(0, len(values), step)]
