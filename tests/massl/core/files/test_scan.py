"""Which files of a folder are images: by name, by content, and what is left out and counted."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from massl.core.errors import MasslError
from massl.core.files.scan import Contents, ImageFile, LeftOut, find_images, left_out_line, look_through, walk
from massl.core.images.formats import HEAD, kind_of_content, kind_of_name
from massl.data.sources import find_source
from tests.massl.core.images.test_decoding import HEIC
from tests.massl.data.test_sources import write_tar


def picture(kind: str = "JPEG") -> bytes:
    with io.BytesIO() as buffer:
        Image.new("RGB", (8, 8), "red").save(buffer, kind)
        return buffer.getvalue()


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("DSC00001.HIF", HEIC),
        ("DSCF0002.MPO", picture()),
        ("IMG_1.insp", picture()),
        ("tweet.jpg_large", picture()),
        ("no suffix", picture("PNG")),
        ("photo.jpg!thumb", picture()),
        ("scan.0001", picture("TIFF")),
        ("really a jpeg.jp2", picture()),
        ("old.psd", picture("WEBP")),
        ("a.bitmap", picture("BMP")),
        ("b.animation", picture("GIF")),
        ("c.av1", picture("AVIF")),
    ],
)
def test_a_picture_is_found_by_its_content_whatever_its_name(tmp_path: Path, name: str, data: bytes) -> None:
    put(tmp_path, {name: data, "notes.txt": picture(), "LICENSE": b"text"})
    assert find_images(tmp_path) == ([name], [])


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.jxl", b"\xff\x0a", "JPEG XL"),
        ("a", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        ("a.jp2", picture("JPEG2000"), "JPEG 2000"),
        ("a.PSD", b"8BPS", "Photoshop"),
        ("a.svg", b"<svg/>", "SVG"),
        ("drawing", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        ("a.exr", b"v/1\x01", "OpenEXR"),
        ("a.nii.gz", b"\x1f\x8b", "NIfTI"),
        ("a.czi", b"ZISRAWFILE", "Zeiss CZI"),
        ("a.nd2", b"\xda\xce\xbe\x0a", "Nikon ND2"),
        ("slide.svs", picture("TIFF"), "whole slide"),
        ("a.ai", b"%PDF-1.5", "Illustrator"),
        ("empty.jxl", b"", "JPEG XL"),
    ],
)
def test_a_picture_that_is_not_read_is_counted_by_its_kind(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    put(tmp_path, {name: data, "b.jpg": picture()})
    found = look_through(tmp_path)
    assert (found.images, found.left_out) == (["b.jpg"], {kind: 1})
    told = left_out_line(found.left_out)
    assert kind in told
    assert ("export" in told) == (kind in ("Zeiss CZI", "Nikon ND2", "whole slide"))
    source, _ = find_source(tmp_path)
    assert source.left_out == {kind: 1}  # training says the same
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(MasslError, match=f"no image files; left out: 1 {kind}"):
        find_images(tmp_path)


@given(st.binary(max_size=HEAD))
def test_any_first_bytes_have_a_kind(head: bytes) -> None:
    assert isinstance(kind_of_content(head), str)
    assert kind_of_content(b"\xff\xd8\xff" + head) == "picture"


def test_videos_and_texts_are_not_taken_for_pictures() -> None:
    assert kind_of_content(b"\0\0\0\x18ftypmp42\0\0\0\0isommp42") == ""
    assert kind_of_content(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ") == ""
    assert kind_of_content(b"BMW is a maker of cars") == ""
    assert {kind_of_name(name) for name in ("a.mp4", "b.TXT", "c.json", "d.pdf", "e.xmp", "f.zip", "Thumbs.db")} == {""}


def test_what_changed_or_moved_is_looked_at_again(tmp_path: Path) -> None:
    put(tmp_path, {f"{number:03d}": picture() if number % 2 else b"text" for number in range(20)})
    first = Contents()
    assert len(list(walk(tmp_path, contents=first))) == 10
    (tmp_path / "001").write_bytes(b"text now")
    shutil.move(tmp_path / "003", tmp_path / "new")
    second = Contents(first.now)
    expected = [*(f"{number:03d}" for number in range(5, 20, 2)), "new"]
    assert [item.path for item in walk(tmp_path, contents=second)] == expected
    assert len(set(second.now) - set(first.now)) == 2
    assert second.changed


def test_what_is_known_is_believed_for_as_long_as_the_file_is_as_it_was(tmp_path: Path) -> None:
    put(tmp_path, {"a": b"text", "b.jpg": picture()})
    first = Contents()
    list(walk(tmp_path, contents=first))
    lie = dict.fromkeys(first.now, "Zeiss CZI")  # to be told from having looked
    assert [item for item in walk(tmp_path, contents=Contents(lie)) if isinstance(item, LeftOut)] == [
        LeftOut("a", "Zeiss CZI")
    ]
    put(tmp_path, {"a": b"longer text"})
    assert not [item for item in walk(tmp_path, contents=Contents(lie)) if isinstance(item, LeftOut)]


SYSTEM = [
    *("@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", ".Trash-1000"),
    *(".thumbnails", ".Spotlight-V100", "lost+found", "__MACOSX", ".picasaoriginals", "@Recycle", ".AppleDouble"),
]


@pytest.mark.parametrize("folder", SYSTEM)
def test_folders_that_systems_make_are_left_out_counted_and_read_where_asked_for(tmp_path: Path, folder: str) -> None:
    put(tmp_path, {"a.jpg": picture(), f"{folder}/b.jpg": picture(), f"deep/{folder}/x/c.jpg": picture()})
    found = look_through(tmp_path)
    assert found.images == ["a.jpg"]
    ((kind, count),) = found.left_out.items()
    assert count == 2
    assert kind.startswith("folder ")
    assert kind.lower()[7:13] == folder.lower()[:6]
    asked = [item.path for item in walk(tmp_path, include=[folder]) if isinstance(item, ImageFile)]
    assert sorted(asked) == sorted(["a.jpg", f"{folder}/b.jpg", f"deep/{folder}/x/c.jpg"])
    one = [item.path for item in walk(tmp_path, include=[f"deep/{folder}"]) if isinstance(item, ImageFile)]
    assert one == ["a.jpg", f"deep/{folder}/x/c.jpg"]
    none = [item for item in walk(tmp_path, exclude=[folder], include=[folder]) if not isinstance(item, ImageFile)]
    assert none == []  # what a person excludes is not told of


def test_hidden_pictures_are_counted_and_read_where_asked_for(tmp_path: Path) -> None:
    put(tmp_path, {"a.jpg": picture(), "._a.jpg": b"x", ".b.jpg": picture(), ".notes": b"x", ".c/d.jpg": picture()})
    put(tmp_path, {".massl/thumbnails/ab/e.webp": picture()})
    found = look_through(tmp_path)
    assert found.images == ["a.jpg"]
    assert found.left_out == {"AppleDouble file": 1, "hidden picture": 1, "hidden folder": 1}
    asked = [item.path for item in walk(tmp_path, include=[".[!_]*"]) if isinstance(item, ImageFile)]
    assert asked == [".b.jpg", "a.jpg", ".c/d.jpg"]


def test_a_file_that_can_not_be_opened_is_counted(tmp_path: Path, bound: list[str]) -> None:
    put(tmp_path, {"a.jpg": picture(), "b": picture()})
    (tmp_path / "b").chmod(0)
    code = "from massl.core.files.scan import look_through; from pathlib import Path; "
    code += f"print(look_through(Path({str(tmp_path)!r})))"

    told = subprocess.run([*bound, sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "file that can't be opened" in told


def test_a_tar_is_told_by_content_as_a_folder_is(tmp_path: Path) -> None:
    members = {"a": picture(), "b.cls": b"3", "c.HIF": HEIC, "d.jxl": b"\xff\x0a", "__MACOSX/._a.jpg": b"x"}
    source, skipped = find_source(write_tar(tmp_path / "shard.tar", members))
    assert [source.name(place) for place in range(len(source))] == ["shard.tar/a", "shard.tar/c.HIF"]
    assert (skipped, source.left_out) == ([], Counter({"JPEG XL": 1, "AppleDouble file": 1}))
    assert source.read(0) == picture()
