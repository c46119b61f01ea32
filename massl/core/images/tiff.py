"""TIFFs that Pillow reads wrongly or not at all: deep colours, separate planes, floating point, more channels.

Pillow has no mode for colours of more than 8 bits. This module reads the numbers as they are stored, and scales them to
8 bits itself. Decompression is left to zlib and to Pillow's libtiff, one strip or tile at a time.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from massl.core.images import bit_depth
from massl.core.images.bit_depth import Numbers
from massl.core.images.content import Content, stream
from massl.core.images.rendering import Limits, Scaling, kind_of

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB, ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, LAB: 3, ICC_LAB: 3}  # channels of each

_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
_BY_ZLIB, _BY_LIBTIFF = (_DEFLATE, _OLD_DEFLATE), (_LZW, _PACKBITS, _LZMA, _ZSTD)
# The names of what this module doesn't undo.
_COMPRESSIONS = {
    2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "old JPEG", 7: "JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000",
    34676: "LogLuv", 34677: "LogLuv", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
_FAX = (2, 3, 4)
_PILLOWS = (*_FAX, 6, 7, 32771, 32809)  # of pictures of 8 bits or less
_INTEGER, _SIGNED, _FLOAT, _UNTYPED = 1, 2, 3, 4
_FORMATS = {_INTEGER: "u", _SIGNED: "i", _FLOAT: "f"}
_ASSOCIATED, _UNASSOCIATED, _COREL = 1, 2, 999  # what an extra channel that is alpha is called
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_BLOCK = 1 << 20  # numbers that are unpacked or scaled at a time
_LEAST_PIECE = 64  # pixels
_MOST_OF_A_PIECE = 1_024  # bytes of a compressed piece, beside twice those of its pixels


class Unsupported(Exception):
    """A TIFF that can't be read. The message says what it is, and is a reason to skip it."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How a TIFF's first page is stored. Sides are pixels.

    Attributes:
        samples: channels in all, as stored.
        chosen: those that make the picture: grey; or red, green and blue; or cyan, magenta, yellow, black; or L*a*b*.
        alpha: the channel that says how opaque each pixel is, if there is one.
        presumed: whether the file doesn't say what that channel is.
        premultiplied: whether the colours were multiplied by alpha.
        piece: width and height of a strip or tile.
        no_data: the number that stands for "nothing was measured here".
        palette: uint8 `[N, 3]`, the red, green and blue of each number.
    """

    width: int
    height: int
    samples: int
    bits: int
    number: int
    photometric: int
    chosen: tuple[int, ...]
    alpha: int | None
    presumed: bool
    premultiplied: bool
    planar: bool
    piece: tuple[int, int]
    tiled: bool
    compression: int
    predictor: int
    reversed_bits: bool
    order: str
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    orientation: int
    profile: bytes | None
    no_data: float | None
    palette: np.ndarray | None

    @property
    def kept(self) -> tuple[int, ...]:
        """The channels that are read."""
        return self.chosen if self.alpha is None else (*self.chosen, self.alpha)

    @property
    def kind(self) -> np.dtype[Any]:
        """The type in which the channels are kept: the file's, floats of at most 32 bits, unpacked bits in 16 or 32."""
        if self.number == _FLOAT:
            return np.dtype(np.float32)
        size = next(size for size in (8, 16, 32, 64) if self.bits <= size)
        return np.dtype(f"{_FORMATS[self.number]}{size // 8}")

    @property
    def piece_bytes(self) -> int:
        """Bytes of an unpacked strip or tile."""
        width, height = self.piece
        return height * -(-width * (1 if self.planar else self.samples) * self.bits // 8)

    @property
    def memory(self) -> int:
        """Bytes that reading takes at most, the file aside: numbers and pixels of the picture, three times a piece.

        Of numbers that don't fill bytes also every bit of a row as a byte, and the row's numbers twice.
        """
        pixel = len(self.kept) * (self.kind.itemsize + 2)
        row = self.piece[0] * (1 if self.planar else self.samples)
        packed = row * (self.bits + 3 * self.kind.itemsize) if self.bits % 8 else 0
        return self.width * self.height * pixel + 3 * self.piece_bytes + packed + 16 * _BLOCK


def layout(data: Content, page: int | None = None) -> Layout | None:
    """How the first page of a TIFF is stored, or None if Pillow reads it, or nobody can.

    Args:
        data: the file's content.
        page: where the directory of another page begins, in bytes; all of its channels are chosen then, whatever
            they are called, and it counts as one that Pillow can't read.

    Raises:
        Unsupported: nobody here can, as the message says.
    """
    if data[:4] == b"MM\0+":
        raise Unsupported("a BigTIFF in big-endian order, which is not supported")
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0"):
        return None
    try:
        file = stream(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if data[2:3] == b"+" else 8))
        file.seek(tags.next if page is None else page)
        tags.load(file)
        return _layout(tags, data, page is not None)
    except (Unsupported, MemoryError):
        raise
    except Exception:  # a damaged directory, of which Pillow will say more
        return None


