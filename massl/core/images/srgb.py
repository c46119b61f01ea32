"""From what a decoder gives to upright, opaque, 8-bit sRGB: depth, palettes, transparency and colour profiles."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageFile

from massl.core.images import bit_depth, deep_png
from massl.core.images.rendering import Scaling, kind_of

_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # a mode's colour space, as a profile names it
_SHORT = 1 << 16  # bytes of a profile that may be sRGB's own; those of printers are larger
_BAND = 1 << 20  # pixels that are converted at a time
_ALIKE = 2  # of 255: by how much a profile's colours may differ from sRGB's

# How Pillow unpacks PNGs of 16 bits: to the high bytes alone. The second of each pair gets at the low bytes: as the low
# ones of the other order, or as pixels of four bytes.
_DEEP = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}


def load_8_bits(image: Image.Image, data: bytes, scaling: Scaling) -> Image.Image:
    """Decodes what `Image.open` opened to a picture of 8 bits a channel.

    16 bits are scaled as `scaling` says; where that has no limits, by the bits that they use.

    Args:
        image: opened, not yet loaded.
        data: the file's content.
        scaling: says what becomes black and white.
    """
    if image.format == "PNG" and isinstance(image, ImageFile.ImageFile):
        return _load_png(image, data, scaling)
    image.load()
    if image.format in ("BMP", "DIB") and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # the fourth byte is unused: nobody makes pictures that can't be seen
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        kind = kind_of(values.dtype.kind, 8 * values.dtype.itemsize, 1)
        return _like(image, Image.fromarray(bit_depth.to_8_bits(values, scaling.limits(values, kind))))
    return image


def to_srgb(
    image: Image.Image, profile: bytes | None, shortest: int | None = None, alpha: Image.Image | None = None
) -> Image.Image:
    """A decoded picture of 8 bits a channel in sRGB, what is transparent laid on white.

    Args:
        image: of any mode of Pillow's with 8 bits a channel.
        profile: the colour profile of its file. One that is damaged, or for other
            colours than the picture's, is left out.
        shortest: the shorter side, in pixels, that the caller needs: a much larger picture is averaged down first.
        alpha: how opaque each pixel is, of mode `L`, where `image` has no channel for that.
    """
    return finished(*averaged(image, alpha, factor_of(image.size, shortest)), profile)


def factor_of(size: tuple[int, int], shortest: int | None) -> int:
    """By how much a picture of a size is averaged down on each side, where `shortest` pixels are needed of it."""
    return max(1, min(size) // (2 * shortest)) if shortest else 1


def averaged(
    image: Image.Image, alpha: Image.Image | None = None, factor: int = 1
) -> tuple[Image.Image, Image.Image | None]:
    """The first part of `to_srgb`: colours that profiles are for, with alpha where that fits, averaged down.

    Of some rows it gives what it gives of all, if their number is a multiple of `factor` or they are the last.
    """
    if alpha and image.mode in ("L", "RGB"):
        image = image.copy()
        image.putalpha(alpha)  # so that both are averaged together
        alpha = None
    mode = _plain(image)
    # Colour conversion of a large image costs more than decoding it.
    if factor > 1:
        image, alpha = _reduced(image, factor, mode), alpha and alpha.reduce(factor)
    elif mode != image.mode:
        image = image.convert(mode)
    return image, alpha


def finished(image: Image.Image, alpha: Image.Image | None, profile: bytes | None) -> Image.Image:
    """The rest of `to_srgb`, of any part of what `averaged` gives."""
    if image.mode in ("LA", "RGBA"):
        image, alpha = image.convert(image.mode[:-1]), image.getchannel("A")
    image = _apply_profile(image, profile)
    if alpha:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    return image


def _plain(image: Image.Image) -> str:
    """Which of the modes a picture is converted to that profiles are for: L, RGB, CMYK, LAB, with alpha LA and RGBA."""
    see_through = "transparency" in image.info
    if image.mode == "LAB" or image.mode in _SPACES or image.mode in ("LA", "RGBA"):
        return {"L": "LA", "RGB": "RGBA"}.get(image.mode, image.mode) if see_through else image.mode
    if image.mode == "1":
        return "LA" if see_through else "L"
    if image.mode == "La":
        return "LA"
    see_through = see_through or image.mode in ("PA", "RGBa")
    return "RGBA" if see_through or (image.palette and image.palette.mode == "RGBA") else "RGB"


def _reduced(image: Image.Image, factor: int, mode: str) -> Image.Image:
    """Converted to `mode` and averaged down, a few rows at a time, so that no copy of the whole is made."""
    if mode == image.mode:
        return image.reduce(factor)
    rows = factor * max(1, _BAND // (factor * image.width))
    reduced = Image.new(mode, (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        reduced.paste(band.convert(mode).reduce(factor), (0, top // factor))
    return reduced


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """To RGB, through the embedded colour profile where there is one that fits the image's mode."""
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, _LAB, _SRGB, outputMode="RGB") or image.convert("RGB")
    if profile and is_converted(profile, image.mode):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space.strip() == _SPACES[image.mode]:
                return ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB") or image.convert("RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a damaged profile: the plain conversion below is what viewers show too
    return image.convert("RGB")


