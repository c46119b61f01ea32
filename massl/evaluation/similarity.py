"""All similarities of two sets of embeddings, a slice of the queries at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]

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
