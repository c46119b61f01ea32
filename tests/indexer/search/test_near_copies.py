"""Near copies by embedding alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.search.calibration import Calibration
from indexer.search.near_copies import copies_from, near_pairs, one_of_each
from indexer.store.filters import Filter
from indexer.store.vectors import unit
from tests.indexer.vectors import NumpyIndex, clustered


class Current(NumpyIndex):
    """A `CurrentIndex` of a matrix."""

    exact = True

    def search(self, queries, k, among=None):  # type: ignore[no-untyped-def]
        assert not isinstance(among, Filter)
        return super().search(queries, k, among)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(1, 60), copies=st.integers(0, 60))
def test_one_of_each_is_kept_and_every_other_is_its_near_copy(seed: int, count: int, copies: int) -> None:
    vectors = clustered(count, 16, seed)
    vectors = np.concatenate([vectors, np.repeat(vectors[:1], copies, 0)])
    ids = np.arange(len(vectors)) * 3 + 5
    index = Current(ids, unit(vectors))
    rows = one_of_each(index, ids, vectors, 0.95)
    cosines = unit(vectors) @ unit(vectors).T
    assert (cosines[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)] < 0.95).all()
    assert (cosines[:, rows].max(1) >= 0.95 - 1e-5).all()
    pairs = near_pairs(index, ids, vectors, 0.95)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert (cosines[pairs[:, 0], pairs[:, 1]] >= 0.95 - 1e-5).all()
    if len(vectors) <= 16:  # all neighbours of each were looked at
        assert len(pairs) == (cosines[np.triu_indices(len(vectors), 1)] >= 0.95).sum()


def test_a_collection_too_small_to_tell_knows_identical_pictures_alone() -> None:
    assert copies_from(Calibration(), 5) > 0.999
