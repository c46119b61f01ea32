"""Whatever happens to a folder, indexing it again gives what a fresh index would; and labels follow their images."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import Collection, Encoder, Query
from indexer.ingest.indexing import IndexReport
from indexer.json_results import of_collection
from indexer.monitoring.health import Behind
from massl.core.files import scan
from massl.core.images import decoding, raw
from massl.core.images.content import Content
from massl.core.images.file_reading import open_content
from massl.core.images.image_errors import ImageError
from tests.indexer.tiny import picture, write_encoder
from tests.massl.core.images.tiff_files import GREY, RGB, tiff

SAME_TIME = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures of the same size in bytes and the same date, labelled with their numbers once indexed."""
    for number in range(10):
        write(tmp_path / "photos" / f"{number}.bmp", picture(number))
    return tmp_path / "photos"


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, SAME_TIME)


def labelled(folder: Path, encoder: Encoder) -> Collection:
    collection = Collection.create(folder, encoder)
    collection.update()
    for image, path in collection.images.ready():
        collection.labels.add(Path(path).stem, [image], "me")
    return collection


def labels(collection: Collection) -> dict[str, str]:
    return {label.path: label.label for label in collection.labels.every()}


def counts(report: IndexReport) -> dict[str, int]:
    names = ("added", "changed", "moved", "removed", "unchanged", "embedded")
    return {name: count for name in names if (count := getattr(report, name))}


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_name("between"))
    other.rename(one)
    one.with_name("between").rename(other)


# What becomes of labels -----------------------------------------------------------------------------------------------


