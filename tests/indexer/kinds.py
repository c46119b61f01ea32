"""Vectors of a few overlapping kinds, as embeddings of photographs are, and labels for some of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kinds(
    count: int, classes: int, seed: int, dim: int = 32, spread: float = 0.7
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Rising ids with gaps `[count]`, unit vectors `[count, dim]`, and the kind of each."""
    draw = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), draw.integers(0, classes, count - classes)])
    vectors = draw.standard_normal((classes, dim))[targets] + spread * draw.standard_normal((count, dim)) * 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.arange(count) * 3 + 5, vectors.astype(np.float32), targets


def labels_of(ids: NDArray[np.int64], targets: NDArray[np.int64], each: int, seed: int = 0) -> dict[int, str]:
    """Labels, called by letters, for `each` images of every kind."""
    draw = np.random.default_rng(seed)
    chosen = [draw.permutation(np.flatnonzero(targets == target))[:each] for target in np.unique(targets)]
    return {int(ids[row]): "abcdefgh"[targets[row]] for row in np.concatenate(chosen)}
