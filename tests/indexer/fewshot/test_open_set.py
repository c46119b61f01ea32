"""Classes that were not named: what is claimed, and what is learnt of images that are of none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.fewshot.classification import EXAMPLES, SAMPLE, UNNAMED, Classification, classify
from indexer.fewshot.open_set import open_set
from indexer.store.labels import NONE_OF_THESE
from tests.indexer.kinds import kinds, labels_of

KINDS = 8
SETS = ((500, 48, 0.75), (600, 64, 1.1), (500, 32, 0.8), (700, 96, 1.3))  # images, dimensions, and how kinds overlap


def _claims(named: int, each: int, seed: int) -> tuple[Classification, float, np.ndarray]:
    """A classification by labels of some of the kinds, the share of its predictions that is right, and of which it is.

    Each seed is another set. Their kinds overlap about as those of photographs do.
    """
    count, dim, spread = SETS[seed % len(SETS)]
    ids, vectors, targets = kinds(count, KINDS, seed, dim=dim, spread=spread)
    some = targets < named
    result = classify(ids, vectors, labels_of(ids[some], targets[some], each, seed))
    right = result.predicted == targets  # letters sort as their kinds
    return result, float(right[~result.labelled].mean()), right


@pytest.mark.parametrize("named", [3, 5, KINDS])
def test_the_interval_holds_the_truth_or_no_figure_is_given(named: int) -> None:
    held, given = 0, 0
    runs = [(each, seed) for each in (5, 10, 15) for seed in range(len(SETS))]
    for each, seed in runs:
        result, truth, _ = _claims(named, each, seed)
        if result.interval is None:
            assert (result.estimated_accuracy, result.needs) == (None, SAMPLE)
            assert result.unnamed[0] > UNNAMED
            held += 1
            continue
        given += 1
        assert result.needs is None
        held += result.interval[0] <= truth <= result.interval[1]
    assert held >= 0.9 * len(runs)
    if named == KINDS:
        assert given >= 0.9 * len(runs)  # where every kind is named, figures are given as before
    else:
        assert given <= 0.5 * len(runs)


def test_probabilities_don_t_claim_what_is_of_no_named_class() -> None:
    for each in (5, 15):
        result, _, right = _claims(3, each, seed=4)
        unlabelled = ~result.labelled
        assert result.probability[unlabelled & ~right].mean() < 0.35
        assert result.probability[unlabelled & right].mean() > 0.6
        assert (result.probability[unlabelled] > 0).all()  # a class is proposed of each, as improbable as it is


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(0, 40), st.integers(0, 2**16))
def test_shares_and_probabilities_are_such_whatever_is_labelled(labelled: int, others: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((labelled + others, 6)).astype(np.float32)
    vectors[: (labelled + others) // 3] = vectors[0]  # copies
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.sort(draw.choice(labelled + others, labelled, replace=False))
    found = open_set(vectors, rows, draw.integers(0, 3, labelled))
    assert 0 <= found.low <= 1
    assert 0 <= found.high <= 1
    assert found.named.shape == (len(vectors),)
    assert ((found.named > 0) & (found.named <= 1)).all()
    assert (found.named[rows] == 1).all()


def test_the_share_of_unnamed_kinds_lies_in_its_interval() -> None:
    inside = 0
    for seed in range(10):
        ids, vectors, targets = kinds(500, KINDS, seed, dim=48, spread=0.5)
        rows = np.flatnonzero(np.isin(ids, list(labels_of(ids[targets < 4], targets[targets < 4], 10, seed))))
        unnamed = (targets >= 4).sum() / (len(ids) - len(rows))
        found = open_set(vectors, rows, targets[rows])
        inside += found.low <= unnamed <= found.high + 0.05
        assert found.low > 0.2
    assert inside >= 9


def test_images_of_no_named_class_are_recognised_from_a_few_of_them() -> None:
    ids, vectors, targets = kinds(500, KINDS, seed=2, dim=48, spread=0.5)
    some = targets < 3
    labels = labels_of(ids[some], targets[some], 10)
    free = np.setdiff1d(np.flatnonzero(~some), np.flatnonzero(np.isin(ids, list(labels))))
    none = {int(ids[row]): NONE_OF_THESE for row in np.random.default_rng(0).choice(free, 15, replace=False)}
    result = classify(ids, vectors, labels | none)
    assert result.counts[NONE_OF_THESE] == 15
    called = np.array(result.classes)[result.predicted]
    assert (called[~some & ~result.labelled] == NONE_OF_THESE).mean() > 0.8
    assert (called[some & ~result.labelled] == NONE_OF_THESE).mean() < 0.1


@pytest.mark.parametrize("none", [0, 1, 19])
def test_a_random_sample_tells_how_good_proposals_are_whatever_was_named(none: int) -> None:
    """`none` is how many of the sample are of no named class, all others being right."""
    ids, vectors, targets = kinds(500, KINDS, seed=4, dim=48, spread=0.4)
    some = targets < 3
    labels = labels_of(ids[some], targets[some], 10)
    draw = np.random.default_rng(1)
    unlabelled = ~np.isin(ids, list(labels))
    sample = np.concatenate(
        [
            draw.choice(np.flatnonzero(unlabelled & ~some), none, replace=False),
            draw.choice(np.flatnonzero(unlabelled & some), 24 - none, replace=False),
        ]
    )
    answers = {int(ids[row]): "abc"[targets[row]] if some[row] else NONE_OF_THESE for row in sample}
    result = classify(ids, vectors, labels | answers, drawn=set(answers))
    assert result.drawn
    assert (result.judged_on, result.unnamed, result.needs) == (24, (0.0, 0.0), None)
    assert result.counts.get(NONE_OF_THESE, 0) == none
    assert result.labelled.sum() == 30 + 24
    assert result.estimated_accuracy is not None
    if none == 1:  # nobody can learn from a single one, and every name for it is wrong
        assert result.estimated_accuracy <= 23 / 24
        row = int(sample[0])
        assert result.classes[result.predicted[row]] == NONE_OF_THESE
        assert (result.predicted[~result.labelled] < 3).all()
    assert result.expected() is not None


def test_a_class_with_a_single_example_is_what_is_missing_first() -> None:
    ids, vectors, targets = kinds(200, 3, seed=1)
    labels = labels_of(ids, targets, 5) | {int(ids[-1]): "z"}
    assert classify(ids, vectors, labels).needs == EXAMPLES
