"""Exact search over a stream of vectors, and what an index finds beside it: the recall, on the user's own vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import Preparing, TunableIndex
from indexer.store.vectors import VectorSource, unit

AT = 10  # recall is measured at so many results
MARGIN = 10  # results asked for beyond those wanted: exact scores, from the catalog, decide between all
QUERIES = 400  # vectors of the collection that are searched by: half to choose the effort, half to measure
_TIE = 1e-5  # scores that differ by less are equal


class Truth:
    """What exact search finds for a sample of the vectors."""

    def __init__(self, source: VectorSource, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        self._source = source
        self._ids = ids
        self._vectors = vectors
        self._kth = np.empty(0, np.float32)
        halves = np.random.default_rng(1).permutation(len(ids))
        self.choosing, self.measuring = halves[: len(ids) // 2], halves[len(ids) // 2 :]

    @classmethod
    def of(cls, source: VectorSource, preparing: Preparing) -> Truth:
        """Searches by a sample, exactly."""
        ids, packed = source.sample(QUERIES)
        truth = cls(source, ids, unit(packed))
        count = len(source)
        best, _ = nearest(source.blocks(), truth._vectors, AT, lambda done: preparing("measuring", done, count), ids)
        truth._kth = best[:, -1]
        return truth

    def tune(self, index: TunableIndex, efforts: tuple[int, ...], floor: float) -> float:
        """Sets the least effort that reaches the floor, and returns the recall then; the greatest if none does."""
        recall = 0.0
        for effort in efforts:
            index.effort = effort
            # The effort was chosen because it did well on the one half: only the other half is an honest witness.
            if effort != efforts[-1] and self._recall(index, self.choosing) < floor + (1 - floor) / 5:
                continue
            recall = self._recall(index, self.measuring)
            if recall >= floor:
                break
        return recall

    def _recall(self, index: TunableIndex, rows: NDArray[np.int64]) -> float:
        _, found = index.search(self._vectors[rows], AT + MARGIN + 1)
        hits = 0
        for row, ids in zip(rows, found, strict=True):
            others = np.sort(ids[(ids >= 0) & (ids != self._ids[row])])
            scores = unit(self._source.of(others)[1]) @ self._vectors[row]
            hits += min(AT, int((scores >= self._kth[row] - _TIE).sum()))
        return hits / (AT * len(rows))


def nearest(
    blocks: Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]],
    queries: NDArray[np.float32],
    k: int,
    done: Callable[[int], None] = lambda count: None,
    own: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` vectors most similar to each query, exactly, from a stream of all; see `VectorIndex.search`.

    Args:
        blocks: see `VectorSource.blocks`; ids rise within each.
        queries: float32 `[Q, D]`, of unit length.
        k: how many; -inf and -1 stand for those that there are not.
        done: told after each block how many vectors were seen.
        own: int64 `[Q]`, an id for each query that is not to be among its results.
    """
    scores = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    seen = 0
    for ids, packed in blocks:
        fresh = queries @ unit(packed).T
        if own is not None:
            there = np.flatnonzero(np.isin(own, ids))
            fresh[there, np.searchsorted(ids, own[there])] = -np.inf
        # After the first blocks hardly any vector is among the best of any query: only those are sorted.
        columns = np.flatnonzero((fresh > scores.min(1, keepdims=True)).any(0))
        scores = np.concatenate([scores, fresh[:, columns]], 1)
        found = np.concatenate([found, np.broadcast_to(ids[columns], (len(queries), len(columns)))], 1)
        best = np.argpartition(-scores, k - 1, 1)[:, :k]
        scores, found = np.take_along_axis(scores, best, 1), np.take_along_axis(found, best, 1)
        seen += len(ids)
        done(seen)
    order = np.argsort(-scores, 1, kind="stable")
    scores, found = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
    return scores, np.where(np.isneginf(scores), -1, found)