def _layout(tags: TiffImagePlugin.ImageFileDirectory_v2, data: Content, of_a_stack: bool) -> Layout | None:
    width, height = _one_of(tags, 256, 0), _one_of(tags, 257, 0)
    samples, compression, planar = _one_of(tags, 277, 1), _one_of(tags, 259, _NONE), _one_of(tags, 284, 1) == 2
    depths = set((_all_of(tags, 258) or (1,))[:samples])
    kinds = {_INTEGER if kind == _UNTYPED else kind for kind in (_all_of(tags, 339) or (_INTEGER,))[:samples]}
    extra = _all_of(tags, 338)
    photometric = _one_of(tags, 262, -1)
    if photometric < 0:  # required, but left out by some
        photometric = RGB if samples >= 3 else BLACK_IS_ZERO
        if compression in _FAX:
            return None
    if width < 1 or height < 1 or samples < 1:
        return None

    what = _words(samples, depths, kinds)
    ours = compression in (_NONE, *_BY_ZLIB, *_BY_LIBTIFF)
    if not ours and (compression not in _PILLOWS or max(depths) > 8):
        named = _COMPRESSIONS.get(compression, f"a way of number {compression}")
        raise Unsupported(f"{what} compressed by {named}, which is not supported")
    shades = _all_of(tags, 320)
    in_bytes = photometric == PALETTE and max(shades, default=0) < 256  # where 16 bits are meant
    if (
        not of_a_stack
        and 262 in tags
        and not in_bytes
        and _is_ordinary(photometric, samples, depths, kinds, planar, extra)
    ):
        return None
    if photometric == YCBCR:
        if compression == _NONE or depths != {8}:
            raise Unsupported(f"{what} in YCbCr that is not compressed as JPEG, which is not supported")
        return None
    if photometric not in _COLOURS:
        space = {4: "that is a mask", 32844: "in LogL", 32845: "in LogLuv"}
        raise Unsupported(f"{what} {space.get(photometric, f'of colour space {photometric}')}, which is not supported")
    if compression in _PILLOWS:
        return None  # also planes, which libtiff puts together
    bits, kind = _one_type(depths, kinds, what)
    palette = _palette(shades, kind, bits, in_bytes, what) if photometric == PALETTE and not of_a_stack else None
    chosen, alpha = (tuple(range(samples)), None) if of_a_stack else _channels(photometric, samples, extra, what)
    predictor = _one_of(tags, 317, 1) if compression in (_LZW, *_BY_ZLIB, _LZMA, _ZSTD) else 1
    if predictor not in (1, 2, 3) or (predictor > 1 and bits not in (8, 16, 32, 64)):
        raise Unsupported(f"{what} with predictor {predictor}, which is not supported")
    profile, no_data = tags.get(34675), tags.get(42113)
    return Layout(
        width=width,
        height=height,
        samples=samples,
        bits=bits,
        number=kind,
        photometric=photometric,
        chosen=chosen,
        alpha=alpha,
        presumed=not extra,
        premultiplied=alpha is not None and extra[alpha - len(chosen) :][:1] == (_ASSOCIATED,),
        planar=planar,
        piece=_piece(tags, width, height, what),
        tiled=322 in tags,
        compression=compression,
        predictor=predictor,
        reversed_bits=_one_of(tags, 266, 1) == 2,
        order="<" if data[:2] == b"II" else ">",
        offsets=_all_of(tags, 324) or _all_of(tags, 273),
        counts=_all_of(tags, 325) or _all_of(tags, 279),
        orientation=_one_of(tags, 274, 1),
        profile=profile if isinstance(profile, bytes) else None,
        no_data=_as_number(no_data),
        palette=palette,
    )


