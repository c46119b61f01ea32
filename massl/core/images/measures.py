"""What a decoded picture's pixels tell without an encoder: hashes by which copies are found, and how good it looks.

The hash is of the signs of the 16 x 16 lowest frequencies of a grey picture of 64 x 64 pixels (discrete cosine
transform, type II), the mean left out: 255 bits. Mirroring a picture changes the sign of every second frequency, and
turning it transposes them too. So one hash holds those of all eight orientations; see `orientations`. Its ancestor is
the pHash of Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), which has 8 x 8
frequencies and compares them with their median, which turning changes.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

MEASURER = 1  # counts up whenever a number below means something else, so that collections measure their images anew
HASH_BYTES = 32

_SIDE, _LOW = 64, 16
_SMALL = 80  # pixels of the shorter side, at least, of the picture that most is measured on
_PLAIN = 4.0  # standard deviation in grey levels, under which a picture has nothing to be told by
_LIKE_BORDER = 10  # grey levels by which a pixel of a plain border differs from it at most
_OF_BORDER = 0.7  # of a row's or column's pixels, that are like the border: a clock or a caption may stand on it
_LEAST_LEFT = 0.3  # of a side, that a picture within borders has at least
MEASURED_AT = 112  # pixels of the shorter side, to which a larger picture is brought where the finest detail counts
_STEEPEST = 0.995  # of the pixels, that bend less than what counts
_WHITE = 250  # of 255: what is as bright as this holds nothing any more

_ODD = np.arange(_LOW) % 2 == 1
_TRANSFORM = fft.dct(np.eye(_SIDE, dtype=np.float32), axis=0)[:_LOW]  # of one side: a product is faster than fft.dctn


@dataclass(frozen=True)
class Measures:
    """What is measured of a picture.

    Attributes:
        whole: its hash, `HASH_BYTES` bytes; None of a picture of nearly one colour, which any other one might match.
        trimmed: the same of what lies within plain borders, as of a screenshot; None where there are none.
        sharpness: the steepest edges (of 200 pixels, one is steeper) by their change of slope, as a share of the
            contrast: from 0, about 0.2 of what is blurred, over 1 of what is sharp.
        brightness: the grey level, 0 to 255, that a twentieth of the pixels exceed.
        overexposed: the share of the pixels that are white, or nearly.
        contrast: the grey levels between the twentieth of the pixels that is darkest, and that which is brightest.
        variety: how far its colours are from their mean, in levels: the root of the mean square over all channels.
    """

    whole: bytes | None
    trimmed: bytes | None
    sharpness: float
    brightness: float
    overexposed: float
    contrast: float
    variety: float


def measure(picture: Image.Image) -> Measures:
    """Measures a decoded picture: RGB, of any size, as `massl.core.images.decoding.decode` gives it."""
    factor = max(1, min(picture.size) // _SMALL)
    small = picture.reduce(factor) if factor > 1 else picture
    grey = small.convert("L")
    counts = list(accumulate(grey.histogram()))  # of so few numbers, lists are faster than arrays
    total = counts[-1]
    dark, bright = (bisect_left(counts, share * total) for share in (0.05, 0.95))
    contrast = float(bright - dark)
    inside = _within_borders(np.asarray(grey))
    return Measures(
        _hash(grey, None),
        _hash(grey, inside) if inside else None,
        round(_sharpness(picture, contrast), 4),
        float(bright),
        round(float(1 - counts[_WHITE - 1] / total), 4),
        contrast,
        round(_variety(small), 2),
    )


def within_borders(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom, in pixels, of what lies within plain borders; None where a picture has none.

    A border is of one colour, at one side or more, as around a screenshot or a print; text may stand on it.
    """
    grey = picture.convert("L")
    return _within_borders(np.asarray(grey)) if min(grey.size) > 1 else None


