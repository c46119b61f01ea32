"""How an image file is read and decoded safely.

Training and indexing both stand on this module, so that they reject the same files for the same reasons.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pi_heif
from PIL import Image, UnidentifiedImageError

from massl.core.errors import MasslError
from massl.core.images import decode_cost, dicom, jpeg, raw, row_reading, stacks, tiff
from massl.core.images.content import Content, stream
from massl.core.images.decode_cost import Allowance
from massl.core.images.file_reading import in_units, read_bytes, whole
from massl.core.images.image_errors import ImageError, TooLarge, Truncated
from massl.core.images.orientation import orientation_of, turned, upright
from massl.core.images.rendering import EACH_FILE, Rendering, Scaling, Unmeasured
from massl.core.images.row_reading import RowPicture
from massl.core.images.srgb import factor_of, load_8_bits, to_srgb
from massl.core.memory_budget import BUDGET, Grant, available_memory

# An allow-list: Pillow knows some fifty formats, and the rare ones (EPS, which runs Ghostscript, among them) are
# where its vulnerabilities live. JPEG covers MPO, which phones write into a .jpg.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF")

# Twice Pillow's own warning threshold, which is where Pillow itself refuses to go on: 178,956,970 pixels,
# 0.7 GiB once decoded.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)

# Counts up whenever more files are read than before, so that collections look again at those that they skipped.
READER = 3

# Pillow warns of large or oddly written files on standard error; what matters of it becomes a reason.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
pi_heif.register_heif_opener()
_MENDING = 12  # bytes a pixel that it takes to see whether a JPEG lacks only its end
_PLAIN = ("L", "RGB", "LA", "RGBA", "CMYK")  # modes that are converted as they are


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
    data: Content,
    shortest: int | None = None,
    max_pixels: int = MAX_PIXELS,
    rendering: Rendering = EACH_FILE,
    allowed: Allowance | None = None,
) -> Decoded:
    """Decodes an image file's bytes to upright, opaque, 8-bit sRGB.

    Large TIFFs and PNGs of which less is needed are averaged down a few rows at a time, where
    `massl.core.images.row_reading` can.

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
        allowed: what decoding may take; None for all that there is.

    Raises:
        TooLarge: more than `max_pixels` pixels, also in one of the tiles that a TIFF is made of, or than is `allowed`.
        ImageError: no image, damaged, or more than the memory holds.
        Unmeasured: `rendering` has no range yet for such numbers, and is to have one.
    """
    return decode_scaled(data, Scaling(rendering), shortest, max_pixels, allowed)


def depends_on(rendering: Rendering, data: Content) -> bool:
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
    except (tiff.Unsupported, ValueError, MemoryError):
        return False
    return stored is not None and stored.bits > 8


def decode_scaled(
    data: Content,
    scaling: Scaling,
    shortest: int | None = None,
    max_pixels: int = MAX_PIXELS,
    allowed: Allowance | None = None,
) -> Decoded:
    """As `decode`, with what scales the numbers of this picture."""
    reading = Reading(max_pixels, scaling, allowed)
    try:
        with reading.of(data) as grant:
            decoded = reading.decoded(data, shortest)
            grant.remains = 4 * decoded.picture.width * decoded.picture.height
            return decoded
    except Truncated:
        if complete := mended(whole(data), reading.width * reading.height):
            return decode_scaled(complete, scaling, shortest, max_pixels, allowed)
        raise


class Reading:
    """One image on its way: its size in pixels, upright, and the bytes of memory that it needs, as far as known."""

    def __init__(self, max_pixels: int, scaling: Scaling, allowed: Allowance | None = None) -> None:
        if max_pixels > MAX_PIXELS and Image.MAX_IMAGE_PIXELS:
            # Somebody asked for more than Pillow itself opens; what each caller allows is checked all the same.
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels // 2 + 1)
        self.width = self.height = self.needed = 0
        self.scaling = scaling
        self._granted = ExitStack()  # what was taken of the memory budget, and open files
        self._max_pixels = max_pixels
        self._allowed = allowed

    @contextmanager
    def of(self, data: Content) -> Iterator[Grant]:
        """A block that reads the image. Gives what opening it takes of the memory budget.

        Raises:
            ImageError: in place of all that goes wrong in the block, but for another `MasslError`.
            Truncated: likewise, of a file that ends too early.
            Unmeasured: as in the block.
        """
        try:
            with self._granted:
                yield self.take(decode_cost.opening(data))
        except (MasslError, Unmeasured):
            raise
        except (tiff.Unsupported, stacks.NotInStack, dicom.Unreadable) as error:
            raise ImageError(str(error)) from None
        except UnidentifiedImageError:
            why = jpeg.unsupported(whole(data)) or "not an image, or of a format that is not supported"
            raise ImageError(why) from None
        except Image.DecompressionBombError as error:  # Pillow's own limit, which comes first and says only how many
            pixels = re.search(r"\d+", str(error))
            count = megapixels(int(pixels[0])) if pixels else "too many"
            raise TooLarge(f"too large: {count} megapixels, the limit is {megapixels(self._max_pixels)}") from None
        except MemoryError:
            raise self._not_enough() from None
        except Exception as error:  # on damaged data decoders raise nearly anything: OSError, SyntaxError and others
            detail = " ".join(str(error).split())[:120]
            # Libraries that got no memory say so, -9 being Pillow's number for it, or only that they could not go on.
            if re.search(r"out of memory|allocat|error -9$", detail, re.IGNORECASE) or available_memory() < self.needed:
                raise self._not_enough() from None
            if "truncated" in detail:
                raise Truncated("truncated: the file ends before the image does") from None
            raise ImageError(f"damaged: {detail or type(error).__name__}") from None

    def decoded(self, data: Content, shortest: int | None) -> Decoded:
        """See `decode`."""
        if raw.is_raw(data):
            return self._photograph(whole(data), shortest)
        if dicom.is_dicom(data):
            return self._of_device(whole(data), shortest)
        if stacks.is_asked_for(data, self.scaling.rendering):
            picked = self._of_stack(whole(data), shortest)
            if picked is not None:
                return picked
        stored = tiff.layout(data)
        if shortest and (large := self.by_rows(data, stored)):
            factor = factor_of((large.width, large.height), shortest)
            if factor > 1:
                self.take(large.memory + 12 * (large.width // factor + 1) * (large.height // factor + 1))
                return Decoded(large.reduced(factor), large.width, large.height, self.scaling.clipped)
        data = whole(data)
        return self._stored(data, stored, shortest) if stored else self._by_pillow(data, shortest)

    def by_rows(self, data: Content, stored: tiff.Layout | None) -> RowPicture | None:
        """A large picture that is read some rows at a time, if it can be; `stored` as `tiff.layout` has it."""
        if row_reading.files_of(data) is None:
            return None
        header = None if stored else self._granted.enter_context(Image.open(stream(data), formats=FORMATS))
        # That of a PNG would be loaded for it; `row_files` knows that it has none.
        if header is not None and header.format != "PNG" and orientation_of(header) != 1:
            return None
        found = row_reading.find(data, stored, header, self.scaling)
        if found is not None:
            self.width, self.height = found.width, found.height
            self._check(found.width, found.height)
            if self._allowed and found.unpacked > self._allowed.unpacked:
                raise _takes_too_much("its pixels take", found.unpacked, self._allowed.unpacked)
        return found

    def take(self, needed: int) -> Grant:
        """Takes so many bytes of the memory budget until the end; may wait.

        Raises:
            TooLarge: more than is allowed of this picture.
        """
        if self._allowed and needed > self._allowed.memory:
            raise _takes_too_much("decoding it takes", needed, self._allowed.memory)
        self.needed = needed
        return self._granted.enter_context(BUDGET.take(needed))

    def _photograph(self, data: bytes, shortest: int | None) -> Decoded:
        """What a camera's sensor saw."""
        if not raw.can_develop():
            raise ImageError("a RAW photograph: to read these, pip install 'massl[raw]'")

        def admit(across: int, down: int, sensor: int) -> None:
            self.width, self.height = across, down
            self._check(across, down)
            self.take(decode_cost.developing(sensor))

        return Decoded(*raw.develop(data, shortest, admit))

    def _stored(self, data: bytes, layout: tiff.Layout, shortest: int | None) -> Decoded:
        """A TIFF that Pillow would read wrongly or not at all."""
        picture, alpha = self._numbers(data, layout)
        picture = to_srgb(picture, layout.profile, shortest, alpha)
        return Decoded(turned(picture, layout.orientation), self.width, self.height, self.scaling.clipped)

    def _numbers(self, data: bytes, layout: tiff.Layout) -> tuple[Image.Image, Image.Image | None]:
        lies = layout.orientation > 4
        self.width, self.height = (layout.height, layout.width) if lies else (layout.width, layout.height)
        self._check(self.width, self.height)
        self._check(*layout.piece, "it is stored in pieces; one of ")
        self.take(layout.memory)
        return tiff.read(data, layout, self.scaling)

    def _of_stack(self, data: bytes, shortest: int | None) -> Decoded | None:
        """The channels and the plane that were chosen; None for a file that is no stack."""

        def admit(layout: tiff.Layout, pages: int, kept: int) -> None:
            self.width, self.height = layout.width, layout.height
            self._check(self.width, self.height)
            self._check(*layout.piece, "it is stored in pieces; one of ")
            self._check_all(pages)
            self.take(layout.memory + kept)

        picture = stacks.read(data, self.scaling, self.take, admit, self.scaling.rendering)
        if picture is None:
            return None
        return Decoded(to_srgb(picture, None, shortest), self.width, self.height, self.scaling.clipped)

    def _of_device(self, data: bytes, shortest: int | None) -> Decoded:
        """DICOM."""

        def admit(across: int, down: int, frames: int, memory: int) -> None:
            self.width, self.height = across, down
            self._check(across, down)
            self._check_all(frames)
            self.take(memory)

        picture = dicom.read(data, self.scaling, admit)
        return Decoded(to_srgb(picture, None, shortest), self.width, self.height, self.scaling.clipped)

    def _by_pillow(self, data: bytes, shortest: int | None) -> Decoded:
        """Any other image."""
        picture, profile = self._loaded(data, shortest)
        picture = to_srgb(picture, profile, shortest)
        return Decoded(picture, self.width, self.height, self.scaling.clipped)

    def _loaded(self, data: bytes, shortest: int | None, as_it_is: bool = False) -> tuple[Image.Image, bytes | None]:
        """The upright picture of 8 bits a channel, and its profile; `as_it_is` if it isn't converted as a whole."""
        image = self._granted.enter_context(Image.open(io.BytesIO(jpeg.without_padding(data)), formats=FORMATS))
        self.width, self.height = image.size
        self._check(self.width, self.height)
        if image.format == "TIFF":
            self._check(*decode_cost.largest_piece(data), "it is stored in pieces; one of ")
        if shortest:
            # The scale is the largest power of two at which both sides still reach what was asked for.
            image.draft("RGB", (shortest, shortest))
        more = None
        if as_it_is:
            more = 4 * (orientation_of(image) != 1) + 4 * (image.mode not in _PLAIN or "transparency" in image.info)
        self.take(decode_cost.decoding(image, data, self.width, self.height, shortest, more))
        picture = upright(load_8_bits(image, data, self.scaling))
        if (picture.width > picture.height) != (image.width > image.height):
            self.width, self.height = self.height, self.width
        return picture, image.info.get("icc_profile")

    def as_it_is(self, data: bytes, layout: tiff.Layout | None) -> tuple[Image.Image, Image.Image | None, bytes | None]:
        """An upright picture of 8 bits a channel that is not sRGB yet, its alpha by itself, and its profile."""
        if layout is None:
            picture, profile = self._loaded(data, None, as_it_is=True)
            return picture, None, profile
        picture, alpha = self._numbers(data, layout)
        return turned(picture, layout.orientation), alpha and turned(alpha, layout.orientation), layout.profile

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

    def _not_enough(self) -> ImageError:
        what, does = "what it holds beside its pixels", "takes"
        if self.width:
            what, does = f"{self.width} x {self.height} pixels", "take"
        return ImageError(f"not enough memory to decode it: {what} {does} about {in_units(self.needed)}", lasting=False)


def _takes_too_much(what: str, needed: int, most: int) -> TooLarge:
    return TooLarge(f"too large: {what} about {in_units(needed)}, the limit is {in_units(most)}; make it smaller first")


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
def opened(data: Content) -> Iterator[Image.Image]:
    """As `header`, of a file's content."""
    file = stream(jpeg.without_padding(data) if isinstance(data, bytes) else data)
    with BUDGET.take(decode_cost.opening(data)), Image.open(file, formats=FORMATS) as image:
        yield image


def mended(data: bytes, count: int) -> bytes | None:
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
