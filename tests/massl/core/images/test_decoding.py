"""What an image file is, how a folder is walked, how a file is opened: every kind that people have."""

from __future__ import annotations

import base64
import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from massl.core.errors import MasslError
from massl.core.files.scan import ImageFile, Skipped, walk
from massl.core.images import decoding, raw
from massl.core.images.decoding import decode, megapixels, open_image
from massl.core.images.file_reading import read_bytes
from massl.core.images.fitting import fit
from massl.core.images.image_errors import ImageError, TooLarge


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    with io.BytesIO() as buffer:
        image.save(buffer, kind, **options)
        return buffer.getvalue()


def names(root: Path, *exclude: str) -> list[str]:
    return [item.path for item in walk(root, exclude) if isinstance(item, ImageFile)]


def reasons(root: Path) -> dict[str, str]:
    return {item.path: item.reason for item in walk(root) if isinstance(item, Skipped)}


RED_HALF = Image.new("RGB", (40, 20), "white")
RED_HALF.paste((255, 0, 0), (0, 0, 20, 20))

# RED_HALF as a phone would write it. Written once by pillow-heif, as what is installed only reads.
HEIC = base64.b85decode(
    "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0004eZDn*}000000000XXk=`10000000000aA{+700000000000000000000B57=IV*mgE07O"
    "6l0RRC200001pa1~?00000006WA001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F#rGn01j|zbZr0t000010002|X>f9I0002oX>en20"
    "001WXm(>m0RwOV0058x000009`FGC{rLC*01pFT0096PKmiN^|NjGU00093kN^M!000939=ZZRVE_RDDMA4O18@KU0|1Z!00RI30{|YNAb|y"
    "z>aLpR;31&EfB*mtfB*mk0EA)y0RRR>0l{;@i2wiq6Ju{|a&BX6cmM$a4FCp!0000KX>)L8000000000$0000$0000eV{Bn?0000e0000100"
    "00K00001|NsB!00002|NsBg000020000GaA|mH000000|*ER0000OX>e^}0000000001009Mo0s{qv0002IZDe6|00026C;_hqG9Gy3u!$h>"
    "zqJJa|Mpb>W&D?ef6+yrvO(eZ$-nm5n_mErJ&)5pb18L>IIUH_Py2uFYGS`PJJuJbsNAbt<QjO|&Py4+wy;ceW=@+8ktEqZfLNmU^Cpw(KmV"
    "7d#X?R5S2t+s{}6bFY<o*DKRib@f?g@rnZbPm^;FA6XdV(R%Kj1FF^EMJR;UO*I+O;forp3<z!PxDDhJWB#Nh{X`+GK}1gPYX"
)


def dng(pixels: np.ndarray, orientation: int = 1) -> bytes:
    """A RAW photograph, uncompressed, of a sensor with an RGGB filter: uint16 `[H, W]` to a DNG file (version 1.4)."""
    height, width = pixels.shape

    def pack(kind: int, values: list[int | float]) -> bytes:
        if kind in (5, 10):
            return b"".join(struct.pack("<ii", round(value * 10_000), 10_000) for value in values)
        return struct.pack(f"<{len(values)}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", *values)

    xyz_to_camera = [3.1339, -1.6169, -0.4906, -0.9788, 1.9161, 0.0335, 0.0719, -0.2290, 1.4052]
    tags = {
        254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]), 262: (3, [32803]),
        271: (2, b"Maker\0"), 272: (2, b"Box\0"), 273: (4, [0]), 274: (3, [orientation]), 277: (3, [1]),
        278: (4, [height]), 279: (4, [2 * width * height]), 33421: (3, [2, 2]), 33422: (1, [0, 1, 1, 2]),
        50706: (1, [1, 4, 0, 0]), 50708: (2, b"Maker Box\0"), 50717: (4, [65535]), 50721: (10, xyz_to_camera),
        50728: (5, [1, 1, 1]), 50778: (3, [23]),
    }  # fmt: skip
    data = {tag: values if isinstance(values, bytes) else pack(kind, values) for tag, (kind, values) in tags.items()}
    after = 14 + 12 * len(tags)
    start = after + sum(len(body) + len(body) % 2 for body in data.values() if len(body) > 4)
    data[273] = struct.pack("<I", start)
    directory, rest = struct.pack("<2sHIH", b"II", 42, 8, len(tags)), b""
    for tag, (kind, values) in tags.items():
        body = data[tag]
        place = body.ljust(4, b"\0") if len(body) <= 4 else struct.pack("<I", after + len(rest))
        if len(body) > 4:
            rest += body + b"\0" * (len(body) % 2)
        directory += struct.pack("<HHI", tag, kind, len(values)) + place
    return directory + bytes(4) + rest + pixels.astype("<u2").tobytes()


def red_half_of_a_sensor() -> np.ndarray:
    """What a sensor sees of a large `RED_HALF`."""
    pixels = np.full((200, 400), 60_000, np.uint16)
    pixels[:, :200] = 500
    pixels[::2, :200:2] = 40_000  # only under the red filters
    return pixels


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


