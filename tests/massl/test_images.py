"""What an image file is, how a folder is walked, how a file is opened: every kind that people have."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from massl.errors import MasslError
from massl.images import ImageError, ImageFile, Skipped, decode, fit, open_image, read_bytes, walk


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    with io.BytesIO() as buffer:
        image.save(buffer, kind, **options)
        return buffer.getvalue()


def names(root: Path) -> list[str]:
    return [item.path for item in walk(root) if isinstance(item, ImageFile)]


def reasons(root: Path) -> dict[str, str]:
    return {item.path: item.reason for item in walk(root) if isinstance(item, Skipped)}


RED_HALF = Image.new("RGB", (40, 20), "white")
RED_HALF.paste((255, 0, 0), (0, 0, 20, 20))


# Walking --------------------------------------------------------------------------------------------------------------


def test_it_finds_nested_images_in_a_stable_order(photos: Path) -> None:
    (photos / "notes.txt").write_text("not an image")
    (photos / ".hidden.jpg").write_bytes(b"x")
    (photos / ".massl").mkdir()
    (photos / ".massl" / "thumbnail.webp").write_bytes(b"x")
    found = names(photos)
    assert len(found) == 24
    assert found == names(photos)
    assert all("/" in name for name in found)


def test_names_that_are_hard(tmp_path: Path) -> None:
    hard = ["späte Äpfel.jpg", "two\nlines.jpg", "日本.png", "UPPER.JPG", "a'b\"c.jpg", "-k.jpg"]
    for name in hard:
        (tmp_path / name).write_bytes(b"x")
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(raw, "wb") as file:
        file.write(b"x")
    assert set(names(tmp_path)) == {*hard, os.fsdecode(b"caf\xe9.jpg")}


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "real" / "a.jpg").write_bytes(b"x")
    (outside / "b.jpg").write_bytes(b"x")
    (inside / "loop").symlink_to(inside)
    (inside / "again.jpg").symlink_to(inside / "real" / "a.jpg")
    (inside / "elsewhere").symlink_to(outside)
    (inside / "twice").symlink_to(outside)
    (outside / "back").symlink_to(inside)
    (inside / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (inside / "self.jpg").symlink_to(inside / "self.jpg")
    assert names(inside) == ["real/a.jpg", "elsewhere/b.jpg"]
    assert set(reasons(inside)) == {"broken.jpg", "self.jpg"}


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert names(tmp_path) == []
    assert reasons(tmp_path) == {"fifo.jpg": "not a regular file"}
    with pytest.raises(ImageError, match="not a regular file"):
        read_bytes(tmp_path / "fifo.jpg")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.write_text("x"), "is a file; give the folder"),
    ],
)
def test_a_root_that_can_not_be_walked_says_why(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "root")
    with pytest.raises(MasslError, match=message):
        list(walk(tmp_path / "root"))


# Opening --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "LA", {}),
        ("PNG", "1", {}),
        ("WEBP", "RGBA", {}),
        ("GIF", "P", {"save_all": True, "append_images": [Image.new("P", (40, 20))]}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "LAB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw", "save_all": True, "append_images": [Image.new("RGB", (9, 9))]}),
        ("AVIF", "RGB", {}),
    ],
)
def test_every_format_opens_to_the_same_picture(kind: str, mode: str, options: dict[str, object]) -> None:
    if mode == "LAB":
        convert = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = ImageCms.applyTransform(RED_HALF, convert)
    else:
        image = RED_HALF.convert(mode)
    picture = decode(encode(image, kind, **options)).picture
    assert picture.mode == "RGB"
    assert picture.size == (40, 20)
    left, right = np.asarray(picture.getpixel((5, 10))), np.asarray(picture.getpixel((35, 10)))
    assert right.min() > 235
    if mode == "1":  # dithered: a third of the dots are white
        assert np.asarray(picture.crop((0, 0, 20, 20))).mean() < 110
    elif mode in ("L", "LA"):
        assert left.max() < 100
    else:
        assert left[0] > 200
        assert left[1] < 70


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert decode(encode(clear, "PNG")).picture.getpixel((4, 4)) == (255, 255, 255)


def test_a_rotated_photo_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    opened = decode(encode(RED_HALF, "JPEG", exif=exif, quality=95))
    assert (opened.picture.size, opened.width, opened.height) == ((20, 40), 20, 40)
    assert opened.picture.getpixel((10, 5))[1] < 60
    assert opened.picture.getpixel((10, 35))[1] > 200


@pytest.mark.parametrize(("bits", "expected"), [(8, 200), (12, 200), (16, 200)])
def test_16_bit_greys_use_the_depth_that_they_have(bits: int, expected: int) -> None:
    top = 2**bits - 1
    values = np.full((16, 16), round(top * expected / 255), np.uint16)
    values[0, 0] = top
    picture = decode(encode(Image.fromarray(values), "PNG")).picture
    assert abs(picture.getpixel((8, 8))[0] - expected) <= 1


def test_a_colour_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    # Swap the red and green primaries of sRGB: a picture tagged with it must come out with its channels exchanged.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(srgb)
    count = struct.unpack(">I", swapped[128:132])[0]
    tags = {bytes(swapped[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    swapped[red + 4 : red + 12], swapped[green + 4 : green + 12] = (
        swapped[green + 4 : green + 12],
        swapped[red + 4 : red + 12],
    )
    described = tags[b"desc"]
    offset = struct.unpack(">I", swapped[described + 4 : described + 8])[0]
    for name in (b"sRGB", "sRGB".encode("utf-16-be")):
        start = swapped.find(name, offset)
        if start >= 0:
            swapped[start : start + len(name)] = name.replace(b"s", b"x")
    data = encode(Image.new("RGB", (8, 8), (255, 0, 0)), "PNG", icc_profile=bytes(swapped))
    pixel = decode(data).picture.getpixel((4, 4))
    assert pixel[1] > 240
    assert pixel[0] < 30


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"just some text, called .jpg", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encode(RED_HALF.resize((400, 400)), "JPEG")[:900], "truncated"),
        (encode(RED_HALF.resize((400, 400)), "PNG")[:200], "truncated|damaged"),
    ],
)
def test_what_can_not_be_opened_says_why(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=reason):
        open_image(tmp_path / "a.jpg")


def test_a_small_file_that_would_unpack_to_400_megapixels_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(20_000 // 8 + 1) * 20_000, 9)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    assert len(data) < 100_000
    with pytest.raises(ImageError, match=r"400 megapixels|too large"):
        decode(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_never_raise_anything_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]))
    content = bytearray(encode(RED_HALF, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    try:
        picture = decode(bytes(content[:cut])).picture
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert picture.mode == "RGB"


def test_a_large_photo_is_decoded_at_the_size_that_is_needed(pictures: Path) -> None:
    large = open_image(next((pictures / "space").iterdir())).resize((4000, 3000))
    data = encode(large, "JPEG", quality=90)
    opened = decode(data, shortest=224)
    assert (opened.width, opened.height) == (4000, 3000)
    assert 224 <= min(opened.picture.size) <= 2 * 224
    whole, part = (np.asarray(fit(picture, 64, 64), np.float32) for picture in (decode(data).picture, opened.picture))
    assert float(np.abs(whole - part).mean()) < 3


@given(width=st.integers(1, 300), height=st.integers(1, 300), size=st.integers(8, 64), more=st.integers(0, 20))
def test_fit_always_gives_a_square_of_the_size(width: int, height: int, size: int, more: int) -> None:
    assert fit(Image.new("RGB", (width, height)), size, size + more).size == (size, size)
