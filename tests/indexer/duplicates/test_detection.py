"""Duplicates in groups, on real pictures and copies made of them."""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import Collection, Encoder
from indexer.duplicates import candidates, detection
from indexer.duplicates.candidates import Ranked
from indexer.duplicates.detection import Duplicate, Duplicates, _File
from indexer.duplicates.plan import is_decided, plan
from indexer.search.engines.faiss_engine import Exact
from indexer.search.pixel_verification import Looks
from indexer.store.decisions import Decided
from massl.core.errors import MasslError
from tests.indexer.copies import EDITS, copy_of
from tests.indexer.vectors import Array


@pytest.fixture(scope="module")
def copied(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of 4 kinds, 14 of them with an edited copy, one with two exact copies. Not to be changed."""
    folder = tmp_path_factory.mktemp("copied")
    for kind in (pictures / name for name in ("antique", "bug", "painting", "space")):
        for picture in sorted(kind.glob("*.jpg"))[:10]:
            shutil.copy(picture, folder / f"{kind.name}-{picture.name}")
    originals = sorted(folder.iterdir())
    for place, picture in enumerate(originals[::3]):
        copy_of(picture, list(EDITS)[place % len(EDITS)], folder / "copies")
    for name in ("one.jpg", "two.jpg"):
        (folder / "exact").mkdir(exist_ok=True)
        shutil.copy(originals[1], folder / "exact" / name)
    return folder


@pytest.fixture(scope="module")
def known(copied: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The collection of `copied`. Not to be changed."""
    made = Collection.create(copied, encoder, tmp_path_factory.mktemp("index"))
    made.update()
    return made


@pytest.fixture(scope="module")
def told() -> list[tuple[str, int, int]]:
    """What was told of the progress while `found` was made."""
    return []


@pytest.fixture(scope="module")
def found(known: Collection, told: list[tuple[str, int, int]]) -> Duplicates:
    """What is found in it."""
    return known.duplicates.find(report=lambda *each: told.append(each))


def in_groups(found: Duplicates) -> list[list[tuple[str, str, float]]]:
    return [[(item.path, item.kind, item.score) for item in group] for group in found.groups]


def source(path: str) -> str:
    """What picture a path of `copied` shows."""
    stem = Path(path).stem
    return stem.rsplit("-", 1)[0] if path.startswith("copies/") else stem


def test_copies_are_grouped_with_their_pictures_and_with_nothing_else(found: Duplicates) -> None:
    near = [[item for item in group if item.kind != "exact"] for group in found.groups]
    right = sum(len({source(item.path) for item in group}) == 1 for group in near if len(group) > 1)
    assert right == sum(len(group) > 1 for group in near)
    assert right >= 12  # of 14
    assert found.images == 56


def test_the_whole_of_a_step_stays_the_same_and_is_reached(
    known: Collection, found: Duplicates, told: list[tuple[str, int, int]]
) -> None:
    for step in {step for step, _, _ in told}:
        done = [each for name, each, _ in told if name == step]
        (total,) = {total for name, _, total in told if name == step}
        assert total > 0
        assert done == sorted(done)
        assert done[-1] == total or step == "unrelated pairs"
    assert {"neighbours", "pairs"} <= {step for step, _, _ in told}


def test_exact_copies_are_found_by_content_alone(known: Collection, copied: Path) -> None:
    (group,) = known.duplicates.find(exact_only=True).groups
    assert [item.kind for item in group] == ["keep", "exact", "exact"]
    assert len({(copied / item.path).read_bytes() for item in group}) == 1
    assert {os.path.dirname(item.path) for item in group[1:]} == {"exact"}  # the shortest path is kept


def test_the_larger_picture_is_kept(found: Duplicates) -> None:
    for group in found.groups:
        keep = group[0]
        assert all(item.width * item.height <= keep.width * keep.height for item in group)


def test_a_folder_can_be_searched_alone(known: Collection) -> None:
    (group,) = known.duplicates.find(under="exact").groups
    assert [item.path for item in group] == ["exact/one.jpg", "exact/two.jpg"]


def test_a_threshold_can_be_given(known: Collection, found: Duplicates) -> None:
    strict = known.duplicates.find(threshold=0.98)
    assert strict.threshold == 0.98
    assert all(item.score >= 0.98 for group in strict.groups for item in group)
    assert 1 < len(strict.groups) < len(found.groups)


def test_a_file_of_several_pictures_is_never_removed_without_a_look(copied: Path, tmp_path: Path) -> None:
    """Only its first picture is compared: the others may be nowhere else."""
    one, other, third = (Image.open(path).convert("RGB") for path in sorted(copied.glob("*.jpg"))[:3])
    (tmp_path / "photos").mkdir()
    one.save(tmp_path / "photos" / "one.png")
    for name, size in (("alone.tif", 0.75), ("pages.tif", 0.7)):
        smaller = one.resize((round(size * one.width), round(size * one.height)))
        more = [other, third] if name == "pages.tif" else []
        smaller.save(tmp_path / "photos" / name, save_all=True, append_images=more)
    made = Collection.create(tmp_path / "photos", index_dir=tmp_path / "index")
    made.update()
    made.decisions.choose(made.images.id_of("one.png"), [made.images.id_of("pages.tif")])
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(plan(made.duplicates.find(threshold=0.9))))}
    assert {path: row["action"] for path, row in rows.items()} == {
        "one.png": "keep", "alone.tif": "remove", "pages.tif": "look",
    }  # fmt: skip
    assert rows["pages.tif"]["decided"] == "no"
    assert "holds several pictures" in rows["pages.tif"]["reason"]


