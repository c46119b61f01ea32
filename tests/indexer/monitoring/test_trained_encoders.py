"""Encoders that somebody trained: which are found, and what is said of them beside the collection's own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from indexer import Collection, Encoder, Query
from indexer.monitoring import trained_encoders
from indexer.monitoring.encoder_comparison import EXAMPLES, SHOWN
from massl.core.errors import MasslError
from tests.indexer.tiny import picture, write_encoder


def run(folder: Path, root: Path, age: int, encoder: Path | None = None, last: dict[str, object] | None = None) -> Path:
    """A run as `massl train` leaves it, its encoder written `age` seconds ago."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f"[run]\nimages = 24\nroot = {json.dumps(str(root))}\nlabels = 'sorted'\n")
    (folder / "metrics.jsonl").write_text(json.dumps(last or {"step": 3}) + "\n")
    file = folder / "encoder.onnx"
    if encoder:
        shutil.copy(encoder, file)
    else:
        write_encoder(file, name=folder.name)
    moment = 1_700_000_000 - age
    os.utime(file, (moment, moment))
    return file


@pytest.fixture
def coloured(tmp_path: Path, tiny_encoder: Encoder) -> Collection:
    """100 pictures of noise, indexed."""
    (tmp_path / "photos").mkdir()
    for number in range(100):
        (tmp_path / "photos" / f"{number}.bmp").write_bytes(picture(number))
    made = Collection.create(tmp_path / "photos", tiny_encoder)
    made.update()
    return made


def test_the_newest_runs_are_found_where_one_works_and_beside_the_images(coloured: Collection, tmp_path: Path) -> None:
    here = tmp_path / "here"
    run(here / "runs" / "oldest", coloured.root, 40)
    run(here / "runs" / "old", coloured.root, 30)
    newest = run(here / "out", coloured.root, 10, last={"step": 30, "epoch": 2.0, "seconds": 90.0, "knn_top1": 0.75})
    run(tmp_path / "runs" / "beside", tmp_path / "elsewhere", 20)
    found = coloured.encoders.trained(here)
    assert [other.name for other in found] == ["out", "beside", "old"]
    first = found[0]
    assert (first.path, first.epochs, first.seconds, first.labels, first.right) == (newest, 2.0, 90.0, "sorted", 0.75)
    assert [other.on_these for other in found] == [True, False, True]


def test_the_collections_own_encoder_and_what_is_no_run_are_passed_over(coloured: Collection, tmp_path: Path) -> None:
    here = tmp_path / "here"
    run(here / "own", coloured.root, 0, coloured.encoder.path)
    (run(here / "damaged", coloured.root, 5)).write_bytes(b"no encoder")
    (run(here / "unsaid", coloured.root, 5).parent / "config.toml").write_text("no [ toml")
    (run(here / "unfinished", coloured.root, 5)).unlink()
    (run(here / "copy", coloured.root, 5).parent / "config.toml").unlink()
    assert coloured.encoders.trained(here) == ()
    kept = run(here / "kept", coloured.root, 9)
    assert [other.path for other in coloured.encoders.trained(here)] == [kept]


@pytest.mark.parametrize("line", [b"", b"[]", b'{"knn_top1": "high", "epoch": null, "seconds": true}', b"{", b"\xff\0"])
def test_a_run_may_have_measured_nothing(coloured: Collection, tmp_path: Path, line: bytes) -> None:
    (run(tmp_path / "runs" / "a", coloured.root, 5).parent / "metrics.jsonl").write_bytes(line)
    (found,) = coloured.encoders.trained(tmp_path)
    assert (found.epochs, found.seconds, found.right) == (None, None, None)


def test_a_new_run_is_seen_without_opening_anything(coloured: Collection, tmp_path: Path) -> None:
    places = trained_encoders.places(tmp_path, coloured.root)
    before = trained_encoders.state(places)
    file = run(tmp_path / "runs" / "new", coloured.root, 5)
    seen = trained_encoders.state(places)
    assert seen != before
    os.utime(file, (1, 1))
    assert trained_encoders.state(places) != seen


def test_training_is_not_advised_to_someone_who_did(coloured: Collection, tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a", coloured.root, 5)
    assert [other.name for other in coloured.health.check(here=tmp_path).trained] == ["a"]
    assert coloured.health.check().trained == ()


def test_without_labels_it_shows_what_would_be_found(coloured: Collection, tmp_path: Path, encoder: Encoder) -> None:
    run(tmp_path / "runs" / "a", coloured.root, 5, encoder.path)
    (other,) = coloured.encoders.trained(tmp_path)
    steps: list[str] = []
    meta = coloured.catalog.meta()
    found = coloured.encoders.beside(other, lambda step, done, total: steps.append(step))
    assert found.comparison is None
    assert found.change is not None
    assert found.change.images == 100
    assert 0.05 < found.change.same < 0.6  # ten of a hundred: two encoders that know nothing of each other share 0.1
    assert len(found.change.examples) == EXAMPLES
    for sight in found.change.examples:
        assert len(sight.present) == len(sight.other) == SHOWN
        assert sight.image not in (*sight.present, *sight.other)
    assert set(steps) == {"encoder", "pictures"}
    assert coloured.catalog.meta() == meta


def test_the_neighbours_that_it_shows_are_those_that_a_search_finds(coloured: Collection, tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a", coloured.root, 5)  # the same weights under another name
    (other,) = coloured.encoders.trained(tmp_path)
    change = coloured.encoders.beside(other).change
    assert change is not None
    assert change.same > 0.99
    ids = {path: image for image, path in coloured.images.ready()}
    for sight in change.examples:
        found = [ids[result.path] for result in coloured.search([Query(image=sight.image)], SHOWN)]
        assert list(sight.present) == found
        assert set(sight.other) == set(found)


def test_labels_are_compared_by_where_there_are_some(coloured: Collection, tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a", coloured.root, 5)
    (other,) = coloured.encoders.trained(tmp_path)
    before = coloured.revision().labelled
    images = [image for image, _ in coloured.images.ready()]
    coloured.labels.add("odd", images[:10], "me")
    coloured.labels.add("even", images[10:20], "me")
    assert coloured.revision().labelled != before
    comparison = coloured.encoders.beside(other).comparison
    assert comparison is not None
    assert (comparison.images, comparison.classes) == (20, 2)


def test_too_few_pictures_show_nothing(collection: Collection, tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a", collection.root, 5)
    (other,) = collection.encoders.trained(tmp_path)
    found = collection.encoders.beside(other)
    assert (found.comparison, found.change) == (None, None)


def test_an_encoder_that_was_replaced_meanwhile_is_not_taken_for_the_one_found(
    coloured: Collection, tmp_path: Path
) -> None:
    file = run(tmp_path / "runs" / "a", coloured.root, 5)
    (other,) = coloured.encoders.trained(tmp_path)
    write_encoder(file, name="b")
    with pytest.raises(MasslError, match="has changed since"):
        coloured.encoders.beside(other)