def _one_of(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> int:
    value = tags.get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _all_of(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, ())
    return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)


def _piece(tags: TiffImagePlugin.ImageFileDirectory_v2, width: int, height: int, what: str) -> tuple[int, int]:
    """Width and height of the strips or tiles."""
    tiled = 322 in tags
    strip = min(height, _one_of(tags, 278, height))
    piece = (_one_of(tags, 322, 0), _one_of(tags, 323, 0)) if tiled else (width, strip)
    if min(piece) < 1 or (tiled and piece[0] * piece[1] < _LEAST_PIECE):
        raise Unsupported(f"{what} in pieces of {piece[0]} x {piece[1]} pixels, which is not supported")
    return piece


def _one_type(depths: set[int], kinds: set[int], what: str) -> tuple[int, int]:
    """The bits of a number and its kind, which all channels have in common."""
    if len(depths) > 1 or len(kinds) > 1:
        raise Unsupported(f"{what}, which are not of one type; save it with channels of the same depth")
    (bits,), (kind,) = depths, kinds
    if kind not in _FORMATS or not 1 <= bits <= 64 or (kind != _INTEGER and bits not in (8, 16, 32, 64)):
        raise Unsupported(f"{what}, which are not numbers that make a picture")
    if kind == _FLOAT and bits == 8:
        raise Unsupported(f"{what}, which are not numbers that make a picture")
    return bits, kind


def _palette(shades: tuple[int, ...], kind: int, bits: int, in_bytes: bool, what: str) -> np.ndarray:
    """The red, green and blue of each number, uint8 `[N, 3]`; `in_bytes` where 16 bits are meant, but 8 written."""
    if kind != _INTEGER or bits > 16 or len(shades) != 3 * 2**bits:
        raise Unsupported(f"{what} whose palette doesn't fit")
    palette = np.array(shades, np.uint16).reshape(3, -1).T
    return (palette if in_bytes else palette >> 8).astype(np.uint8)


def _is_ordinary(
    photometric: int, samples: int, depths: set[int], kinds: set[int], planar: bool, extra: tuple[int, ...]
) -> bool:
    """Whether Pillow reads it as it should: whole bytes or parts of one, side by side, at most alpha with them."""
    if kinds != {_INTEGER} or len(depths) > 1 or max(depths) > 8:
        return False
    if planar:  # also of one channel: of that, Pillow then forgets how its bits are meant
        return False
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE) and samples == 1:
        return depths <= {1, 2, 4, 8}
    if depths != {8} or photometric not in (BLACK_IS_ZERO, RGB, PALETTE, CMYK, LAB):
        return False
    with_alpha = photometric in (BLACK_IS_ZERO, RGB, PALETTE) and extra == (_UNASSOCIATED,)
    return samples == _COLOURS[photometric] + with_alpha


def _channels(photometric: int, samples: int, extra: tuple[int, ...], what: str) -> tuple[tuple[int, ...], int | None]:
    """The channels that make the picture, and that of alpha."""
    colours = _COLOURS[photometric]
    if samples < colours:
        raise Unsupported(f"{what}, too few for its colours")
    kinds = extra[: samples - colours]
    alpha = next(
        (colours + at for at, kind in enumerate(kinds) if kind in (_ASSOCIATED, _UNASSOCIATED, _COREL)),
        # Alpha is all that a fourth channel of which the file says nothing is ever meant to be.
        3 if photometric == RGB and samples == 4 and not extra else None,
    )
    others = samples - colours - (alpha is not None)
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and others:
        raise Unsupported(
            f"{what} that doesn't say which of them are red, green and blue; "
            "save the channels that you want to see as RGB or grey"
        )
    return tuple(range(colours)), alpha


