"""How an image file is read and decoded safely.

Training and indexing both stand on this module, so that they reject the same files for the same reasons.
"""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pi_heif
from PIL import ExifTags, Image, UnidentifiedImageError

from massl.core.disk_errors import reason_of
from massl.core.errors import MasslError
from massl.core.images import decode_cost, dicom, jpeg, plane_files, raw, stacks, tiff
from massl.core.images.rendering import EACH_FILE, Rendering, Scaling, Unmeasured
from massl.core.images.srgb import load_8_bits, to_srgb
from massl.core.memory_budget import BUDGET, Grant, available_memory
from massl.core.regular_files import open_regular

# An allow-list: Pillow knows some fifty formats, and the rare ones (EPS, which runs Ghostscript, among them) are
# where its vulnerabilities live. JPEG covers MPO, which phones write into a .jpg.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF")

# Twice Pillow's own warning threshold, which is where Pillow itself refuses to go on: 178,956,970 pixels,
# 0.7 GiB once decoded.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
MAX_BYTES = 1 << 30

# Counts up whenever more files are read than before, so that collections look again at those that they skipped.
READER = 3

# Pillow warns of large or oddly written files on standard error; what matters of it becomes a reason.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
pi_heif.register_heif_opener()
_MENDING = 12  # bytes a pixel that it takes to see whether a JPEG lacks only its end
_BICUBIC = Image.Resampling.BICUBIC
_TURNS = dict(enumerate(
    (
        Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
    ), start=2,
))  # fmt: skip


