"""What decoding a file will take in memory, by its headers alone and before anything large is allocated.

Two questions, as opening a file already allocates for what is beside the pixels (metadata, colour profiles), and
decoding for more than the pixels (tiles, coefficients, whole frames). The answers are upper limits, in bytes; peak
memory held beside them is in `tests/massl/core/images/test_decode_cost.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, PngImagePlugin

from massl.core.images.content import Content, unpacked

MOST_EXIF = 16 << 20  # bytes of a JPEG's, in 256 parts
# Bytes that tags take beyond four times the file: where the strips of the longest scans lie takes a third. Whatever the
# machine has, as what is free of a large one is more than a picture may take of it.
MOST_TAGS = 256 << 20


@dataclass(frozen=True)
class Allowance:
    """What decoding one picture may take. A small file may unpack to a thousand times its size.

    Attributes:
        memory: bytes at a time.
        unpacked: bytes of all pixels, as they are stored, of what is read a few rows at a time.
    """

    memory: int
    unpacked: int


# Of pictures that others send. So several of them are decoded side by side within one memory budget, and each takes
# seconds of the processor: a photograph of 100 megapixels passes, a PNG of 16 bits up to 67.
FROM_OTHERS = Allowance(memory=2 << 30, unpacked=512 << 20)

# Pillow's modes in which a large picture is averaged down before anything else is done with it.
REDUCED = ("L", "RGB", "RGBA", "CMYK", "LAB", "YCbCr")

# Bytes a pixel of a decoded picture, by Pillow's mode; all others have 4.
_STORED = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}

# Bytes a pixel that a decoder holds beside the decoded picture, at most and once it has decoded: measured, rounded up.
_BESIDE = {
    "WEBP": (16, 12),  # two canvases, the frame's own pixels, and their copy
    "AVIF": (16, 10),  # planes of up to 16 bits and with alpha, the decoder's own, and their copy
    "HEIF": (14, 8),
}

# Bytes a pixel that turning a picture upright and converting it to opaque sRGB takes beside it.
_CONVERTED = {"1": 6, "L": 6, "RGB": 9, "RGBX": 9, "CMYK": 9, "YCbCr": 9, "LAB": 9, "I;16": 14, "I": 14, "F": 14}
_CONVERTED_FROM_ALPHA = 20
_SIXTEEN_BITS = 20  # bytes a pixel of a PNG of 16 bits, which may be decoded twice; see `massl.core.images.srgb`
_IN_BANDS = 32 << 20  # bytes for what is converted a few rows at a time

_DEVELOPED = 26  # bytes a pixel: the sensor's values, four channels of 16 bits, the picture, and its copies

_ROW = 64  # bytes that Pillow holds for each row of a picture and of its copies: where it lies, and its filling up
_OVERHEAD = 1 << 20  # the library's own, whatever the picture
_ENTRY = 400  # bytes of Python objects for an entry of a TIFF directory, or for where a strip or tile lies
_MOST_ENTRIES = 1_000_000  # entries looked at; a file with more is said to take as much as they would
_AS_OBJECTS = 20  # bytes of Python objects for each byte of numbers in EXIF

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _SAMPLES, _ROWS_PER_STRIP = (
    256, 257, 258, 259, 262, 273, 277, 278,
)  # fmt: skip
_TILE_WIDTH, _TILE_LENGTH, _TILES, _INSIDE = 322, 323, 324, (34665, 34853, 40965)
_PICTURES, _YCBCR = (6, 7, 50001), 6  # compressed as JPEG or WebP; brightness and colour, often of fewer pixels
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def opening(data: Content) -> int:
    """Bytes that it takes to open a file of this content: to read everything but the pixels.

    Raises:
        ValueError: of a JPEG with more EXIF than a camera writes, as Pillow joins the parts, and copies all for each;
            of tags that take more than `MOST_TAGS`, as they name the same bytes again and again.
    """
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        needed = _of_directories(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        needed = _of_png(data)
    elif data[:2] == b"\xff\xd8":
        segments = list(_jpeg_segments(data[:]))
        profiles_and_others = sum(len(segment.content) for segment in segments)
        exif = b"".join(s.content[6:] for s in segments if s.marker == 0xE1 and s.content[:6] == b"Exif\0\0")
        if len(exif) > MOST_EXIF:
            raise ValueError(f"a JPEG with {len(exif) >> 20} MiB of EXIF")
        pictures = b"".join(s.content[4:] for s in segments if s.marker == 0xE2 and s.content[:4] == b"MPF\0")
        needed = 3 * profiles_and_others + of_exif(exif) + of_exif(pictures)
    elif data[4:8] == b"ftyp" or data[:4] == b"RIFF":
        # Libraries copy the file. Where its EXIF lies is for them to find out: any that there may be. Those for HEIF
        # and AVIF write it anew, without its orientation, and so make objects of all of it.
        objects = max(map(of_exif, _embedded_exif(data[:])), default=0)
        needed = 2 * len(data) + _checked(_AS_OBJECTS * objects, data)
    else:
        needed = len(data)
    return _OVERHEAD + needed


def decoding(
    image: Image.Image, data: Content, width: int, height: int, shortest: int | None, more: int | None = None
) -> int:
    """Bytes that it takes to decode a file that is open and convert it to sRGB.

    Args:
        image: the open file, nothing of it decoded yet, at the size at which it will be.
        data: its content.
        width: in pixels, of the file's picture.
        height: likewise.
        shortest: the shorter side, in pixels, that is needed of it.
        more: bytes a pixel that are made of the decoded picture; those of converting it if left out.
    """
    stored = _STORED.get(image.mode, 4)
    see_through = image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in image.info
    converted = _CONVERTED_FROM_ALPHA if see_through else _CONVERTED.get(image.mode, 16)
    converted = converted if more is None else more
    needed = _OVERHEAD + _ROW * image.height
    if shortest and min(image.size) >= 4 * shortest and (see_through or image.mode in REDUCED):
        converted = stored + 1
        needed += _IN_BANDS
    beside, left = _BESIDE.get(image.format or "", (0, 0))
    needed += image.width * image.height * (stored + max(beside, left + converted))
    if image.format in ("JPEG", "MPO"):
        needed += width * height * _coefficients(data[:])
    elif image.format == "TIFF":
        needed += _of_pieces(data)
    elif image.format == "PNG" and data[24:25] == b"\x10":
        needed += _SIXTEEN_BITS * image.width * image.height
    return needed


def developing(sensor: int) -> int:
    """Bytes that it takes to develop a RAW photograph of a sensor of so many pixels."""
    return _OVERHEAD + _DEVELOPED * sensor


def largest_piece(data: Content) -> tuple[int, int]:
    """Width and height in pixels of what a TIFF is decoded by, a tile or a strip, padding included; else 0, 0."""
    tags = _first_tags(data)
    if not tags or tags.get(_COMPRESSION, 1) == 1:  # what isn't compressed is read row by row
        return 0, 0
    if _TILE_WIDTH in tags or _TILE_LENGTH in tags:
        return tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    height = tags.get(_LENGTH, 0)
    return tags.get(_WIDTH, 0), min(height, tags.get(_ROWS_PER_STRIP, height))


def of_exif(exif: bytes) -> int:
    """Bytes that it takes to read EXIF.

    Raises:
        ValueError: it takes more than `MOST_TAGS`.
    """
    return _of_directories(exif.removeprefix(b"Exif\0\0"))


def of_text(profile: str) -> bytes:
    """The EXIF in a PNG's text "Raw profile type exif", as ImageMagick writes it; empty if there is none."""
    try:
        return bytes.fromhex("".join(profile.split("\n")[3:]))
    except ValueError:
        return b""