def _words(samples: int, depths: set[int], kinds: set[int]) -> str:
    """What a file is, as a reason begins."""
    channels = "1 channel" if samples == 1 else f"{samples} channels"
    bits = " and ".join(map(str, sorted(depths)))
    named = {_SIGNED: " with signs", _FLOAT: " in floating point", 5: " in complex integers", 6: " in complex numbers"}
    return f"a TIFF of {channels} of {bits} bits{named.get(next(iter(kinds)), '') if len(kinds) == 1 else ''}"


def _as_number(text: Any) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def read(data: bytes, stored: Layout, scaling: Scaling) -> tuple[Image.Image, Image.Image | None]:
    """The picture at 8 bits a channel, upright, and its alpha.

    Greys and colours of more than 8 bits are scaled as `scaling` says. Where that has no limits, integers are scaled by
    the bits that they use, see `massl.core.images.bit_depth`; those of CMYK, of L*a*b* and of depths that a file can
    only mean (10, 12, 14 bits) by the depth that the file says. Floating point of grey, and of colours that leave 0 to
    1, is then stretched from the least number to the greatest. There is one scale for all colours.

    Returns:
        an image of mode `L`, `RGB`, `CMYK` or `LAB`, its colours as they are without alpha, and
        one of mode `L` or None.

    Raises:
        OSError: truncated.
        zlib.error: damaged.
    """
    values = numbers(data, stored)
    return picture(values, stored, scale_of(values, stored, scaling))


@dataclass(frozen=True, slots=True)
class Scale:
    """What the 8 bits of a pixel depend on beside its own numbers.

    Attributes:
        limits: of colours: what becomes 0 and what 255; None where they have another meaning.
        no_data: the number that becomes 0 all the same.
        opaque: of alpha, likewise.
        unused: whether alpha is nought everywhere, and so not meant.
    """

    limits: Limits | None
    no_data: float | None
    opaque: float = 0.0
    unused: bool = False


def scale_of(values: Numbers, stored: Layout, scaling: Scaling) -> Scale:
    """How the numbers of the channels that are kept, `[H, W, C]`, become 8 bits; see `read`."""
    colours = bit_depth.channels(values, slice(0, len(stored.chosen)))
    # In one of several channels, or of 8 bits, the same number may be a colour.
    no_data = stored.no_data if len(stored.chosen) == 1 and stored.bits > 8 else None
    limits = None
    if stored.photometric not in (LAB, ICC_LAB) and stored.palette is None:
        limits = _limits(colours, stored, scaling, no_data)
    if stored.alpha is None:
        return Scale(limits, no_data)
    opacity = bit_depth.channels(values, slice(-1, None))
    opaque = bit_depth.alpha_range(opacity, bit_depth.range_of(colours, stored.no_data)[1], stored.bits)
    unused = stored.presumed and not any(
        bit_depth.to_8_bits(block, (0, opaque)).any() for block in bit_depth.blocks(opacity)
    )
    return Scale(limits, no_data, opaque, unused)


def picture(values: np.ndarray, stored: Layout, scale: Scale) -> tuple[Image.Image, Image.Image | None]:
    """Of some rows of numbers, `[h, W, C]`, what `read` gives of all."""
    pixels, alpha = _scaled(values[..., : len(stored.chosen)], stored, scale), None
    if stored.alpha is not None:
        opacity = bit_depth.to_8_bits(values[..., -1], (0, scale.opaque))
        if scale.unused:
            opacity = np.full_like(opacity, 255)  # an unused fourth byte, not a picture that nobody can see
        if stored.premultiplied:
            pixels = _divided(pixels, opacity)
        alpha = Image.fromarray(opacity)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[pixels.shape[-1]]
    mode = "LAB" if stored.photometric in (LAB, ICC_LAB) else mode
    image = Image.frombytes(mode, (stored.width, len(values)), np.ascontiguousarray(pixels))
    return image, alpha


