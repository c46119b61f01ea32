"""Dates and words that pictures bring with them: from every format that has them, and from none that means ill."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from massl.core.files.sidecars import beside
from massl.core.images import metadata, xmp
from massl.core.images.metadata import Metadata, read
from massl.core.images.xmp import MOST_KEYWORDS, XmpError

NAMES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
)


def packet(attributes: str = "", inner: str = "", before: str = "") -> bytes:
    text = f"<rdf:RDF {NAMES}><rdf:Description {attributes}>{inner}</rdf:Description></rdf:RDF>"
    return f'{before}<x:xmpmeta xmlns:x="adobe:ns:meta/">{text}</x:xmpmeta>'.encode()


def words(*keywords: str) -> str:
    return f"<dc:subject><rdf:Bag>{''.join(f'<rdf:li>{word}</rdf:li>' for word in keywords)}</rdf:Bag></dc:subject>"


def exif(**more: Any) -> Image.Exif:
    made = Image.Exif()
    made[0x010F], made[0x0110], made[0x0112] = "NIKON", "NIKON D750", 6
    made[0x4746] = 4
    inner = made.get_ifd(0x8769)
    inner[0x9003], inner[0x9011] = more.get("taken", "2024:05:01 12:34:56"), more.get("offset", "+02:00")
    made.get_ifd(0x8825)[1] = "N"  # where it was taken
    made.get_ifd(0x8825)[2] = (48.0, 51.0, 29.6)
    return made


def saved(format: str, **more: Any) -> bytes:
    file = io.BytesIO()
    noise(0).save(file, format, **more)
    return file.getvalue()


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_is_read_from_each_format(format: str) -> None:
    found = read(saved(format, exif=exif()))
    assert (found.taken, found.offset, found.camera) == ("2024-05-01T12:34:56", 120, "NIKON D750")
    assert (found.orientation, found.rating, found.planes) == (6, 4, 1)
    assert found.when() == "2024-05-01 12:34:56 +02:00"


@pytest.mark.parametrize(
    ("order", "starts"), [("<", [b"II*\0", b"IIRO", b"IIRS", b"IIU\0"]), (">", [b"MM\0*", b"MMOR"])]
)
def test_exif_of_a_tiff_and_of_raw_files_like_it_is_read_without_opening_them(order: str, starts: list[bytes]) -> None:
    """EXIF is a TIFF: these have no pixels at all."""
    made = exif()
    made.endian = order
    for start in starts:
        found = read(start + made.tobytes().removeprefix(b"Exif\0\0")[4:])
        assert (found.taken, found.offset, found.camera) == ("2024-05-01T12:34:56", 120, "NIKON D750"), start


def test_exif_of_a_canon_raw_file_lies_in_two_boxes() -> None:
    camera, photograph = Image.Exif(), Image.Exif()
    camera[0x0110], camera[0x0112] = "EOS R5", 8
    photograph[0x9003] = "2023:01:02 03:04:05"
    boxes = b""
    for name, part in ((b"CMT1", camera), (b"CMT2", photograph)):
        content = part.tobytes().removeprefix(b"Exif\0\0")
        boxes += (len(content) + 8).to_bytes(4, "big") + name + content
    found = read(b"\0\0\0\x18ftypcrx " + b"\0" * 12 + boxes)
    assert (found.taken, found.camera, found.orientation) == ("2023-01-02T03:04:05", "EOS R5", 8)


IPTC = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x19\0\x03sea"


@pytest.mark.parametrize(
    ("data", "opens"),
    [
        (saved("JPEG"), False),
        (saved("JPEG", quality=95, progressive=True, dpi=(72, 72), comment=b"Exif\0\0"), False),
        (saved("JPEG", icc_profile=b"MPF\0" * 9), False),
        (saved("JPEG", exif=exif()), True),
        (saved("JPEG", xmp=packet('xmp:Rating="4"', words("sea"))), True),
        (saved("JPEG")[:2] + b"\xff\xed" + (len(IPTC) + 2).to_bytes(2, "big") + IPTC + saved("JPEG")[2:], True),
        (saved("MPO", save_all=True, append_images=[noise(1)]), True),
    ],
    ids=["none", "a comment", "a profile", "EXIF", "XMP", "IPTC", "two pictures"],
)
def test_a_jpeg_that_says_nothing_is_not_opened_and_no_other_is_missed(
    data: bytes, opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read(data)
    opened: list[bytes] = []
    look = metadata._look_into_picture
    with monkeypatch.context() as patch:
        patch.setattr(metadata.decode_cost, "jpeg_says_something", lambda data: True)
        assert read(data) == found
    monkeypatch.setattr(metadata, "_look_into_picture", lambda *given: (opened.append(data), look(*given)))
    assert read(data) == found
    assert bool(opened) is opens


def test_where_a_picture_was_taken_is_not_kept() -> None:
    data = saved("JPEG", exif=exif(), xmp=packet('exif:GPSLatitude="48,51.49N"'))
    assert "48" not in repr(read(data)).replace("2024", "")
    assert not any("gps" in name.lower() or "location" in name.lower() for name in Metadata.__dataclass_fields__)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_xmp_is_read_where_there_is_no_exif(format: str) -> None:
    said = packet('exif:DateTimeOriginal="2001-02-03T04:05:06.78-03:30" xmp:Rating="-1"', words("sea", "dog", "sea"))
    found = read(saved(format, xmp=said))
    assert (found.taken, found.offset, found.rating) == ("2001-02-03T04:05:06", -210, -1)
    assert found.keywords == ("sea", "dog")


def test_a_sidecar_counts_for_more_than_the_words_in_the_picture_and_exif_for_the_date() -> None:
    data = saved("JPEG", exif=exif(), xmp=packet('xmp:Rating="1"', words("old")))
    beside_it = packet('xmp:Rating="5" photoshop:DateCreated="1999-01-01"', words("new", "newer"))
    found = read(data, beside_it)
    assert (found.rating, found.keywords, found.taken) == (5, ("new", "newer"), "2024-05-01T12:34:56")
    alone = read(saved("PNG"), beside_it)
    assert (alone.taken, alone.offset, alone.when()) == ("1999-01-01", None, "1999-01-01")


def test_iptc_and_the_words_of_windows_are_read() -> None:
    record = b"".join(
        b"\x1c\x02" + bytes([number]) + len(value).to_bytes(2, "big") + value
        for number, value in ((25, b"harbour"), (25, "Bär".encode()), (55, b"19981231"), (60, b"235900+0100"))
    )
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(record).to_bytes(4, "big") + record
    data = saved("JPEG")
    data = data[:2] + b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]
    found = read(data)
    assert (found.keywords, found.taken, found.offset) == (("harbour", "Bär"), "1998-12-31T23:59:00", 60)
    made = Image.Exif()
    made[0x9C9E] = "один; two ;".encode("utf-16-le") + b"\0\0"
    assert read(saved("JPEG", exif=made)).keywords == ("один", "two")


@pytest.mark.parametrize(
    "taken",
    [
        *("0000:00:00 00:00:00", "2023:02:29 10:00:00", "2024:13:01 10:00:00", "2024:01:01 25:00:00"),
        *("    :  :     :  :  ", "9999:01:01 00:00:00", "1066:10:14 09:00:00", "yesterday", "", "2024:05", "\0" * 19),
        "²⁰²⁴:05:01 00:00:00",
    ],
)
def test_a_date_that_there_is_not_is_none(taken: str) -> None:
    assert read(saved("JPEG", exif=exif(taken=taken))).taken is None


@pytest.mark.parametrize(
    ("offset", "minutes"),
    [("+02:00", 120), ("-03:30", -210), ("Z", 0), ("+14:00", 840), ("+14:30", None), ("+99:99", None), ("CET", None)],
)
def test_a_time_zone_is_minutes_or_nothing(offset: str, minutes: int | None) -> None:
    found = read(saved("JPEG", exif=exif(offset=offset)))
    assert (found.taken, found.offset) == ("2024-05-01T12:34:56", minutes)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(9))


@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        (packet(inner=words("&l8;"), before=f"<!DOCTYPE x [{LAUGHS}]>"), "document type"),
        (packet(inner=words("&f;"), before='<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'), "document type"),
        (packet(before='<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">'), "document type"),
        (packet(inner=words("x" * (xmp.MOST_BYTES + 1))), "more than 1 MiB"),
        (packet(inner="<a>" * 2_000), "too deep"),
        (packet()[:-9], "no XML"),
        (b"\xff\xd8\xff" * 100, "no XML"),
        (b"", "no XML"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', "no XML"),
    ],
)
def test_hostile_xmp_is_refused_and_costs_nothing_else(hostile: bytes, why: str) -> None:
    with pytest.raises(XmpError, match=why):
        xmp.read(hostile)
    found = read(saved("JPEG", exif=exif()), hostile)
    assert why in found.trouble
    assert (found.taken, found.keywords) == ("2024-05-01T12:34:56", ())


def test_of_ten_thousand_keywords_as_many_are_kept_as_may_be() -> None:
    found = read(saved("PNG"), packet(inner=words(*(f"word {number}" for number in range(10_000)))))
    assert found.keywords == tuple(f"word {number}" for number in range(MOST_KEYWORDS))


def test_what_could_harm_a_terminal_is_taken_out_of_words() -> None:
    made = Image.Exif()
    made[0x0110] = "EOS\x1b[31m\x07 R5" + "x" * 5_000
    found = read(saved("JPEG", exif=made), packet(inner=words("a\u202eb\u200b", "&#13;&#10;c&#9;d", "   ")))
    assert found.keywords == ("a b", "c d")
    assert found.model.startswith("EOS [31m R5x")
    assert len(found.model) == 128


def test_a_sidecar_of_another_picture_is_not_taken() -> None:
    raws = packet('photoshop:SidecarForExtension="CR2" xmp:Rating="5"')
    assert read(saved("JPEG"), raws, "a.jpg").rating is None
    assert "belongs to a .cr2 file" in read(saved("JPEG"), raws, "a.jpg").trouble
    assert read(saved("JPEG"), raws, "a.CR2").rating == 5


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["a.jpg", "a.jpg.xmp", "b.jpg"], {"a.jpg": "a.jpg.xmp"}),
        (["a.jpg", "a.xmp"], {"a.jpg": "a.xmp"}),
        (["a.jpg", "a.xmp", "a.jpg.xmp"], {"a.jpg": "a.jpg.xmp"}),
        (["a.jpg", "a.CR2", "a.xmp"], {"a.CR2": "a.xmp"}),
        (["a.jpg", "a.png", "a.xmp"], {}),
        (["A.JPG", "a.jpg.XMP"], {"A.JPG": "a.jpg.XMP"}),
        (["b.jpg", "a.xmp", "a.txt", "a.txt.xmp"], {}),
    ],
)
def test_a_sidecar_belongs_to_the_picture_that_it_is_named_after(names: list[str], pairs: dict[str, str]) -> None:
    assert beside(names) == pairs


def test_pictures_in_a_file_are_counted() -> None:
    frames = [noise(number) for number in range(4)]
    for format in ("TIFF", "GIF", "WEBP", "PNG"):
        file = io.BytesIO()
        frames[0].save(file, format, save_all=True, append_images=frames[1:])
        assert read(file.getvalue()).planes == 4, format
    big = io.BytesIO()
    frames[0].save(big, "TIFF", save_all=True, append_images=frames[1:], big_tiff=True)
    assert read(big.getvalue()).planes == 4


def test_smaller_versions_and_masks_are_no_pictures_of_their_own() -> None:
    frames = [noise(number) for number in range(3)]
    file = io.BytesIO()
    for number, frame in enumerate(frames):
        frame.encoderinfo = {"tiffinfo": {254: (0, 1, 4)[number]}}
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:], tiffinfo={254: 0})
    assert read(file.getvalue()).planes == 1


def test_pages_that_name_each_other_end() -> None:
    data = bytearray(saved("TIFF"))
    at = int.from_bytes(data[4:8], "little")
    end = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
    data[end : end + 4] = at.to_bytes(4, "little")
    assert read(bytes(data)).planes == 1


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_give_something_and_never_an_error(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
    file = bytearray(saved(format, **({} if format == "TIFF" else {"exif": exif(), "xmp": packet(inner=words("a"))})))
    for _ in range(data.draw(st.integers(1, 20))):
        file[data.draw(st.integers(4, len(file) - 1))] = data.draw(st.integers(0, 255))
    found = read(bytes(file[: data.draw(st.integers(0, len(file)))]))
    assert isinstance(found, Metadata)
    assert found.planes >= 1


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_anything_beside_a_picture_is_read_or_refused(content: bytes) -> None:
    try:
        xmp.read(content)
    except XmpError as error:
        assert str(error)


def test_a_file_beside_a_picture_that_cant_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "large.xmp").write_bytes(b" " * (xmp.MOST_BYTES + 1))
    assert metadata.read_beside(saved("PNG"), tmp_path / "large.xmp", "a.png").trouble == "more than 1 MiB"
    assert metadata.read_beside(saved("PNG"), tmp_path / "gone.xmp", "a.png").trouble
