"""Clusters of the points of a map, as an eye sees them, and hues that tell those beside each other apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 200  # clusters
_CLUSTERED = 20_000  # points that are clustered themselves; the others join the nearest of these
_FEWEST, _LARGEST, _SHARE = 5, 50, 0.01  # points of a cluster: a share of all, from the first to the second
_BESIDE = 5  # clusters near one that should have another hue


def find_clusters(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which cluster each point is in, the largest being 0; -1 of points between clusters.

    By HDBSCAN (Campello, Moulavi and Sander, PAKDD 2013), which needs no number of clusters and no distance.

    Args:
        points: float32 `[N, 2]`.
    """
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import KDTree

    sample = points
    if len(points) > _CLUSTERED:
        sample = points[np.random.default_rng(0).choice(len(points), _CLUSTERED, replace=False)]
    fewest = int(np.clip(_SHARE * len(sample), _FEWEST, _LARGEST))
    if len(sample) < 2 * fewest:
        return np.full(len(points), -1)
    found = HDBSCAN(fewest, min_samples=_FEWEST, copy=True).fit_predict(sample)
    if len(sample) < len(points):
        found = found[KDTree(sample).query(points, return_distance=False)[:, 0]]
    sizes = np.bincount(found[found >= 0], minlength=1)
    place = np.full(len(sizes) + 1, -1)  # the last one is of the points between clusters
    largest = np.argsort(-sizes, kind="stable")[: min(MOST, np.count_nonzero(sizes))]
    place[largest] = np.arange(len(largest))
    return place[found]


def hues(points: NDArray[np.float32], clusters: NDArray[np.int64], count: int) -> list[int]:
    """A hue for each cluster, below `count`: another one than those of the nearest larger clusters have.

    Args:
        points: float32 `[N, 2]`.
        clusters: of `find_clusters`, int64 `[N]`.
        count: hues, more than 5.
    """
    middles = np.array([points[clusters == each].mean(0) for each in range(clusters.max(initial=-1) + 1)])
    given: list[int] = []
    for middle in middles:
        beside = np.argsort(((middles[: len(given)] - middle) ** 2).sum(1), kind="stable")[:_BESIDE]
        taken = {given[each] for each in beside.tolist()}
        given.append(min(set(range(count)) - taken, key=lambda hue: (given.count(hue), hue)))
    return given
