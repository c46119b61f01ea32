"""PNGs of 16 bits a channel: from their numbers to a picture of 8 bits, the whole or some rows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from massl.core.images import bit_depth
from massl.core.images.bit_depth import Numbers
from massl.core.images.rendering import Limits, Scaling, kind_of

SIXTEEN_BITS_IN_USE = 64  # of the high byte: what is as great needs more than 14 bits

Clear: TypeAlias = int | tuple[int, ...] | None
"""The grey or the colour that is transparent; None for none."""


@dataclass(frozen=True)
class PngScale:
    """How all numbers of a picture become 8 bits.

    Attributes:
        limits: the colours that become 0 and 255; None where the high bytes are the picture.
        opaque: the alpha that becomes 255.
    """

    limits: Limits | None
    opaque: float = 65_535.0


def kind(channels: int) -> str:
    """The kind of numbers of pixels of so many, alpha included; see `massl.core.images.rendering.kind_of`."""
    return kind_of("u", 16, 1 if channels <= 2 else 3)


def scale_of(values: Numbers, clear: Clear, scaling: Scaling) -> PngScale:
    """How the numbers of a picture, uint16 `[H, W, C]`, become 8 bits.

    Grey and colours as `scaling` says; where that has no limits, by the bits that they use. Alpha goes as far as they
    do, unless it uses more bits. Where 16 bits are in use, each high byte is what viewers show.

    Raises:
        Unmeasured: `scaling` is to have limits of this kind, and has none yet.
    """
    count = values.shape[-1]
    alpha = count in (2, 4)
    colours = bit_depth.channels(values, slice(0, count - alpha))
    own = scaling.leaves_to_the_file(kind(count))
    limits = None if own else scaling.limits(colours, kind(count))
    by_high_bytes = own and count > 1 and clear is None
    greatest = np.zeros(count, np.int64)  # all in one go, as numbers that are read by rows are read anew each time
    for block in bit_depth.blocks(values):
        greatest = np.maximum(greatest, block.max((0, 1)))
        if by_high_bytes and greatest[: count - alpha].max() >> 8 >= SIXTEEN_BITS_IN_USE:
            return PngScale(None)
    brightest = int(greatest[: count - alpha].max())
    top = float(bit_depth.greatest_of_depth(brightest))
    opaque = bit_depth.alpha_range(greatest[-1:], top, 16) if alpha else top
    return PngScale(limits or (0.0, top), opaque)


def picture(values: NDArray[np.uint16], clear: Clear, scale: PngScale) -> Image.Image:
    """Some rows of numbers, uint16 `[h, W, C]`, as L, LA, RGB or RGBA."""
    count = values.shape[-1]
    if scale.limits is None:
        return _image((values >> 8).astype(np.uint8))
    if count in (2, 4):
        alpha = bit_depth.to_8_bits(values[..., -1], (0, scale.opaque))
        return _image(bit_depth.to_8_bits(values[..., :-1], scale.limits), alpha)
    opacity = None if clear is None else np.where((values == clear).all(axis=-1), 0, 255).astype(np.uint8)
    return _image(bit_depth.to_8_bits(values, scale.limits), opacity)


def _image(colours: NDArray[np.uint8], alpha: NDArray[np.uint8] | None = None) -> Image.Image:
    if colours.shape[-1] == 1:
        colours = colours[..., 0]
    image = Image.fromarray(np.ascontiguousarray(colours))
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image
