"""Which of two versions of a picture is kept, by edits that people make."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from indexer import Collection, Encoder
from indexer.duplicates.detection import Duplicate
from indexer.duplicates.origin import Origins, _read
from indexer.duplicates.plan import action, plan, why
from indexer.search.pixel_verification import edit_between

TAKEN = "2021:05:04 10:20:30"


def saved(picture: Image.Image, path: Path, quality: int, taken: str | None = None, changed: str | None = None) -> Path:
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    if changed:
        exif[0x0132] = changed
    picture.save(path, quality=quality, exif=exif)
    return path


@pytest.fixture(scope="module")
def photograph(pictures: Path) -> Image.Image:
    with Image.open(sorted(pictures.glob("painting/*.jpg"))[3]) as file:
        return file.convert("RGB")


EDITS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "brighter": ("brighter or darker", lambda picture: ImageEnhance.Brightness(picture).enhance(1.3)),
    "darker": ("brighter or darker", lambda picture: ImageEnhance.Brightness(picture).enhance(0.7)),
    "mirrored": ("mirrored", ImageOps.mirror),
    "upside down": ("turned", lambda picture: picture.transpose(Image.Transpose.ROTATE_180)),
    "grey": ("grey", lambda picture: ImageOps.grayscale(picture).convert("RGB")),
    "cut": ("cut", lambda picture: ImageOps.crop(picture, min(picture.size) // 12)),
    "with a border": ("bordered", lambda picture: ImageOps.expand(picture, min(picture.size) // 12, "white")),
    "smaller": ("", lambda picture: picture.resize((picture.width // 2, picture.height // 2))),
    "the same": ("", lambda picture: picture),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_seen_and_scaling_and_compression_are_none(
    edit: str, photograph: Image.Image, tmp_path: Path
) -> None:
    expected, change = EDITS[edit]
    change(photograph).save(tmp_path / "edited.jpg", quality=50)
    with Image.open(tmp_path / "edited.jpg") as edited:
        assert edit_between(photograph, edited.convert("RGB")) == expected
        assert edit_between(edited.convert("RGB"), photograph) == expected


@pytest.fixture
def folder(tmp_path: Path, pictures: Path) -> Path:
    """Six pictures of one camera, which compresses them at quality 85."""
    root = tmp_path / "photos"
    root.mkdir()
    for number, path in enumerate(sorted(pictures.glob("painting/*.jpg"))[10:16]):
        with Image.open(path) as file:
            saved(file.convert("RGB"), root / f"IMG_{number}.jpg", 85)
    return root


@pytest.mark.parametrize("how", ["date", "changed", "format", "folder", "compression"])
def test_of_equal_pixels_the_original_ranks_first_and_not_the_larger_file(
    how: str, photograph: Image.Image, folder: Path, tmp_path: Path
) -> None:
    brighter = ImageEnhance.Brightness(photograph).enhance(1.3)
    dated = how in ("date", "changed")
    root = folder if how in ("folder", "date", "changed") else tmp_path / "elsewhere"
    root.mkdir(exist_ok=True)
    original = saved(photograph, root / "a.jpg", 85, TAKEN if dated else None, TAKEN if how == "changed" else None)
    if how == "format":
        edited = root / "b.webp"
        brighter.save(edited, quality=100)
    elif how == "compression":
        edited = saved(photograph, root / "b.jpg", 40)
    else:
        kept_date = {"taken": TAKEN, "changed": "2023:01:01 00:00:00"} if how == "changed" else {}
        edited = saved(brighter, root / "b.jpg", 98, **kept_date)
    if how != "compression":
        assert edited.stat().st_size > original.stat().st_size
    origins = Origins(root)
    assert origins.rank(original.name) < origins.rank(edited.name)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8\xff\xe1\xff\xffExif\0\0MM\0*" + b"\xff" * 500, b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"RIFF" * 9],
)
def test_a_damaged_file_has_no_marks(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert _read(tmp_path / "a.jpg").taken == ""
    assert Origins(tmp_path).rank("a.jpg") == Origins(tmp_path).rank("missing.jpg")


@pytest.mark.parametrize("date", ["0000:00:00 00:00:00", "    :  :     :  :  ", "9999:99:99 99:99:99", "yesterday", ""])
def test_a_date_that_is_none_is_no_date(date: str, photograph: Image.Image, tmp_path: Path) -> None:
    assert _read(saved(photograph, tmp_path / "a.jpg", 80, date or None)).taken == ""


def test_an_edited_copy_is_not_kept_for_its_bytes_and_asks_for_a_look(
    photograph: Image.Image, folder: Path, encoder: Encoder
) -> None:
    original = saved(photograph, folder / "original.jpg", 85)
    for name, change in (("mirrored", ImageOps.mirror), ("brighter", EDITS["brighter"][1])):
        assert saved(change(photograph), folder / f"{name}.jpg", 98).stat().st_size > original.stat().st_size
    shutil.copy(original, folder / "z-exact.jpg")
    collection = Collection.create(folder, encoder)
    collection.update()
    found = collection.duplicates.find(threshold=0.8)
    (group,) = found.groups
    assert group[0].path in ("original.jpg", "z-exact.jpg")
    assert why([item for item in group if item.kind != "exact"]) == "like the other files of its folder"
    told = {item.path: (action(item), item.edit) for item in group[1:] if item.kind == "near"}
    assert told == {"mirrored.jpg": ("look", "mirrored"), "brighter.jpg": ("look", "brighter or darker")}
    assert [action(item) for item in group if item.kind == "exact"] == ["remove"]
    # Choosing the one to keep says nothing about those that somebody is to look at.
    collection.decisions.choose(group[0].image, [item.image for item in group[1:]])
    rows = csv.DictReader(io.StringIO(plan(collection.duplicates.settled(found))))
    decided = {row["path"]: (row["action"], row["decided"]) for row in rows}
    assert decided.pop(group[0].path) == ("keep", "yes")
    assert decided.pop("mirrored.jpg") == decided.pop("brighter.jpg") == ("look", "no")
    assert list(decided.values()) == [("remove", "yes")]


def test_a_border_is_never_kept_for_its_pixels(
    photograph: Image.Image, pictures: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """Screenshots and prints have more pixels than the picture in them. One of a small version only is kept."""
    root = tmp_path / "photos"
    root.mkdir()
    others = [Image.open(path).convert("RGB") for path in sorted(pictures.glob("painting/*.jpg"))[10:12]]
    for name, picture in (("white", photograph), ("screenshot", others[0]), ("only", others[1])):
        small = picture.resize((picture.width // 2, picture.height // 2))
        saved(small if name == "only" else picture, root / f"{name}-without.jpg", 85)
        edge = min(picture.size) // 16
        framed = ImageOps.expand(picture, edge, "white" if name != "screenshot" else "#18181c")
        if name == "screenshot":
            ImageDraw.Draw(framed).text((3 * edge, edge // 4), "12:41   4G", fill="grey")
        saved(framed, root / f"{name}-framed.jpg", 97)
    saved(ImageOps.expand(others[0], 9, "black"), root / "dated.jpg", 90, TAKEN)
    collection = Collection.create(root, encoder)
    collection.update()
    found = collection.duplicates.find(threshold=0.8)
    kept = {group[0].path: why(group) for group in found.groups}
    assert kept.pop("white-without.jpg") == "without a border"
    assert kept.pop("only-framed.jpg") == "most pixels"
    assert kept.pop("dated.jpg") in ("most pixels", "without a border")  # nothing dated is held for a copy
    assert kept == {}
    told = {item.path: (action(item), item.edit) for group in found.groups for item in group[1:]}
    assert told["white-framed.jpg"] == told["only-without.jpg"] == ("look", "bordered")
    assert len(told) == 4


def test_bytes_decide_last() -> None:
    def file(image: int, size: int, mtime_ns: int) -> Duplicate:
        return Duplicate(image, f"{image}.jpg", "near", 1.0, None, size, 4, 4, mtime_ns)

    assert why((file(1, 10, 1), file(2, 99, 2))) == "oldest"
    assert why((file(1, 99, 1), file(2, 10, 1))) == "largest file"
    assert why((file(1, 10, 1), file(2, 10, 1))) == "shortest path"