def numbers(data: bytes, stored: Layout) -> np.ndarray:
    """The numbers of the channels that are kept, `[H, W, C]`, as they are stored.

    Raises:
        OSError: truncated.
        zlib.error: damaged.
    """
    values = np.zeros((stored.height, stored.width, len(stored.kept)), stored.kind)
    for plane, top, left, piece in _pieces(data, stored):
        here = values[top : top + piece.shape[0], left : left + piece.shape[1]]
        with np.errstate(all="ignore"):  # more than 32 bits hold is no number
            if stored.planar:
                here[..., stored.kept.index(plane)] = piece[: here.shape[0], : here.shape[1], 0]
            else:
                here[...] = piece[: here.shape[0], : here.shape[1], stored.kept]
    return values


def _divided(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by alpha, as they are without."""
    result = np.empty_like(pixels)
    for rows in _blocks(pixels):
        opacity = np.maximum(alpha[rows], 1)[..., None].astype(np.float32)
        result[rows] = np.rint(np.minimum(pixels[rows] * 255.0 / opacity, 255))
    return result


def _limits(colours: Numbers, stored: Layout, scaling: Scaling, no_data: float | None) -> Limits:
    """What becomes 0 and what 255."""
    limits: Limits | None = None
    if stored.bits > 8 and stored.photometric != CMYK:
        limits = scaling.limits(colours, kind_of(_FORMATS[stored.number], stored.bits, len(stored.chosen)), no_data)
    if limits:
        return limits  # as for all files of the folder
    if stored.number == _INTEGER and (stored.photometric == CMYK or stored.bits not in (16, 32, 64)):
        return 0, 2**stored.bits - 1
    if stored.number == _FLOAT and stored.photometric in (RGB, CMYK):
        low, high = bit_depth.extremes(colours, stored.no_data)
        return (0, 1) if low >= 0 and high <= 1 else (low, high)
    return bit_depth.range_of(colours, stored.no_data)


def _scaled(values: np.ndarray, stored: Layout, scale: Scale) -> np.ndarray:
    """To uint8 of the same shape, or of three colours where there is a palette; a and b of `L*a*b*` with signs."""
    if stored.photometric in (LAB, ICC_LAB):
        return _lab(values, stored)
    if stored.palette is not None:
        return stored.palette[values[..., 0]]
    pixels = bit_depth.to_8_bits(values, scale.limits, scale.no_data)
    return 255 - pixels if stored.photometric == WHITE_IS_ZERO else pixels


def _lab(values: np.ndarray, stored: Layout) -> np.ndarray:
    if stored.number != _INTEGER or stored.bits not in (8, 16):
        raise Unsupported(f"{_words(stored.samples, {stored.bits}, {stored.number})} in L*a*b*, which is not supported")
    signs = np.array([0, 128, 128], np.uint8)  # ICC shifts a and b by 128, where the others give them signs
    if stored.bits == 8:
        return values ^ signs if stored.photometric == ICC_LAB else values
    result = np.empty(values.shape, np.uint8)
    for rows in _blocks(values):
        lightness, colours = values[rows, :, :1].astype(np.float32), values[rows, :, 1:].astype(np.int32)
        if stored.photometric == LAB:
            lightness /= 257
            colours = (colours ^ 0x8000) & 0xFFFF  # 256 steps a unit
        else:
            lightness /= 256  # L* of 100 is 0xFF00
        result[rows, :, :1] = np.rint(np.minimum(lightness, 255))
        result[rows, :, 1:] = np.minimum((colours + 128) >> 8, 255)
    return result ^ signs


def _blocks(values: np.ndarray) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, values[0].size))
    for top in range(0, len(values), step):
        yield slice(top, top + step)


def _pieces(data: bytes, stored: Layout) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Every strip or tile: its plane, upper and left edge, and its numbers `[rows, columns, channels]`."""
    width, height = stored.piece
    across, down = -(-stored.width // width), -(-stored.height // height)
    channels = 1 if stored.planar else stored.samples
    planes = stored.samples if stored.planar else 1
    pieces = planes * across * down
    if len(stored.offsets) < pieces or (stored.compression != _NONE and len(stored.counts) < pieces):
        raise OSError("truncated")
    for plane in range(planes):
        if stored.planar and plane not in stored.kept:
            continue
        for at in range(across * down):
            top, left = at // across * height, at % across * width
            rows = height if stored.tiled else min(height, stored.height - top)
            offset = stored.offsets[plane * across * down + at]
            if offset == 0:
                continue  # never written, as all of it is nought
            if stored.compression == _NONE:  # some writers leave the counts at nought
                count = rows * -(-width * channels * stored.bits // 8)
            else:
                # No more than pixels can take, as all pieces may name the same bytes, and as many as there are.
                most = _MOST_OF_A_PIECE + 2 * rows * -(-width * channels * stored.bits // 8)
                count = min(stored.counts[plane * across * down + at], most)
            piece = data[offset : offset + count]
            if len(piece) < count:
                raise OSError("truncated")
            if stored.reversed_bits:
                piece = piece.translate(_REVERSED)
            yield plane, top, left, _numbers(piece, stored, rows, width, channels)


def _numbers(piece: bytes, stored: Layout, rows: int, width: int, channels: int) -> np.ndarray:
    row = -(-width * channels * stored.bits // 8)
    unpacked = _decompressed(piece, stored.compression, row, rows)
    if len(unpacked) < row * rows:
        raise OSError("truncated")
    lines = np.frombuffer(unpacked, np.uint8, row * rows).reshape(rows, row)
    if stored.bits not in (8, 16, 32, 64):
        return _unpacked(lines, stored.bits, width * channels, stored.kind).reshape(rows, width, channels)
    size = stored.bits // 8
    if stored.predictor == 3:
        # Each byte is the difference from the one before; the highest bytes of all numbers come first.
        lines = np.add.accumulate(lines.reshape(rows, -1, channels), axis=1, dtype=np.uint8)
        lines = np.ascontiguousarray(lines.reshape(rows, size, -1).transpose(0, 2, 1)).reshape(rows, row)
        return lines.view(f">f{size}").reshape(rows, width, channels)
    values = lines.view(f"{stored.order}{_FORMATS[stored.number]}{size}").reshape(rows, width, channels)
    if stored.predictor == 2:
        whole = values.view(f"{stored.order}u{size}")
        native = whole.astype(whole.dtype.newbyteorder("="))
        values = np.add.accumulate(native, axis=1, dtype=native.dtype).view(f"{_FORMATS[stored.number]}{size}")
    return values


def _unpacked(lines: np.ndarray, bits: int, count: int, kind: np.dtype[Any]) -> np.ndarray:
    """Numbers of any number of bits, the highest first, rows beginning at whole bytes: to `[rows, count]`."""
    result = np.zeros((len(lines), count), kind)
    step = max(1, _BLOCK // (8 * lines.shape[1] or 1))
    for top in range(0, len(lines), step):
        each = np.unpackbits(lines[top : top + step], axis=1)[:, : count * bits].reshape(-1, count, bits)
        for bit in range(bits):
            result[top : top + step] |= each[..., bit].astype(kind) << kind.type(bits - 1 - bit)
    return result


def _decompressed(piece: bytes, compression: int, row: int, rows: int) -> bytes:
    if compression == _NONE:
        return piece
    if compression in _BY_ZLIB:
        return zlib.decompressobj().decompress(piece, row * rows)
    # A TIFF of this piece alone, as grey bytes, or as four bytes a pixel, of which Pillow allows as many more bytes.
    bytes_a_pixel = 1 if row % 4 else 4
    tags = {256: row // bytes_a_pixel, 257: rows, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: rows}
    tags |= {279: len(piece)} if bytes_a_pixel == 1 else {262: 5, 277: 4, 279: len(piece)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    order = "<" if sys.byteorder == "little" else ">"
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    head += b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()) + bytes(4)
    with Image.open(io.BytesIO(head + piece), formats=("TIFF",)) as image:
        return image.tobytes()
