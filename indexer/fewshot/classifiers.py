"""Heads: what turns embeddings into classes, learnt from a few labelled ones.

Three methods, as none is the best everywhere: logistic regression, the nearest class mean (prototypes; Snell et al.,
"Prototypical Networks for Few-shot Learning", 2017) and the labels of the nearest neighbours, near ones counting for
more (Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018).

scikit-learn is imported where it is used: it takes longer to import than a search takes in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from massl.core.similarities import nearest, weighted_votes

LOGISTIC = "logistic regression"
PROTOTYPES = "prototypes"
NEIGHBOURS = "nearest neighbours"

# Unit vectors differ by little, so the penalty has to be weak.
STRENGTHS = (1.0, 10.0, 100.0)
COUNTS = (3, 10, 30)  # of neighbours; a single one would be as sure of everything
_SHARPNESS = 10.0  # of squared distances to class means: about what calibration finds on photographs
TEMPERATURE = 0.07  # of cosines, by which neighbours are weighted: the usual value of k-NN on embeddings (Wu et al.)
FLOOR = 0.01  # of the votes, spread over all classes: none is ruled out because no neighbour has it
_BLOCK = 4096  # rows that are compared with all examples at a time


class Head(Protocol):
    """A fitted head."""

    def logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Unit vectors `[N, D]` to logits `[N, C]`: their softmax is the head's own idea of the probabilities."""
        ...


@dataclass(frozen=True)
class Linear:
    """A head that is one product of matrices: logistic regression's, or that of the class means.

    Attributes:
        weights: float64 `[D, C]`.
        bias: float64 `[C]`.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Head.logits`."""
        return vectors @ self.weights + self.bias


@dataclass(frozen=True)
class Neighbours:
    """A head that keeps all examples: features `[n, D]`, targets `[n]` out of `classes`, and how many of them vote."""

    features: NDArray[np.float32]
    targets: NDArray[np.integer]
    classes: int
    count: int

    def logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Head.logits`."""
        parts = [self._votes(vectors[start : start + _BLOCK]) for start in range(0, len(vectors), _BLOCK)]
        shares = np.concatenate([np.empty((0, self.classes)), *parts])
        return np.log((1 - FLOOR) * shares + FLOOR / self.classes)

    def _votes(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        rows, cosines = nearest(vectors, self.features, self.count)
        votes = weighted_votes(cosines, self.targets[rows], self.classes, TEMPERATURE)
        return votes / votes.sum(1, keepdims=True)


@dataclass(frozen=True)
class Candidate:
    """A method and its setting: the inverse penalty of the regression, or the number of neighbours."""

    method: str
    setting: float = 0.0

    def fit(self, features: NDArray[np.float32], targets: NDArray[np.integer], classes: int) -> Head:
        """Fits a head to unit vectors `[n, D]` and their targets `[n]`, each of `classes` at least once."""
        if self.method == LOGISTIC:
            return _regress(features, targets, self.setting)
        if self.method == PROTOTYPES:
            means = np.stack([features[targets == target].mean(0, dtype=np.float64) for target in range(classes)])
            # Of the squared distance |x - m|², what depends on the class: -2 x·m + |m|².
            return Linear(_SHARPNESS * 2 * means.T, -_SHARPNESS * (means**2).sum(1))
        if self.method == NEIGHBOURS:
            return Neighbours(features, targets, classes, int(self.setting))
        raise AssertionError(f"no method is called {self.method}")


def candidates(examples: int) -> tuple[Candidate, ...]:
    """The methods that so many examples allow, with each setting worth trying."""
    few = (*(Candidate(LOGISTIC, strength) for strength in STRENGTHS), Candidate(PROTOTYPES))
    return (*few, *(Candidate(NEIGHBOURS, count) for count in COUNTS if count == COUNTS[0] or count < examples))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _regress(features: NDArray[np.float32], targets: NDArray[np.integer], strength: float) -> Linear:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=500).fit(features, targets)
    weights, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    if weights.shape[1] == 1:  # scikit-learn gives two classes a single column: the second one's
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.hstack([-bias / 2, bias / 2])
    return Linear(weights, bias)
