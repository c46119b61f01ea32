"""Nearest neighbours, their votes, and the mean cosine, each against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from massl.core import similarities
from massl.core.similarities import mean_cosine, nearest, weighted_votes


def _rows(seed: int, count: int, dim: int, kinds: int) -> np.ndarray:
    """Unit rows, of which many are the same."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((kinds, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[rng.integers(kinds, size=count)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99), count=st.integers(2, 40), k=st.integers(1, 50), alone=st.booleans(), first=st.booleans()
)
def test_the_nearest_are_those_of_a_full_sort(seed: int, count: int, k: int, alone: bool, first: bool) -> None:
    gallery = _rows(seed, count, 8, 7)
    queries = gallery if alone else _rows(seed + 1, 5, 8, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarities, "BLOCK", 64)
        rows, near = nearest(queries, gallery, k, leave_one_out=alone, first_of_equals=first)
    for query in range(len(queries)):
        cosines = np.float32([queries[query] @ row for row in gallery])
        others = [row for row in range(count) if not (alone and row == query)]
        wanted = sorted(-cosines[row] for row in others)[: len(near[query])]
        assert len(near[query]) == min(k, len(others))
        np.testing.assert_allclose(-near[query], wanted, atol=1e-5)
        assert set(rows[query]) <= set(others)
        if first:  # of copies, the first come first
            for one, other in itertools.pairwise(rows[query]):
                assert one < other or near[query][list(rows[query]).index(one)] > cosines[other] - 1e-6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(1, 12), k=st.integers(1, 9), classes=st.integers(1, 5))
def test_votes_are_weighted_by_closeness(seed: int, count: int, k: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    closeness, labels = rng.uniform(-1, 1, (count, k)), rng.integers(classes, size=(count, k))
    votes = weighted_votes(closeness, labels, classes, 0.07)
    for row in range(count):
        weights = np.exp(closeness[row] / 0.07) / np.exp(closeness[row].max() / 0.07)
        wanted = [weights[labels[row] == kind].sum() for kind in range(classes)]
        np.testing.assert_allclose(votes[row], wanted, atol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 20])
def test_the_mean_cosine_is_that_of_all_pairs(count: int) -> None:
    rows = _rows(count, count, 6, 9)
    pairs = [float(one @ other) for one, other in itertools.combinations(rows, 2)]
    assert mean_cosine(rows) == pytest.approx(np.mean(pairs), abs=1e-6)
