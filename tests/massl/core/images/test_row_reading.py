"""Large pictures read a few rows at a time give what decoding the whole gives, to the bit; and take little memory."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile

from massl.core.images import file_reading, row_files, row_reading
from massl.core.images.cutting import cut
from massl.core.images.decoding import decode, decode_scaled, dimensions
from massl.core.images.file_reading import open_content, read_bytes
from massl.core.images.image_errors import ImageError, Truncated
from massl.core.images.rendering import EACH_FILE, Rendering, Sampling, Scaling
from massl.core.images.tiff import layout as tiff_layout
from tests.massl.core.images.tiff_files import DEFLATE, GREY, GREY_WHITE_IS_ZERO, LAB, LZW, NONE, PACKBITS, RGB, tiff

WIDTH, HEIGHT = 96, 141
BOXES = [(0, 0, 40, 40), (30, 0, 66, 33), (5, 60, 80, 80), (0, 101, 96, 40), (95, 140, 1, 1), (0, 0, 96, 141)]
WAYS = {"file": EACH_FILE, "fixed": Rendering(fixed=(90.0, 900.0))}


def numbers(channels: int, kind: str) -> np.ndarray:
    draw = np.random.default_rng(channels)
    slope = np.linspace(0, 1, HEIGHT)[:, None, None] + np.linspace(0, 0.4, WIDTH)[None, :, None]
    values = slope + draw.normal(0, 0.05, (HEIGHT, WIDTH, channels))
    if kind == "f4":
        values[3, 4] = np.nan
        return (values * 1000).astype("f4")
    return np.clip(values * (150 if kind == "u1" else 700), 0, None).astype(kind)


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def deep_png(values: np.ndarray, clear: tuple[int, ...] = ()) -> bytes:
    """Of 16 bits a channel, with rows filtered in each of the five ways in turn."""
    height, width, channels = values.shape
    pixel = 2 * channels
    plain = np.zeros((height + 1, pixel * (width + 1)), int)
    plain[1:, pixel:] = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, -1)
    here, left, above, corner = plain[1:, pixel:], plain[1:, :-pixel], plain[:-1, pixel:], plain[:-1, :-pixel]
    guess = left + above - corner
    far = [abs(guess - each) for each in (left, above, corner)]
    paeth = np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, np.where(far[1] <= far[2], above, corner))
    ways = [0 * here, left, above, (left + above) // 2, paeth]
    lines = b"".join(
        bytes([row % 5]) + ((here[row] - ways[row % 5][row]) % 256).astype(np.uint8).tobytes() for row in range(height)
    )
    header = struct.pack(">LLBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"tRNS", struct.pack(f">{len(clear)}H", *clear))] if clear else [])]
    packed = zlib.compress(lines)
    chunks += [(b"IDAT", packed[:500]), (b"IDAT", packed[500:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def files() -> Iterator[tuple[str, bytes]]:
    """A file of each way that rows are stored."""
    colours, grey = numbers(3, "u1"), numbers(1, "u1")
    for compression in (NONE, LZW, DEFLATE, PACKBITS):
        for name, way in {"rows": {"rows": 7}, "tiles": {"tile": 16}}.items():
            yield f"u1 {compression} {name}", tiff(colours, RGB, compression=compression, **way)
            yield f"u2 {compression} {name}", tiff(numbers(1, "u2"), GREY, compression=compression, **way)
    yield "predicted", tiff(numbers(3, "u2"), RGB, compression=DEFLATE, predictor=2, rows=5)
    yield "one strip", tiff(colours, RGB)
    yield "one deep strip", tiff(numbers(1, "u2"), GREY)
    yield "two strips", tiff(colours, RGB, rows=100)
    yield "planes", tiff(colours, RGB, planar=True, rows=9)
    yield "deep planes", tiff(numbers(3, "u2"), RGB, planar=True, tile=16, compression=DEFLATE)
    yield "planes in one strip", tiff(numbers(3, "u2"), RGB, planar=True)
    yield "white is zero", tiff(numbers(1, "u2"), GREY_WHITE_IS_ZERO, rows=4, order=">")
    yield "12 bits", tiff(numbers(1, "u2"), GREY, bits=12, rows=4)
    yield "floating point", tiff(numbers(1, "f4"), GREY, rows=10, compression=DEFLATE, predictor=3)
    yield "lab", tiff(colours, LAB, rows=10)
    yield "big", tiff(numbers(3, "u1"), RGB, rows=10, big=True)
    yield "unused alpha", tiff(np.concatenate([colours, 0 * grey], -1), RGB, rows=10)
    yield (
        "alpha in one row",
        tiff(
            np.concatenate([numbers(3, "u2"), (np.arange(HEIGHT) == 99)[:, None, None] * numbers(1, "u2")], -1),
            RGB,
            rows=10,
        ),
    )
    yield "premultiplied", tiff(np.concatenate([numbers(3, "u2"), numbers(1, "u2")], -1), RGB, extra=[1], rows=10)
    picture = Image.fromarray(colours)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for way in ("jpeg", "tiff_lzw", "zstd"):
        data = saved(picture, "TIFF", compression=way, icc_profile=profile, strip_size=WIDTH * 48)
        yield f"by libtiff {way}", data
    yield "fax", saved(picture.convert("1"), "TIFF", compression="group4", strip_size=WIDTH)
    yield "palette", saved(picture.quantize(32), "TIFF", strip_size=WIDTH * 8)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = picture.quantize(14) if mode == "P" else picture.convert(mode)
        if mode in ("LA", "RGBA"):
            image.putalpha(Image.fromarray(grey[..., 0]))
        yield f"png {mode}", saved(image, "PNG")
    yield "png clear grey", saved(picture.convert("L"), "PNG", transparency=90)
    yield "png clear palette", saved(picture.quantize(14), "PNG", transparency=bytes(range(0, 140, 10)))
    yield "png profile", saved(picture, "PNG", icc_profile=profile)
    for channels in (1, 2, 3, 4):
        values = numbers(channels, "u2")
        yield f"png deep {channels}", deep_png(values)
        yield f"png of 16 bits in use {channels}", deep_png(values * 50)
        if channels in (1, 3):
            yield f"png deep and clear {channels}", deep_png(values, tuple(map(int, values[70, 50])))
    alone = numbers(4, "u2")
    alone[..., 3] = 65_535 * (np.arange(HEIGHT) == 99)[:, None]
    yield "png deep with alpha in one row", deep_png(alone)


FILES = dict(files())


@pytest.fixture
def by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reading, "LARGE", 1)
    monkeypatch.setattr(row_files, "_BAND", 11 * WIDTH)


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode and one.size == other.size and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", FILES)
def test_the_whole_and_its_parts_are_the_same_to_the_bit(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = FILES[name]
    (tmp_path / "file").write_bytes(data)
    for way, rendering in WAYS.items():
        wanted = decode(data, None, rendering=rendering)
        small = decode(data, 20, rendering=rendering)
        sampled, scaled = Sampling(500, rendering), Scaling(rendering)
        decode_scaled(data, sampled, 20)
        with monkeypatch.context() as patch:
            patch.setattr(row_reading, "LARGE", 1)
            patch.setattr(row_files, "_BAND", 11 * WIDTH)
            patch.setattr(file_reading, "_LARGE", 1)
            assert row_reading.files_of(data) is not None
            with open_content(tmp_path / "file") as content:
                assert not isinstance(content, bytes)
                source = data if way == "fixed" else content
                found = decode_scaled(source, scaled, 20)
                assert same(found.picture, small.picture), way
                assert (found.width, found.height, found.clipped) == (small.width, small.height, small.clipped)
                again = Sampling(500, rendering)
                decode_scaled(source, again, 20)
                assert again.masks == sampled.masks
                assert all(np.array_equal(again.taken[kind], sampled.taken[kind]) for kind in sampled.taken)
                parts = dict(cut(source, BOXES, rendering=rendering))
                assert list(parts) == sorted(BOXES, key=lambda box: box[1] + box[3])
                for (x, y, width, height), part in parts.items():
                    assert same(part, wanted.picture.crop((x, y, x + width, y + height))), (way, x, y)


def test_no_more_than_some_rows_are_decoded_at_a_time(by_rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in FILES.items():
        files = row_reading.files_of(data)
        assert files is not None, name
        heights = []
        for file in files.files():
            layout = tiff_layout(file)
            heights.append(layout.height if layout else dimensions(file)[1])
        assert sum(heights) == HEIGHT
        assert max(heights) <= 48, name


@pytest.mark.parametrize(
    "data",
    [
        tiff(numbers(1, "u1"), GREY, compression=LZW),  # one strip
        tiff(numbers(1, "u1"), GREY, rows=7, orientation=6),
        saved(Image.fromarray(numbers(3, "u1")), "PNG", exif=b"Exif\0\0" + tiff(numbers(1, "u1"), GREY, orientation=3)),
        saved(Image.fromarray(numbers(3, "u1")), "JPEG", quality=95),
        saved(Image.fromarray(numbers(3, "u1")), "WEBP", lossless=True),
    ],
    ids=["one strip", "turned", "turned PNG", "JPEG", "WebP"],
)
def test_what_cant_be_read_by_rows_is_cut_from_the_whole(data: bytes, by_rows: None) -> None:
    wanted = decode(data, None).picture
    for (x, y, width, height), part in cut(data, [(0, 0, 40, 40), (50, 30, 30, 60)]):
        assert same(part, wanted.crop((x, y, x + width, y + height)))


def test_a_jpeg_without_its_end_is_cut_and_one_that_lacks_more_is_refused() -> None:
    data = saved(Image.fromarray(numbers(3, "u1")), "JPEG", quality=95)
    wanted = decode(data, None).picture
    ((_, part),) = cut(data[:-2], [(3, 5, 40, 40)])
    assert same(part, wanted.crop((3, 5, 43, 45)))
    with pytest.raises(Truncated):
        list(cut(data[: len(data) // 2], [(3, 5, 40, 40)]))


@pytest.mark.parametrize("name", ["u1 1 rows", "u1 8 tiles", "u2 5 rows", "png RGB", "png deep 4"])
def test_damage_in_the_middle_is_one_reason_and_gives_no_last_part(name: str, by_rows: None) -> None:
    data = FILES[name]
    with pytest.raises(ImageError, match="truncated"):
        list(cut(data[: len(data) * 2 // 3], BOXES))
    with pytest.raises(ImageError, match="truncated"):
        decode(data[: len(data) * 2 // 3], 20)
    if name == "u1 8 tiles":
        offsets = row_files.of_tiff(data)
        assert offsets is not None
        at = int(offsets.offsets[20])
        broken = data[:at] + b"\xff" * 16 + data[at + 16 :]
        with pytest.raises(ImageError, match="damaged"):
            list(cut(broken, BOXES))


def cut_while_it_changes(path: Path, size: int) -> None:
    with open_content(path) as content:
        parts = cut(content, BOXES)
        next(parts)
        os.truncate(path, size)
        list(parts)


def test_a_file_that_shrinks_or_grows_while_it_is_read_is_looked_at_again(
    by_rows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_reading, "_LARGE", 1)
    path = tmp_path / "scan.tif"
    for size in (2_000, 10_000_000):
        path.write_bytes(FILES["u1 1 rows"])
        with pytest.raises(ImageError, match="changed while reading") as told:
            cut_while_it_changes(path, size)
        assert not told.value.lasting
    path.write_bytes(FILES["u1 1 rows"])
    with open_content(path) as content:
        assert content[:] == read_bytes(path)
        assert content[3:3] == b""


def test_a_png_that_claims_more_rows_than_it_has_is_refused_without_holding_them(by_rows: None) -> None:
    data = bytearray(FILES["png RGB"])
    data[20:24] = struct.pack(">L", 150_000)
    data[29:33] = struct.pack(">L", zlib.crc32(bytes(data[12:29])))
    for ask in (lambda: decode(bytes(data), 20), lambda: list(cut(bytes(data), [(0, 0, 90, 90)]))):
        with pytest.raises(ImageError, match="truncated"):
            ask()


def test_nothing_of_a_large_png_is_loaded_as_a_whole(by_rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = PngImageFile.load
    monkeypatch.setattr(PngImageFile, "load", lambda image: (loaded.append(image.height), load(image))[1])
    for name in ("png RGB", "png deep 3", "png deep 4"):
        decode(FILES[name], 20)
        assert len(list(cut(FILES[name], BOXES))) == len(BOXES)
    assert max(loaded) <= 12


def test_a_dark_grey_with_alpha_is_shown_by_the_bits_that_it_uses() -> None:
    values = np.full((8, 8, 2), 2_000, np.uint16)  # of 12 bits
    values[..., 1] = 65_535
    assert decode(deep_png(values)).picture.getpixel((0, 0)) == (125, 125, 125)
