"""What decoding takes in memory: what is foretold beside what is measured, and files that are made to take much."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from massl.core.images import decode_cost, decoding, metadata
from massl.core.images import tiff as tiff_reading
from massl.core.images.decoding import decode, open_image, within_memory
from massl.core.images.file_reading import read_bytes
from massl.core.images.image_errors import ImageError, TooLarge
from massl.core.images.rendering import Rendering
from massl.core.memory_budget import ALWAYS, MemoryBudget
from tests.memory import little_memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux tells it")

# Decodes files one after the other, and prints for each the bytes foretold, the bytes taken at most, and what became
# of it. The limit on addresses is for code that goes wrong: this must end, and not the machine.
DECODE = """if True:
    import io, resource, sys
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)
    from pathlib import Path
    from PIL import Image
    from massl.core.images import decode_cost
    from massl.core.images.decoding import FORMATS, decode
    from massl.core.images.image_errors import ImageError
    from massl.core.images.fitting import fit

    def status(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))

    shortest = int(sys.argv[2]) or None
    with io.BytesIO() as first:
        Image.new("RGB", (99, 99)).save(first, "JPEG")
        fit(decode(first.getvalue()).picture, 64, 64)
    for path in sys.argv[3:]:
        data = Path(path).read_bytes()
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        try:
            fit(decode(data, shortest).picture, 64, 64)
            became = "decoded"
        except ImageError as error:
            became = str(error)
        taken = status("VmHWM") - before
        told = decode_cost.opening(data) if became == "decoded" else 0
        if became == "decoded":
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                size = image.size
                if shortest:
                    image.draft("RGB", (shortest, shortest))
                told += decode_cost.decoding(image, data, *size, shortest)
        print(told, taken, became)