def _of_pieces(data: Content) -> int:
    width, height = largest_piece(data)
    tags = _first_tags(data)
    # The piece and its copy; of pictures in a picture also their planes and coefficients, and the pixels as RGBA.
    nested = 16 if tags.get(_COMPRESSION) in _PICTURES or tags.get(_PHOTOMETRIC) == _YCBCR else 0
    return width * height * (2 * tags.get(_SAMPLES, 1) * max(8, tags.get(_BITS, 8)) // 8 + nested)


# TIFF, and EXIF, which is one ----------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    tag: int
    size: int  # of the value, in bytes
    first: int  # its first number


def _entries(data: Content, at: int | None = None) -> Iterator[_Entry]:
    """The entries of a directory of a TIFF; of the first, if `at`, in bytes, is left out. Ends where they do."""
    order = ">" if data[:2] == b"MM" else "<"
    big = data[2:4] in (b"+\0", b"\0+")
    if at is None:
        try:
            (at,) = unpacked(order + ("Q" if big else "L"), data, 8 if big else 4)
        except struct.error:
            return
    head, entry, short = (order + "Q", order + "HHQ8s", 8) if big else (order + "H", order + "HHL4s", 4)
    try:
        (count,) = unpacked(head, data, at)
        start = at + struct.calcsize(head)
        for number in range(count):
            tag, kind, values, field = unpacked(entry, data, start + number * struct.calcsize(entry))
            unit = _SIZES.get(kind, 0)
            where = struct.unpack(order + ("Q" if big else "L"), field)[0] if unit * values > short else None
            first = field if where is None else data[where : where + 8] if where < len(data) else b""
            size = unit * values if where is None else min(unit * values, max(0, len(data) - where))
            number_of = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}.get(kind)
            value = struct.unpack_from(order + number_of, first)[0] if number_of and len(first) >= unit else 0
            yield _Entry(tag, size, value)
    except (struct.error, OverflowError):
        return


