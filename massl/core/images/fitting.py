"""What an encoder is given of a picture: its centre square, at the encoder's size."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

_BICUBIC = Image.Resampling.BICUBIC


def fit(picture: Image.Image, size: int, resize: int) -> Image.Image:
    """Shorter side to `resize` pixels (bicubic), then the `size` x `size` centre: what an encoder is given.

    Only what the centre is made of is looked at, so that a picture of any proportions costs no more than a square one.
    """
    whole, edges = _fitted(picture, size, resize)
    if picture.size == whole:
        return picture.crop((*edges, edges[0] + size, edges[1] + size))
    across, down = (_centre(*of_side, size) for of_side in zip(picture.size, whole, edges, strict=True))
    needed = (across.first, down.first, across.last, down.last)
    factors = (across.factor, down.factor)
    # The order of both passes shows in the last digits; Pillow's, for the whole of a very tall picture, is the other.
    columns, rows = (-(-side // factor) for side, factor in zip(picture.size, factors, strict=True))
    tall = rows > max(100 * columns, whole[1])
    picture = picture.crop(needed) if factors == (1, 1) else picture.reduce(factors, needed)
    if tall:
        picture = picture.resize((picture.width, size), _BICUBIC, (0, down.start, picture.width, down.end))
        return picture.resize((size, size), _BICUBIC, (across.start, 0, across.end, size))
    return picture.resize((size, size), _BICUBIC, (across.start, down.start, across.end, down.end))


class _Centre(NamedTuple):
    """What a side's centre is made of.

    `factor` is the whole number of pixels that are averaged first, as Pillow's `reducing_gap=2` has it; `first` and
    `last` bound what is needed, at multiples of that; `start` and `end` bound the centre in what then is left.
    """

    factor: int
    first: int
    last: int
    start: float
    end: float


def _centre(length: int, fitted: int, edge: int, size: int) -> _Centre:
    """Of a side of `length` pixels, where the whole side would become `fitted`, and the centre begin at `edge`."""
    scale = length / fitted
    factor = int(scale / 2) or 1
    start, end = edge * scale, min((edge + size) * scale, float(length))
    reach = 2 * scale + 2 * factor  # bicubic: two pixels of the result, and some of rounding
    first = max(0, int((start - reach) // factor) * factor)
    last = min(length, -int(-(end + reach) // factor) * factor)
    return _Centre(factor, first, last, (start - first) / factor, (end - first) / factor)


def fitted_part(picture: Image.Image, size: int, resize: int) -> tuple[float, float, float, float]:
    """What `fit` keeps of a picture: x, y, width and height as shares of its own width and height."""
    (width, height), (left, top) = _fitted(picture, size, resize)
    return left / width, top / height, size / width, size / height


def _fitted(picture: Image.Image, size: int, resize: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height before the centre is cut out, and the centre's left and upper edge."""
    scale = resize / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    return (width, height), ((width - size) // 2, (height - size) // 2)