def test_two_files_that_change_places_take_their_labels_along(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    swap(folder / "1.bmp", folder / "2.bmp")
    assert counts(collection.update()) == {"moved": 2, "unchanged": 8}
    assert labels(collection) == {f"{n}.bmp": {1: "2", 2: "1"}.get(n, str(n)) for n in range(10)}


def test_a_ring_of_names_turned_by_one(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    (folder / "9.bmp").rename(folder / "between")
    for number in range(8, -1, -1):
        (folder / f"{number}.bmp").rename(folder / f"{number + 1}.bmp")
    (folder / "between").rename(folder / "0.bmp")
    assert counts(collection.update()) == {"moved": 10}
    assert labels(collection) == {f"{(n + 1) % 10}.bmp": str(n) for n in range(10)}


def test_a_file_moved_over_another_keeps_its_own_label(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    (folder / "2.bmp").rename(folder / "1.bmp")
    assert counts(collection.update()) == {"moved": 1, "removed": 1, "unchanged": 8}
    assert labels(collection)["1.bmp"] == "2"
    write(folder / "back.bmp", picture(1))  # the overwritten one, from a backup
    assert counts(collection.update()) == {"added": 1, "unchanged": 9}
    assert labels(collection)["back.bmp"] == "1"


def test_a_name_used_again_does_not_inherit_a_label(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    (folder / "1.bmp").rename(folder / "moved.bmp")
    write(folder / "1.bmp", picture(50))
    assert counts(collection.update()) == {"moved": 1, "added": 1, "unchanged": 9, "embedded": 1}
    assert "1.bmp" not in labels(collection)
    assert labels(collection)["moved.bmp"] == "1"

    (folder / "2.bmp").unlink()
    collection.update()
    write(folder / "2.bmp", picture(51))
    assert counts(collection.update()) == {"added": 1, "unchanged": 10, "embedded": 1}
    assert "2.bmp" not in labels(collection)


def test_an_edited_file_keeps_its_label(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    write(folder / "1.bmp", picture(50))
    assert counts(collection.update()) == {"changed": 1, "unchanged": 9, "embedded": 1}
    assert labels(collection)["1.bmp"] == "1"


def test_a_copy_over_another_file_is_no_edit(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    write(folder / "1.bmp", picture(2))
    assert counts(collection.update()) == {"changed": 1, "unchanged": 9}
    assert "1.bmp" not in labels(collection)
    assert labels(collection)["2.bmp"] == "2"


def test_copies_that_carry_different_labels_keep_them_by_name(folder: Path, tiny_encoder: Encoder) -> None:
    for number in range(5):
        write(folder / "old" / f"x{number}.bmp", picture(100))
    collection = labelled(folder, tiny_encoder)
    (folder / "old").rename(folder / "new")
    assert counts(collection.update()) == {"moved": 5, "unchanged": 10}
    assert {path: label for path, label in labels(collection).items() if "/" in path} == {
        f"new/x{number}.bmp": f"x{number}" for number in range(5)
    }


def test_a_file_that_takes_the_name_of_a_copy_that_went_keeps_its_label(folder: Path, tiny_encoder: Encoder) -> None:
    write(folder / "1 (1).bmp", picture(1))
    collection = labelled(folder, tiny_encoder)
    (folder / "1.bmp").unlink()
    collection.update()
    (folder / "1 (1).bmp").rename(folder / "1.bmp")
    assert counts(collection.update()) == {"moved": 1, "unchanged": 9}
    assert labels(collection)["1.bmp"] == "1 (1)"


def test_a_copy_that_comes_back_leaves_its_label_to_the_one_that_moved(folder: Path, tiny_encoder: Encoder) -> None:
    write(folder / "copy.bmp", picture(1))
    collection = labelled(folder, tiny_encoder)
    (folder / "1.bmp").unlink()
    collection.update()
    (folder / "copy.bmp").rename(folder / "moved.bmp")
    write(folder / "1.bmp", picture(1))
    assert counts(collection.update()) == {"added": 1, "moved": 1, "unchanged": 9}
    assert labels(collection) == {**{f"{n}.bmp": str(n) for n in range(10)}, "moved.bmp": "copy"}


def test_a_name_that_went_over_to_a_copy_takes_the_copys_label_though_its_place_is_taken_too(
    folder: Path, tiny_encoder: Encoder
) -> None:
    write(folder / "copy.bmp", picture(1))
    collection = labelled(folder, tiny_encoder)
    (folder / "1.bmp").unlink()
    collection.update()
    (folder / "copy.bmp").rename(folder / "1.bmp")
    write(folder / "copy.bmp", picture(20))
    collection.update()
    found = labels(collection)
    assert found["1.bmp"] == "copy"
    assert "copy.bmp" not in found


def test_copies_that_come_back_have_the_labels_that_they_had(folder: Path, tiny_encoder: Encoder) -> None:
    for path in ("x/one.bmp", "y/one.bmp", "two.bmp"):
        write(folder / path, picture(20))
    collection = Collection.create(folder, tiny_encoder)
    collection.update()
    for image, path in collection.images.ready():
        collection.labels.add(path.replace("/", " "), [image], "me")
    for path in ("x/one.bmp", "y/one.bmp"):
        (folder / path).unlink()
    collection.update()
    (folder / "two.bmp").unlink()
    for path in ("x/one.bmp", "y/one.bmp"):
        (folder / path).write_bytes(picture(20))  # from a backup, as of today
    collection.update()
    found = labels(collection)
    assert (found["x/one.bmp"], found["y/one.bmp"]) == ("x one.bmp", "y one.bmp")


def test_a_disk_that_is_plugged_in_again_has_its_labels_also_after_a_rebuild(
    folder: Path, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    for disk in ("first", "second"):
        write(tmp_path / disk / "same.bmp", picture(20))
        (folder / disk).symlink_to(tmp_path / disk)
    collection = Collection.create(folder, tiny_encoder)
    collection.update()
    for image, path in collection.images.ready():
        collection.labels.add(path.split("/")[0], [image], "me")
    (folder / "first").unlink()
    collection.update()
    other = Encoder.load(write_encoder(tmp_path / "other.onnx", "other"), threads=1)
    collection = Collection.create(folder, other, rebuild=True)
    collection.update()
    (folder / "second").unlink()
    (folder / "first").symlink_to(tmp_path / "first")
    collection.update()
    assert labels(collection)["first/same.bmp"] == "first"


@pytest.mark.parametrize("moves", [False, True])
def test_a_file_that_can_not_be_read_for_a_while_keeps_its_label(
    folder: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    write(folder / "copy.bmp", picture(1))
    collection = labelled(folder, tiny_encoder)

    def refuse(path: Path) -> AbstractContextManager[Content]:
        if path.name == "1.bmp":
            raise ImageError("permission denied", lasting=False)
        return open_content(path)

    with monkeypatch.context() as patch:
        patch.setattr("indexer.ingest.indexing.open_content", refuse)
        (folder / "1.bmp").touch()
        assert [item.path for item in collection.update().skipped] == ["1.bmp"]
        assert collection.health.check().behind == Behind(0, 0, 0)  # to index again would not help
        write(folder / "another copy.bmp", picture(1))
        collection.update()  # to which the label does not go
        assert "another copy.bmp" not in labels(collection)
        (folder / "1.bmp").touch()
        assert collection.health.check().behind == Behind(0, 1, 0)  # now it may
    if moves:
        (folder / "1.bmp").rename(folder / "moved.bmp")
    report = collection.update()
    assert (report.indexed, report.skipped) == (12, [])
    assert labels(collection)["moved.bmp" if moves else "1.bmp"] == "1"


def test_folders_to_choose_from_are_those_that_are_there(folder: Path, tiny_encoder: Encoder) -> None:
    write(folder / "old" / "11.bmp", picture(11))
    collection = labelled(folder, tiny_encoder)
    assert list(collection.images.outline().folders) == ["old"]
    (folder / "old").rename(folder / "new")
    assert counts(collection.update()) == {"moved": 1, "unchanged": 10}
    assert list(collection.images.outline().folders) == ["new"]


def test_a_file_of_the_same_size_and_date_is_noticed(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    with (folder / "1.bmp").open("r+b") as file:
        file.write(picture(50))
    os.utime(folder / "1.bmp", SAME_TIME)
    assert counts(collection.update()) == {"changed": 1, "unchanged": 9, "embedded": 1}


def test_touched_files_are_not_embedded_again(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    generation = collection.catalog.meta().generation
    for path in folder.iterdir():
        if path.is_file():
            path.touch()
    assert counts(collection.update()) == {"unchanged": 10}
    assert collection.catalog.meta().generation == generation  # so nothing is calibrated or built again


def test_a_file_becomes_a_folder_and_a_folder_a_file(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    (folder / "1.bmp").rename(folder / "kept")
    (folder / "1.bmp").mkdir()
    (folder / "kept").rename(folder / "1.bmp" / "inner.bmp")
    assert counts(collection.update()) == {"moved": 1, "unchanged": 9}
    assert labels(collection)["1.bmp/inner.bmp"] == "1"
    (folder / "1.bmp" / "inner.bmp").rename(folder / "kept")
    (folder / "1.bmp").rmdir()
    (folder / "kept").rename(folder / "1.bmp")
    assert counts(collection.update()) == {"moved": 1, "unchanged": 9}
    assert labels(collection)["1.bmp"] == "1"


def test_something_else_in_the_place_of_an_image_is_listed(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    (folder / "1.bmp").rename(folder / "moved.bmp")
    os.mkfifo(folder / "1.bmp")
    report = collection.update()
    assert counts(report) == {"moved": 1, "unchanged": 9}
    assert [(item.path, item.reason) for item in report.skipped] == [("1.bmp", "not a regular file")]
    assert labels(collection)["moved.bmp"] == "1"
    (folder / "1.bmp").unlink()
    assert collection.update().skipped == []


def test_a_half_copied_file_gets_its_label_back_when_it_is_whole(folder: Path, tiny_encoder: Encoder) -> None:
    collection = labelled(folder, tiny_encoder)
    write(folder / "1.bmp", picture(1)[:100])
    assert [item.path for item in collection.update().skipped] == ["1.bmp"]
    write(folder / "1.bmp", picture(1))
    assert counts(collection.update()) == {"added": 1, "unchanged": 9, "embedded": 1}
    assert labels(collection)["1.bmp"] == "1"


def test_files_that_move_before_a_rebuild_keep_their_labels(
    folder: Path, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    labelled(folder, tiny_encoder)
    other = Encoder.load(write_encoder(tmp_path / "other.onnx", "other"))
    collection = Collection.create(folder, other, rebuild=True)
    swap(folder / "1.bmp", folder / "2.bmp")
    (folder / "3.bmp").rename(folder / "new.bmp")
    assert counts(collection.update()) == {"moved": 3, "unchanged": 7, "embedded": 10}
    assert labels(collection) == {f"{ {3: 'new'}.get(n, n) }.bmp": {1: "2", 2: "1"}.get(n, str(n)) for n in range(10)}


# What is read ---------------------------------------------------------------------------------------------------------


def test_patterns_are_remembered_until_they_are_given_anew(folder: Path, tiny_encoder: Encoder) -> None:
    write(folder / "drafts" / "a.bmp", picture(20))
    collection = labelled(folder, tiny_encoder)
    assert counts(collection.update(exclude=["drafts", "9.*"])) == {"removed": 2, "unchanged": 9}
    assert counts(Collection.open(folder).update()) == {"unchanged": 9}
    assert of_collection(collection)["exclude"] == ["drafts", "9.*"]
    assert counts(collection.update(exclude=[""])) == {"added": 2, "unchanged": 9}
    assert labels(collection)["9.bmp"] == "9"


def test_a_raised_limit_reads_what_was_too_large(folder: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(folder, tiny_encoder)
    report = collection.update(max_pixels=63)
    assert {item.reason for item in report.skipped} == {
        "too large: 8 x 8 is 0.000064 megapixels, the limit is 0.000063; --max-megapixels raises it"
    }
    assert (report.indexed, len(report.skipped)) == (0, 10)
    assert len(collection.update().skipped) == 10  # remembered
    assert counts(collection.update(max_pixels=64)) == {"added": 10, "embedded": 10}


def test_files_are_looked_at_again_when_more_can_be_read(
    folder: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "FORMATS", ("PNG",))
    monkeypatch.setattr(raw, "can_develop", lambda: not raw.__name__)
    collection = Collection.create(folder, tiny_encoder)
    assert len(collection.update().skipped) == 10
    monkeypatch.undo()
    monkeypatch.setattr(raw, "can_develop", lambda: True)  # as after: pip install 'massl[raw]'
    assert counts(collection.update()) == {"added": 10, "embedded": 10}


def test_files_that_an_older_version_skipped_are_read_by_this_one(folder: Path, tiny_encoder: Encoder) -> None:
    write(folder / "deep.tif", tiff(np.full((8, 8, 3), 4000, np.uint16), RGB, planar=True))
    write(folder / "bands.tif", tiff(np.zeros((8, 8, 5), np.uint16), GREY, extra=[0] * 4))
    collection = Collection.create(folder, tiny_encoder)
    reason = (
        "a TIFF of 5 channels of 16 bits that doesn't say which of them are red, green and blue; "
        "save the channels that you want to see as RGB or grey"
    )
    assert [(item.path, item.reason) for item in collection.update().skipped] == [("bands.tif", reason)]
    # As a version left it that couldn't read the other either.
    with collection.catalog.writing() as connection:
        connection.execute("UPDATE images SET state = 'skipped', reason = 'not an image' WHERE path = ?", [b"deep.tif"])
        before = f"pillow {PIL.__version__}, raw {raw.can_develop()}"
        connection.execute("UPDATE meta SET value = ? WHERE key = 'readers'", [before])
    assert [item.path for item in collection.update().skipped] == ["bands.tif"]


def test_a_file_that_vanishes_under_the_reader_is_skipped(
    folder: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = labelled(folder, tiny_encoder)
    for number in (20, 21):
        write(folder / f"{number}.bmp", picture(number))
    walk = scan.walk

    def walk_and_take_one_away(*arguments: object) -> Iterator[object]:
        yield from walk(*arguments)  # type: ignore[arg-type]
        (folder / "20.bmp").unlink(missing_ok=True)

    monkeypatch.setattr("indexer.ingest.indexing.walk", walk_and_take_one_away)
    report = collection.update()
    assert [(item.path, item.reason) for item in report.skipped] == [("20.bmp", "vanished while reading")]
    assert counts(report) == {"added": 1, "unchanged": 10, "embedded": 1}
    monkeypatch.undo()
    assert collection.update().skipped == []


# Any sequence ---------------------------------------------------------------------------------------------------------

NAMES = ("a.bmp", "b.bmp", "c.bmp", "sub/a.bmp", "sub/deep/d.bmp", "späte\nÄpfel.bmp", os.fsdecode(b"\xff.bmp"))
FOLDERS = ("sub", "sub/deep", "other")
# Pictures of one size in bytes, one of another, and files that are none.
CONTENTS = (*(picture(number) for number in range(5)), picture(5, "PNG"), picture(6)[:90], b"no picture", b"")

REARRANGE = st.one_of(
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("swap"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("rename"), st.sampled_from(FOLDERS), st.sampled_from(FOLDERS)),
    st.tuples(st.just("touch"), st.sampled_from(NAMES)),
    st.tuples(st.just("index")),
)
CHANGE = st.one_of(
    REARRANGE,
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from(CONTENTS)),
    st.tuples(st.just("copy"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES + FOLDERS)),
    st.tuples(st.just("fold"), st.sampled_from(NAMES)),
    st.tuples(st.just("link"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
)


def change(root: Path, action: str, *values: str | bytes, keep: bool = False) -> None:
    """Does one thing to a folder, as far as it can be done; with `keep` nothing is ever overwritten."""
    paths = [root / value for value in values if isinstance(value, str)]
    if action in ("rename", "swap", "copy", "touch") and not paths[0].exists():
        return
    if action == "swap" and paths[0] != paths[1] and paths[0].is_file() and paths[1].is_file():
        swap(paths[0], paths[1])
    elif action == "touch":
        os.utime(paths[0], ns=(1, paths[0].stat().st_mtime_ns + 1))
    elif action == "delete" and paths[0].exists():
        shutil.rmtree(paths[0]) if paths[0].is_dir() and not paths[0].is_symlink() else paths[0].unlink()
    elif action in ("rename", "copy", "write", "fold", "link"):
        target = paths[-1]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if action == "write":
                target.unlink(missing_ok=True)
                write(target, values[1])  # type: ignore[arg-type]
            elif action == "fold" and target.is_file():
                target.unlink()
                write(target / "inner.bmp", CONTENTS[0])
            elif action == "link":
                target.symlink_to(paths[0])
            elif action == "copy" and paths[0].is_file():
                shutil.copy2(paths[0], target)
            elif action == "rename" and not (keep and target.exists()):
                paths[0].rename(target)
        except (OSError, shutil.SameFileError):
            pass  # a folder into itself, a file over a folder: nothing that a file system would let happen


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photos").mkdir()
        yield Path(folder)


def assert_same_answers(one: Collection, other: Collection, probe: bytes) -> None:
    """Both say the same of every file, and find the same."""
    rows = "SELECT path, hash, width, height FROM images WHERE +state = 'ready' ORDER BY path"
    assert list(one.catalog.read(rows)) == list(other.catalog.read(rows))
    assert one.images.skipped() == other.images.skipped()
    vectors, scores = [], []
    for collection in (one, other):
        read = collection.catalog.read("SELECT embedding FROM images WHERE +state = 'ready' ORDER BY path")
        vectors.append(np.frombuffer(b"".join(row[0] for row in read), np.float16).astype(np.float32))
        found = collection.search([Query(data=probe)], 10_000)
        scores.append([result.score for result in sorted(found, key=lambda result: result.path)])
    # Batches are of other sizes, and sums of floats then differ in the last place.
    np.testing.assert_allclose(vectors[0], vectors[1], atol=2e-3)
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-3)


@settings(max_examples=40, deadline=None)
@given(actions=st.lists(CHANGE, max_size=14))
def test_any_changes_end_in_what_a_fresh_index_says(tiny_encoder: Encoder, actions: list[tuple[str, ...]]) -> None:
    with scratch() as place:
        root = place / "photos"
        for name, content in zip(NAMES[:4], CONTENTS, strict=False):
            write(root / name, content)
        collection = Collection.create(root, tiny_encoder, place / "index")
        collection.update()
        for action in (*actions, ("index",)):
            if action == ("index",):
                report = collection.update()
                assert report.added + report.changed + report.moved + report.unchanged == report.indexed
            else:
                change(root, *action)
        assert counts(collection.update()).keys() <= {"unchanged"}
        write(root / "one.bmp", CONTENTS[0])  # as a folder without any image can't have a fresh index
        collection.update()
        fresh = Collection.create(root, tiny_encoder, place / "fresh")
        fresh.update()
        assert_same_answers(collection, fresh, CONTENTS[1])


@settings(max_examples=25, deadline=None)
@given(actions=st.lists(REARRANGE, max_size=14))
def test_labels_follow_their_images_wherever_these_go(tiny_encoder: Encoder, actions: list[tuple[str, ...]]) -> None:
    with scratch() as place:
        root = place / "photos"
        contents = {picture(number): str(number) for number in range(5)}
        for name, content in zip(NAMES, contents, strict=False):
            write(root / name, content)
        collection = Collection.create(root, tiny_encoder, place / "index")
        collection.update()
        for image, path in collection.images.ready():
            collection.labels.add(contents[(root / path).read_bytes()], [image], "me")
        for action in (*actions, ("index",)):
            if action == ("index",):
                report = collection.update()
                assert (report.indexed, report.embedded, report.added, report.removed) == (5, 0, 0, 0)
                assert labels(collection) == {
                    path: contents[(root / path).read_bytes()] for _, path in collection.images.ready()
                }
            else:
                change(root, *action, keep=True)
