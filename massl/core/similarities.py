"""Similarities of embeddings, a slice of the queries at a time; the nearest of them, and what these vote for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Targets = NDArray[np.integer]

BLOCK = 1 << 25  # similarities held at once: 128 MiB in single precision, whatever the number of images


def similarities(
    queries: Floats, gallery: Floats, leave_one_out: bool = False
) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Yields rows of `queries` and their dot products with all of `gallery`, `[rows, N]`, which the caller may change.

    In single precision, or in double where both sets are.

    Args:
        queries: `[M, D]`, rows of unit length.
        gallery: `[N, D]`, rows of unit length.
        leave_one_out: both sets are the same, and an image is not compared with itself: it gets minus infinity.
    """
    precision = np.float64 if queries.dtype == gallery.dtype == np.float64 else np.float32
    left: Floats = queries.astype(precision, copy=False)
    right: Floats = gallery.astype(precision, copy=False)
    step = max(1, BLOCK // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        rows = np.arange(start, min(start + step, len(queries)))
        block = left[rows] @ right.T
        if leave_one_out:
            block[np.arange(len(rows)), rows] = -np.inf
        yield rows, block


def nearest(
    queries: Floats, gallery: Floats, count: int, leave_one_out: bool = False, first_of_equals: bool = False
) -> tuple[NDArray[np.intp], Floats]:
    """The `count` most similar rows of the gallery, best first, and their similarities, both `[M, count]`.

    Args:
        queries: `[M, D]`, rows of unit length.
        gallery: `[N, D]`, rows of unit length.
        count: cut to the number of candidates.
        leave_one_out: the gallery is the queries, and an image is not its own neighbour.
        first_of_equals: of rows that are equally similar the first come first; else any. Takes longer.
    """
    count = min(count, len(gallery) - leave_one_out)
    found: list[tuple[NDArray[np.intp], Floats]] = []
    for _, block in similarities(queries, gallery, leave_one_out):
        if first_of_equals:
            rows = np.argsort(-block, axis=1, kind="stable")[:, :count]
        else:
            rows = np.argpartition(block, -count, axis=1)[:, -count:]
            order = np.argsort(-np.take_along_axis(block, rows, 1), axis=1, kind="stable")
            rows = np.take_along_axis(rows, order, 1)
        found.append((rows, np.take_along_axis(block, rows, 1)))
    return np.concatenate([rows for rows, _ in found]), np.concatenate([near for _, near in found])


def weighted_votes(closeness: Floats, labels: Targets, classes: int, temperature: float) -> NDArray[np.float64]:
    """What neighbours vote for, float64 `[M, C]`, of which the nearest neighbour has given 1.

    Neighbours of cosine similarity s vote with weight exp(s / temperature), as in Wu et al., "Unsupervised feature
    learning via non-parametric instance discrimination", CVPR 2018, section 3.4; here by the nearest one's.

    Args:
        closeness: `[M, k]`, cosines.
        labels: of these neighbours, int `[M, k]`, each below `classes`.
        classes: C.
        temperature: of the weights, above 0.
    """
    # In double precision: the votes of many neighbours are sums of numbers of many sizes.
    precise = closeness.astype(np.float64)
    weights = np.exp((precise - precise.max(1, keepdims=True)) / temperature)
    places = np.arange(len(labels))[:, None] * classes + labels
    votes: NDArray[np.float64] = np.bincount(places.ravel(), weights.ravel(), len(labels) * classes).astype(np.float64)
    return votes.reshape(len(labels), classes)


def mean_cosine(vectors: Floats) -> float:
    """The mean cosine of two different rows of `[N, D]`, which are of unit length; N at least 2."""
    count = len(vectors)
    total = vectors.sum(0, dtype=np.float64)
    return float((total @ total - count) / (count * (count - 1)))
