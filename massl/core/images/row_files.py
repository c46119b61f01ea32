"""Large pictures cut into small files of some rows each, which decode to just these rows of the picture.

A TIFF is cut where its strips or rows of tiles begin, one that isn't compressed anywhere, and the bytes are copied.
A PNG is decompressed as a stream, and each row filtered back beside the one above it. So whoever reads the small files
reads the picture, by the same decoders, without ever holding more than some rows.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from massl.core.images.content import Content

_BAND = 1 << 21  # pixels of a small file, unless the pieces that a picture is stored in are larger
_READ = 1 << 18  # bytes of a PNG that are decompressed at a time

# TIFF -----------------------------------------------------------------------------------------------------------------

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANAR = 256, 257, 258, 259, 277, 278, 284
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_SUBSAMPLING = 530
# What says how pixels are stored and meant; 42113 is the number for "nothing was measured here".
_OF_PIXELS = (
    _WIDTH, _BITS, _COMPRESSION, 262, 266, _SAMPLES, _PLANAR, 292, 293, 317, 320, _TILE_WIDTH, _TILE_LENGTH, 332, 338,
    339, 347, 529, _SUBSAMPLING, 531, 532, 42113,
)  # fmt: skip
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8}
_SHORT, _LONG, _LONG_8 = 3, 4, 16
_PLAIN = 1
_IN_PIECES = (_PLAIN, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000, 50001)  # each piece is compressed by itself
_INTEGERS = (_SHORT, _LONG, _LONG_8)
_MOST_ENTRIES = 4_096
_MOST_OF_A_TAG = 1 << 20  # bytes of what says how pixels are meant, more than any palette has
_MOST_PIECES = 1 << 22
_MOST_BESIDE = 1 << 16  # bytes of a compressed piece, beside twice those of its pixels


@dataclass(frozen=True)
class TiffRows:
    """The first page of a TIFF.

    Attributes:
        tags: of those that are copied, type, count and value.
        height, width: in pixels.
        piece: width and height of a strip or tile, in pixels.
        tiled: whether these are tiles.
        planes: how often the picture is stored, each time with other channels.
        row_bytes: of a row of a piece, unpacked.
        offsets, counts: of the pieces, int64, plane by plane.
    """

    content: Content
    order: str
    big: bool
    tags: dict[int, tuple[int, int, bytes]]
    width: int
    height: int
    piece: tuple[int, int]
    tiled: bool
    planes: int
    row_bytes: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @cached_property
    def band(self) -> int:
        """Rows of a small file; of the last one there may be fewer."""
        step = self.piece[1]
        return min(-(-self.height // step) * step, step * max(1, _BAND // (self.width * step)))

    @cached_property
    def band_bytes(self) -> int:
        """Bytes of a small file or of its pixels, unpacked, whichever are more."""
        across, down = -(-self.width // self.piece[0]), -(-self.height // self.piece[1])
        pixels = across * self.row_bytes * self.band * self.planes
        if self._is_plain:
            return pixels
        # Many small pieces may all name the same bytes.
        counts = np.minimum(self.counts[: self.planes * across * down], self._most(self.piece[1]))
        rows = counts.reshape(self.planes, down, across).sum((0, 2))
        return max(pixels, int(np.add.reduceat(rows, np.arange(0, down, self.band // self.piece[1])).max()))

    @property
    def unpacked(self) -> int:
        """Bytes of all pixels, as they are stored."""
        return -(-self.width // self.piece[0]) * self.row_bytes * self.height * self.planes

    def _most(self, rows: int) -> int:
        """Bytes of a compressed piece of so many rows."""
        return _MOST_BESIDE + 2 * self.row_bytes * rows

    def files(self) -> Iterator[bytes]:
        """The small files, from the top to the bottom.

        Raises:
            OSError: the file ends before its picture does.
        """
        down = self.piece[1]
        for top in range(0, self.height, self.band):
            bottom = min(self.height, top + self.band)
            yield self._file(top // down, -(-bottom // down), bottom - top)

    def _file(self, first: int, end: int, rows: int) -> bytes:
        """That of the rows of pieces from `first` to before `end`."""
        across, down = -(-self.width // self.piece[0]), -(-self.height // self.piece[1])
        pieces = []
        for plane in range(self.planes):
            start = plane * across * down
            for at in range(start + first * across, start + end * across):
                offset = int(self.offsets[at])
                high = self.piece[1] if self.tiled else min(self.piece[1], self.height - (at - start) * self.piece[1])
                count = self.row_bytes * high if self._is_plain else min(int(self.counts[at]), self._most(high))
                piece = self.content[offset : offset + count] if offset else b""  # never written: all of it is nought
                if offset and len(piece) < count:
                    raise OSError("truncated")
                pieces.append(piece)
        return self._written(rows, pieces)

    @property
    def _is_plain(self) -> bool:
        return _number(self.tags.get(_COMPRESSION), self.order, _PLAIN) == _PLAIN

    def _written(self, rows: int, pieces: list[bytes]) -> bytes:
        kind, code = (_LONG_8, "Q") if self.big else (_LONG, "L")
        counts = [len(piece) for piece in pieces]
        size = 8 if self.big else 4
        tags = dict(self.tags)
        places, sizes = (_TILES, _TILE_BYTES) if self.tiled else (_STRIPS, _STRIP_BYTES)
        tags[_LENGTH] = (_LONG, 1, struct.pack(f"{self.order}L", rows))
        tags[sizes] = (kind, len(pieces), struct.pack(f"{self.order}{len(pieces)}{code}", *counts))
        if not self.tiled:
            tags[_ROWS] = (_LONG, 1, struct.pack(f"{self.order}L", self.piece[1]))
        tags[places] = (kind, len(pieces), bytes(size * len(pieces)))
        head, entry = (16, 20) if self.big else (8, 12)
        behind = head + (8 if self.big else 2) + entry * len(tags) + size
        values = dict.fromkeys(tags, behind)
        for tag, (_, _, value) in tags.items():
            values[tag] = behind
            behind += (len(value) + len(value) % 2) if len(value) > size else 0
        starts = behind + np.concatenate([[0], np.cumsum(counts)[:-1]])
        starts = np.where(np.array(counts) > 0, starts, 0)
        tags[places] = (kind, len(pieces), struct.pack(f"{self.order}{len(pieces)}{code}", *starts.tolist()))
        mark = b"II" if self.order == "<" else b"MM"
        magic = ("HHHQQ", 43, 8, 0, 16, len(tags)) if self.big else ("HLH", 42, 8, len(tags))
        written = io.BytesIO()
        written.write(mark + struct.pack(f"{self.order}{magic[0]}", *magic[1:]))
        for tag, (kind_of, count, value) in sorted(tags.items()):
            where = value.ljust(size, b"\0") if len(value) <= size else struct.pack(f"{self.order}{code}", values[tag])
            written.write(struct.pack(f"{self.order}HH{code}", tag, kind_of, count) + where)
        written.write(bytes(size))
        for _, _, value in tags.values():
            if len(value) > size:
                written.write(value + bytes(len(value) % 2))
        for piece in pieces:
            written.write(piece)
        return written.getvalue()


def of_tiff(content: Content) -> TiffRows | None:
    """The first page of a TIFF; None where it isn't stored in pieces that can be read one by one."""
    if content[:4] not in (b"II*\0", b"MM\0*", b"II+\0"):
        return None
    try:
        order, big = "<" if content[:2] == b"II" else ">", content[2:3] == b"+"
        tags, pieces = _directory(content, order, big)
        return _tiff_rows(content, order, big, tags, pieces)
    except (struct.error, ValueError, OverflowError, ZeroDivisionError):
        return None  # damaged, of which the decoder will say more


