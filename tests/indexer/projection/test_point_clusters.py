"""Clusters of points, found without being told how many, and hues that tell neighbours apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.projection import point_clusters
from indexer.projection.point_clusters import find_clusters, hues


def blobs(count: int, each: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """So many clouds of points on a grid, the first the largest, and which each point is of; one point lies apart."""
    draw = np.random.default_rng(0)
    of = np.repeat(np.arange(count), [each + 2 * (count - place) for place in range(count)])
    middles = np.array([(place % 4, place // 4) for place in range(count)])
    points = np.vstack([middles[of] + draw.normal(0, 0.05, (len(of), 2)), [[9, 9]]]) / 10
    return points.astype(np.float32), np.append(of, -1)


@pytest.mark.parametrize("sample", [20_000, 300])
def test_clouds_of_points_are_clusters_the_largest_first(sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_clusters, "_CLUSTERED", sample)
    points, of = blobs(12, 40)
    found = find_clusters(points)
    assert found.max() == 11
    inside = found >= 0
    assert inside.mean() > 0.85  # what lies at the rim of a cloud may belong to none
    for cluster in range(12):
        assert len(set(of[found == cluster].tolist())) == 1
    sizes = np.bincount(found[inside])
    assert sample < len(points) or (np.diff(sizes) <= 0).all()


def test_no_cluster_has_the_hue_of_one_beside_it() -> None:
    points, _ = blobs(12, 40)
    found = find_clusters(points)
    given = hues(points, found, 6)
    middles = np.array([points[found == cluster].mean(0) for cluster in range(12)])
    for cluster, middle in enumerate(middles):
        apart = np.hypot(*(middles - middle).T)
        assert given[cluster] not in {given[other] for other in np.flatnonzero((apart > 0) & (apart < 0.12))}


@pytest.mark.parametrize("count", [0, 1, 9])
def test_a_few_points_are_no_clusters(count: int) -> None:
    points = np.zeros((count, 2), np.float32)
    assert find_clusters(points).tolist() == [-1] * count
    assert hues(points, find_clusters(points), 6) == []
