"""A collection as a person uses it: indexed, changed, searched, labelled, classified, damaged."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import Collection, Encoder, EncoderMismatch, Query
from indexer.fewshot.classification import SAMPLE
from indexer.fewshot.label_state import CollectionFewshot
from indexer.ingest import indexing
from indexer.search import query as queries
from indexer.storage.collection_storage import Storage
from indexer.store.labels import AGENT, DRAWN
from indexer.store.sqlite_errors import explained
from massl.core.errors import MasslError
from tests.indexer.tiny import write_copy
from tests.massl.conftest import full_disk


def answers(collection: Collection) -> dict[str, list[tuple[float, str]]]:
    """Path to all other images with their scores, nearest first, for every image."""
    return {
        path: sorted((-round(found.score, 2), found.path) for found in collection.search([Query(image=image)], 100))
        for image, path in collection.images.ready()
    }


# Indexing -------------------------------------------------------------------------------------------------------------


def test_a_second_run_has_nothing_to_do(collection: Collection) -> None:
    again = collection.update()
    assert (again.indexed, again.unchanged) == (24, 24)
    assert again.added == again.changed == again.moved == again.removed == again.embedded == 0


def test_every_kind_of_change_is_seen(collection: Collection) -> None:
    root = collection.root
    flags = sorted((root / "flag").iterdir())
    flags[0].unlink()
    flags[1].rename(root / "renamed.jpg")
    shutil.copy(flags[2], flags[3])
    shutil.copy(flags[4], root / "copy.jpg")
    (root / "broken.jpg").write_text("not an image")
    report = collection.update()
    assert (report.indexed, report.added, report.changed, report.moved, report.removed) == (24, 1, 1, 1, 1)
    assert report.unchanged == 21
    assert report.embedded == 0  # every content was known
    assert [(item.path, item.reason) for item in report.skipped] == [
        ("broken.jpg", "not an image, or of a format that is not supported")
    ]
    fresh = Collection.create(root, collection.encoder, root.parent / "fresh")
    fresh.update()
    assert answers(collection) == answers(fresh)


def test_a_moved_image_keeps_its_label(collection: Collection) -> None:
    image = collection.images.id_of("flag/" + sorted(os.listdir(collection.root / "flag"))[0])
    collection.labels.add("banner", [image], "me")
    (collection.root / "flag").rename(collection.root / "flags")
    report = collection.update()
    assert (report.moved, report.added, report.removed) == (6, 0, 0)
    assert [label.path.split("/")[0] for label in collection.labels.every()] == ["flags"]


def test_a_folder_that_is_away_for_a_while_costs_nothing(collection: Collection) -> None:
    away = collection.root.parent / "away"
    image = collection.images.id_of("flag/" + sorted(os.listdir(collection.root / "flag"))[0])
    collection.labels.add("banner", [image], "me")
    (collection.root / "flag").rename(away)
    assert collection.update().removed == 6
    assert collection.labels.every() == []
    away.rename(collection.root / "flag")
    report = collection.update()
    assert (report.added, report.embedded, len(collection.labels.every())) == (6, 0, 1)


def test_a_skipped_file_is_looked_at_again_when_it_changes(collection: Collection) -> None:
    target = collection.root / "late.jpg"
    target.write_bytes(b"half a file")
    assert len(collection.update().skipped) == 1
    shutil.copy(next((collection.root / "space").iterdir()), target)
    report = collection.update()
    assert (report.added, report.skipped) == (1, [])


def test_names_that_are_not_utf8_are_indexed_and_found(collection: Collection) -> None:
    source = next((collection.root / "space").iterdir())
    name = os.fsdecode(b"caf\xe9\n.jpg")
    shutil.copy(source, collection.root / name)
    assert collection.update().added == 1
    assert name in {result.path for result in collection.search([Query.of_file(source)], 2)}


def test_a_folder_without_permission_is_listed(collection: Collection) -> None:
    closed = collection.root / "flag"
    closed.chmod(0)
    try:
        if os.access(closed, os.R_OK):  # as root, permissions don't bind
            code = "import os, sys; from massl.core.files.scan import walk; os.setuid(65534); print(*walk(sys.argv[1]))"
            for folder in (collection.root, *collection.root.parents):
                folder.chmod(folder.stat().st_mode | 0o555)
            output = subprocess.run(
                [sys.executable, "-c", code, str(collection.root)], capture_output=True, text=True, check=True
            ).stdout
            assert "Skipped(path='flag', reason='no permission to read it')" in output
        else:
            assert [(item.path, item.reason) for item in collection.update().skipped] == [
                ("flag", "no permission to read it")
            ]
    finally:
        closed.chmod(0o755)


def test_an_index_can_lie_elsewhere(photos: Path, encoder: Encoder, tmp_path: Path) -> None:
    Collection.create(photos, encoder, tmp_path / "index").update()
    assert not (photos / ".massl").exists()
    assert len(Collection.open(photos, tmp_path / "index")) == 24


def test_a_second_indexer_leaves(collection: Collection) -> None:
    with (
        Storage.open(collection.root).held(),
        pytest.raises(MasslError, match=f"is being indexed by process {os.getpid()}"),
    ):
        Collection.open(collection.root).update()
    assert Collection.open(collection.root).update().unchanged == 24


# Encoders -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def other_encoder(encoder: Encoder, tmp_path: Path) -> Encoder:
    """The same network under another name, and so with another identity."""
    return Encoder.load(write_copy(encoder.path, tmp_path / "other.onnx", name="other"))


def test_another_encoder_is_refused_with_the_way_out(collection: Collection, other_encoder: Encoder) -> None:
    with pytest.raises(
        EncoderMismatch, match=f"with the encoder {collection.encoder.name} .* not with other .*--rebuild"
    ):
        Collection.create(collection.root, other_encoder)


def test_rebuilding_with_another_encoder_keeps_the_labels(collection: Collection, other_encoder: Encoder) -> None:
    collection.labels.add("flag", [collection.images.ready()[0][0]], "me")
    rebuilt = Collection.create(collection.root, other_encoder, rebuild=True)
    report = rebuilt.update()
    assert (report.indexed, report.embedded) == (24, 24)
    assert len(rebuilt.labels.every()) == 1
    assert Collection.open(collection.root).encoder.name == "other"


def test_an_interrupted_rebuild_can_be_searched_and_goes_on(collection: Collection, other_encoder: Encoder) -> None:
    half = Collection.create(collection.root, other_encoder, rebuild=True)
    query = [Query.of_file(sorted(collection.root.glob("flag/*"))[0])]
    assert half.search(query, 5) == []  # nothing is embedded yet
    assert half.update().embedded == 24
    assert len(half.search(query, 5)) == 5


def test_a_rebuild_on_a_full_disk_changes_nothing(collection: Collection, other_encoder: Encoder) -> None:
    with pytest.raises(MasslError, match=r"can't be written \(file too large\)"), full_disk(1_000_000):
        Collection.create(collection.root, other_encoder, rebuild=True)
    again = Collection.open(collection.root)
    assert again.encoder.sha256 == collection.encoder.sha256
    assert len(again.search([Query(image=1)], 5)) == 5
    assert list(collection.folder.glob("*.tmp")) == []


def test_a_copy_under_the_name_that_it_had_before_is_found(collection: Collection, other_encoder: Encoder) -> None:
    Collection.create(collection.root, other_encoder, rebuild=True)
    (copy,) = collection.folder.glob("encoder*.onnx")
    copy.rename(collection.folder / "encoder.onnx")
    again = Collection.open(collection.root)
    assert again.encoder.sha256 == other_encoder.sha256
    Collection.create(collection.root, again.encoder, rebuild=True)
    assert Collection.open(collection.root).encoder.path == copy


def test_the_way_out_of_an_error_leads_to_the_index_that_is_there(
    photos: Path, tmp_path: Path, tiny_encoder: Encoder, other_encoder: Encoder
) -> None:
    root, index = photos.rename(tmp_path / "my photos"), tmp_path / "it's here"

    def command(error: MasslError) -> list[str]:
        return shlex.split(str(error).partition("run: ")[2].partition(", with")[0])

    with pytest.raises(MasslError, match="has no index yet") as missing:
        Collection.open(root, index)
    wanted = ["massl", "index", str(root), "--index-dir", str(index)]
    assert command(missing.value) == wanted
    collection = Collection.create(root, tiny_encoder, index)
    with pytest.raises(MasslError, match="is not in the index") as unknown:
        collection.images.id_of(f"flag/{sorted(os.listdir(root / 'flag'))[0]}")
    assert command(unknown.value) == wanted
    with pytest.raises(EncoderMismatch) as refused:
        collection.storage.check_fits(other_encoder)
    assert command(refused.value) == [*wanted, "--encoder", str(other_encoder.path), "--rebuild"]
    for copy in index.glob("encoder*.onnx"):
        copy.write_bytes(b"cut")
    tiny_encoder.path.rename(tiny_encoder.path.with_name("elsewhere.onnx"))  # else the copy is made anew from it
    try:
        with pytest.raises(MasslError, match=r"copy of its encoder, tiny, is damaged") as damaged:
            _ = Collection.open(root, index).encoder
    finally:
        tiny_encoder.path.with_name("elsewhere.onnx").rename(tiny_encoder.path)
    assert command(damaged.value) == [*wanted, "--encoder", "FILE"]


# Searching ------------------------------------------------------------------------------------------------------------


def test_a_picture_finds_itself_first(collection: Collection) -> None:
    for path in sorted(collection.root.glob("*/*.jpg"))[::5]:
        first = collection.search([Query.of_file(path)], 3)[0]
        assert collection.root / first.path == path
        assert first.score > 0.999
        assert first.match == "same"


def test_a_file_of_the_collection_is_searched_by_what_is_stored(collection: Collection) -> None:
    """It may have been embedded by another runtime; a copy was then found before the file itself."""

    def embedded() -> Encoder:
        raise AssertionError("the file was embedded again")

    path = sorted(collection.root.glob("*/*.jpg"))[0]
    image = collection.images.id_of(str(path.relative_to(collection.root)))
    for example in (Query.of_file(path), Query(image=image)):
        target = queries.embed([example], collection.catalog, collection.root, embedded)
        ids, vectors = CollectionFewshot(collection.catalog).vectors()
        assert ids[int(np.argmax(vectors @ target))] == image


def test_scores_are_cosines_in_falling_order(collection: Collection) -> None:
    examples = [Query.of_file(sorted(collection.root.glob("*/*.jpg"))[0])]
    results = collection.search(examples, 24)
    scores = [result.score for result in results]
    assert scores == sorted(scores, reverse=True)
    ids, vectors = CollectionFewshot(collection.catalog).vectors()
    target = queries.embed(examples, collection.catalog, collection.root, lambda: collection.encoder)
    exact = dict(zip(ids, vectors @ target, strict=True))
    np.testing.assert_allclose(scores, [exact[result.image] for result in results], atol=1e-5)


def test_an_unwanted_example_pushes_its_like_down(collection: Collection) -> None:
    wanted, unwanted = (sorted((collection.root / kind).iterdir())[0] for kind in ("flag", "space"))
    image = collection.images.id_of(f"space/{unwanted.name}")
    plain = {r.image: r.score for r in collection.search([Query.of_file(wanted)], 24)}
    pushed = {
        r.image: r.score for r in collection.search([Query.of_file(wanted), Query.of_file(unwanted, weight=-1.0)], 24)
    }
    assert pushed[image] < plain[image]


def test_filters_act_inside_the_search(collection: Collection) -> None:
    query = [Query.of_file(sorted((collection.root / "flag").iterdir())[0])]
    assert {r.path.split("/")[0] for r in collection.search(query, 3, under="space")} == {"space"}
    assert len(collection.search(query, 100, under="space/")) == 6
    with pytest.raises(MasslError, match="no image lies below a folder 'spa'"):
        collection.search(query, 5, under="spa")
    with pytest.raises(MasslError, match="no image has the label 'apple'; the labels are: none"):
        collection.search(query, 5, label="apple")
    assert len(collection.search(query, 100, under=["space", "flag/"])) == 12
    chosen = [image for image, path in collection.images.ready() if path.startswith("fruit")][:2]
    collection.labels.add("apple", chosen, "me")
    found = collection.search(query, 5, label="apple")
    assert {r.image for r in found} == set(chosen)
    assert {r.label for r in found} == {"apple"}


def test_a_crop_is_searched_by(collection: Collection) -> None:
    path = sorted((collection.root / "painting").iterdir())[0]
    width, height = Image.open(path).size
    whole = collection.search([Query.of_file(path, crop=(0, 0, width, height))], 1)[0]
    assert collection.root / whole.path == path
    with pytest.raises(MasslError, match="is not inside"):
        collection.search([Query.of_file(path, crop=(0, 0, width + 1, height))])
    with pytest.raises(MasslError, match="the crop 5,5,1,9 is too small to show anything; give 8 x 8 pixels or more"):
        collection.search([Query.of_file(path, crop=(5, 5, 1, 9))])


def test_a_crop_of_an_image_of_the_collection_is_cut_from_its_file(collection: Collection) -> None:
    path = sorted((collection.root / "painting").iterdir())[0]
    box = (3, 4, 60, 50)
    image = collection.images.id_of(f"painting/{path.name}")
    by_image = collection.search([Query(image=image, crop=box)], 24)
    by_file = collection.search([Query.of_file(path, crop=box)], 24)
    assert [r.image for r in by_image] == [r.image for r in by_file if r.image != image]
    assert by_image[0].score == pytest.approx(next(r.score for r in by_file if r.image != image), abs=1e-5)
    path.unlink()
    with pytest.raises(MasslError, match="can't be used as a query: there is no such file"):
        collection.search([Query(image=image, crop=box)])


def test_a_ranking_is_described_a_page_at_a_time(collection: Collection) -> None:
    example = [Query.of_file(sorted((collection.root / "flag").iterdir())[0])]
    whole = collection.search(example, 24)
    ranking = collection.searcher.rank(example, 24)
    assert [r for first in range(0, 24, 5) for r in collection.searcher.describe(ranking, first, first + 5)] == whole
    assert ranking.above(whole[7].score) == 8
    assert (ranking.above(2), ranking.above(-2)) == (0, 24)
    gone = whole[3]
    (collection.root / gone.path).unlink()
    collection.update()
    assert [r.rank for r in collection.searcher.describe(ranking, 0, 6)] == [1, 2, 3, 5, 6]


def test_queries_that_can_not_work_say_why(collection: Collection, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_text("text")
    with pytest.raises(MasslError, match="can't be used as a query: not an image"):
        collection.search([Query.of_file(tmp_path / "no.jpg")])
    with pytest.raises(MasslError, match="can't be used as a query: there is no such file"):
        Query.of_file(tmp_path / "nowhere.jpg")
    with pytest.raises(MasslError, match="at least one example"):
        collection.search([Query(image=1, weight=-1.0)])
    with pytest.raises(MasslError, match="cancel each other out"):
        collection.search([Query(image=1), Query(image=1, weight=-1.0)])
    with pytest.raises(MasslError, match="no longer in the collection"):
        collection.search([Query(image=999)])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "foreign"])
def test_a_damaged_vector_file_is_noticed_and_rebuilt(collection: Collection, damage: str) -> None:
    wanted = answers(collection)
    (file,) = (collection.root / ".massl").glob("vectors-*.faiss")
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    file.write_bytes({"flip": data, "cut": data[:-100], "empty": b"", "gone": b"", "foreign": b"x" * 5000}[damage])
    if damage == "gone":
        file.unlink()
    assert answers(Collection.open(collection.root)) == wanted
    (mended,) = (collection.root / ".massl").glob("vectors-*.faiss")
    assert mended.stat().st_size > 5000


def test_a_part_of_an_indexed_folder_leads_to_the_whole(collection: Collection) -> None:
    for part in ("flag", ".massl"):
        with pytest.raises(MasslError, match=f"{part} is part of {collection.root}, which has an index; name that"):
            Collection.open(collection.root / part)


@pytest.mark.parametrize("damage", ["foreign", "empty", "page"])
def test_a_damaged_catalog_says_what_to_do(collection: Collection, damage: str) -> None:
    collection.catalog.close()
    file = collection.root / ".massl" / "catalog.sqlite"
    data = file.read_bytes()
    page = data[:4096] + b"\xff" * 4096 + data[8192:]
    file.write_bytes({"foreign": b"not a database" * 500, "empty": b"", "page": page}[damage])
    with pytest.raises(MasslError, match=r"is damaged .* run `massl index"):
        Collection.open(collection.root)


def test_an_index_elsewhere_belongs_to_one_folder(photos: Path, encoder: Encoder, tmp_path: Path) -> None:
    Collection.create(photos / "flag", encoder, tmp_path / "index").update()
    with pytest.raises(MasslError, match=r"belongs to .*flag, not to"):
        Collection.create(photos / "space", encoder, tmp_path / "index")
    (photos / "flag").rename(photos / "flags")
    assert Collection.create(photos / "flags", encoder, tmp_path / "index").update().unchanged == 6


def test_an_error_of_sqlite_s_is_called_what_it_is(collection: Collection) -> None:
    catalog = collection.catalog
    connection = catalog._connection()
    ((pages,),) = catalog.read("PRAGMA page_count")

    def write() -> None:
        catalog.set_meta(("a", "x" * 100_000))

    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(MasslError, match=r"\(no space left on device\); free some space"):
        write()
    connection.execute("PRAGMA max_page_count = 4294967294")
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(MasslError, match=r"\(attempt to write a readonly database\); choose another place"):
        write()
    connection.execute("PRAGMA query_only = OFF")
    connection.execute("PRAGMA busy_timeout = 10")
    with closing(sqlite3.connect(catalog.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MasslError, match="is being written by another process; try again in a moment"):
            write()
    write()
    with pytest.raises(sqlite3.OperationalError, match="no such column"):  # a fault of ours, and none of the file's
        catalog.read("SELECT wrong FROM images")


def test_a_network_drive_that_can_not_lock_is_no_damage(collection: Collection) -> None:
    error = sqlite3.OperationalError("locking protocol")
    error.sqlite_errorcode = sqlite3.SQLITE_PROTOCOL
    assert "choose a local one with --index-dir" in str(explained(collection.catalog.path, error, None))


def test_a_killed_run_leaves_no_cache_that_looks_current(collection: Collection) -> None:
    # As after a kill between the last batch and the end of the run: the images are in, the cache is of before.
    query = [Query.of_file(sorted(collection.root.glob("flag/*"))[0])]
    collection.search(query, 1)
    shutil.copy(sorted(collection.root.glob("flag/*"))[0], collection.root / "new.jpg")
    indexing.update(collection.root, collection.catalog, lambda count: collection.encoder, lambda progress: None)
    assert "new.jpg" in {result.path for result in Collection.open(collection.root).search(query, 2)}


def test_a_removed_image_leaves_the_vectors_too(collection: Collection) -> None:
    assert len(collection.searcher.index()) == 24
    sorted(collection.root.glob("flag/*"))[0].unlink()
    collection.update()
    assert len(Collection.open(collection.root).searcher.index()) == 23


def test_an_index_from_the_future_is_refused(collection: Collection) -> None:
    with collection.catalog.writing() as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(MasslError, match="newer version"):
        Collection.open(collection.root)


def test_a_folder_that_was_never_indexed_says_what_to_run(photos: Path) -> None:
    with pytest.raises(MasslError, match="run: massl index"):
        Collection.open(photos)


def test_thumbnails_carry_no_metadata(collection: Collection) -> None:
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    Image.new("RGB", (500, 300), "red").save(collection.root / "exif.jpg", exif=exif)
    collection.update()
    thumbnail = collection.images.thumbnail(collection.images.id_of("exif.jpg"))
    assert thumbnail is not None
    assert b"secret" not in thumbnail
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert image.size == (256, 154)
        assert not image.getexif()


def test_a_thumbnail_is_never_made_of_another_picture_that_took_the_file_s_name(collection: Collection) -> None:
    root = collection.root
    Image.new("RGB", (64, 64), "red").save(root / "red.png")
    Image.new("RGB", (64, 64), "blue").save(root / "blue.png")
    collection.update()
    image = collection.images.id_of("red.png")
    (root / "red.png").rename(root / "moved.png")
    shutil.copy(root / "blue.png", root / "red.png")
    assert collection.images.thumbnail(image) is None  # what the index knows lies elsewhere now
    assert collection.images.thumbnail(image, 1024) is None
    collection.update()
    thumbnail = collection.images.thumbnail(collection.images.id_of("moved.png"))
    assert thumbnail is not None
    with Image.open(io.BytesIO(thumbnail)) as picture:
        red, _, blue = picture.convert("RGB").getpixel((32, 32))
    assert red > 200 > 50 > blue


# Labels ---------------------------------------------------------------------------------------------------------------


def test_few_labels_classify_everything(collection: Collection) -> None:
    for kind in ("flag", "space"):
        chosen = [image for image, path in collection.images.ready() if path.startswith(kind)][:3]
        collection.labels.add(kind, chosen, "me")
    result = collection.fewshot.classify()
    assert result.classes == ("flag", "space")
    assert len(result.images) == 24
    assert (result.estimated_accuracy, result.needs) == (None, SAMPLE)  # as there are two more kinds
    assert ((result.probability > 0) & (result.probability <= 1)).all()
    predicted = dict(zip(collection.images.paths_of(result.images.tolist()), result.predicted, strict=True))
    own = [path for path in predicted if path.split("/")[0] in ("flag", "space")]
    right = [result.classes[predicted[path]] == path.split("/")[0] for path in own]
    assert np.mean(right) > 0.8


def test_few_labels_never_make_anyone_certain(collection: Collection) -> None:
    for kind, count in (("flag", 4), ("space", 3)):
        chosen = [image for image, path in collection.images.ready() if path.startswith(kind)][:count]
        collection.labels.add(kind, chosen, "me")
    result = collection.fewshot.classify()
    guessed = result.probability[result.probability < 1]
    assert len(guessed) == 24 - 7
    assert guessed.max() <= 1 - 0.5 / 9  # seven examples: one in nine may be wrong, and half of those at random


def test_one_example_a_class_gives_no_estimate(collection: Collection) -> None:
    first, second = (image for image, _ in collection.images.ready()[:2])
    collection.labels.add("a", [first], "me")
    collection.labels.add("b", [second], "me")
    assert collection.fewshot.classify().estimated_accuracy is None


def test_one_class_is_not_enough(collection: Collection) -> None:
    with pytest.raises(MasslError, match="at least two classes"):
        collection.fewshot.classify()
    collection.labels.add("a", [1, 2, 3], "me")
    with pytest.raises(MasslError, match="only 'a'"):
        collection.fewshot.classify()


def test_a_label_replaces_the_one_before_and_can_be_taken_off(collection: Collection) -> None:
    collection.labels.add("a", [1, 2], "me")
    collection.labels.add("b", [1], "you")
    assert {(label.label, label.author) for label in collection.labels.every()} == {("a", "me"), ("b", "you")}
    assert collection.labels.remove([1, 3]) == 1
    assert [label.label for label in collection.labels.every()] == ["a"]


def test_classes_keep_the_order_in_which_they_came(collection: Collection) -> None:
    for name, image in (("zebra", 1), ("cat", 2), ("aardvark", 3)):
        collection.labels.add(name, [image], "me")
    collection.labels.add("cat", [1, 4], "me")  # zebra has no picture left
    assert collection.labels.classes() == ["cat", "aardvark"]
    collection.labels.add("zebra", [5], "me")
    collection.labels.remove([2, 1, 4])
    collection.labels.add("cat", [1], "me")  # taken back
    assert Collection.open(collection.root).labels.classes() == ["cat", "aardvark", "zebra"]


def test_a_corrected_label_stays_in_the_random_sample(collection: Collection) -> None:
    first, second, third = 1, 2, 3
    collection.labels.give({first: "a", second: "b"}, DRAWN)
    collection.labels.give({first: "b", third: "a"}, "import")
    assert collection.labels.by_author(DRAWN) == {first, second}
    assert collection.labels.by_image() == {first: "b", second: "b", third: "a"}
    collection.labels.add("a", [second], AGENT)  # that a program answered is not hidden
    assert collection.labels.by_author(DRAWN) == {first}
    collection.labels.remove([first])
    collection.labels.add("a", [first], "import")
    assert not collection.labels.by_author(DRAWN)


def test_classes_from_before_their_order_was_kept_come_by_the_time_of_their_first_label(collection: Collection) -> None:
    collection.labels.add("zebra", [1], "me")
    collection.labels.add("cat", [2], "me")
    with collection.catalog.writing() as connection:
        connection.execute("DELETE FROM meta WHERE key = 'classes'")
        connection.execute("UPDATE labels SET at = '2024-01-01T00:00:00+00:00' WHERE image = 1")
    assert collection.labels.classes() == ["zebra", "cat"]
    collection.labels.add("ant", [3], "me")
    assert collection.labels.classes() == ["zebra", "cat", "ant"]


@pytest.mark.parametrize("label", ["", "  ", "x" * 101, "two\nlines", "nul\x00"])
def test_labels_that_can_not_be_used_are_refused(collection: Collection, label: str) -> None:
    with pytest.raises(MasslError, match="a label is 1 to 100 printable characters"):
        collection.labels.add(label, [1], "me")
    assert collection.labels.every() == []


def test_labelling_an_image_that_is_not_there_labels_nothing(collection: Collection) -> None:
    with pytest.raises(MasslError, match="nothing was labelled"):
        collection.labels.add("a", [1, 999], "me")
    assert collection.labels.every() == []


def test_what_is_indexed_as_an_exception_for_its_size_can_be_used_like_the_rest(
    tmp_path: Path, encoder: Encoder
) -> None:
    folder = tmp_path / "plans"
    folder.mkdir()
    pattern = Image.effect_noise((40, 40), 90).resize((13_600, 13_600), Image.Resampling.NEAREST)
    for name, quality in (("a.jpg", 40), ("b.jpg", 45)):
        pattern.save(folder / name, quality=quality)
    collection = Collection.create(folder, encoder)
    assert len(collection.update().skipped) == 2
    collection.update(max_pixels=200_000_000)
    one, other = (image for image, _ in collection.images.ready())
    assert [found.image for found in collection.search([Query.of_file(folder / "a.jpg")], 2)] == [one, other]
    assert collection.search([Query(image=one, crop=(0, 0, 9_000, 9_000))])
    assert collection.searcher.heat([Query(image=one)], other).cosines.max() > 0.9
    assert len(collection.duplicates.find().groups) == 1
