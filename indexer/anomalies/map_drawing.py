"""A picture with its usual parts darkened, to look at where it is unusual."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from indexer.anomalies.unusual_parts import UnusualParts

LARGEST = 1024  # pixels of the longer side
DARKEST = 0.8  # how much of its light the most usual part loses
CONTRAST = 0.15  # the least span of distances: a picture that is alike all over shall look so
_FRAME = (255, 64, 64)


def drawn(picture: Image.Image, parts: UnusualParts, width: int, height: int) -> Image.Image:
    """The picture, at most `LARGEST` pixels a side, dark where it is usual, with a frame around the most unusual patch.

    What was not compared stays as it is.

    Args:
        picture: upright, RGB, of any size.
        parts: where it is unusual.
        width: of the upright picture's file, in pixels, in which `parts.peak` counts.
        height: likewise.
    """
    shown = picture.convert("RGB")
    shown.thumbnail((LARGEST, LARGEST))
    left, top, across, down = parts.part
    first = round(left * shown.width), round(top * shown.height)
    last = round((left + across) * shown.width), round((top + down) * shown.height)
    size = max(1, last[0] - first[0]), max(1, last[1] - first[1])
    far = parts.distances
    span = max(CONTRAST, float(far.max() - far.min()))
    light = 1 - DARKEST * ((far.max() - far) / span).clip(0, 1) ** 0.8
    veil = np.asarray(Image.fromarray(light.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    inside = shown.crop((*first, first[0] + size[0], first[1] + size[1]))
    shown.paste(Image.fromarray((np.asarray(inside) * veil[..., None]).clip(0, 255).astype(np.uint8)), first)
    x, y, wide, tall = parts.peak
    scale = shown.width / width, shown.height / height
    frame = (x * scale[0], y * scale[1], (x + wide) * scale[0], (y + tall) * scale[1])
    ImageDraw.Draw(shown).rectangle(frame, outline=_FRAME, width=max(1, round(max(shown.size) / 300)))
    return shown
