"""Files whose numbers promise much to what reads large pictures by rows: it takes no more than it asked for."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from massl.core.images import row_files
from massl.core.images.content import StoredContent
from massl.core.images.decoding import decode
from massl.core.images.file_reading import open_content
from massl.core.images.image_errors import ImageError
from massl.core.images.row_files import PngRows, TiffRows

SIDE = 8192  # pixels
LONG, LONG_8, BYTE = 4, 16, 1
DEFLATE = 8
Entry = tuple[int, int, int, int]  # tag, type, how many, and the value or where it lies
PAGE: list[Entry] = [(256, 4, 1, SIDE), (257, 4, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, DEFLATE), (262, 3, 1, 1)]


def write_tiff(path: Path, entries: list[Entry], size: int, *parts: tuple[int, bytes]) -> Path:
    """A BigTIFF of so many bytes, nought but for its directory and these parts."""
    with path.open("wb") as file:
        file.write(b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, len(entries)))
        file.write(b"".join(struct.pack("<HHQQ", *entry) for entry in sorted(entries)) + bytes(8))
        for place, part in parts:
            file.seek(place)
            file.write(part)
        file.truncate(size)
    return path


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png(*before: bytes, behind: bytes = b"") -> bytes:
    """A grey palette PNG with these chunks before its pixels, and some behind them."""
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", SIDE, SIDE, 8, 3, 0, 0, 0))
    pixels = zlib.compress(bytes(SIDE * (SIDE + 1)), 1)
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *before, chunk(b"IDAT", pixels), behind, chunk(b"IEND", b"")))


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """Fails where Python and NumPy allocate more bytes at a time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit


def rows_of(path: Path) -> TiffRows | PngRows | None:
    with path.open("rb") as file:
        content = StoredContent(file)
        return row_files.of_png(content) or row_files.of_tiff(content)


@pytest.mark.parametrize("kind", ["bytes", "numbers", "palette", "tag twice"])
def test_a_large_tag_is_not_read_before_memory_was_admitted_for_it(tmp_path: Path, kind: str) -> None:
    size, place = 256 << 20, 4096
    strips: list[Entry] = [(273, LONG, 512, place), (278, LONG, 1, 16), (279, LONG, 512, place)]
    many = {
        "bytes": [(273, BYTE, 200 << 20, place), (279, BYTE, 200 << 20, place)],
        "numbers": [(273, LONG, 50 << 20, place), (279, LONG, 50 << 20, place)],
        "palette": [*strips, (320, BYTE, 200 << 20, place)],
        "tag twice": [*strips, (320, BYTE, 1 << 20, place), (320, BYTE, 1 << 20, place)],
    }[kind]
    path = write_tiff(tmp_path / "scan.tif", [*PAGE, *many], size)
    with at_most(16 << 20):
        assert rows_of(path) is None


def test_counts_that_are_no_number_of_64_bits_with_a_sign_read_no_more_than_the_piece(tmp_path: Path) -> None:
    count, size = 512, 64 << 20
    offsets = np.full(count, 1 << 20, np.uint64)
    counts = np.full(count, (1 << 64) - (1 << 20) - 1, np.uint64)  # as an int64, nearly up to the file's end
    entries: list[Entry] = [*PAGE, (273, LONG_8, count, 4096), (278, LONG, 1, 16), (279, LONG_8, count, 16384)]
    parts = (4096, offsets.tobytes()), (16384, counts.tobytes())
    path = write_tiff(tmp_path / "scan.tif", entries, size, *parts)
    with path.open("rb") as file:
        rows = row_files.of_tiff(StoredContent(file))
        assert rows is not None
        with at_most(8 * rows.band_bytes):
            assert len(next(rows.files())) <= 2 * rows.band_bytes
    with open_content(path) as content, pytest.raises(ImageError, match="damaged"):
        decode(content, 224)


def test_small_pieces_that_name_the_same_bytes_are_counted_each(tmp_path: Path) -> None:
    width, height = 16, 1 << 21  # a strip a row
    entries: list[Entry] = [(256, 4, 1, width), (257, 4, 1, height), *PAGE[2:]]
    entries += [(273, LONG, height, 1 << 20), (278, LONG, 1, 1), (279, LONG, height, 1 << 24)]
    parts = (1 << 20, np.full(height, 1 << 25, "<u4").tobytes()), (1 << 24, np.full(height, 1 << 16, "<u4").tobytes())
    path = write_tiff(tmp_path / "scan.tif", entries, 40 << 20, *parts)
    rows = rows_of(path)
    assert isinstance(rows, TiffRows)
    assert rows.band_bytes == rows.band << 16  # 8 GiB, which whoever reads it asks for


@pytest.mark.parametrize("kind", [b"PLTE", b"tRNS"])
def test_a_png_with_many_palettes_is_not_copied_for_each(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png(chunk(b"PLTE", bytes(768)), *[chunk(kind, bytes(240))] * 65_536))
    with at_most(2 << 20):
        assert rows_of(path) is None


def test_what_follows_behind_more_chunks_than_are_counted_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "_MOST_CHUNKS", 50)
    path = tmp_path / "picture.png"
    path.write_bytes(png(chunk(b"PLTE", bytes(768)), behind=b"".join([chunk(b"teXt", b"")] * 20)))
    assert rows_of(path) is not None
    path.write_bytes(png(chunk(b"PLTE", bytes(768)), behind=b"".join([chunk(b"teXt", b"")] * 60)))
    assert rows_of(path) is None  # it may be turned


def test_bytes_behind_a_png_are_no_chunks(tmp_path: Path) -> None:
    data = png(chunk(b"PLTE", bytes(768)))
    path = tmp_path / "picture.png"
    path.write_bytes(data[:-12] + bytes(40 << 20))
    with open_content(path) as content:
        stored = CountedReads(content)
        assert row_files.of_png(stored) is not None  # type: ignore[arg-type]
    assert stored.reads < 20


class CountedReads(io.BytesIO):
    """A content that counts how often it is read."""

    def __init__(self, content: object) -> None:
        super().__init__()
        self.reads = 0
        self._content = content

    def __getitem__(self, part: slice) -> bytes:
        self.reads += 1
        found: bytes = self._content[part]  # type: ignore[index]
        return found

    def __len__(self) -> int:
        return len(self._content)  # type: ignore[arg-type]