def test_the_order_of_indexing_does_not_matter(
    copied: Path, encoder: Encoder, tmp_path: Path, found: Duplicates
) -> None:
    folder = tmp_path / "again"
    for step in (slice(30, None), slice(0, None)):
        for path in sorted(copied.rglob("*.jpg"))[::-1][step]:
            target = folder / path.relative_to(copied)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        piecemeal = Collection.create(folder, encoder)
        piecemeal.update()
    assert in_groups(piecemeal.duplicates.find()) == in_groups(found)


def test_the_size_of_a_block_does_not_matter(
    known: Collection, found: Duplicates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "BLOCK", 7)
    assert in_groups(known.duplicates.find()) == in_groups(found)


def test_what_is_kept_in_mind_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """12,000 images have 72 million pairs: 576 MB of scores alone."""
    monkeypatch.setattr(candidates, "BLOCK", 256)
    count = 12_000
    vectors = np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    source = Array(vectors.astype(np.float16), np.arange(count))
    index = Exact().build(source, lambda *step: None)
    tracemalloc.start()
    try:
        pairs = candidates.candidates(index, source, np.arange(count), True, lambda *step: None)
        far = candidates.unrelated(index, source, np.arange(count), True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(pairs) == candidates.PROPOSED * count
    assert len(far) == candidates.NULL
    assert peak < 15e6


def test_the_best_candidates_are_the_same_however_they_came() -> None:
    chance = np.random.default_rng(0)
    values, low = np.round(chance.random(500), 2), chance.integers(0, 50, 500)
    high = low + 1 + chance.integers(0, 50, 500)
    whole = Ranked.none().with_more(values, low, high).best(40)
    order = chance.permutation(500)
    parts = Ranked.none()
    for part in np.split(order, 10):
        parts = parts.with_more(values[part], high[part], low[part]).best(40)
    assert [whole.low.tolist(), whole.high.tolist()] == [parts.low.tolist(), parts.high.tolist()]


def test_a_chain_does_not_become_one_group() -> None:
    """Frames of a film, each like the next: whatever is removed was compared with what is kept."""
    count = 40
    files = [_File(i, b"%d" % i, bytes([i]) * 32, 1000 - i, 100, 100, 0) for i in range(count)]
    pairs = {(i, i + 1): 0.9 for i in range(count - 1)}
    names = [file.hash.hex() for file in files]
    apart = {f"{names[i][:16]}-{names[j][:16]}": 0.2 for i in range(count) for j in range(i + 2, count)}
    groups = list(
        detection._groups(
            {i: [file] for i, file in enumerate(files)},
            pairs,
            Decided(),
            Looks([Path()] * count, names, apart),
            0.8,
        )
    )
    assert [[file.image for file, _, _ in group] for group in groups] == [[i, i + 1] for i in range(0, count, 2)]


def test_copies_of_copies_face_the_one_to_keep() -> None:
    """Two small versions of a picture may find each other only: both are still compared with the large one."""
    files = [_File(i, b"%d" % i, bytes([i]) * 32, 1000 - i, 100, 100, 0) for i in range(3)]
    names = [file.hash.hex() for file in files]
    groups = list(
        detection._groups(
            {i: [file] for i, file in enumerate(files)},
            {(0, 1): 0.9, (1, 2): 0.9},
            Decided(),
            Looks([Path()] * 3, names, {f"{names[0][:16]}-{names[2][:16]}": 0.85}),
            0.8,
        )
    )
    assert [[(file.image, kind, score) for file, kind, score in group] for group in groups] == [
        [(0, "keep", 1.0), (1, "near", 0.9), (2, "near", 0.85)]
    ]


def test_within_a_family_few_pairs_are_compared_and_all_of_it_is_found() -> None:
    """Each two of 21 copies of a picture are a candidate; looks at all of them would be taken from other pictures."""
    count = 21
    files = [_File(i, b"%d" % i, bytes([i]) * 32, 1000 - i, 100, 100, 0) for i in range(count)]
    names = [file.hash.hex() for file in files]
    every = [(one, other) for one in range(count) for other in range(one + 1, count)]
    looks = Looks([Path()] * count, names, {f"{names[one][:16]}-{names[other][:16]}": 0.95 for one, other in every})
    random.Random(0).shuffle(every)
    seen = detection._look(looks, every, {}, 0.8, lambda *step: None)
    assert len(seen) < len(every) / 2
    (group,) = detection._groups({i: [file] for i, file in enumerate(files)}, seen, Decided(), looks, 0.8)
    assert {file.image for file, _, _ in group} == set(range(count))


def test_nothing_to_find_in_one_picture(photos: Path, encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(next(photos.rglob("*.jpg")), tmp_path / "one")
    collection = Collection.create(tmp_path / "one", encoder)
    collection.update()
    assert collection.duplicates.find().groups == ()


@pytest.fixture
def pair(collection: Collection) -> tuple[Collection, list[str]]:
    """18 pictures, one of them with a smaller copy and an exact copy."""
    shutil.rmtree(collection.root / "flag")  # two of one layout are near duplicates by their greys
    original = sorted(collection.root.rglob("*.jpg"))[0]
    smaller = copy_of(original, "smaller", collection.root)
    shutil.copy(original, collection.root / "exact.jpg")
    collection.update()
    return collection, [str(path.relative_to(collection.root)) for path in (original, smaller)] + ["exact.jpg"]


def removed(collection: Collection) -> set[str]:
    return {item.path for group in collection.duplicates.find().groups for item in group[1:]}


def test_a_decision_to_keep_both_outlasts_a_move(pair: tuple[Collection, list[str]]) -> None:
    collection, (original, smaller, exact) = pair
    ids = [collection.images.id_of(path) for path in (original, smaller, exact)]
    assert len(removed(collection)) == 2
    assert collection.decisions.keep_both(ids[:2]) == 1
    assert collection.decisions.keep_both(ids[:2]) == 0
    assert len(removed(collection)) == 1  # the exact copy
    assert collection.decisions.keep_both(ids) == 2
    (collection.root / "moved").mkdir()
    (collection.root / smaller).rename(collection.root / "moved" / "elsewhere.jpg")
    collection.update()
    found = collection.duplicates.find()
    assert (found.groups, found.kept_both) == ((), 3)
    assert Collection.open(collection.root).duplicates.find() == found


def test_a_decision_is_about_the_content(pair: tuple[Collection, list[str]]) -> None:
    collection, (original, smaller, exact) = pair
    collection.decisions.keep_both([collection.images.id_of(path) for path in (original, smaller, exact)])
    with (collection.root / smaller).open("ab") as file:
        file.write(b" another file now")
    collection.update()
    assert removed(collection) == {smaller}


def test_a_decision_can_be_forgotten(pair: tuple[Collection, list[str]]) -> None:
    collection, paths = pair
    ids = [collection.images.id_of(path) for path in paths]
    before = removed(collection)
    collection.decisions.keep_both(ids)
    assert collection.decisions.forget(ids[:2]) == 1
    assert collection.decisions.forget([ids[2]]) == 2
    assert removed(collection) == before
    collection.decisions.keep_both(ids)
    assert collection.decisions.forget() == 3
    assert removed(collection) == before


def test_deciding_about_one_picture_says_what_is_missing(collection: Collection) -> None:
    image = collection.images.ready()[0][0]
    with pytest.raises(MasslError, match="at least two"):
        collection.decisions.keep_both([image, image])
    with pytest.raises(MasslError, match="no longer"):
        collection.decisions.keep_both([image, 99_999])


def test_the_file_that_someone_chose_is_kept_and_never_proposed_for_removal(
    pair: tuple[Collection, list[str]],
) -> None:
    collection, (original, smaller, exact) = pair
    ids = {path: collection.images.id_of(path) for path in (original, smaller, exact)}
    found = collection.duplicates.find()
    suggested = found.groups[0][0].path
    assert suggested in (original, exact)
    collection.decisions.choose(ids[smaller], [ids[original], ids[exact]])
    anew = collection.duplicates.find()
    assert (anew.groups[0][0].path, anew.groups[0][0].kind, anew.groups[0][0].chosen) == (smaller, "keep", True)
    assert removed(collection) == {original, exact}
    assert [len(group) for group in anew.groups] == [3]
    assert {item.path: item.kind for item in anew.groups[0][1:]} == {original: "near", exact: "near"}
    # What is said without seeking again is the same.
    settled = collection.duplicates.settled(found)
    assert settled.groups[0][0].path == smaller
    assert {item.path for item in settled.groups[0][1:]} == {original, exact}
    assert {round(item.score, 6) for item in settled.groups[0]} == {round(item.score, 6) for item in anew.groups[0]}
    # Two that were chosen are both kept.
    collection.decisions.choose(ids[exact], [])
    assert {item.path for group in collection.duplicates.settled(found).groups for item in group[1:]} == {original}
    assert removed(collection) == {original}
    collection.decisions.choose(ids[original], [ids[smaller], ids[exact]])  # the last word counts
    assert removed(collection) == {smaller, exact}
    assert collection.duplicates.settled(found).groups[0][0].path == original
    assert collection.decisions.forget([ids[original]]) == 1
    assert collection.duplicates.settled(found) == found == collection.duplicates.find()


def test_decisions_show_in_what_was_found_before_them(pair: tuple[Collection, list[str]]) -> None:
    collection, paths = pair
    ids = [collection.images.id_of(path) for path in paths]
    found = collection.duplicates.find()
    assert collection.duplicates.settled(found) == found
    keep, *rest = found.groups[0]
    collection.decisions.keep_both([keep.image, rest[0].image])
    ((_, left),) = collection.duplicates.settled(found).groups
    assert left.path == rest[1].path
    assert removed(collection) == {left.path}
    collection.decisions.keep_both(ids)
    assert collection.duplicates.settled(found).groups == ()
    assert collection.duplicates.settled(found).kept_both == 3
    assert [{item.path for item in group} for group in collection.duplicates.kept_together()] == [set(paths)]
    collection.decisions.forget(ids)
    assert collection.duplicates.kept_together() == []
    assert collection.duplicates.settled(found) == found


def test_what_has_gone_since_it_was_found_is_not_shown(pair: tuple[Collection, list[str]]) -> None:
    collection, (original, smaller, exact) = pair
    found = collection.duplicates.find()
    (collection.root / smaller).unlink()
    collection.update()
    assert {item.path for group in collection.duplicates.settled(found).groups for item in group} == {original, exact}
    (collection.root / exact).unlink()
    collection.update()
    assert collection.duplicates.settled(found).groups == ()


def test_a_choice_ends_when_the_file_changes(pair: tuple[Collection, list[str]]) -> None:
    collection, (original, smaller, exact) = pair
    image = collection.images.id_of(smaller)
    collection.decisions.choose(image, [collection.images.id_of(original), collection.images.id_of(exact)])
    with (collection.root / smaller).open("ab") as file:
        file.write(b" another file now")
    collection.update()
    assert smaller in removed(collection)


def test_what_came_after_a_choice_is_still_to_be_decided(pair: tuple[Collection, list[str]]) -> None:
    collection, (original, smaller, exact) = pair
    ids = {path: collection.images.id_of(path) for path in (original, smaller, exact)}
    before = collection.duplicates.find()

    def decided() -> dict[str, str]:
        found = collection.duplicates.find()
        assert is_decided(found.groups[0]) == is_decided(collection.duplicates.settled(before).groups[0])
        rows = {row["path"]: row["decided"] for row in csv.DictReader(io.StringIO(plan(found)))}
        assert is_decided(found.groups[0]) == (set(rows.values()) == {"yes"})
        return rows

    collection.decisions.choose(ids[original], [])  # nothing else was there then
    assert decided() == {original: "yes", exact: "yes", smaller: "no"}  # the same content can't be lost
    collection.decisions.choose(ids[original], [ids[smaller], ids[exact]])
    assert set(decided().values()) == {"yes"}
    with (collection.root / smaller).open("ab") as file:
        file.write(b" another file now")
    collection.update()
    assert decided() == {original: "yes", exact: "yes", smaller: "no"}


def test_the_plan_asks_to_look_at_near_duplicates_that_agree_less() -> None:
    def file(image: int, kind: str, score: float) -> Duplicate:
        return Duplicate(image, f"{image}.jpg", kind, score, None, 10 - image, 4, 4, image)

    group = (file(1, "keep", 1.0), file(2, "exact", 1.0), file(3, "near", 0.97), file(4, "near", 0.91))
    rows = list(csv.DictReader(io.StringIO(plan(Duplicates((group,), 4, 3, 0.75, 0, 0)))))
    assert [row["reason"] for row in rows] == ["oldest", "same content", "near copy", "near copy, please look"]
    assert [row["action"] for row in rows] == ["keep", "remove", "remove", "look"]
    assert {row["decided"] for row in rows} == {"no"}
