"""Few-shot classification: everything from a handful of labels, with probabilities that can be believed.

scikit-learn is imported where it is used: it takes longer to import than a search takes in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from massl.errors import MasslError

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# Unit vectors differ by little, so the penalty has to be weak; the ladder is searched by cross-validation.
_STRENGTHS = (1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Classification:
    """Predictions for every image, and how far to trust them.

    Attributes:
        classes: the labels, sorted.
        counts: how many examples of each were given.
        images: int64 `[N]` ids.
        predicted: int `[N]`, an index into `classes`.
        probability: float `[N]`, of the predicted class, calibrated where an estimate could be made.
        estimated_accuracy: share of right predictions on labelled images that were held out in turn; None where a
            class has a single example, as nothing can be held out then.
    """

    classes: tuple[str, ...]
    counts: dict[str, int]
    images: NDArray[np.int64]
    predicted: NDArray[np.integer]
    probability: NDArray[np.float64]
    estimated_accuracy: float | None


def classify(ids: NDArray[np.int64], vectors: NDArray[np.float32], labels: Mapping[int, str]) -> Classification:
    """Fits logistic regression to the labelled embeddings and predicts all.

    Its strength is chosen by stratified cross-validation; the same held-out predictions give the estimate of the
    accuracy and the temperature that calibrates the probabilities (Guo et al., 2017). Labelled images keep their own
    label, with probability 1.

    Args:
        ids: int64 `[N]`.
        vectors: float32 `[N, D]`, rows of unit length.
        labels: id to label, for some of `ids`.

    Raises:
        MasslError: labels of fewer than two classes.
    """
    rows = np.array([row for row, identity in enumerate(ids) if int(identity) in labels], dtype=np.int64)
    given = [labels[int(ids[row])] for row in rows]
    counts = Counter(given)
    classes = tuple(sorted(counts))
    if len(classes) < 2:
        have = f"only {classes[0]!r}" if classes else "none"
        raise MasslError(f"labels of at least two classes are needed, and there is {have}; label a few more images")
    targets = np.array([classes.index(label) for label in given])
    features = vectors[rows]

    strength, held_out = _cross_validate(features, targets, min(counts.values()))
    temperature = _temperature(held_out, targets) if held_out is not None else 1.0
    logits = _logits(_fit(features, targets, strength), vectors) / temperature
    # No surer than so few examples can make anyone: after n of them, one more that is wrong is not ruled out
    # (Laplace's rule of succession).
    doubt = 1 / (len(rows) + 2)
    shares = (1 - doubt) * _softmax(logits) + doubt / len(classes)
    predicted = shares.argmax(1)
    probability = shares.max(1)
    predicted[rows], probability[rows] = targets, 1.0
    accuracy = None if held_out is None else float((held_out.argmax(1) == targets).mean())
    return Classification(classes, dict(counts), ids, predicted, probability, accuracy)


def _cross_validate(
    features: NDArray[np.float32], targets: NDArray[np.integer], smallest: int
) -> tuple[float, NDArray[np.float64] | None]:
    """The best strength and its held-out logits `[n, C]`; None where a class has but one example."""
    from sklearn.model_selection import StratifiedKFold

    if smallest < 2:
        return _STRENGTHS[1], None
    folds = StratifiedKFold(min(5, smallest), shuffle=True, random_state=0)
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for strength in _STRENGTHS:
        logits = np.zeros((len(targets), int(targets.max()) + 1))
        for inside, outside in folds.split(features, targets):
            logits[outside] = _logits(_fit(features[inside], targets[inside], strength), features[outside])
        right = float((logits.argmax(1) == targets).mean())
        if best is None or right > best[0]:
            best = right, strength, logits
    assert best is not None
    return best[1], best[2]


def _fit(features: NDArray[np.float32], targets: NDArray[np.integer], strength: float) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=500).fit(features, targets)


def _logits(model: LogisticRegression, features: NDArray[np.float32]) -> NDArray[np.float64]:
    values = model.decision_function(features)
    # scikit-learn gives two classes a single column: the second one's.
    return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def _temperature(logits: NDArray[np.float64], targets: NDArray[np.integer]) -> float:
    """The divisor of the logits under which the held-out labels are likeliest.

    With a prior around 1 (half a unit of its logarithm): a few labels that all happen to come out right would
    otherwise ask for certainty.
    """
    from scipy.optimize import minimize_scalar

    def surprise(log_temperature: float) -> float:
        shares = _softmax(logits / np.exp(log_temperature))
        likelihood = np.log(shares[np.arange(len(targets)), targets] + 1e-12).sum()
        return float(log_temperature**2 / (2 * 0.5**2) - likelihood)

    return float(np.exp(minimize_scalar(surprise, bounds=(-3.0, 3.0), method="bounded").x))