def _first_tags(data: Content) -> dict[int, int]:
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return {}
    wanted = {_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH}
    return {entry.tag: entry.first for entry in _entries(data) if entry.tag in wanted}


def _of_directories(data: Content) -> int:
    """Bytes that the values of a TIFF's first directory and of those inside it take, each as often as it is named.

    Many entries may name the same bytes of the file, so that a small one takes much.

    Raises:
        ValueError: it takes more than `MOST_TAGS`.
    """
    needed = seen = 0
    pending: list[int | None] = [None]
    done: set[int | None] = set()
    while pending:
        at = pending.pop()
        if at in done:
            continue
        done.add(at)
        for entry in _entries(data, at):
            seen += 1
            needed += 2 * entry.size + _ENTRY
            if entry.tag in (_STRIPS, _TILES):
                needed += entry.size // 2 * _ENTRY  # at least two bytes for where each lies
            if entry.tag in _INSIDE:
                pending.append(entry.first)
            if seen > _MOST_ENTRIES:
                return _checked(needed, data)
    return _checked(needed, data)


def _checked(needed: int, data: Content) -> int:
    if needed > MOST_TAGS + 4 * len(data):
        raise ValueError(f"its tags take {needed >> 20:,} MiB")
    return needed


# The others -----------------------------------------------------------------------------------------------------------


def _of_png(data: Content) -> int:
    needed = text = 0
    at = 8
    while at + 8 <= len(data):
        length, kind = unpacked(">L4s", data, at)
        content = min(length, len(data) - at - 8)
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            # Compressed a thousandfold at most, and then text of up to four bytes a character.
            needed += content
            text += 5 * min(1032 * content, max(content, PngImagePlugin.MAX_TEXT_CHUNK))
        elif kind == b"eXIf":
            needed += content + of_exif(data[at + 8 : at + 8 + content])
        elif kind not in (b"IDAT", b"fdAT"):
            needed += 3 * content
        at += length + 12
    return needed + min(text, 5 * PngImagePlugin.MAX_TEXT_MEMORY)


class _Segment(NamedTuple):
    marker: int
    content: bytes


def _jpeg_segments(data: bytes) -> Iterator[_Segment]:
    """A JPEG's segments up to that which begins its first scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)
            if at < 0:
                return
            continue
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield _Segment(marker, data[at + 4 : at + 2 + length])
        if marker in (0xDA, 0xD9):
            return
        at += 2 + max(2, length)


def jpeg_says_something(data: bytes) -> bool:
    """Whether a JPEG holds more than a picture: EXIF, XMP, words of IPTC, or further pictures."""
    segments = ((segment.marker, segment.content[:4]) for segment in _jpeg_segments(data))
    return any(marker in (0xE1, 0xED) or (marker, start) == (0xE2, b"MPF\0") for marker, start in segments)


def _coefficients(data: bytes) -> int:
    """Bytes a pixel of a JPEG's coefficients, which are all kept where a scan doesn't hold the whole of a block."""
    frame = scan = b""
    for segment in _jpeg_segments(data):
        if 0xC0 <= segment.marker <= 0xCF and segment.marker not in (0xC4, 0xC8, 0xCC):
            frame, progressive = segment.content, segment.marker in (0xC2, 0xC6, 0xCA, 0xCE)
        elif segment.marker == 0xDA:
            scan = segment.content
    if len(frame) < 6 or not scan or (scan[0] == frame[5] and not progressive):
        return 0
    factors = [(place >> 4) * (place & 15) for place in frame[7::3][: frame[5]]]
    return 2 * -(-sum(factors) // max(1, max(factors, default=1)))


def _embedded_exif(data: bytes) -> Iterator[bytes]:
    for start in (b"II*\0", b"MM\0*"):
        at = data.find(start)
        for _ in range(8):
            if at < 0:
                break
            yield data[at:]
            at = data.find(start, at + 4)
