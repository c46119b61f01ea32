"""Which engine, and how hard it must look: chosen by size, and by the recall reached on the user's own vectors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import Engine, Preparing, VectorIndex
from indexer.store.vectors import VectorSource, unit

AT = 10  # recall is measured at so many results
MARGIN = 10  # results asked for beyond those wanted: exact scores, from the catalog, decide between all
QUERIES = 400  # vectors of the collection that are searched by: half to choose the effort, half to measure
LEAST = 4_000  # vectors below which there is nothing to learn codes from
_TIE = 1e-5  # scores that differ by less are equal


@dataclass(frozen=True)
class Measured:
    """How an index answers.

    Attributes:
        engine: its engine's name.
        effort: what it was set to; 0 where there is nothing to set.
        recall: share of the `AT` nearest others that it finds, over `queries` vectors of the collection other than
            those by which the effort was chosen; 1 where it is exact.
        queries: how many; 0 where it is exact.
        vectors: how many it was built of.
        seconds: to build and measure.
        passed_over: engines that would have been faster and missed the floor, with the recall that they reached.
    """

    engine: str
    effort: int
    recall: float
    queries: int
    vectors: int
    seconds: float
    passed_over: dict[str, float]

    def to_json(self) -> str:
        """As the catalog keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Measured:
        """The reverse of `to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Ladder:
    """Engines by the number of vectors from which each is used, the most exact first.

    Attributes:
        steps: number and engine, rising; the first from 0 and exact.
        floor: the recall at ten below which the step before is taken instead.
    """

    steps: tuple[tuple[int, Engine], ...]
    floor: float = 0.99

    def build(self, source: VectorSource, preparing: Preparing) -> tuple[Engine, VectorIndex, Measured]:
        """Builds the fastest index that reaches the floor on these vectors."""
        started = time.monotonic()
        count = len(source)
        truth: _Truth | None = None
        passed_over: dict[str, float] = {}
        for least, engine in reversed(self.steps):
            if count < least or (not engine.exact and count < LEAST):
                continue
            index = engine.build(source, preparing)
            recall, queries = 1.0, 0
            if not engine.exact:
                truth = truth or _Truth.of(source, preparing)
                recall, queries = truth.tune(index, engine.efforts, self.floor), len(truth.measuring)
                if recall < self.floor:
                    passed_over[engine.name] = round(recall, 4)
                    continue
            seconds = round(time.monotonic() - started, 1)
            measured = Measured(engine.name, index.effort, round(recall, 4), queries, count, seconds, passed_over)
            return engine, index, measured
        raise AssertionError("the first step of a ladder is exact and from 0")

    def engine(self, name: str) -> Engine | None:
        """The engine of that name, if it is on the ladder."""
        return next((engine for _, engine in self.steps if engine.name == name), None)


class _Truth:
    """What exact search finds for a sample of the vectors."""

    def __init__(self, source: VectorSource, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        self._source = source
        self._ids = ids
        self._vectors = vectors
        self._kth = np.empty(0, np.float32)
        halves = np.random.default_rng(1).permutation(len(ids))
        self.choosing, self.measuring = halves[: len(ids) // 2], halves[len(ids) // 2 :]

    @classmethod
    def of(cls, source: VectorSource, preparing: Preparing) -> _Truth:
        """Searches by a sample, exactly."""
        ids, packed = source.sample(QUERIES)
        truth = cls(source, ids, unit(packed))
        count = len(source)
        best, _ = nearest(source.blocks(), truth._vectors, AT, lambda done: preparing("measuring", done, count), ids)
        truth._kth = best[:, -1]
        return truth

    def tune(self, index: VectorIndex, efforts: tuple[int, ...], floor: float) -> float:
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

    def _recall(self, index: VectorIndex, rows: NDArray[np.int64]) -> float:
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
