"""Edited copies of pictures, for tests that need to know what is a copy of what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps


def _cut(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.crop((width // 20, height // 20, width - width // 20, height - height // 20))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "cut": _cut,
    "mirrored": ImageOps.mirror,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
}


def copy_of(original: Path, edit: str, folder: Path) -> Path:
    """Writes an edited copy, as JPEG of poor quality, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{original.stem}-{edit}.jpg"
    with Image.open(original) as picture:
        EDITS[edit](picture.convert("RGB")).save(path, quality=50)
    return path
