"""How unusual an image is: what is rare stands first, and copies hide nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.anomalies.neighbour_distance import NEIGHBOUR, distances
from indexer.search.near_copies import one_of_each
from indexer.store.vectors import unit
from tests.indexer.vectors import NumpyIndex, clustered

LEAST = 0.999


class Searched(NumpyIndex):
    """A `CurrentIndex` of a matrix."""

    exact = True

    def search(self, queries, k, among=None):  # type: ignore[no-untyped-def,override]
        return super().search(queries, k, among)


def unusual(vectors: NDArray[np.float16], k: int = NEIGHBOUR) -> NDArray[np.float32]:
    ids = np.arange(len(vectors)) * 2 + 1
    index = Searched(ids, unit(vectors))
    reference = one_of_each(index, ids, vectors, LEAST)
    return distances(index, ids, vectors, reference, np.arange(len(vectors)), LEAST, k=k)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(2, 90), k=st.integers(1, 12))
def test_it_is_the_distance_to_the_kth_nearest_other(seed: int, count: int, k: int) -> None:
    vectors = clustered(count, 16, seed)
    cosines = unit(vectors) @ unit(vectors).T
    if (cosines[np.triu_indices(count, 1)] >= LEAST).any():
        return
    np.fill_diagonal(cosines, -np.inf)
    kth = -np.sort(-cosines, 1)[:, min(k, count - 1) - 1]
    assert np.allclose(unusual(vectors, k), 1 - kth, atol=1e-5)


def test_twenty_copies_of_a_defect_do_not_make_it_usual() -> None:
    draw = np.random.default_rng(0)
    usual = np.eye(16)[0] + 0.05 * draw.standard_normal((200, 16))
    defect = np.repeat(np.eye(16)[3:4], 20, 0)
    rows = np.concatenate([usual, defect])
    scores = unusual((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
    assert scores[200:].min() > 2 * scores[:200].max()


def test_a_dozen_of_like_defects_are_found_by_a_k_that_is_no_less() -> None:
    draw = np.random.default_rng(0)
    rows = np.concatenate(
        [
            np.eye(16)[0] + 0.15 * draw.standard_normal((300, 16)),
            np.eye(16)[3] + 0.05 * draw.standard_normal((8, 16)),
        ]
    )
    scores = unusual((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
    assert set(np.argsort(-scores)[:8].tolist()) == set(range(300, 308))
