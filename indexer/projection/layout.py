"""Images as points in the plane, like ones near each other: what a map of a collection is drawn from.

At once by the two principal components, which are a shadow of the whole and tell no small groups apart. Then by t-SNE
(van der Maaten and Hinton, JMLR 2008; as openTSNE computes it, by the interpolation of Linderman et al., Nature Methods
2019), which puts images beside those that they are most like, and says nothing by how far groups are from one another.
Of a large collection a sample is laid out, and every other image is put among its nearest neighbours in that.
"""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.store.vectors import VectorSource, unit
from massl.core.errors import MasslError
from massl.core.machine import cores

LAID_OUT = 20_000  # images that are laid out themselves
FEWEST = 12  # images, below which there is nothing that principal components would not show
PERPLEXITY = 20.0  # neighbours, roughly, that an image is drawn to
TREE = 3_000  # images up to which Barnes and Hut's tree is faster than interpolation
EARLY, LATE = 250, 500  # iterations with and without exaggerated attraction
EXAGGERATION = 12.0
_STEP = 10  # iterations between two checks for a stop
_BLOCK = 2_048  # images whose neighbours are sought at once
_AMONG = 7  # neighbours that an image is placed among
_MOVED = 0.002  # how far from there, in halves of the map's width: copies must not hide each other
_SHARES = {"comparing": 0.1, "arranging": 0.8, "placing": 0.1}  # of the time, roughly, that each step takes

Going = Callable[[str, float], None]
"""Told the step (`comparing`, `arranging`, `placing`) and how much of all is done, 0 to 1. May raise, to stop it."""


def principal(source: VectorSource) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """All images by the two directions in which a sample of them varies most.

    Returns:
        Rising ids, int64 `[N]`, and points, float32 `[N, 2]` from -1 to 1.
    """
    sample = unit(source.sample(LAID_OUT)[1])
    mean, axes = _axes(sample)
    ids, points = [np.empty(0, np.int64)], [np.empty((0, 2), np.float32)]
    for block, packed in source.blocks():
        ids.append(block)
        points.append(np.asarray((unit(packed) - mean) @ axes, np.float32))
    return np.concatenate(ids), _fitted(np.concatenate(points))


