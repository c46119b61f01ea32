"""Weighted k-nearest-neighbour classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from massl.core.similarities import BLOCK, Floats, Targets, nearest, weighted_votes


def knn_predict(
    train: Floats,
    train_labels: Targets,
    test: Floats,
    ks: Sequence[int],
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> NDArray[np.int64]:
    """The label that the nearest training images vote for, int64 `[len(ks), M]`.

    The protocol of DINO and its successors; how they are weighted, says `weighted_votes`.

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
    predicted = np.empty((len(ks), len(test)), np.int64)
    step = max(1, BLOCK // classes)
    for start in range(0, len(test), step):
        rows = slice(start, start + step)
        for which, k in enumerate(ks):
            votes = weighted_votes(closeness[rows, :k], train_labels[neighbours[rows, :k]], classes, temperature)
            predicted[which, rows] = votes.argmax(1)
    return predicted


def knn_top1(
    train: Floats,
    train_labels: Targets,
    test: Floats,
    test_labels: Targets,
    k: int = 20,
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> float:
    """Share of test images whose weighted k-nearest-neighbour label is right: see `knn_predict`."""
    predicted = knn_predict(train, train_labels, test, (k,), temperature, leave_one_out)
    return float((predicted[0] == test_labels).mean())
