"""An index that is never changed, and beside it what is new: a few vectors, or a smaller index of many."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import Measured, VectorIndex
from indexer.search.engines.subjects import Subject
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter
from indexer.store.vectors import unit

ScoredIds = tuple[NDArray[np.float32], NDArray[np.int64]]


class ExtendedIndex:
    """A large index, and a smaller one of what came since, or is another than before. A `VectorIndex`."""

    effort = 0  # each has its own

    def __init__(self, large: VectorIndex, later: VectorIndex) -> None:
        self.large = large
        self.later = later
        self._replaced = later.ids[large.holds(later.ids)]

    def __len__(self) -> int:
        return len(self.large) - len(self._replaced) + len(self.later)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """See `VectorIndex.ids`."""
        return np.union1d(self.large.ids, self.later.ids)

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `VectorIndex.holds`."""
        return self.large.holds(ids) | self.later.holds(ids)

    def search(self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None) -> ScoredIds:
        """See `VectorIndex.search`."""
        older = _without(self.large, self._replaced, queries, k, among)
        return _best(older, self.later.search(queries, k, among), k)


class AmendedIndex:
    """An index, and the vectors that were added, changed or removed since it was built. A `CurrentIndex`.

    Args:
        catalog: whose vectors they are.
        subject: what they are of.
        changed: rising ids of what changed since.
        base: the index.
        exact: whether that finds the nearest without fail.
        measured: how it answers.

    Attributes:
        exact: whether it finds the nearest without fail.
        measured: how the index answers that it amends.
    """

    def __init__(
        self,
        catalog: Catalog,
        subject: Subject,
        changed: NDArray[np.int64],
        base: VectorIndex,
        exact: bool,
        measured: Measured,
    ) -> None:
        ids, packed = subject.vectors(catalog).of(changed)
        self._catalog = catalog
        self._subject = subject
        self.exact = exact
        self.measured = measured
        self._base = base
        self._outdated = changed[base.holds(changed)]
        self._ids = ids
        self._vectors = unit(packed)

    def __len__(self) -> int:
        return len(self._base) - len(self._outdated) + len(self._ids)

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `VectorIndex.holds`."""
        return (self._base.holds(ids) & ~np.isin(ids, self._outdated)) | np.isin(ids, self._ids)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | Filter | None = None
    ) -> ScoredIds:
        """See `CurrentIndex.search`."""
        if isinstance(among, Filter):
            among = self._subject.among(self._catalog, among)
        found = _without(self._base, self._outdated, queries, k, among)
        passing = slice(None) if among is None else np.isin(self._ids, among)
        scores = queries @ self._vectors[passing].T
        return _best(found, (scores, np.broadcast_to(self._ids[passing], scores.shape)), k)


def _without(
    index: VectorIndex,
    outdated: NDArray[np.int64],
    queries: NDArray[np.float32],
    k: int,
    among: NDArray[np.int64] | None,
) -> ScoredIds:
    """What an index finds, less what is outdated: rising ids that it has."""
    if among is not None:
        if len(outdated):
            among = np.setdiff1d(among, outdated, assume_unique=True)
        return index.search(queries, k, among)
    more = min(len(outdated), 16)
    while True:
        scores, ids = index.search(queries, k + more)
        missing = np.isin(ids, outdated)
        if more >= len(outdated) or (missing.sum(1) <= more).all():
            break
        more = min(len(outdated), 8 * more)  # a whole folder changed, say, just where the query looks
    scores[missing], ids[missing] = -np.inf, -1
    return scores, ids


def _best(one: ScoredIds, other: ScoredIds, k: int) -> ScoredIds:
    """The `k` best of both."""
    scores = np.concatenate([one[0], other[0]], 1)
    ids = np.concatenate([one[1], other[1]], 1)
    best = np.argsort(-scores, 1, kind="stable")[:, : max(0, k)]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