class ImageError(MasslError):
    """A file that can't be used as an image. The message is the reason, short enough for a table.

    `lasting` says whether the reason lies in the file's content, and so holds until that changes.
    """

    def __init__(self, reason: str, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


class TooLarge(ImageError):
    """More pixels than the caller allows."""


def read_bytes(path: Path) -> bytes:
    """Reads a whole regular file, or a plane of a stack (see `plane_files`); never waits on a FIFO or a device.

    Raises:
        ImageError: it is missing, unreadable, empty, no regular file, or larger than 1 GiB.
    """
    if (plane := plane_files.split(path)) is not None:
        return _read_plane(*plane)
    try:
        opened = open_regular(path)
    except IsADirectoryError:
        raise ImageError("a folder, not an image", lasting=False) from None
    except OSError as error:
        raise ImageError(reason_of(error, "vanished while reading"), lasting=False) from None
    with opened as file:
        check_size(size := os.fstat(file.fileno()).st_size)
        try:
            keep_memory(size)
            # A file that something still writes to must not be read without end.
            return file.read(size)
        except MemoryError:
            raise _too_much_to_read(size) from None
        except OSError as error:
            raise ImageError(reason_of(error, "vanished while reading"), lasting=False) from None


def _read_plane(stack: Path, number: int) -> bytes:
    try:
        return plane_files.read(stack, number, keep_memory)
    except (tiff.Unsupported, stacks.NotInStack) as error:
        raise ImageError(str(error)) from None
    except OSError as error:
        raise ImageError(reason_of(error, "vanished while reading"), lasting=False) from None
    except MemoryError:
        raise _too_much_to_read(stack.stat().st_size) from None
    except (ValueError, KeyError, struct.error) as error:
        raise ImageError(f"damaged: {error}") from None


def check_size(size: int) -> None:
    """Raises an `ImageError` for an image file of `size` bytes that holds nothing or is larger than 1 GiB."""
    if size == 0:
        raise ImageError("empty file")
    if size > MAX_BYTES:
        raise ImageError(f"{size / 2**30:.1f} GiB, more than the limit of 1 GiB a file")


def keep_memory(size: int) -> None:
    """Counts a file's `size` bytes as memory in use, before they are read, for as long as `within_memory` lasts.

    Raises:
        ImageError: there is not so much.
    """
    try:
        BUDGET.keep(size)
    except MemoryError:
        raise _too_much_to_read(size) from None


def _too_much_to_read(size: int) -> ImageError:
    return ImageError(f"not enough memory to read it: {_bytes(size)}", lasting=False)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image ready for use: `picture` is upright 8-bit sRGB; `width` and `height`, in pixels, are the file's.

    `clipped` is empty for pictures of 8 bits; see `massl.core.images.rendering.Scaling`.
    """

    picture: Image.Image
    width: int
    height: int
    clipped: Mapping[str, float | None] = field(default_factory=dict)


def megapixels(pixels: int) -> str:
    """A number of pixels in millions, in words: whole ones, and two digits of less than ten."""
    millions = pixels / 1e6
    return f"{millions:,.0f}" if millions >= 10 else f"{float(f'{millions:.2g}'):f}".rstrip("0").rstrip(".")


@contextmanager
def within_memory() -> Iterator[None]:
    """A block that reads, decodes and uses a picture: until its end, all of this counts as memory in use.

    Raises:
        ImageError: what is done with the picture takes more memory than there is.
    """
    with BUDGET.held():
        try:
            yield
        except MemoryError:
            raise ImageError("not enough memory to work on it", lasting=False) from None


def decode(
    data: bytes,
    shortest: int | None = None,
    max_pixels: int = MAX_PIXELS,
    rendering: Rendering = EACH_FILE,
) -> Decoded:
    """Decodes an image file's bytes to upright, opaque, 8-bit sRGB.

    Turned by its EXIF orientation, converted from its colour profile, transparency laid on white, of animations and
    multi-page files the first frame. Greys and colours of more than 8 bits are scaled as `rendering` says; without
    that, by the bit depth that they use (a 12-bit camera writes values up to 4095 into 16 bits), so that microscope
    frames don't come out black. A JPEG that lacks only the mark of its end is read.

    What decoding takes is taken from `massl.core.memory_budget.BUDGET`, and may have to wait for other threads'
    pictures.

    Args:
        data: the file's content.
        shortest: the shorter side, in pixels, that the caller needs. A larger image is decoded at a reduced size,
            which is several times faster for JPEG; the result's shorter side is then at least `shortest`.
        max_pixels: larger images are refused.
        rendering: how numbers of more than 8 bits are shown.

    Raises:
        TooLarge: more than `max_pixels` pixels, also in one of the tiles that a TIFF is made of.
        ImageError: no image, damaged, or more than the memory holds.
        Unmeasured: `rendering` has no range yet for such numbers, and is to have one.
    """
    return decode_scaled(data, Scaling(rendering), shortest, max_pixels)


def depends_on(rendering: Rendering, data: bytes) -> bool:
    """Whether a file may look otherwise by `rendering` than by itself, by its header: it is deep, or a stack."""
    if stacks.is_asked_for(data, rendering) or dicom.is_dicom(data):
        return True
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[24:25] == b"\x10"
    if data[:2] not in (b"II", b"MM"):
        return False
    try:
        with BUDGET.take(decode_cost.opening(data)):
            stored = tiff.layout(data)
    except (tiff.Unsupported, MemoryError):
        return False
    return stored is not None and stored.bits > 8


def decode_scaled(data: bytes, scaling: Scaling, shortest: int | None = None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """As `decode`, with what scales the numbers of this picture."""
    if max_pixels > MAX_PIXELS and Image.MAX_IMAGE_PIXELS:
        # Somebody asked for more than Pillow itself opens; what each caller allows is checked below all the same.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels // 2 + 1)
    reading = _Reading(max_pixels, scaling)
    try:
        with reading.granted:
            grant = reading.take(decode_cost.opening(data))
            if raw.is_raw(data):
                decoded = reading.photograph(data, shortest)
            elif dicom.is_dicom(data):
                decoded = reading.of_device(data, shortest)
            elif (
                stacks.is_asked_for(data, scaling.rendering)
                and (picked := reading.of_stack(data, shortest)) is not None
            ):
                decoded = picked
            elif stored := tiff.layout(data):
                decoded = reading.stored(data, stored, shortest)
            else:
                decoded = reading.by_pillow(data, shortest)
            grant.remains = 4 * decoded.picture.width * decoded.picture.height
            return decoded
    except (ImageError, Unmeasured):
        raise
    except (tiff.Unsupported, stacks.NotInStack, dicom.Unreadable) as error:
        raise ImageError(str(error)) from None
    except UnidentifiedImageError:
        raise ImageError(jpeg.unsupported(data) or "not an image, or of a format that is not supported") from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, which comes first and says only how many
        pixels = re.search(r"\d+", str(error))
        count = megapixels(int(pixels[0])) if pixels else "too many"
        raise TooLarge(f"too large: {count} megapixels, the limit is {megapixels(max_pixels)}") from None
    except MemoryError:
        raise _not_enough(reading.width, reading.height, reading.needed) from None
    except Exception as error:  # on damaged data decoders raise nearly anything: OSError, SyntaxError, struct.error…
        detail = " ".join(str(error).split())[:120]
        # Libraries that got no memory say so, -9 being Pillow's number for it, or only that they could not go on.
        if re.search(r"out of memory|allocat|error -9$", detail, re.IGNORECASE) or available_memory() < reading.needed:
            raise _not_enough(reading.width, reading.height, reading.needed) from None
        if "truncated" in detail:
            if complete := _mended(data, reading.width * reading.height):
                return decode_scaled(complete, scaling, shortest, max_pixels)
            raise ImageError("truncated: the file ends before the image does") from None
        raise ImageError(f"damaged: {detail or type(error).__name__}") from None


class _Reading:
    """One image on its way: its size in pixels, upright, and the bytes of memory that it needs, as far as known."""

    def __init__(self, max_pixels: int, scaling: Scaling) -> None:
        self.width = self.height = self.needed = 0
        self._scaling = scaling
        self.granted = ExitStack()  # what was taken of the memory budget, and open files
        self._max_pixels = max_pixels

    def take(self, needed: int) -> Grant:
        """Takes so many bytes of the memory budget until the end; may wait."""
        self.needed = needed
        return self.granted.enter_context(BUDGET.take(needed))

    def photograph(self, data: bytes, shortest: int | None) -> Decoded:
        """What a camera's sensor saw."""
        if not raw.can_develop():
            raise ImageError("a RAW photograph: to read these, pip install 'massl[raw]'")

        def admit(across: int, down: int, sensor: int) -> None:
            self.width, self.height = across, down
            self._check(across, down)
            self.take(decode_cost.developing(sensor))

        return Decoded(*raw.develop(data, shortest, admit))

    def stored(self, data: bytes, layout: tiff.Layout, shortest: int | None) -> Decoded:
        """A TIFF that Pillow would read wrongly or not at all."""
        lies = layout.orientation > 4
        self.width, self.height = (layout.height, layout.width) if lies else (layout.width, layout.height)
        self._check(self.width, self.height)
        self._check(*layout.piece, "it is stored in pieces; one of ")
        self.take(layout.memory)
        picture, alpha = tiff.read(data, layout, self._scaling)
        picture = to_srgb(picture, layout.profile, shortest, alpha)
        return Decoded(_turned(picture, layout.orientation), self.width, self.height, self._scaling.clipped)

    def of_stack(self, data: bytes, shortest: int | None) -> Decoded | None:
        """The channels and the plane that were chosen; None for a file that is no stack."""

        def admit(layout: tiff.Layout, pages: int, kept: int) -> None:
            self.width, self.height = layout.width, layout.height
            self._check(self.width, self.height)
            self._check(*layout.piece, "it is stored in pieces; one of ")
            self._check_all(pages)
            self.take(layout.memory + kept)

        picture = stacks.read(data, self._scaling, self.take, admit, self._scaling.rendering)
        if picture is None:
            return None
        return Decoded(to_srgb(picture, None, shortest), self.width, self.height, self._scaling.clipped)

    def of_device(self, data: bytes, shortest: int | None) -> Decoded:
        """DICOM."""

        def admit(across: int, down: int, frames: int, memory: int) -> None:
            self.width, self.height = across, down
            self._check(across, down)
            self._check_all(frames)
            self.take(memory)

        picture = dicom.read(data, self._scaling, admit)
        return Decoded(to_srgb(picture, None, shortest), self.width, self.height, self._scaling.clipped)

    def by_pillow(self, data: bytes, shortest: int | None) -> Decoded:
        """Any other image."""
        image = self.granted.enter_context(Image.open(io.BytesIO(jpeg.without_padding(data)), formats=FORMATS))
        self.width, self.height = image.size
        self._check(self.width, self.height)
        if image.format == "TIFF":
            self._check(*decode_cost.largest_piece(data), "it is stored in pieces; one of ")
        if shortest:
            # The scale is the largest power of two at which both sides still reach what was asked for.
            image.draft("RGB", (shortest, shortest))
        self.take(decode_cost.decoding(image, data, self.width, self.height, shortest))
        picture = _upright(load_8_bits(image, data, self._scaling))
        if (picture.width > picture.height) != (image.width > image.height):
            self.width, self.height = self.height, self.width
        picture = to_srgb(picture, image.info.get("icc_profile"), shortest)
        return Decoded(picture, self.width, self.height, self._scaling.clipped)

    def _check_all(self, pages: int) -> None:
        most = stacks.MOST_PIXELS * self._max_pixels
        if pages * self.width * self.height > most:
            size = f"{pages:,} pages of {self.width} x {self.height} pixels"
            raise TooLarge(f"too large: {size}, the limit is {megapixels(most)} megapixels")

    def _check(self, across: int, down: int, what: str = "") -> None:
        if across * down > self._max_pixels:
            raise TooLarge(
                f"too large: {what}{across} x {down} is {megapixels(across * down)} megapixels, "
                f"the limit is {megapixels(self._max_pixels)}"
            )


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels that an image file's header tells, before it is turned upright.

    Raises:
        Exception: of any kind; it is no image, or damaged.
    """
    with opened(data) as image:
        return image.size


@contextmanager
def header(path: Path) -> Iterator[Image.Image]:
    """An image file of which nothing but the header was read, for what that says beside the pixels.

    Raises:
        Exception: of any kind; it is no image, or damaged.
    """
    with opened(read_bytes(path)) as image:
        yield image


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """As `header`, of a file's content."""
    stream = io.BytesIO(jpeg.without_padding(data))
    with BUDGET.take(decode_cost.opening(data)), Image.open(stream, formats=FORMATS) as image:
        yield image


def _not_enough(width: int, height: int, needed: int) -> ImageError:
    what, does = (f"{width} x {height} pixels", "take") if width else ("what it holds beside its pixels", "takes")
    return ImageError(f"not enough memory to decode it: {what} {does} about {_bytes(needed)}", lasting=False)


def _bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{-(-size // 2**20)} MiB"


def _upright(image: Image.Image) -> Image.Image:
    """A decoded image, turned by its EXIF orientation."""
    exif = image.info.get("exif")
    if exif is None and isinstance(text := image.info.get("Raw profile type exif"), str):  # ImageMagick's, in a PNG
        exif = decode_cost.of_text(text)
    try:
        with BUDGET.take(decode_cost.of_exif(exif or b"")):
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF must not cost an image whose pixels are fine
        orientation = 1
    return _turned(image, orientation)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _mended(data: bytes, count: int) -> bytes | None:
    """A JPEG of `count` pixels that lacks only its end, with that added; None for what lacks more."""
    try:
        with BUDGET.take(_MENDING * count):
            return jpeg.mended(data)
    except Exception:  # whatever else is wrong with it: it is truncated
        return None


def open_image(
    path: Path,
    shortest: int | None = None,
    max_pixels: int = MAX_PIXELS,
    rendering: Rendering = EACH_FILE,
) -> Image.Image:
    """`decode` on a file's content."""
    return decode(read_bytes(path), shortest, max_pixels, rendering).picture


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
