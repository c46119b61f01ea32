"""In which order to look at the images that nobody has labelled yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.fewshot.classification import NONE, Classification

SAMPLE = 10_000  # unlabelled images among which different ones are sought; in more, it would take seconds
_TRIES = 3  # images weighed at each step


def most_sure(result: Classification) -> NDArray[np.int64]:
    """Rows of the unlabelled, familiar images that have a predicted class, the likeliest first."""
    rows = np.flatnonzero(~result.labelled & (result.predicted != NONE) & result.familiar)
    return rows[np.argsort(-result.probability[rows], kind="stable")]


def least_sure(result: Classification) -> NDArray[np.int64]:
    """Rows of the unlabelled images, the least likely prediction first: a label there teaches most about borders."""
    rows = np.flatnonzero(~result.labelled)
    return rows[np.argsort(result.probability[rows], kind="stable")]


def most_different(vectors: NDArray[np.float32], labelled: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Rows of unlabelled images that are unlike the labelled ones and each other, the most telling first.

    Drawn as k-means++ draws its centres (Arthur and Vassilvitskii, 2007), from the labelled images on: far from what
    is known, but rather from where there are many than from the one odd image that simply farthest-first would take.
    Always the same for the same labels.

    Args:
        vectors: unit vectors `[N, D]`.
        labelled: bool `[N]`.
        count: how many, at most. They come from a random sample of `SAMPLE` where there are more unlabelled images.
    """
    draw = np.random.default_rng(0)
    pool = np.flatnonzero(~labelled)
    if len(pool) > SAMPLE:
        pool = np.sort(draw.choice(pool, SAMPLE, replace=False))
    features = vectors[pool]
    known = vectors[labelled]
    if len(known) > SAMPLE:
        known = known[np.sort(draw.choice(len(known), SAMPLE, replace=False))]
    if not len(pool):
        return pool
    # Squared distances to the nearest image that is labelled or chosen; of unit vectors, 2 - 2 cos.
    if len(known):
        distances = np.concatenate(
            [2 - 2 * (features[start : start + 1024] @ known.T).max(1) for start in range(0, len(features), 1024)]
        )
    else:
        centre = features.mean(0)
        distances = 2 - 2 * features @ (centre / max(1e-6, float(np.linalg.norm(centre))))
    distances = distances.clip(0)
    chosen: list[int] = []
    while len(chosen) < min(count, len(pool)):
        weights = distances.astype(np.float64)
        weights[chosen] = 0
        total = weights.sum()
        if total <= 1e-9:  # copies of what was chosen are all that is left
            rest = np.setdiff1d(np.arange(len(pool)), chosen)
            chosen.extend(rest[: count - len(chosen)].tolist())
            break
        tries = np.unique(draw.choice(len(pool), _TRIES, p=weights / total))
        closer = np.minimum(distances, (2 - 2 * features[tries] @ features.T).clip(0))
        best = int(closer.sum(1).argmin())
        chosen.append(int(tries[best]))
        distances = closer[best]
    return pool[chosen]
