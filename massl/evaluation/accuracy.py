"""How often predictions are right, and what is taken for what."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from massl.core.similarities import Targets


def confusion(labels: Targets, predicted: Targets, classes: int) -> NDArray[np.int64]:
    """How many images of each class (rows) were taken for each class (columns), int64 `[C, C]`."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def mean_per_class(labels: Targets, predicted: Targets) -> float:
    """Mean over the classes that occur of the share of their images that is right."""
    right = np.bincount(labels, predicted == labels)
    counts = np.bincount(labels)
    return float((right[counts > 0] / counts[counts > 0]).mean())
