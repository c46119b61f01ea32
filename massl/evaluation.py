"""Measures of embeddings, on arrays: no torch, no images, so that any encoder's output can be judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def rankme(embeddings: Floats) -> float:
    """Effective rank of `[N, D]` embeddings: the exponential of the entropy of their singular values.

    Between 1 (all alike: collapsed) and min(N, D). Source: Garrido et al., "RankMe", ICML 2023, equation 1.
    """
    values = np.linalg.svd(np.asarray(embeddings, dtype=np.float64), compute_uv=False)
    shares = values / max(values.sum(), 1e-12) + 1e-7
    return float(np.exp(-(shares * np.log(shares)).sum()))


def knn_top1(
    train: Floats,
    train_labels: NDArray[np.integer],
    test: Floats,
    test_labels: NDArray[np.integer],
    k: int = 20,
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> float:
    """Share of test images whose weighted k-nearest-neighbour label is right.

    Neighbours by cosine similarity s vote with weight exp(s / temperature), as in Wu et al., 2018, section 3.4,
    the protocol of DINO and its successors.

    Args:
        train: `[N, D]`, rows of unit length.
        train_labels: int `[N]`, from 0.
        test: `[M, D]`, rows of unit length.
        test_labels: int `[M]`.
        k: neighbours that vote, at most the number of candidates.
        temperature: of the weights.
        leave_one_out: `test` is `train`, and an image is not its own neighbour.
    """
    candidates = len(train) - (1 if leave_one_out else 0)
    k = min(k, candidates)
    classes = int(train_labels.max()) + 1
    right = 0
    for start in range(0, len(test), 1024):  # a slice at a time: [1024, N] similarities, not [M, N]
        rows = np.arange(start, min(start + 1024, len(test)))
        similarity = test[rows].astype(np.float32) @ train.T.astype(np.float32)
        if leave_one_out:
            similarity[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = np.exp(np.take_along_axis(similarity, nearest, 1) / temperature)
        votes = np.zeros((len(rows), classes))
        np.add.at(votes, (np.arange(len(rows))[:, None], train_labels[nearest]), weights)
        right += int((votes.argmax(1) == test_labels[rows]).sum())
    return right / len(test)
