"""Measures against independent ones."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from massl.evaluation import knn_top1, rankme


def clusters(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, count)
    vectors = generator.normal(size=(5, 16))[labels] + generator.normal(scale=1.2, size=(count, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_scikit_learns(k: int) -> None:
    train, train_labels = clusters(1500, 0)
    test, test_labels = clusters(700, 0)
    theirs = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    wanted = theirs.fit(train, train_labels).score(test, test_labels)
    assert knn_top1(train, train_labels, test, test_labels, k) == pytest.approx(wanted, abs=1e-6)


def test_leaving_one_out_equals_doing_so_by_hand() -> None:
    vectors, labels = clusters(60, 1)
    right = [
        knn_top1(np.delete(vectors, row, 0), np.delete(labels, row), vectors[[row]], labels[[row]], 7)
        for row in range(60)
    ]
    assert knn_top1(vectors, labels, vectors, labels, 7, leave_one_out=True) == pytest.approx(np.mean(right))


def test_rankme_tells_collapse_from_spread() -> None:
    generator = np.random.default_rng(0)
    assert rankme(np.ones((64, 16))) == pytest.approx(1, abs=1e-3)
    assert rankme(np.eye(16)) == pytest.approx(16, rel=1e-3)
    assert 12 < rankme(generator.normal(size=(640, 16))) <= 16
