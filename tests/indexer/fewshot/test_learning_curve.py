"""The learning curve, and what it says of more labels."""

from __future__ import annotations

import numpy as np
import pytest

from indexer import Collection
from indexer.fewshot.learning_curve import ENOUGH, LearningCurve, learning_curve
from indexer.fewshot.model_selection import choose
from indexer.store.labels import ACCEPTED
from tests.indexer.kinds import kinds


def _curve(count: int, classes: int, seed: int = 0, spread: float = 0.7) -> LearningCurve:
    _, vectors, targets = kinds(count, classes, seed, spread=spread)
    return learning_curve(vectors, targets, classes)


def test_accuracy_grows_with_labels_and_each_point_has_its_interval() -> None:
    curve = _curve(200, 4, spread=1.5)
    accuracies = [point.accuracy for point in curve.points]
    assert accuracies[-1] > accuracies[0] + 0.15
    assert all(point.low < point.accuracy < point.high for point in curve.points)
    assert [point.per_class for point in curve.points] == sorted({point.per_class for point in curve.points})
    assert curve.points[0].labels == 4  # one a class
    assert curve.points[-1].labels <= 160  # a fifth is held out


def test_what_it_says_of_more_labels_comes_true() -> None:
    told, gained = [], []
    for seed in range(6):
        _, vectors, targets = kinds(4_000, 4, seed, spread=1.5)
        few, rest = np.arange(240), np.arange(2_000, 4_000)
        choice = choose(vectors[few], targets[few])
        curve = learning_curve(vectors[few], targets[few], 4)
        if curve.more is None:
            continue
        told.append(curve.more)
        right = [
            (
                choice.candidate.fit(vectors[:own], targets[:own], 4).logits(vectors[rest]).argmax(1) == targets[rest]
            ).mean()
            for own in (240, 240 + curve.more)
        ]
        gained.append(right[1] - right[0])
    assert len(told) >= 3
    assert 0 < np.mean(gained) < 0.03  # a point, give or take


@pytest.mark.parametrize(
    ("count", "classes", "spread", "advice"),
    [
        (ENOUGH - 2, 2, 1.5, "There are too few labels"),
        (300, 2, 0.05, "Almost no labelled picture"),
        (300, 3, 50.0, "There is not enough evidence"),
    ],
)
def test_without_evidence_it_says_so(count: int, classes: int, spread: float, advice: str) -> None:
    curve = _curve(count, classes, spread=spread)
    assert curve.more is None
    assert curve.advice.startswith(advice)
    assert curve.points


def test_a_class_with_one_label_gives_no_curve() -> None:
    _, vectors, targets = kinds(20, 2, 0)
    targets[:] = 0
    targets[3] = 1
    curve = learning_curve(vectors, targets, 2)
    assert curve.points == ()
    assert "at least two pictures of every class" in curve.advice


def test_progress_reaches_its_end() -> None:
    _, vectors, targets = kinds(40, 2, 0)
    seen: list[tuple[int, int]] = []
    learning_curve(vectors, targets, 2, lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == len(seen) - 1


def test_what_was_merely_accepted_is_no_evidence(collection: Collection) -> None:
    by_kind: dict[str, list[int]] = {}
    for image, path in collection.images.ready():
        by_kind.setdefault(path.split("/")[0], []).append(image)
    for kind, images in by_kind.items():
        collection.labels.add(kind, images[:3], "a person")
    alone = collection.fewshot.learning_curve()
    for kind, images in by_kind.items():
        collection.labels.add(kind, images[3:], ACCEPTED)
    assert collection.fewshot.learning_curve() == alone
    collection.labels.add("one of its own", by_kind["flag"][:2], ACCEPTED)
    assert collection.fewshot.learning_curve().points == ()
