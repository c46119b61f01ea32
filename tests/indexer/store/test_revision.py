"""A revision: each of its parts changes with what it stands for, and with nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import Collection, Encoder
from tests.indexer.tiny import picture


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Encoder) -> Collection:
    """Six pictures, indexed; all tests of this module change it."""
    root = tmp_path_factory.mktemp("revision") / "photos"
    root.mkdir()
    for number in range(6):
        (root / f"{number}.bmp").write_bytes(picture(number))
    made = Collection.create(root, tiny_encoder)
    made.update()
    return made


def _update(collection: Collection) -> None:
    collection.update()


def _move(collection: Collection) -> None:
    (collection.root / "5.bmp").rename(collection.root / "6.bmp")
    collection.update()


def _change(collection: Collection) -> None:
    (collection.root / "0.bmp").write_bytes(picture(99))
    collection.update()


CHANGES: dict[str, tuple[Callable[[Collection], object], set[str]]] = {
    "nothing": (lambda it: it.labels.every(), set()),
    "label": (lambda it: it.labels.add("a", [1, 2], "me"), {"labels"}),
    "another label": (lambda it: it.labels.add("b", [1], "me"), {"labels"}),
    "unlabel": (lambda it: it.labels.remove([1]), {"labels"}),
    "reject": (lambda it: it.rejections.add({3: "a"}), {"rejections"}),
    "take back": (lambda it: it.rejections.remove([(3, "a")]), {"rejections"}),
    "confirm": (lambda it: it.confirmations.add([(2, "a")]), {"confirmations"}),
    "keep both": (lambda it: it.decisions.keep_both([3, 4]), {"duplicates"}),
    "keep instead": (lambda it: it.decisions.choose(3, [5]), {"duplicates"}),
    "forget": (lambda it: it.decisions.forget(), {"duplicates"}),
    "look at the folder": (_update, set()),
    "move": (_move, {"moves"}),
    "change a picture": (_change, {"images", "vectors"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_part_changes_with_what_it_stands_for(collection: Collection, change: str) -> None:
    do, expected = CHANGES[change]
    before = dataclasses.asdict(collection.revision())
    do(collection)
    after = dataclasses.asdict(collection.revision())
    assert {part for part in before if before[part] != after[part]} - {"checked"} == expected


def test_a_collection_that_is_deleted_and_made_again_is_another(tmp_path: Path, tiny_encoder: Encoder) -> None:
    revisions = []
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.bmp").write_bytes(picture(0))
        revisions.append(Collection.create(tmp_path / folder, tiny_encoder).revision())
    assert len({revision.embedded for revision in revisions}) == len({revision.listed for revision in revisions}) == 2
