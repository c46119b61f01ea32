"""What people do to pictures before they pass them on: the edits that copy detection is measured by.

In the spirit of Copydays (Douze et al., "Evaluation of GIST descriptors", 2009) and of the challenge's edits (Douze et
al., "The 2021 image similarity dataset and challenge", section 3.2), of which the mild and middling ones are here.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """30 to 70 % of the area, anywhere."""
    side = np.sqrt(draw.uniform(0.3, 0.7))
    width, height = (max(1, round(side * length)) for length in picture.size)
    left, top = draw.integers(0, picture.width - width + 1), draw.integers(0, picture.height - height + 1)
    return picture.crop((int(left), int(top), int(left) + width, int(top) + height))


def jpeg(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Saved as a JPEG of quality 5 to 20."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(draw.integers(5, 21)))
    with Image.open(file) as saved:
        return saved.convert("RGB")


def shrink(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Made 3 to 6 times smaller, and large again."""
    factor = draw.uniform(3, 6)
    small = picture.resize((max(1, round(picture.width / factor)), max(1, round(picture.height / factor))))
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def blur(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Blurred over 1 to 2 % of the shorter side."""
    return picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.01, 0.02) * min(picture.size)))


def noise(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Normal noise of deviation 20 to 40 of 255."""
    values = np.asarray(picture, np.float32)
    noisy = values + draw.normal(0, draw.uniform(20, 40), values.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def rotate(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Turned by 5 to 45 degrees either way, the corners filled with a colour."""
    angle = draw.uniform(5, 45) * (1 if draw.random() < 0.5 else -1)
    return picture.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=_colour(draw))


def mirror(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Left for right."""
    return ImageOps.mirror(picture)


def grey(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Without colour."""
    return ImageOps.grayscale(picture).convert("RGB")


def tones(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation, each times 0.5 to 1.5."""
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = kind(picture).enhance(draw.uniform(0.5, 1.5))
    return picture


def text(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """A line of letters across it, a tenth to a quarter of its height."""
    picture = picture.copy()
    letters = "".join(draw.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz"), 12))
    font = ImageFont.load_default(max(8.0, draw.uniform(0.1, 0.25) * picture.height))
    place = (draw.uniform(0, 0.2) * picture.width, draw.uniform(0.1, 0.7) * picture.height)
    ImageDraw.Draw(picture).text(place, letters, fill=_colour(draw), font=font)
    return picture


def border(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """A plain frame of 10 to 30 % of the shorter side."""
    return ImageOps.expand(picture, round(draw.uniform(0.1, 0.3) * min(picture.size)), fill=_colour(draw))


def several(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Three of the others, one after the other."""
    for which in draw.choice(len(_SINGLE), 3, replace=False):
        picture = _SINGLE[which](picture, draw)
    return picture


def _colour(draw: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in draw.integers(0, 256, 3))
    return red, green, blue


_SINGLE: tuple[Edit, ...] = (crop, jpeg, shrink, blur, noise, rotate, mirror, grey, tones, text, border)
EDITS: dict[str, Edit] = {edit.__name__: edit for edit in (*_SINGLE, several)}


def edited(picture: Image.Image, name: str, seed: int, which: int) -> Image.Image:
    """`picture`, RGB, under the edit called `name`; the same for the same seed and number of the image."""
    return EDITS[name](picture, np.random.default_rng([seed, which, list(EDITS).index(name)]))
