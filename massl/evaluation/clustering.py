"""Clustering: whether the classes come apart by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from massl.core.similarities import Floats, Targets
from massl.evaluation.accuracy import confusion

RESTARTS = 10
MANY = 20_000  # images above which a single start has to do


@dataclass(frozen=True)
class Clustering:
    """Agreement of clusters with classes.

    Attributes:
        clusters: int `[N]`, from 0.
        predicted: int `[N]`, each cluster's class by the assignment.
        nmi: normalised mutual information (arithmetic mean of the entropies), 0 to 1.
        ari: adjusted Rand index, 1 at best, about 0 for random clusters.
        accuracy: share of right images when every cluster is given another class in the best way.
    """

    clusters: NDArray[np.int64]
    predicted: NDArray[np.int64]
    nmi: float
    ari: float
    accuracy: float


def cluster(vectors: Floats, labels: Targets, seed: int = 0) -> Clustering:
    """k-means with as many clusters as there are classes, held against the classes.

    Args:
        vectors: `[N, D]`, rows of unit length.
        labels: int `[N]`, from 0.
        seed: of the first centres.
    """
    from sklearn.cluster import KMeans

    restarts = RESTARTS if len(vectors) <= MANY else 1
    means = KMeans(len(np.unique(labels)), n_init=restarts, random_state=seed)
    return agreement(means.fit_predict(vectors).astype(np.int64), labels)


def agreement(clusters: Targets, labels: Targets) -> Clustering:
    """How well clusters, int `[N]` from 0, agree with classes, int `[N]` from 0.

    The assignment of clusters to classes is the Hungarian method's, the usual "clustering accuracy" (Yang et al.,
    "Image clustering using local discriminant models and global integration", 2010).
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    size = int(max(clusters.max(), labels.max())) + 1
    counts = confusion(labels, clusters, size)
    classes, assigned = linear_sum_assignment(counts, maximize=True)
    class_of = np.empty(size, np.int64)
    class_of[assigned] = classes
    return Clustering(
        clusters.astype(np.int64),
        class_of[clusters],
        float(normalized_mutual_info_score(labels, clusters)),
        float(adjusted_rand_score(labels, clusters)),
        float(counts[classes, assigned].sum() / len(labels)),
    )