def test_a_file_that_two_links_lead_to_is_found_once(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (outside / name).write_bytes(b"x")
    (inside / "1.jpg").symlink_to(outside / "a.jpg")
    (inside / "2").symlink_to(outside)
    (inside / "3.jpg").symlink_to(outside / "b.jpg")
    assert names(inside) == ["1.jpg", "2/b.jpg"]


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.jpg")
    assert names(tmp_path) == []
    special = ("device.jpg", "fifo.jpg", "socket.jpg")
    assert reasons(tmp_path) == dict.fromkeys(special, "not a regular file")
    for name in special:
        with pytest.raises(ImageError, match="not a regular file"):
            read_bytes(tmp_path / name)
    with pytest.raises(ImageError, match="a folder, not an image"):
        read_bytes(tmp_path / "folder.jpg")


def test_what_vanishes_between_the_walk_and_reading_says_so(photos: Path) -> None:
    found = names(photos)[0]
    (photos / found).unlink()
    with pytest.raises(ImageError, match="vanished while reading") as raised:
        read_bytes(photos / found)
    assert not raised.value.lasting


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ((), ["a.jpg", "b.png", "cache/c.jpg", "deep/cache/d.jpg", "deep/e.png"]),
        (("cache",), ["a.jpg", "b.png", "deep/e.png"]),
        (("cache/",), ["a.jpg", "b.png", "deep/e.png"]),
        (("*.png",), ["a.jpg", "cache/c.jpg", "deep/cache/d.jpg"]),
        (("deep/cache",), ["a.jpg", "b.png", "cache/c.jpg", "deep/e.png"]),
        (("*/cache", "a.*"), ["b.png", "cache/c.jpg", "deep/e.png"]),
        (("",), ["a.jpg", "b.png", "cache/c.jpg", "deep/cache/d.jpg", "deep/e.png"]),
    ],
)
def test_patterns_leave_files_and_folders_out(tmp_path: Path, patterns: tuple[str, ...], left: list[str]) -> None:
    (tmp_path / "deep" / "cache").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    for name in ("a.jpg", "b.png", "cache/c.jpg", "deep/cache/d.jpg", "deep/e.png"):
        (tmp_path / name).write_bytes(b"x")
    assert sorted(names(tmp_path, *patterns)) == left


def test_the_thumbnails_of_an_index_are_no_images_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "index" / "thumbnails" / "ab").mkdir(parents=True)
    (tmp_path / "index" / "catalog.sqlite").touch()
    (tmp_path / "thumbnails").mkdir()
    for name in ("index/thumbnails/ab/abcd.webp", "thumbnails/a.webp", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path) == ["b.jpg", "thumbnails/a.webp"]


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
        ("TIFF", "RGB", {"compression": "jpeg", "quality": 95}),
        ("TIFF", "P", {}),
        ("AVIF", "RGB", {}),
        ("PNG", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (40, 20))]}),
        ("WEBP", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (40, 20))]}),
        ("AVIF", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (40, 20))]}),
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


def test_heic_opens_like_the_rest() -> None:
    picture = decode(HEIC).picture
    assert picture.size == (40, 20)
    assert picture.getpixel((35, 10)) == (255, 255, 255)
    red, green, blue = picture.getpixel((5, 10))
    assert red > 235
    assert max(green, blue) < 30


def test_16_bit_colour_opens_like_8_bit(tmp_path: Path) -> None:
    def tiff(order: str, samples: int, photometric: int) -> bytes:
        values = np.asarray(RED_HALF.convert({3: "RGB", 4: "CMYK"}[samples]), np.uint16) * 257
        body = values.astype(f"{order}u2").tobytes()
        tags = {
            256: (4, [40]), 257: (4, [20]), 258: (3, [16] * samples), 259: (3, [1]), 262: (3, [photometric]),
            273: (4, [0]), 277: (3, [samples]), 278: (4, [20]), 279: (4, [len(body)]),
        }  # fmt: skip
        start = 14 + 12 * len(tags)
        tags[273] = (4, [start + 2 * samples])
        head = struct.pack(f"{order}2sHIH", {"<": b"II", ">": b"MM"}[order], 42, 8, len(tags))
        for tag, (kind, numbers) in tags.items():
            head += struct.pack(f"{order}HHI", tag, kind, len(numbers))
            if len(numbers) > 2:
                head += struct.pack(f"{order}I", start)
            else:
                head += struct.pack(f"{order}{len(numbers)}{ {3: 'H', 4: 'I'}[kind] }", *numbers).ljust(4, b"\0")
        return head + bytes(4) + struct.pack(f"{order}{samples}H", *[16] * samples) + body

    for order, samples, photometric in (("<", 3, 2), (">", 3, 2), ("<", 4, 5)):
        picture = decode(tiff(order, samples, photometric)).picture
        assert (picture.mode, picture.size) == ("RGB", (40, 20))
        assert picture.getpixel((5, 10)) == (255, 0, 0)
        assert picture.getpixel((35, 10)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_is_laid_on_white(kind: str) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    assert decode(encode(image, kind, transparency=1)).picture.getpixel((4, 4)) == (255, 255, 255)


def test_raw_photographs_are_developed_upright() -> None:
    pytest.importorskip("rawpy")
    for orientation, size in ((1, (400, 200)), (6, (200, 400))):
        opened = decode(dng(red_half_of_a_sensor(), orientation))
        assert (opened.picture.size, opened.width, opened.height) == (size, *size)
        first, last = opened.picture.getpixel((50, 50)), opened.picture.getpixel((size[0] - 50, size[1] - 50))
        assert first[0] > 150 > 60 > max(first[1:])
        assert min(last) > 230
    small = decode(dng(red_half_of_a_sensor()), shortest=100)
    assert (small.picture.size, small.width, small.height) == ((200, 100), 400, 200)
    with pytest.raises(TooLarge, match="400 x 200"):
        decode(dng(red_half_of_a_sensor()), max_pixels=79_999)
    with pytest.raises(ImageError, match=r"damaged|not an image|truncated"):
        decode(dng(red_half_of_a_sensor())[:600])


def test_a_raw_photograph_without_the_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "can_develop", lambda: False)
    with pytest.raises(ImageError, match=r"RAW photograph: .* pip install 'massl\[raw\]'"):
        decode(dng(red_half_of_a_sensor()))


