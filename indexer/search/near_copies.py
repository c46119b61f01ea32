"""Near copies by embedding alone: images that score as much with each other as copies of one picture do.

This takes seconds where `indexer.duplicates`, which looks at pixels, takes minutes. It is meant for what is undone
easily: a choice of images, an order, a split. Nothing is proposed for removal by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.search.calibration import IDENTICAL, Calibration
from indexer.search.engines.interface import CurrentIndex
from indexer.store.vectors import unit

NEIGHBOURS = 16  # of each image that are looked at in a round
_BLOCK = 4_096
_ROUNDS = 16


def copies_from(calibration: Calibration, images: int) -> float:
    """The cosine from which two images of a collection count as near copies: that of a result called `same`."""
    bounds = calibration.bounds(images)
    return bounds["same"] if bounds else IDENTICAL


def near_pairs(
    index: CurrentIndex, ids: NDArray[np.int64], vectors: NDArray[np.float16], least: float
) -> NDArray[np.int64]:
    """Pairs of rows whose cosine is `least` or more, int64 `[P, 2]`, the lower row first, in rising order.

    Of each image the nearest `NEIGHBOURS` are looked at, so of many copies of one picture not every pair is listed.

    Args:
        index: holds these vectors.
        ids: rising, int64 `[N]`.
        vectors: `[N, D]`, of unit length but for rounding.
        least: the cosine.
    """
    found = [np.empty((0, 2), np.int64)]
    if len(ids) < 2:
        return found[0]
    for start in range(0, len(ids), _BLOCK):
        queries = unit(vectors[start : start + _BLOCK])
        rows, near = neighbours(index, ids, vectors, queries, NEIGHBOURS + 1, ids)
        own = start + np.arange(len(queries))
        query, place = np.nonzero((near >= least) & (rows != own[:, None]))
        found.append(np.stack([own[query], rows[query, place]], 1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def neighbours(
    index: CurrentIndex,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float16],
    queries: NDArray[np.float32],
    count: int,
    among: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows most similar to each query, and their exact cosines, falling; both `[Q, k]`, k at most `count`.

    Args:
        index: finds them; it may miss a few where it approximates.
        ids: rising, int64 `[N]`, of `vectors`.
        vectors: `[N, D]`.
        queries: float32 `[Q, D]`, of unit length.
        count: how many.
        among: rising ids that are searched. Where all are, the search isn't filtered, which is faster.
    """
    _, found = index.search(queries, min(count, len(among)), None if len(among) == len(index) else among)
    rows = np.searchsorted(ids, found).clip(0, len(ids) - 1)
    there = (found >= 0) & (ids[rows] == found)
    near = np.empty(rows.shape, np.float32)
    for place in range(rows.shape[1]):
        near[:, place] = np.einsum("qd,qd->q", queries, unit(vectors[rows[:, place]]))
    near[~there] = -np.inf
    order = np.argsort(-near, axis=1, kind="stable")
    return np.take_along_axis(rows, order, 1), np.take_along_axis(near, order, 1)


def one_of_each(
    index: CurrentIndex, ids: NDArray[np.int64], vectors: NDArray[np.float16], least: float
) -> NDArray[np.int64]:
    """Rows of which no two are near copies, rising: every other image is a near copy of one of them.

    The first of several stays. No chain of near copies is followed: frames of one film are not one picture.
    """
    rows = np.arange(len(ids))
    for _ in range(_ROUNDS):  # in each, a picture that has many copies loses at least `NEIGHBOURS` of them
        pairs = near_pairs(_Part(index, ids[rows]), ids[rows], vectors[rows], least)
        if not len(pairs):
            break
        stays = np.ones(len(rows), np.bool_)
        for first, second in pairs.tolist():
            if stays[first]:
                stays[second] = False
        rows = rows[stays]
    return rows


class _Part:
    """A part of an index. A `CurrentIndex`."""

    def __init__(self, index: CurrentIndex, ids: NDArray[np.int64]) -> None:
        self._index = index
        self._ids = ids
        self.exact = index.exact

    def __len__(self) -> int:
        return len(self._ids)

    def search(
        self, queries: NDArray[np.float32], k: int, among: object = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self._index.search(queries, k, None if len(self._ids) == len(self._index) else self._ids)
