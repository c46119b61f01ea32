"""Scores mean what they say, on pictures of which it is known what is a copy of what."""

from __future__ import annotations

import itertools
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from indexer import Collection, Encoder, Query
from indexer.search.calibration import FEWEST, IDENTICAL, Calibration, Null
from tests.indexer.copies import EDITS, copy_of
from tests.indexer.tiny import write_encoder


@pytest.fixture(scope="module")
def known(pictures: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """120 of the bundled pictures, and an edited copy of every other one. Not to be changed.

    No flags: by the detail of their greys, which is what is compared, two of one layout are one picture.
    """
    folder = tmp_path_factory.mktemp("known")
    chosen = random.Random(0).sample(
        sorted(path for path in pictures.rglob("*.jpg") if path.parent.name != "flag"), 120
    )
    for place, picture in enumerate(chosen):
        shutil.copy(picture, folder / f"{place:03d}.jpg")
        if place % 2:
            copy_of(folder / f"{place:03d}.jpg", list(EDITS)[place // 2 % len(EDITS)], folder)
    made = Collection.create(folder, encoder)
    made.update()
    return made


def test_copies_are_no_weak_results_and_what_is_called_the_same_is(known: Collection) -> None:
    right, found, wrong = 0, 0, 0
    for image, path in known.images.ready():
        for result in known.search([Query(image=image)], 10):
            copy = result.path[:3] == path[:3]
            found += copy and result.match != "weak"
            right += copy and result.match == "same"
            wrong += not copy and result.match == "same"
    assert found >= 114  # of 120: each of 60 copies finds its picture, and is found by it
    # Few drawings are called the same, as those of one kind score nearly what copies do.
    assert right >= 1
    assert wrong <= right / 19


def test_as_many_false_matches_as_expected(known: Collection) -> None:
    """Summed over queries: with an expectation of 0.5 each, about half as many as queries."""
    images = known.images.ready()
    for level in (0.2, 0.5):
        false = sum(
            result.false_matches <= level and result.path[:3] != path[:3]
            for image, path in images
            for result in known.search([Query(image=image)], 16)
        )
        assert level / 4 <= false / len(images) <= level * 2


def test_copies_in_a_collection_do_not_hide_each_other(known: Collection) -> None:
    """Half the pictures have a copy: chance is what is left when copies are taken out."""
    fitted = known.searcher.calibration()
    assert fitted.copies_from is not None
    assert fitted.scores.expected(0.97, len(known)) < 0.05


def test_the_same_whatever_the_order(known: Collection, encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    names = [path for _, path in known.images.ready()][:60]
    collections = []
    for part in (names[::-1][:25], names):
        for name in part:
            shutil.copy(known.root / name, folder / name)
        collections.append(Collection.create(folder, encoder))
        collections[-1].update()
    at_once = Collection.create(folder, encoder, tmp_path / "index")
    at_once.update()
    assert at_once.searcher.calibration() == collections[-1].searcher.calibration()


def test_what_one_encoder_s_copies_score_is_not_taken_for_another_s(photos: Path, tmp_path: Path) -> None:
    for number in (0, 1):
        tiny = Encoder.load(write_encoder(tmp_path / f"{number}.onnx", seed=number))
        collection = Collection.create(photos, tiny, tmp_path / f"index-{number}")
        assert collection.catalog.meta().calibration_looks == {}
        collection.update()
        assert collection.catalog.meta().calibration_looks


def test_more_images_ask_for_more() -> None:
    null = Null.of(np.sort(np.random.default_rng(0).normal(0, 0.1, 10_000))[::-1], np.ones(10_000))
    fitted = Calibration(0.2, null, Null())
    assert fitted.match(0.6, 100) == "same"
    assert fitted.match(0.6, 100_000_000) != "same"
    assert fitted.match(IDENTICAL, 100_000_000) == "same"


@given(
    values=some.lists(some.floats(-1, 1), min_size=FEWEST, max_size=300),
    at=some.lists(some.floats(-1, 1), min_size=2, max_size=20),
)
def test_a_higher_score_is_never_more_likely_by_chance(values: list[float], at: list[float]) -> None:
    null = Null.of(np.sort(np.array(values))[::-1], np.ones(len(values)))
    expected = [null.expected(value, 1000) for value in sorted(at)]
    assert all(0 <= low <= high <= 1000 * (1 + 1e-6) for high, low in itertools.pairwise(expected))


def test_a_calibration_survives_the_catalog(known: Collection) -> None:
    assert Calibration.from_json(known.searcher.calibration().to_json()) == known.searcher.calibration()


@pytest.mark.parametrize("stored", [None, "{}", '{"same_from": 0.7, "null": [0.1, 0.2]}'])
def test_without_a_calibration_only_the_identical_is_the_same(stored: str | None) -> None:
    fitted = Calibration.from_json(stored)
    assert [fitted.match(score, 100) for score in (1.0, 0.99)] == ["same", "weak"]