def _directory(
    content: Content, order: str, big: bool
) -> tuple[dict[int, tuple[int, int, bytes]], dict[int, NDArray[np.int64]]]:
    """The tags of pixels of the first page, and the numbers that say where its pieces lie."""
    pointer, head, entry, inline = ("Q", "Q", 20, 8) if big else ("L", "H", 12, 4)
    start = 8 if big else 4
    (at,) = struct.unpack(order + pointer, content[start : start + inline])
    (count,) = struct.unpack(order + head, content[at : at + struct.calcsize(order + head)])
    if count > _MOST_ENTRIES:
        raise ValueError
    first = at + struct.calcsize(order + head)
    # What is read of a file is bounded before it is: its tags are read before any memory was admitted for it.
    entries = content[first : first + count * entry]
    tags: dict[int, tuple[int, int, bytes]] = {}
    pieces: dict[int, NDArray[np.int64]] = {}
    for row in range(count):
        tag, kind, values = struct.unpack_from(f"{order}HH{pointer}", entries, row * entry)
        if tag not in (*_OF_PIXELS, _LENGTH, _ROWS, _STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES):
            continue
        of_pieces = tag in (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES)
        size = _SIZES.get(kind, 0) * values
        if of_pieces and (kind not in _INTEGERS or values > _MOST_PIECES):
            raise ValueError
        if tag in tags or tag in pieces or (not of_pieces and size > _MOST_OF_A_TAG):
            raise ValueError
        held = entries[row * entry + entry - inline : (row + 1) * entry]
        if size > inline:
            (where,) = struct.unpack(order + pointer, held)
            held = content[where : where + size]
        if len(held) < size or not size:
            raise ValueError
        if of_pieces:
            numbers = np.frombuffer(held[:size], f"{order}u{_SIZES[kind]}")
            # Those of 64 bits may be larger than an int64.
            pieces[tag] = np.minimum(numbers, len(content)).astype(np.int64)
        else:
            tags[tag] = (kind, values, held[:size])
    return tags, pieces


