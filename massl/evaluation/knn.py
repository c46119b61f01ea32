"""Weighted k-nearest-neighbour classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from massl.evaluation.similarity import BLOCK, Floats, Labels, similarities


def knn_predict(
    train: Floats,
    train_labels: Labels,
    test: Floats,
    ks: Sequence[int],
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> NDArray[np.int64]:
    """The label that the nearest training images vote for, int64 `[len(ks), M]`.

    Neighbours by cosine similarity s vote with weight exp(s / temperature), as in Wu et al., "Unsupervised feature
    learning via non-parametric instance discrimination", CVPR 2018, section 3.4, the protocol of DINO and its
    successors.

    Args:
        train: `[N, D]`, rows of unit length.
        train_labels: int `[N]`, from 0.
        test: `[M, D]`, rows of unit length.
        ks: how many neighbours vote; each at most the number of candidates, and cut to it.
        temperature: of the weights.
        leave_one_out: `test` is `train`, and an image is not its own neighbour.
    """
    neighbours, closeness = nearest(test, train, max(ks), leave_one_out)
    classes = int(train_labels.max()) + 1
    # In double precision: the votes of many neighbours are sums of numbers of up to e^14.
    weights = np.exp(closeness.astype(np.float64) / temperature)
    predicted = np.empty((len(ks), len(test)), np.int64)
    step = max(1, BLOCK // classes)
    for start in range(0, len(test), step):
        rows = slice(start, start + step)
        count = len(neighbours[rows])
        places = np.arange(count)[:, None] * classes + train_labels[neighbours[rows]]
        for which, k in enumerate(ks):
            votes = np.bincount(places[:, :k].ravel(), weights[rows, :k].ravel(), count * classes)
            predicted[which, rows] = votes.reshape(count, classes).argmax(1)
    return predicted


def nearest(
    queries: Floats, gallery: Floats, count: int, leave_one_out: bool = False
) -> tuple[NDArray[np.intp], Floats]:
    """The `count` most similar rows of the gallery, best first, and their similarities, both `[M, count]`.

    Args:
        queries: `[M, D]`, rows of unit length.
        gallery: `[N, D]`, rows of unit length.
        count: cut to the number of candidates.
        leave_one_out: the gallery is the queries, and an image is not its own neighbour.
    """
    count = min(count, len(gallery) - leave_one_out)
    found: list[tuple[NDArray[np.intp], Floats]] = []
    for _, block in similarities(queries, gallery, leave_one_out):
        top = np.argpartition(block, -count, axis=1)[:, -count:]
        near = np.take_along_axis(block, top, 1)
        order = np.argsort(-near, axis=1, kind="stable")
        found.append((np.take_along_axis(top, order, 1), np.take_along_axis(near, order, 1)))
    return np.concatenate([rows for rows, _ in found]), np.concatenate([near for _, near in found])


def knn_top1(
    train: Floats,
    train_labels: Labels,
    test: Floats,
    test_labels: Labels,
    k: int = 20,
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> float:
    """Share of test images whose weighted k-nearest-neighbour label is right: see `knn_predict`."""
    predicted = knn_predict(train, train_labels, test, (k,), temperature, leave_one_out)
    return float((predicted[0] == test_labels).mean())
