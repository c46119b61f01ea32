"""Dividing images into parts, class by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from massl.core.similarities import Targets


def stratified(labels: Targets, share: float, seed: int | Sequence[int]) -> NDArray[np.bool_]:
    """Which images fall into the first part: about `share` of each class, drawn by `seed`; bool `[N]`.

    Several numbers are one seed: those of `[0, 1]` and `[1, 0]` have nothing to do with each other.

    Of a class with two images or more both parts get at least one; a single image goes to the first part.
    """
    generator = np.random.default_rng(seed)
    first = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        # Half a class of odd size rounds up: where the parts are training and test, training gets the odd one.
        count = int(np.floor(share * len(rows) + 0.5))
        first[generator.permutation(rows)[: max(1, min(count, len(rows) - 1))]] = True
    return first