def _number(tag: tuple[int, int, bytes] | None, order: str, default: int) -> int:
    """The first number of a tag."""
    if tag is None:
        return default
    code = {1: "B", _SHORT: "H", _LONG: "L", _LONG_8: "Q"}.get(tag[0])
    if code is None:
        raise ValueError
    return int(struct.unpack_from(order + code, tag[2])[0])


def _tiff_rows(
    content: Content,
    order: str,
    big: bool,
    tags: dict[int, tuple[int, int, bytes]],
    pieces: dict[int, NDArray[np.int64]],
) -> TiffRows | None:
    def number(tag: int, default: int) -> int:
        return _number(tags.get(tag), order, default)

    width, height, tiled = number(_WIDTH, 0), number(_LENGTH, 0), _TILE_WIDTH in tags
    compression, samples = number(_COMPRESSION, _PLAIN), number(_SAMPLES, 1)
    planar = number(_PLANAR, 1) == 2
    if compression not in _IN_PIECES or min(width, height, samples) < 1:
        return None
    strip = width, min(height, number(_ROWS, height))
    piece = (number(_TILE_WIDTH, 0), number(_TILE_LENGTH, 0)) if tiled else strip
    offsets, counts = (pieces.get(tag) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))
    row = -(-piece[0] * (1 if planar else samples) * number(_BITS, 1) // 8)
    planes = samples if planar else 1
    expected = planes * -(-width // piece[0]) * -(-height // piece[1])
    if offsets is None or len(offsets) < expected or row < 1:
        return None
    if compression == _PLAIN:
        counts = np.zeros(expected, np.int64)  # some writers leave them at nought
        if not tiled:
            piece, offsets = _finer(offsets[:expected], piece, height, row, planes)
    elif counts is None or len(counts) < expected:
        return None
    tags = {tag: value for tag, value in tags.items() if tag not in (_LENGTH, _ROWS)}
    return TiffRows(content, order, big, tags, width, height, piece, tiled, planes, row, offsets, counts)


def _finer(
    offsets: NDArray[np.int64], piece: tuple[int, int], height: int, row: int, planes: int
) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Strips of plain rows as strips of fewer rows: which, and where they lie."""
    width, down = piece
    wanted = max(1, _BAND // width)
    if down <= wanted:
        return piece, offsets
    step = next(step for step in range(wanted, 0, -1) if down % step == 0 or down >= height)
    each = np.arange(0, down, step) * row
    finer = offsets.reshape(planes, -1)[..., None] + np.where(offsets.reshape(planes, -1)[..., None] > 0, each, 0)
    count = -(-height // step)
    return (width, step), np.ascontiguousarray(finer.reshape(planes, -1)[:, :count]).reshape(-1)


# PNG ------------------------------------------------------------------------------------------------------------------

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each type of colour
_OF_BYTES = {1: 0, 2: 4, 3: 2, 4: 6}  # the type of colour whose pixels have so many bytes, at 8 bits each
_DEEP = 16  # bits of a channel
_MOST_CHUNKS = 2_000_000  # of 512 bytes, in a file of 1 GiB
_EXIF = b"Raw profile type exif"  # as ImageMagick writes it, in a text


@dataclass(frozen=True)
class PngRows:
    """A PNG whose rows follow one another.

    Attributes:
        header: what its first chunk says behind width and height.
        kept: the chunks that say how numbers are meant, palette and transparency.
        first: where the first chunk of pixels begins, in bytes.
        pixel: bytes of a pixel, 1 where several share one.
        row_bytes: of a row.
    """

    content: Content
    width: int
    height: int
    header: bytes
    kept: bytes
    first: int
    pixel: int
    row_bytes: int

    @cached_property
    def band(self) -> int:
        """Rows of a small file; of the last one there may be fewer."""
        return min(self.height, max(1, _BAND // self.width))

    @property
    def band_bytes(self) -> int:
        """Bytes of the pixels of a small file, as stored, and of what is held beside them while it is made."""
        return 6 * self.row_bytes * self.band

    @property
    def unpacked(self) -> int:
        """Bytes of all pixels, as they are stored."""
        return self.row_bytes * self.height

    @property
    def channels(self) -> int:
        """Numbers of a pixel."""
        return _CHANNELS[self.header[1]]

    @property
    def is_deep(self) -> bool:
        """Whether a channel has 16 bits."""
        return self.header[0] == _DEEP

    def files(self) -> Iterator[bytes]:
        """The small files, from the top to the bottom.

        Raises:
            OSError: the file ends before its picture does.
            zlib.error: damaged.
        """
        for plain in self._rows():
            lines = np.zeros((len(plain), 1 + self.row_bytes), np.uint8)
            lines[:, 1:] = plain
            yield _png(self.width, len(plain), self.header, self.kept, lines.tobytes())

    def numbers(self) -> Iterator[NDArray[np.uint16]]:
        """The numbers of a deep picture, uint16 `[h, W, C]`, from the top to the bottom.

        Raises:
            OSError: the file ends before its picture does.
            zlib.error: damaged.
        """
        for plain in self._rows():
            yield plain.view(">u2").reshape(len(plain), self.width, self.channels).astype(np.uint16)

    def _rows(self) -> Iterator[NDArray[np.uint8]]:
        """The bytes of the rows of each small file as they were before they were filtered, uint8 `[h, row_bytes]`."""
        above = bytes(self.row_bytes)
        stream = self._decompressed()
        waiting = bytearray()
        for top in range(0, self.height, self.band):
            rows = min(self.band, self.height - top)
            needed = rows * (1 + self.row_bytes)
            while len(waiting) < needed:
                more = next(stream, b"")
                if not more:
                    raise OSError("truncated")
                waiting += more
            filtered = bytes(waiting[:needed])
            del waiting[:needed]
            plain = self._unfiltered(above, filtered, rows)
            above = plain[-1].tobytes()
            yield plain

    def _unfiltered(self, above: bytes, filtered: bytes, rows: int) -> NDArray[np.uint8]:
        if self.pixel <= 4:
            return _unfiltered(b"\0" + above + filtered, rows + 1, self.pixel)[1:]
        # Each byte of a pixel is filtered beside the same byte of its neighbours, so half of a pixel's bytes can be
        # filtered back without the others. Pillow gives no more than 4 bytes of a pixel.
        lines = np.frombuffer(b"\0" + above + filtered, np.uint8).reshape(rows + 1, 1 + self.row_bytes)
        pixels = lines[:, 1:].reshape(rows + 1, self.width, 2, self.pixel // 2)
        plain = np.empty((rows + 1, self.width, 2, self.pixel // 2), np.uint8)
        for half in range(2):
            part = np.empty((rows + 1, 1 + self.row_bytes // 2), np.uint8)
            part[:, 0] = lines[:, 0]
            part[:, 1:] = pixels[:, :, half].reshape(rows + 1, -1)
            plain[:, :, half] = _unfiltered(part.tobytes(), rows + 1, self.pixel // 2).reshape(pixels[:, :, 0].shape)
        return plain.reshape(rows + 1, self.row_bytes)[1:]

    def _decompressed(self) -> Iterator[bytes]:
        """The stream of pixels, some at a time."""
        unpack = zlib.decompressobj()
        at = self.first
        while True:
            length, kind = struct.unpack(">L4s", self.content[at : at + 8].ljust(8, b"\0"))
            if kind != b"IDAT":
                return
            for start in range(0, length, _READ):
                packed = self.content[at + 8 + start : at + 8 + min(length, start + _READ)]
                while packed:
                    if more := unpack.decompress(packed, _READ):
                        yield more
                    packed = unpack.unconsumed_tail
            at += 12 + length


def of_png(content: Content) -> PngRows | None:
    """A PNG; None where it is interlaced, moves or has EXIF: it isn't read by rows then."""
    if content[:8] != _SIGNATURE or content[12:16] != b"IHDR":
        return None
    width, height, depth, colour, *_, interlaced = struct.unpack(">LLBBBBB", content[16:29].ljust(13, b"\xff"))
    if depth > _DEEP or colour not in _CHANNELS or interlaced or min(width, height) < 1:
        return None
    kept: dict[bytes, bytes] = {}
    at, first = 33, 0
    for _ in range(_MOST_CHUNKS):
        length, kind = struct.unpack(">L4s", content[at : at + 8].ljust(8, b"\0"))
        if kind == b"IEND" or not kind.isalpha():  # no more chunks
            break
        if kind in (b"acTL", b"eXIf") or content[at + 8 : at + 8 + len(_EXIF)] == _EXIF:
            return None  # whether it is turned can be said behind its pixels, too
        if kind == b"IDAT" and not first:
            first = at
        if kind in (b"PLTE", b"tRNS") and length <= 1024 and not first:
            if kind in kept:
                return None  # no honest file has two, and a bomb has millions
            kept[kind] = content[at : at + 12 + length]
        at += 12 + length
    else:
        return None
    if not first:
        return None
    bits = depth * _CHANNELS[colour]
    row = -(-width * bits // 8)
    return PngRows(content, width, height, content[24:29], b"".join(kept.values()), first, max(1, bits // 8), row)


def _unfiltered(lines: bytes, rows: int, pixel: int) -> NDArray[np.uint8]:
    """The bytes of rows of pixels of up to 4 bytes before they were filtered, uint8 `[rows, row_bytes]`."""
    row = len(lines) // rows - 1
    data = _png(row // pixel, rows, bytes([8, _OF_BYTES[pixel], 0, 0, 0]), b"", lines)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image).reshape(rows, row)


def _png(width: int, height: int, header: bytes, kept: bytes, lines: bytes) -> bytes:
    first = _chunk(b"IHDR", struct.pack(">LL", width, height) + header)
    return b"".join((_SIGNATURE, first, kept, _chunk(b"IDAT", zlib.compress(lines, 0)), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(content, zlib.crc32(kind)))