"""


def decoded_apart(paths: list[Path], shortest: int = 0, limit: int = 3000) -> Iterator[tuple[int, int, str]]:
    """Bytes foretold, bytes taken, and what became of each file, in a process of at most `limit` MiB of addresses."""
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(limit), str(shortest), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        told, taken, became = line.split(" ", 2)
        yield int(told), int(taken), became


def photograph(width: int, height: int) -> Image.Image:
    """Soft colours with some grain, as an encoder meets them."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("kinds")
    picture = photograph(1600, 1280)
    see_through = picture.copy()
    see_through.putalpha(Image.linear_gradient("L").resize(picture.size))
    grey = np.asarray(picture.convert("L"))
    turned = Image.Exif()
    turned[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "plain.jpg": (picture, {}),
        "turned.jpg": (picture, {"exif": turned}),
        "progressive.jpg": (picture, {"progressive": True}),
        "full-progressive.jpg": (picture, {"progressive": True, "subsampling": 0}),
        "cmyk.jpg": (picture.convert("CMYK"), {"progressive": True}),
        "rgb.png": (picture, {"compress_level": 1}),
        "turned.png": (see_through, {"compress_level": 1, "exif": turned}),
        "grey.png": (picture.convert("L"), {"compress_level": 1}),
        "grey-alpha.png": (picture.convert("LA"), {"compress_level": 1}),
        "palette.png": (picture.quantize(32, Image.Quantize.FASTOCTREE), {"compress_level": 1}),
        "bits.png": (picture.convert("1"), {}),
        "16.png": (Image.fromarray(grey.astype(np.uint16) * 200), {"compress_level": 1}),
        "profile.png": (picture, {"compress_level": 1, "icc_profile": profile}),
        "frame.gif": (picture.quantize(32, Image.Quantize.FASTOCTREE), {}),
        "lossy.webp": (picture, {"method": 0}),
        "lossless.webp": (see_through, {"method": 0, "lossless": True, "quality": 0}),
        "some.avif": (see_through, {"speed": 10, "subsampling": "4:4:4"}),
        "plain.bmp": (picture, {}),
        "plain.tif": (picture, {}),
        "deflate.tif": (picture, {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (picture, {"compression": "jpeg"}),
        "float.tif": (Image.fromarray(grey.astype(np.float32)), {}),
        "lab.tif": (picture.convert("LAB"), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    return [folder / name for name in kinds]


@linux
@pytest.mark.parametrize("shortest", [0, 200])
def test_no_kind_takes_more_than_is_foretold(all_kinds: list[Path], shortest: int) -> None:
    for path, (told, taken, became) in zip(all_kinds, decoded_apart(all_kinds, shortest), strict=True):
        assert became == "decoded", path.name
        # 4 MB for what isn't the picture's: a library's first use of a codec, pages that the process touches anyway.
        assert taken <= told + (4 << 20), f"{path.name}: {taken:,} bytes, {told:,} foretold"
        assert told <= 45 * 1600 * 1280 + (36 << 20), path.name


# Files that are made to take much -------------------------------------------------------------------------------------


def tiff(*entries: tuple[int, int, int, int], body: bytes = b"") -> bytes:
    """A TIFF of one directory: entries are tag, type, count, value; `body` lies behind it."""
    entries_ = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + entries_ + bytes(4) + body


def number(tag: int, value: int) -> tuple[int, int, int, int]:
    return tag, 4, 1, value


def tiled(side: int, compression: int = 8) -> bytes:
    """A TIFF of 300 x 300 pixels in one tile of `side` pixels a side, as good as empty."""
    content = zlib.compress(bytes(10_000))
    at = 8 + 2 + 12 * 11 + 4
    entries = [number(256, 300), number(257, 300), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    entries += [(277, 3, 1, 1), number(322, side), number(323, side), number(324, at), number(325, len(content))]
    return tiff(*entries, (339, 3, 1, 1), body=content)


def named_often(entries: int, size: int) -> bytes:
    """A TIFF whose `entries` entries all name the same `size` bytes."""
    tags = [number(256, 4), number(257, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), number(273, 8)]
    at = 8 + 2 + 12 * (entries + len(tags)) + 4
    return tiff(*tags, *((40_000 + row, 7, size, at) for row in range(entries)), body=bytes(size))


def png(*extra: tuple[bytes, bytes], size: tuple[int, int] = (8, 8)) -> bytes:
    """A grey PNG with chunks before its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = zlib.compress(bytes((size[0] + 1) * size[1]), 9)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def gif(width: int, height: int) -> bytes:
    """A canvas with a frame of one pixel, in 35 bytes."""
    return (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
        b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"
    )


def jpeg_with_exif(exif: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    parts = [exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    segments = [b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts]
    return buffer.getvalue()[:2] + b"".join(segments) + buffer.getvalue()[2:]


TEXT = (b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 20), 9))
EXIF = named_often(20_000, 400_000)  # 8 GB of values in 640 kB


@linux
def large_profile() -> bytes:
    """A PNG whose colour profile takes 300 MiB."""
    return png((b"iCCP", b"x\0\0" + zlib.compress(bytes(300 << 20), 9)))


@pytest.mark.parametrize(
    ("content", "became"),
    [
        (png(size=(1, 60_000)), "decoded"),
        (png(size=(60_000, 1)), "decoded"),
        (gif(12_000, 12_000), "decoded"),
        (tiled(40_000), "too large: it is stored in pieces; one of 40000 x 40000 is 1,600 megapixels"),
        (tiled(40_000, compression=5), "too large: it is stored in pieces"),
        (tiled(1 << 20), "too large: it is stored in pieces"),
        (EXIF, "damaged: its tags take 19,994 MiB"),
        (jpeg_with_exif(EXIF), "damaged: its tags take 19,994 MiB"),
        (png((b"eXIf", EXIF)), "damaged: its tags take 19,994 MiB"),
        (png(*[TEXT] * 300), "damaged: Too much memory used in text chunks"),
        (large_profile, "damaged: Decompressed data too large"),
    ],
    ids=["tall", "wide", "canvas", "tile", "lzw", "tile of 2^20", "tags", "exif", "exif of png", "text", "profile"],
)
def test_a_small_file_never_takes_much(tmp_path: Path, content: bytes | Callable[[], bytes], became: str) -> None:
    content = content() if callable(content) else content
    assert len(content) < 1_500_000
    (tmp_path / "small").write_bytes(content)
    ((_, taken, reason),) = decoded_apart([tmp_path / "small"], shortest=200, limit=2500)
    assert reason.startswith(became)
    assert taken < 400 << 20


def in_every_container(exif: bytes) -> list[bytes]:
    return [
        exif,
        jpeg_with_exif(exif),
        png((b"eXIf", exif)),
        b"\0\0\0\x20ftypavif" + bytes(100) + exif,
        b"\0\0\0\x20ftypheic" + bytes(100) + exif,
        b"RIFF" + bytes(100) + exif,
    ]


def test_exif_in_every_container_is_counted() -> None:
    for container in in_every_container(named_often(50, 50_000)):
        assert decode_cost.opening(container) > 5_000_000
    assert decode_cost.opening(tiff(number(34665, 26), body=EXIF[8:90])) > decode_cost.opening(tiff(number(34665, 0)))


def test_tags_that_take_more_than_any_picture_s_are_refused_whatever_is_free() -> None:
    for container in in_every_container(EXIF):
        with pytest.raises(ValueError, match="its tags take"):
            decode_cost.opening(container)
        assert metadata.read(container) == metadata.Metadata()
        assert not decoding.depends_on(Rendering(), container)


def raw_of_canon(exif: bytes) -> bytes:
    return b"\0\0\0\x10ftypcrx \0\0\0\1" + struct.pack(">L", len(exif) + 8) + b"CMT1" + exif


def test_what_a_file_says_of_itself_is_read_within_the_budget_too(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    real = TiffImagePlugin.ImageFileDirectory_v2.load
    monkeypatch.setattr(
        TiffImagePlugin.ImageFileDirectory_v2, "load", lambda self, file: loaded.append(file) or real(self, file)
    )
    for module in (decoding, metadata):
        monkeypatch.setattr(module, "BUDGET", MemoryBudget(lambda: ALWAYS))
    much = named_often(1_000, 50_000)  # 100 MB: more than there is, and less than is refused in any case
    for container in (much, raw_of_canon(much)):
        assert metadata.read(container) == metadata.Metadata()
        assert not decoding.depends_on(Rendering(), container)
        assert not loaded
    for container in (named_often(1, 100), raw_of_canon(named_often(1, 100))):
        loaded.clear()
        assert metadata.read(container) == metadata.Metadata()
        assert loaded


def test_a_jpeg_of_which_nearly_all_is_exif_is_refused() -> None:
    assert decode(jpeg_with_exif(bytes(1 << 20))).width == 16
    with pytest.raises(ImageError, match="damaged: a JPEG with 16 MiB of EXIF"):
        decode(jpeg_with_exif(bytes(decode_cost.MOST_EXIF + 1)))
    assert metadata.read(jpeg_with_exif(bytes(decode_cost.MOST_EXIF + 1))) == metadata.Metadata()


def test_strips_that_all_name_the_same_bytes_are_read_as_far_as_their_pixels_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strips, size = 500, 200_000
    one = zlib.compress(bytes(2))
    at = 8 + 2 + 12 * 9 + 4
    arrays = struct.pack("<L", at + 8 * strips) * strips + struct.pack("<L", size) * strips
    entries = [number(256, 1), number(257, strips), number(258, 16), number(259, 8), number(262, 1), number(277, 1)]
    entries += [number(278, 1), (273, 4, strips, at), (279, 4, strips, at + 4 * strips)]
    data = tiff(*entries, body=arrays + one + bytes(size))
    given: list[int] = []
    real = tiff_reading._decompressed
    monkeypatch.setattr(
        tiff_reading, "_decompressed", lambda piece, *rest: given.append(len(piece)) or real(piece, *rest)
    )
    assert decode(data).height == strips
    assert len(given) == strips
    assert sum(given) < 10 * len(data)


def test_a_directory_that_leads_back_to_itself_ends() -> None:
    assert decode_cost.opening(tiff(number(34665, 8), number(34853, 8))) < 2 << 20


def test_ordinary_metadata_costs_next_to_nothing() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 1
    exif.get_ifd(0x8769)[0x9286] = b"\0" * 8 + b"a comment" * 100
    buffer = io.BytesIO()
    photograph(640, 480).save(buffer, "JPEG", exif=exif)
    assert decode_cost.opening(buffer.getvalue()) < 4 << 20


@pytest.mark.parametrize(
    ("scans", "bytes_a_pixel"), [("one", 0), ("a component each", 6), ("progressive", 6)], ids=lambda value: str(value)
)
def test_coefficients_count_where_a_jpeg_needs_them_all(scans: str, bytes_a_pixel: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", subsampling=0, progressive=scans == "progressive")
    data = buffer.getvalue()
    if scans == "a component each":  # not progressive, and yet each scan holds a part of the picture only
        start = data.index(b"\xff\xda")
        data = data[:start] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + data[start + 14 :]
    with Image.open(io.BytesIO(data)) as image:
        plain = decode_cost.decoding(image, b"", 6400, 6400, None)
        assert decode_cost.decoding(image, data, 6400, 6400, None) - plain == 6400 * 6400 * bytes_a_pixel


# One budget for all of a process --------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A picture that takes more than is always granted, in 60 kB."""
    path = tmp_path / "large.png"
    path.write_bytes(png(size=(10_000, 4_000)))
    return path


def test_a_picture_that_the_memory_does_not_hold_is_refused_for_now(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little_memory(monkeypatch)
    with pytest.raises(
        ImageError, match=r"not enough memory to decode it: 10000 x 4000 pixels take about 2\d\d MiB"
    ) as raised:
        open_image(large)
    assert not raised.value.lasting
    # Of a JPEG only the reduced picture is ever in memory.
    photograph(6_000, 4_000).save(large.with_suffix(".jpg"), quality=50)
    assert min(open_image(large.with_suffix(".jpg"), 200).size) >= 200


@linux
def test_threads_decode_within_one_budget(large: Path) -> None:
    code = """if True:
        import re, sys, threading
        from massl.core.images import decoding as images
        from massl.core.memory_budget import MemoryBudget
        images.BUDGET = MemoryBudget(lambda: 600 << 20)  # half of it is for pictures; one takes 270 MB
        threads = [threading.Thread(target=images.open_image, args=(sys.argv[1],)) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10)
    """
    command = [sys.executable, "-c", code, str(large)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 600


def test_too_little_memory_for_what_is_done_with_a_picture_is_the_pictures_reason() -> None:
    with pytest.raises(ImageError, match="not enough memory to work on it") as raised, within_memory():
        np.empty(1 << 55, np.uint8)
    assert not raised.value.lasting


def test_a_file_larger_than_the_memory_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little_memory(monkeypatch)
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ImageError, match=r"not enough memory to read it: 1.0 GiB") as raised, within_memory():
        read_bytes(tmp_path / "sparse.jpg")
    assert not raised.value.lasting


def test_a_raw_photograph_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rawpy")
    from tests.massl.core.images.test_decoding import dng

    data = dng(np.zeros((3000, 2000), np.uint16))
    little_memory(monkeypatch)
    with pytest.raises(ImageError, match=r"not enough memory to decode it: 2000 x 3000 pixels take about 1\d\d MiB"):
        decode(data, shortest=200)


def test_a_tile_of_as_many_pixels_as_a_picture_may_have_is_allowed() -> None:
    with pytest.raises(ImageError) as raised:
        decode(tiled(2_000))
    assert not isinstance(raised.value, TooLarge)
    with pytest.raises(TooLarge, match=r"one of 2000 x 2000 is 4 megapixels, the limit is 1"):
        decode(tiled(2_000), max_pixels=1_000_000)


def test_pillow_is_asked_to_open_files_in_one_place_only() -> None:
    """Everywhere else it opens what the product itself has just encoded, or is called within that place's budget."""
    rooms = Path(decoding.__file__).parents[3]
    own = {
        "massl/evaluation/edits.py",
        "indexer/search/calibration.py",
        "massl/core/images/jpeg.py",
        "massl/core/images/tiff.py",
        "massl/core/images/srgb.py",
        "massl/core/images/row_files.py",
        "massl/core/images/row_reading.py",
    }
    for room in ("massl", "indexer", "app", "cli"):
        for path in (rooms / room).rglob("*.py"):
            name = path.relative_to(rooms).as_posix()
            if re.search(r"Image\.open\(", path.read_text("utf-8")) and name not in own:
                assert name == "massl/core/images/decoding.py"