def orientations(hashes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The hashes of pictures in all eight orientations, uint8 `[N, 32]` to `[8, N, 32]`, as they are first."""
    bits = np.unpackbits(hashes, axis=1).reshape(-1, _LOW, _LOW).astype(np.bool_)
    across, down = np.broadcast_to(_ODD[None], (_LOW, _LOW)), np.broadcast_to(_ODD[:, None], (_LOW, _LOW))
    found = [
        placed ^ (across & left) ^ (down & up)
        for placed in (bits, bits.transpose(0, 2, 1))
        for left in (False, True)
        for up in (False, True)
    ]
    return np.packbits(np.stack(found).reshape(8, len(hashes), _LOW * _LOW), axis=2)


def _hash(grey: Image.Image, inside: tuple[int, int, int, int] | None) -> bytes | None:
    square = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, inside), np.float32)
    square = square - square.mean()
    if np.vdot(square, square) < _PLAIN**2 * square.size:
        return None
    bits = _TRANSFORM @ square @ _TRANSFORM.T > 0
    bits[0, 0] = False  # the mean, of which only rounding is left
    return np.packbits(bits).tobytes()


def _within_borders(grey: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of what lies within plain borders; None where there are none, or little is left.

    What a picture has at its sides may be its own background: below a bar, only more of the bar's colour is a border.
    """
    rows, columns = grey.shape
    ends = [_border(grey), _border(grey[::-1])]
    top, bottom = (count for count, _ in ends)
    if rows - top - bottom < _LEAST_LEFT * rows:
        return None
    colours = [colour for count, colour in ends if count]
    middle = grey[top : rows - bottom].T
    left, right = (
        count if not colours or min(abs(colour - known) for known in colours) <= _LIKE_BORDER else 0
        for count, colour in (_border(middle), _border(middle[::-1]))
    )
    if columns - left - right < _LEAST_LEFT * columns or not (top or bottom or left or right):
        return None
    return left, top, columns - right, rows - bottom


def _border(lines: NDArray[np.uint8]) -> tuple[int, int]:
    """How many of the first lines are of the colour of the first one, and that colour."""
    colour = int(np.sort(lines[0])[len(lines[0]) // 2])
    low = max(0, colour - _LIKE_BORDER)
    reach = np.uint8(min(255, colour + _LIKE_BORDER) - low)
    # What is darker than the darkest wraps around, and lies beyond the reach, too.
    if np.count_nonzero(lines[0] - np.uint8(low) <= reach) < _OF_BORDER * lines.shape[1]:
        return 0, colour  # as of most pictures
    plain = np.count_nonzero(lines - np.uint8(low) <= reach, axis=1) >= _OF_BORDER * lines.shape[1]
    return len(lines) if plain.all() else int(np.argmin(plain)), colour


def _variety(picture: Image.Image) -> float:
    """See `Measures.variety`; of every third pixel each way, as neighbours are much the same."""
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    colours = np.asarray(rgb)[::3, ::3].reshape(-1, 3).astype(np.float64)
    spread = colours - np.full(len(colours), 1 / len(colours)) @ colours
    return float(np.sqrt(np.vdot(spread, spread) / spread.size))


def _sharpness(picture: Image.Image, contrast: float) -> float:
    """See `Measures.sharpness`; of the middle square of the picture."""
    side = min(picture.size)
    if contrast < _PLAIN or side < 3:
        return 0.0
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    middle = picture.convert("L").crop((left, top, left + side, top + side))  # faster than the other way round
    if side > MEASURED_AT:
        middle = middle.resize((MEASURED_AT, MEASURED_AT), Image.Resampling.BOX)
    grey = np.asarray(middle, np.int16)
    bend = 4 * grey[1:-1, 1:-1]  # Laplace's
    for neighbour in (grey[:-2, 1:-1], grey[2:, 1:-1], grey[1:-1, :-2], grey[1:-1, 2:]):
        bend -= neighbour
    counts = np.cumsum(np.bincount(np.abs(bend, out=bend).ravel(), minlength=2))
    return float(np.searchsorted(counts, _STEEPEST * counts[-1])) / contrast