def by_neighbours(
    source: VectorSource,
    going: Going = lambda step, done: None,
    before: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
    """All images, each near those that it is most like. The same vectors give the same points on the same machine.

    Args:
        source: the vectors.
        going: told how far it is.
        before: rising ids and points of an earlier layout, from which this one sets out, so that what one knew is found
            again where it was.

    Returns:
        Rising ids, int64 `[N]`; points, float32 `[N, 2]` from -1 to 1; how many of them were laid out themselves.

    Raises:
        MasslError: openTSNE is not installed.
    """
    sample, packed = source.sample(LAID_OUT)
    if len(sample) < FEWEST:
        ids, points = principal(source)
        return ids, points, len(ids)
    vectors = unit(packed)
    points = _fitted(_t_sne(vectors, _start(sample, vectors, before), going))
    ids, points = placed(source, sample, points, going)
    return ids, points, len(sample)


def placed(
    source: VectorSource, known: NDArray[np.int64], points: NDArray[np.float32], going: Going = lambda step, done: None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Puts every image that has no point yet among its nearest neighbours that have one.

    Args:
        source: the vectors of all images.
        known: rising ids of those that have a point, int64 `[n]`; those that are not in `source` are dropped.
        points: float32 `[n, 2]`.
        going: told how far it is.

    Returns:
        Rising ids, int64 `[N]`, and points, float32 `[N, 2]`.
    """
    few = known if len(known) <= LAID_OUT else np.sort(np.random.default_rng(0).choice(known, LAID_OUT, replace=False))
    stored, packed = source.of(few)
    landmarks, where = unit(packed), points[np.searchsorted(known, stored)]
    ids, found = [np.empty(0, np.int64)], [np.empty((0, 2), np.float32)]
    total, done = max(1, len(source)), 0
    for block, packed in source.blocks():
        here = np.full((len(block), 2), np.nan, np.float32)
        has = np.isin(block, known)
        here[has] = points[np.searchsorted(known, block[has])]
        missing = np.flatnonzero(~has)
        for start in range(0, len(missing) if len(landmarks) else 0, _BLOCK):
            rows = missing[start : start + _BLOCK]
            _, nearest = _nearest(unit(packed[rows]), landmarks, min(_AMONG, len(landmarks)))
            # The median, as the mean of two groups' points lies in neither.
            chance = np.random.default_rng(block[rows[:1]])
            here[rows] = np.median(where[nearest], 1) + _MOVED * chance.standard_normal((len(rows), 2))
            going("placing", _so_far("placing", (done + start) / total))
        ids.append(block)
        found.append(here)
        done += len(block)
    every, all_points = np.concatenate(ids), np.concatenate(found)
    there = np.isfinite(all_points[:, 0])
    return every[there], all_points[there].clip(-1, 1)


def _axes(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean, `[D]`, and the two directions of most variance, `[D, 2]`, each with its largest number positive."""
    mean = vectors.mean(0) if len(vectors) else np.zeros(vectors.shape[1], np.float32)
    around = vectors - mean
    _, directions = np.linalg.eigh((around.T @ around).astype(np.float64))
    axes = directions[:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    return mean, axes.astype(np.float32)


def _start(
    ids: NDArray[np.int64], vectors: NDArray[np.float32], before: tuple[NDArray[np.int64], NDArray[np.float32]] | None
) -> NDArray[np.float64]:
    """Where t-SNE sets out from: its authors' advice is little room, and principal components rather than chance."""
    mean, axes = _axes(vectors)
    start = ((vectors - mean) @ axes).astype(np.float64)
    start /= start.std(0).clip(1e-12)
    if before is not None and len(before[0]):
        known, points = before
        rows = np.searchsorted(known, ids).clip(max=len(known) - 1)
        had = known[rows] == ids
        if had.mean() >= 0.5:
            where = points[rows[had]]
            start = np.zeros((len(ids), 2))
            start[had] = where
            if not had.all():
                start[~had] = np.median(where[_nearest(vectors[~had], vectors[had], _AMONG)[1]], 1)
            start /= start.std(0).clip(1e-12)
    start += 1e-3 * np.random.default_rng(0).standard_normal(start.shape)  # copies would never part
    return 1e-4 * start


def _t_sne(vectors: NDArray[np.float32], start: NDArray[np.float64], going: Going) -> NDArray[np.float32]:
    try:
        from openTSNE import TSNEEmbedding
        from openTSNE.affinity import PerplexityBasedNN
        from openTSNE.nearest_neighbors import PrecomputedNeighbors
    except ImportError:
        raise MasslError(
            "only a rough map can be shown: a map by similarity needs openTSNE, which has no package for this system; "
            "with a C compiler, run: pip install openTSNE"
        ) from None
    count = len(vectors)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    neighbours, distances = _neighbours(vectors, min(count - 1, round(3 * perplexity)), going)
    affinities = PerplexityBasedNN(
        knn_index=PrecomputedNeighbors(neighbours, distances), perplexity=perplexity, n_jobs=_threads()
    )
    method = "bh" if count <= TREE else "fft"
    # Of few images each is drawn to most others, and more attraction would draw all of them into one point.
    exaggerated = min(EXAGGERATION, count / perplexity)
    points = TSNEEmbedding(start, affinities, negative_gradient_method=method, n_jobs=_threads(), random_state=0)
    for first, last, exaggeration, momentum in ((0, EARLY, exaggerated, 0.5), (EARLY, EARLY + LATE, None, 0.8)):
        for iteration in range(first, last, _STEP):
            going("arranging", _so_far("arranging", iteration / (EARLY + LATE)))
            points.optimize(
                _STEP,
                inplace=True,
                exaggeration=exaggeration,
                momentum=momentum,
                learning_rate="auto",
                n_jobs=_threads(),
            )
    return np.asarray(points, np.float32)


def _neighbours(vectors: NDArray[np.float32], k: int, going: Going) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `k` nearest others of each vector and their distances, `[N, k]`, the nearest first."""
    ids, distances = [], []
    for start in range(0, len(vectors), _BLOCK):
        going("comparing", _so_far("comparing", start / len(vectors)))
        scores, found = _nearest(vectors[start : start + _BLOCK], vectors, k + 1)
        own = found == np.arange(start, start + len(found))[:, None]
        own[~own.any(1), -1] = True  # crowded out by copies that score the same
        ids.append(found[~own].reshape(-1, k))
        distances.append(np.sqrt(np.maximum(0.0, 2.0 - 2.0 * scores[~own].reshape(-1, k).astype(np.float64))))
    return np.concatenate(ids), np.concatenate(distances)


def _nearest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    faiss.omp_set_num_threads(_threads())  # of this thread alone
    return faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)


def _fitted(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points in the square from -1 to 1, without stretching them to one side."""
    if not len(points):
        return points.astype(np.float32)
    low, high = points.min(0), points.max(0)
    half = float((high - low).max()) / 2
    return ((points - (low + high) / 2) / max(half, 1e-12)).astype(np.float32).clip(-1, 1)


def _so_far(step: str, share: float) -> float:
    """How much of all is done when `share` of a step is."""
    done = 0.0
    for name, part in _SHARES.items():
        if name == step:
            return done + part * min(1.0, share)
        done += part
    raise KeyError(step)


def _threads() -> int:
    """All cores but one, which stays free for searches."""
    return max(1, cores() - 1)