def is_converted(profile: bytes | None, mode: str) -> bool:
    """Whether `to_srgb` looks at a profile of a picture of a mode, as its colours may be other ones than sRGB's."""
    return profile is not None and not (len(profile) <= _SHORT and _is_srgb(profile, mode))


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes, mode: str) -> bool:
    """Whether a profile's colours are sRGB's own, whatever it is called, so that nothing has to be converted."""
    steps = np.linspace(0, 255, 256 if mode == "L" else 9).round().astype(np.uint8)
    if mode == "RGB":
        colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    elif mode == "L":
        colours = steps[None]
    else:
        return False
    patches = Image.fromarray(colours)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        seen = ImageCms.profileToProfile(patches, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return True  # nothing that could be converted from
    wanted = np.asarray(patches.convert("RGB"), int)
    return bool(np.abs(np.asarray(seen, int) - wanted).max() <= _ALIKE)


# PNG ------------------------------------------------------------------------------------------------------------------


def _load_png(image: ImageFile.ImageFile, data: bytes, scaling: Scaling) -> Image.Image:
    unpacked = image.tile[0].args if image.tile else None
    mode = unpacked[0] if isinstance(unpacked, tuple) else unpacked or ""
    clear = image.info.get("transparency")
    image.load()
    if mode in ("L;2", "L;4") and isinstance(clear, int):
        # Pillow scales the pixels to 8 bits, but not the grey that is transparent.
        image.info["transparency"] = clear * {"L;2": 85, "L;4": 17}[mode]
    if image.mode.startswith("I;16"):
        values = np.asarray(image)[..., None]
    elif mode not in _DEEP:
        return image
    else:
        shades = {"LA;16B": 1}.get(mode, 3)
        own = scaling.leaves_to_the_file(deep_png.kind(shades))
        if own and clear is None and np.asarray(image)[..., :shades].max() >= deep_png.SIXTEEN_BITS_IN_USE:
            return image  # the high bytes, without unpacking the low ones, which takes a second decoding
        values = _sixteen_bits(image, data, mode)
    return _like(image, deep_png.picture(values, clear, deep_png.scale_of(values, clear, scaling)))


def _sixteen_bits(high: Image.Image, data: bytes, mode: str) -> np.ndarray:
    """The numbers as they are stored, uint16 `[H, W, C]`, of a picture that Pillow has unpacked to its high bytes."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as again:
        again.tile = [
            tile._replace(args=(_DEEP[mode], *tile.args[1:]) if isinstance(tile.args, tuple) else _DEEP[mode])
            for tile in again.tile
        ]
        low = np.array(again)
    if mode == "LA;16B":
        return low.view(">u2").astype(np.uint16)
    values = np.array(high, np.uint16)
    values <<= 8
    values |= low
    return values


def _like(original: Image.Image, image: Image.Image) -> Image.Image:
    """`image`, with what is known of the original, but for a transparency that is in its pixels now."""
    image.info = {key: value for key, value in original.info.items() if key != "transparency"}
    return image
