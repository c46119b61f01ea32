"""Pictures that are stored turned: their EXIF tells how."""

from __future__ import annotations

from PIL import ExifTags, Image

from massl.core.images import decode_cost
from massl.core.memory_budget import BUDGET

_TURNS = dict(enumerate(
    (
        Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
    ), start=2,
))  # fmt: skip


def upright(image: Image.Image) -> Image.Image:
    """A decoded image, turned by its EXIF orientation."""
    return turned(image, orientation_of(image))


def orientation_of(image: Image.Image) -> int:
    """By the EXIF of an opened image, from 1 to 8; 1 where there is none, or a damaged one."""
    exif = image.info.get("exif")
    if exif is None and isinstance(text := image.info.get("Raw profile type exif"), str):  # ImageMagick's, in a PNG
        exif = decode_cost.of_text(text)
    try:
        with BUDGET.take(decode_cost.of_exif(exif or b"")):
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # damaged EXIF must not cost an image whose pixels are fine
        return 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """An image turned as EXIF's number says, from 1 to 8; any other number turns nothing."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
