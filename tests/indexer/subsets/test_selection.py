"""Which images are chosen: the greedy order, no near copies, shares as asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.store.vectors import unit
from indexer.subsets import selection
from tests.indexer.vectors import clustered

LEAST = 0.98


def with_copies(count: int, seed: int) -> NDArray[np.float16]:
    """Unit vectors of which each third one is a near copy of the one before."""
    vectors = clustered(count, 16, seed).astype(np.float32)
    vectors[2::3] = vectors[1::3][: len(vectors[2::3])] + 0.01
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def holds_near_copies(vectors: NDArray[np.float16], rows: NDArray[np.int64], least: float = LEAST) -> bool:
    cosines = unit(vectors[rows]) @ unit(vectors[rows]).T
    return bool((cosines[np.triu_indices(len(rows), 1)] >= least + 1e-5).any())


def greedy(vectors: NDArray[np.float16], count: int) -> list[int]:
    """By the definition: all distances anew for each."""
    rows = unit(vectors)
    chosen = [int((rows @ rows.sum(0)).argmax())]
    while len(chosen) < min(count, len(rows)):
        near = (rows @ rows[chosen].T).max(1)
        near[chosen] = np.inf
        chosen.append(int(near.argmin()))
    return chosen


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 120), chosen=st.integers(1, 60), pool=st.integers(1, 40))
def test_farthest_first_is_the_greedy_order_however_small_the_pool(
    seed: int, count: int, chosen: int, pool: int
) -> None:
    vectors = clustered(count, 16, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "POOL", pool)
        patch.setattr(selection, "BLOCK", 50)
        found = selection.farthest_first(vectors, chosen)
    assert found.tolist() == greedy(vectors, chosen)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 150), chosen=st.integers(1, 200))
def test_no_way_to_choose_takes_two_near_copies_or_more_than_asked_for(seed: int, count: int, chosen: int) -> None:
    vectors = with_copies(count, seed)
    groups = {"even": np.arange(0, count, 2), "odd": np.arange(1, count, 2)}
    for rows in (
        selection.farthest_first(vectors, chosen, LEAST),
        selection.typical(vectors, chosen, LEAST),
        selection.balanced(vectors, groups, chosen, LEAST),
    ):
        assert len(set(rows.tolist())) == len(rows) <= chosen
        assert len(rows)
        assert not holds_near_copies(vectors, rows)


def test_copies_of_one_picture_are_one_choice() -> None:
    vectors = np.repeat(clustered(1, 16), 500, 0)
    assert selection.farthest_first(vectors, 10, LEAST).shape == (1,)
    assert selection.typical(vectors, 10, LEAST).shape == (1,)


def test_typical_images_come_from_where_there_are_many_and_diverse_ones_from_the_edge() -> None:
    draw = np.random.default_rng(0)
    dense = np.eye(16)[0] + 0.1 * draw.standard_normal((190, 16))
    odd = draw.standard_normal((10, 16))
    rows = np.concatenate([dense, odd])
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    assert selection.typical(vectors, 1)[0] < 190
    assert (selection.farthest_first(vectors, 8) >= 190).sum() >= 7
    # Of a burst of 100 near copies the density is not theirs: a picture in a real crowd is the typical one.
    burst = np.repeat(odd[:1] / np.linalg.norm(odd[:1]), 100, 0).astype(np.float16)
    assert selection.typical(np.concatenate([vectors, burst]), 2, LEAST).min() < 190


def test_large_subsets_divide_clusters_again() -> None:
    vectors = clustered(600, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "CLUSTERS", 4)
        rows = selection.typical(vectors, 100)
    assert len(set(rows.tolist())) == 100
    assert rows.tolist() != sorted(rows.tolist())


def test_a_small_group_gives_all_and_the_others_share_the_rest() -> None:
    vectors = clustered(300, 16)
    groups = {"a": np.arange(3), "b": np.arange(3, 150), "c": np.arange(150, 300)}
    rows = selection.balanced(vectors, groups, 43)
    assert [int(np.isin(rows, own).sum()) for own in groups.values()] == [3, 20, 20]
    assert {int(np.searchsorted([3, 150], row, side="right")) for row in rows[:3]} == {0, 1, 2}  # any first few too


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1], [100, 1], [7, 3, 90]])
def test_shares_add_up(sizes: list[int]) -> None:
    for count in range(1, sum(sizes) + 1):
        shares = selection._shares(sizes, count)
        assert sum(shares) == count
        assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))


def test_a_curve_rises_and_is_what_comparing_everything_gives() -> None:
    vectors = clustered(200, 16)
    rows = selection.farthest_first(vectors, 50)
    found = selection.coverage(vectors, rows, [1, 10, 50], 0.6)
    for size, (share, mean) in zip([1, 10, 50], found, strict=True):
        near = (unit(vectors) @ unit(vectors[rows[:size]]).T).max(1)
        assert share == pytest.approx(float((near >= 0.6).mean()))
        assert mean == pytest.approx(float(near.mean()), abs=1e-4)
    assert found == sorted(found)


def test_nothing_gives_nothing() -> None:
    none = np.empty((0, 16), np.float16)
    assert not len(selection.farthest_first(none, 5))
    assert not len(selection.typical(none, 5))
    assert not len(selection.balanced(none, {}, 5))
