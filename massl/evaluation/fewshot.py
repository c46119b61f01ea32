"""Classification from a few labelled images, over many draws of which they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.progress import CountReport
from massl.core.similarities import Floats, Targets
from massl.evaluation.splits import stratified

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PENALTY = 0.00025  # MSN's, divided by the number of images


@dataclass(frozen=True)
class Draws:
    """Accuracies, one a draw, and the number of labelled images in each draw."""

    accuracies: NDArray[np.float64]
    labelled: int

    @property
    def mean(self) -> float:
        """Mean accuracy over the draws."""
        return float(self.accuracies.mean())

    @property
    def ci95(self) -> float:
        """Half the width of the 95 % interval of that mean, 1.96 standard errors, as few-shot papers give it."""
        return float(1.96 * self.accuracies.std(ddof=1) / np.sqrt(len(self.accuracies)))


def few_shot(
    pool: Floats,
    pool_labels: Targets,
    test: Floats | None,
    test_labels: Targets | None,
    shots: Sequence[int],
    draws: int,
    seed: int,
    report: CountReport = lambda done, total: None,
) -> dict[int, Draws]:
    """Accuracy of nearest class means from a few images of every class.

    Each draw takes so many images of each class out of the pool and names every test image after the class whose mean
    embedding is nearest by Euclidean distance: Snell et al., "Prototypical networks", NeurIPS 2017, equation 2, on
    embeddings of unit length (SimpleShot's "L2N", Wang et al., 2019), over all classes at once.

    Args:
        pool: `[N, D]`, rows of unit length, to draw from.
        pool_labels: int `[N]`, from 0, every class at least once.
        test: `[M, D]`; what was not drawn of the pool, when left out.
        test_labels: int `[M]`.
        shots: images of each class.
        draws: how often, at least 2.
        seed: of the draws.
        report: called with draws done and draws in all.

    Raises:
        MasslError: a class has too few images.
    """
    rows_of = [np.flatnonzero(pool_labels == label) for label in range(int(pool_labels.max()) + 1)]
    smallest = min(len(rows) for rows in rows_of) - (test is None)
    if max(shots) > smallest:
        spare = " beside one to test on" if test is None else ""
        raise MasslError(
            f"{max(shots)} shots need {max(shots)} images of every class{spare}, and the smallest class has "
            f"{smallest + (test is None)}; ask for fewer, or leave small classes out with --min-images"
        )
    judged, judged_labels = (pool, pool_labels) if test is None or test_labels is None else (test, test_labels)
    generator = np.random.default_rng(seed)
    result = {}
    for place, count in enumerate(shots):
        accuracies = np.empty(draws)
        for draw in range(draws):
            chosen = np.stack([generator.permutation(rows)[:count] for rows in rows_of])
            predicted = nearest_mean(pool[chosen].mean(1), judged)
            right = predicted == judged_labels
            accuracies[draw] = np.delete(right, chosen.ravel()).mean() if test is None else right.mean()
            report(place * draws + draw + 1, len(shots) * draws)
        result[count] = Draws(accuracies, count * len(rows_of))
    return result


def nearest_mean(means: Floats, vectors: Floats) -> NDArray[np.int64]:
    """The row of `means`, `[C, D]`, that is nearest to each of `vectors`, `[M, D]`, by Euclidean distance."""
    # The vectors' own length is the same for all means.
    return (vectors @ means.T - 0.5 * np.square(means).sum(1)).argmax(1)


def low_shot(
    pool: Floats,
    pool_labels: Targets,
    test: Floats,
    test_labels: Targets,
    shares: Sequence[float],
    draws: int,
    seed: int,
    report: CountReport = lambda done, total: None,
) -> dict[float, Draws]:
    """Accuracy of logistic regression on a small share of the training images, the same share of every class.

    As MSN's low-shot evaluation (Assran et al., "Masked siamese networks", ECCV 2022, and its published script): an L2
    penalty of 0.00025 / n on the mean loss over n images, no intercept, on embeddings that are centred (here on the
    labelled images' mean) and brought back to unit length. The field draws once; here it is drawn again and again.

    Args: see `few_shot`; `shares` above 0 and below 1, of each class at least one image.
    """
    result = {}
    for place, share in enumerate(shares):
        accuracies = np.empty(draws)
        count = 0
        for draw in range(draws):
            # Its own seed a share and draw, so that a share's figures do not depend on which others are asked for.
            chosen = stratified(pool_labels, share, [seed, draw])
            count = int(chosen.sum())
            centre = pool[chosen].mean(0)
            model = _regression(_unit(pool[chosen] - centre), pool_labels[chosen])
            accuracies[draw] = model.score(_unit(test - centre), test_labels)
            report(place * draws + draw + 1, len(shares) * draws)
        result[share] = Draws(accuracies, count)
    return result


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def _regression(vectors: Floats, labels: Targets) -> LogisticRegression:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # So weak a penalty on separable classes creeps on for ever; MSN stops after 300 rounds, too.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # scikit-learn's C multiplies the sum of the losses: the n of the mean cancels that of the penalty.
        return LogisticRegression(C=1 / PENALTY, fit_intercept=False, max_iter=300).fit(vectors, labels)
