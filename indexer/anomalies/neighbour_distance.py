"""How unusual images are: the distance to the k-th nearest other, of which near copies count once.

The k-th nearest neighbour as an outlier score is that of Ramaswamy, Rastogi and Shim, "Efficient algorithms for mining
outliers from large data sets", SIGMOD 2000. Deep nearest neighbours do well in images too (Reiss et al., "PANDA", CVPR
2021). Two pictures of one defect don't make it usual, so k is greater than 1; near copies are left out, as twenty
copies of a picture would make it usual for any k.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import CurrentIndex
from indexer.search.near_copies import neighbours
from indexer.store.vectors import unit
from massl.core.similarities import nearest

NEIGHBOUR = 10  # k among all images; on the sets in docs/measurements/anomalies.md 5 to 20 do about as well
GOOD_NEIGHBOUR = 3  # k among good images: there defects have no company, but a label may be wrong
_MARGIN = 10  # neighbours asked for beyond those, as near copies of the image itself don't count
_BLOCK = 1_024


class ExactIndex:
    """Some vectors, all of which are compared with each query. A `CurrentIndex`.

    Args:
        ids: rising, int64 `[N]`.
        vectors: `[N, D]`, of unit length but for rounding; a few thousand, as they are held in single precision.
    """

    exact = True

    def __init__(self, ids: NDArray[np.int64], vectors: NDArray[np.float16]) -> None:
        self._ids = ids
        self._vectors = unit(vectors)

    def __len__(self) -> int:
        return len(self._ids)

    def search(
        self, queries: NDArray[np.float32], k: int, among: object = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `indexer.search.engines.interface.CurrentIndex.search`; `among` is rising ids, or None."""
        rows = np.arange(len(self)) if among is None else np.flatnonzero(np.isin(self._ids, np.asarray(among)))
        found, near = nearest(queries, self._vectors if among is None else self._vectors[rows], k)
        return near, self._ids[rows[found]]


def distances(
    index: CurrentIndex,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float16],
    reference: NDArray[np.int64],
    asked: NDArray[np.int64],
    least: float,
    report: Callable[[int, int], None] = lambda done, total: None,
    k: int = NEIGHBOUR,
) -> NDArray[np.float32]:
    """One minus the cosine with the k-th nearest image of a reference, float32 `[len(asked)]`, 0 to 2.

    Args:
        index: holds these vectors.
        ids: rising, int64 `[N]`.
        vectors: `[N, D]`, of unit length but for rounding.
        reference: rising rows of which no two are near copies. Where there are fewer than k others, the farthest of
            them counts.
        asked: rows whose distance is wanted. An image that is in the reference itself is not its own neighbour.
        least: the cosine from which two are near copies: those of the image itself don't count.
        report: told how many are done, of how many.
        k: which of the neighbours counts.
    """
    found = np.empty(len(asked), np.float32)
    among = ids[reference]
    for start in range(0, len(asked), _BLOCK):
        rows = asked[start : start + _BLOCK]
        _, near = neighbours(index, ids, vectors, unit(vectors[rows]), k + _MARGIN + 1, among)
        # An image itself has a cosine of 1 and falls away with its copies, which stand first.
        copies = (near >= least).sum(1)
        there = np.isfinite(near).sum(1)
        place = np.minimum(copies + k - 1, there - 1).clip(0)
        found[start : start + _BLOCK] = 1 - near[np.arange(len(rows)), place]
        report(start + len(rows), len(asked))
    return found.clip(0)
