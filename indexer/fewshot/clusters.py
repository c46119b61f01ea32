"""Groups of like images that nobody has labelled: where a person may begin to name classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUPS = 12
TYPICAL = 8  # images that stand for a group
_LEAST = 4  # images worth a group of their own
_MANY = 10_000  # images from which k-means works on batches


@dataclass(frozen=True)
class Group:
    """Images that are like each other.

    Attributes:
        size: how many there are.
        typical: ids of some that stand for it, from its middle outwards.
        closeness: mean cosine of its images with its middle: near 1 they are all alike.
    """

    size: int
    typical: tuple[int, ...]
    closeness: float


def find_groups(ids: NDArray[np.int64], vectors: NDArray[np.float32], count: int = GROUPS) -> list[Group]:
    """Splits images into about `count` groups, fewer where there are few images, the closest first.

    By k-means on the unit vectors; in batches from 10,000 images on (Sculley, "Web-Scale K-Means Clustering", 2010).
    The groups are where to begin, not classes: two may be of one class, and none needs to be pure.

    Args:
        ids: int64 `[N]`.
        vectors: unit vectors `[N, D]`.
        count: groups, at least 2.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(ids) // _LEAST)
    if count < 2:
        return []
    if len(ids) >= _MANY:
        model = MiniBatchKMeans(count, batch_size=4096, n_init=3, random_state=0)
    else:
        model = KMeans(count, n_init=4, random_state=0)
    members = model.fit_predict(vectors)
    found = []
    for group in range(count):
        rows = np.flatnonzero(members == group)
        if len(rows) < 2:
            continue
        centre = model.cluster_centers_[group] / max(1e-6, float(np.linalg.norm(model.cluster_centers_[group])))
        cosines = vectors[rows] @ centre.astype(np.float32)
        inward = rows[np.argsort(-cosines, kind="stable")]
        # Spread over the inner half: the very nearest are often one picture taken twice.
        inner = inward[: max(min(TYPICAL, len(inward)), len(inward) // 2)]
        picked = inner[np.linspace(0, len(inner) - 1, min(TYPICAL, len(inner))).round().astype(np.int64)]
        found.append(Group(len(rows), tuple(ids[picked].tolist()), float(cosines.mean())))
    return sorted(found, key=lambda group: -group.closeness)