def test_an_ordinary_tiff_is_not_taken_for_raw() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Scanner"
    assert not raw.is_raw(encode(RED_HALF, "TIFF", exif=exif))
    assert not raw.is_raw(b"II*\0" + bytes(30))


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
    with pytest.raises(TooLarge, match="too large: 400 megapixels, the limit is 179"):
        decode(data)


def test_the_cap_can_be_raised_and_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow's own, so that 800 pixels are the most it would open
    monkeypatch.setattr(decoding, "MAX_PIXELS", 800)
    data = encode(Image.new("L", (40, 30)), "PNG")
    assert decode(data, max_pixels=1200).picture.size == (40, 30)
    with pytest.raises(TooLarge, match="40 x 30"):
        decode(data, max_pixels=1199)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_never_raise_anything_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "AVIF", "HEIC", "DNG"]))
    made = {"HEIC": lambda: HEIC, "DNG": lambda: dng(red_half_of_a_sensor()[:40, :40])}
    content = bytearray(made[kind]() if kind in made else encode(RED_HALF, kind))
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


def resized_whole(picture: Image.Image, size: int, resize: int) -> Image.Image:
    """As `fit`, by resizing all of the picture."""
    scale = resize / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


@settings(deadline=None)
@given(
    shorter=st.integers(1, 300),
    longer=st.one_of(st.integers(1, 400), st.integers(2000, 3000)),
    upright=st.booleans(),
    size=st.integers(8, 64),
    more=st.integers(0, 20),
    seed=st.integers(0, 1000),
)
def test_fit_is_as_if_the_whole_picture_were_resized(
    shorter: int, longer: int, upright: bool, size: int, more: int, seed: int
) -> None:
    shape = (longer, shorter, 3) if upright else (shorter, longer, 3)
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    fitted, whole = (np.asarray(way(picture, size, size + more), np.float32) for way in (fit, resized_whole))
    assert np.abs(fitted - whole).max() <= 4  # noise: the last digit of a position may round the other way
    assert np.abs(fitted - whole).mean() < 0.1


def test_fit_of_the_thinnest_picture_takes_no_time_or_memory() -> None:
    # Resized whole, its shorter side to 256, it would have 65,536 times as many pixels: 1.5 TB.
    for size in ((1, 6_000_000), (6_000_000, 1)):
        fitted = fit(Image.new("RGB", size, (9, 128, 200)), 224, 256)
        assert fitted.getcolors() == [(224 * 224, (9, 128, 200))]


@settings(deadline=None)
@given(
    mode=st.sampled_from(["P", "LA", "RGBA"]),
    width=st.integers(40, 90),
    height=st.integers(40, 90),
    band=st.integers(1, 2000),
    seed=st.integers(0, 1000),
)
def test_converting_a_few_rows_at_a_time_changes_no_pixel(
    mode: str, width: int, height: int, band: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    image = Image.fromarray(noise, "RGBA")
    data = encode(image.convert("RGB").quantize(16) if mode == "P" else image.convert(mode), "PNG")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("massl.core.images.srgb._BAND", 10**9)
        whole = decode(data, shortest=10).picture
        patch.setattr("massl.core.images.srgb._BAND", band)
        assert decode(data, shortest=10).picture.tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("pixels", "said"), [(178_956_970, "179"), (1_200_000_000, "1,200"), (9_440_000, "9.4"), (60, "0.00006"), (0, "0")]
)
def test_megapixels_of_a_few_pixels_are_not_none(pixels: int, said: str) -> None:
    assert megapixels(pixels) == said
