"""The learning curve: how the accuracy grew with the labels, and how many more another point would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.fewshot.model_selection import FOLDS, choose, folds, sample, wilson

SIZES = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 200)  # labels of a class, each half as many again
MOST = 2_000  # labelled images the curve is measured on
ENOUGH = 30  # labelled images under which nothing is said about more of them
_ROUNDS = 4  # of cross-validation, each with other folds and other examples
_DRAWS = 400
_POINT = 0.01  # another point of accuracy
_BENT = 0.9  # least share of the curve's variance, in logarithms, that the power law must account for


@dataclass(frozen=True)
class Point:
    """Accuracy with at most `per_class` labels of each class, `labels` in all, and its 95 % interval."""

    per_class: int
    labels: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """How the accuracy grew with the labels.

    Attributes:
        points: with ever more of the labels that there are; empty where some class has fewer than two.
        more: about how many more labels another point of accuracy would take; None where that can't be said.
        advice: the same as a sentence, or why nothing can be said.
    """

    points: tuple[Point, ...]
    more: int | None
    advice: str


def learning_curve(
    features: NDArray[np.float32],
    targets: NDArray[np.integer],
    classes: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> LearningCurve:
    """Measures, by cross-validation, what fewer labels would have given, by the chosen method.

    The error is taken to fall as a power of the number of labels (Cortes et al., "Learning Curves: Asymptotic Values
    and Rate of Convergence", 1993). That is fitted on bootstrap draws of the images, and said aloud only where the
    draws agree.

    Args:
        features: unit vectors of images whose label is evidence, `[n, D]`: not merely accepted.
        targets: their classes, `[n]`, of 0 to C - 1.
        classes: C, at least 2.
        report: told how much of the work is done, and of how much.
    """
    if np.bincount(targets, minlength=classes).min() < 2:
        return LearningCurve((), None, "To measure it, label at least two pictures of every class by hand.")
    choice = choose(features, targets)
    rows = sample(targets, MOST)
    features, targets = features[rows], targets[rows]
    # Of each class, as many as it has in the smallest fit.
    largest = int(np.bincount(targets).max()) * (FOLDS - 1) // FOLDS
    sizes = [size for size in SIZES if size < largest] + [max(1, largest)]
    right = np.zeros((len(sizes), len(targets)))
    given = np.zeros(len(sizes))
    splits = [(turn, split) for turn in range(_ROUNDS) for split in folds(targets, turn)]
    for done, (turn, (inside, outside)) in enumerate(splits):
        report(done, len(splits))
        # One order of examples for all sizes: more labels are the same ones, and others with them.
        drawn = np.random.default_rng(turn).permutation(inside)
        ranks = _ranks(targets[drawn])
        for place, size in enumerate(sizes):
            chosen = drawn[ranks < size]
            head = choice.candidate.fit(features[chosen], targets[chosen], classes)
            right[place, outside] += (head.logits(features[outside]).argmax(1) == targets[outside]) / _ROUNDS
            given[place] += len(chosen) / len(splits)
    report(len(splits), len(splits))
    points = []
    for size, labels, row in zip(sizes, given, right, strict=True):
        low, high = wilson(float(row.mean()), len(targets))
        points.append(Point(size, round(labels), float(row.mean()), low, high))
    more, advice = _advise(given, right)
    return LearningCurve(tuple(points), more, advice)


def _ranks(targets: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many of the same class come before each."""
    ranks = np.zeros(len(targets), np.int64)
    for target in np.unique(targets):
        own = targets == target
        ranks[own] = np.arange(own.sum())
    return ranks


def _advise(given: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[int | None, str]:
    """How many more labels for another point, and the sentence, from labels `[S]` and right answers `[S, n]`."""
    count = right.shape[1]
    if count < ENOUGH:
        return None, f"There are too few labels to estimate what more would bring: {count} of {ENOUGH}."
    errors = 1 - right.mean(1)
    if errors[-1] <= 2 * _POINT:
        return None, "Almost no labelled picture is predicted wrongly: more labels would bring little."
    enough = given >= 2 * given[0]  # with one label a class it is a matter of luck
    if enough.sum() < 4:
        return (
            None,
            "There is not enough evidence to estimate what more labels would bring. Label some more of each class.",
        )
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _DRAWS) / count
    more, bent = _more(given[enough], errors[None, enough])
    each, _ = _more(given[enough], 1 - draws @ right[enough].T)
    low, high = np.quantile(each, [0.05, 0.95], method="nearest")  # between two that are infinite lies no number
    # The draws must agree within a factor of some ten, end to end, and on there being a gain at all.
    if not np.isfinite(high) or high > 12 * low or bent[0] < _BENT or more[0] > 20 * given[-1]:
        return None, "There is not enough evidence to estimate how many labels another point would take."
    number = _rounded(float(more[0]))
    return (
        number,
        (f"Label about {number:,} more for another point of accuracy ({_rounded(low):,} to {_rounded(high):,})."),
    )


def _more(given: NDArray[np.float64], errors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels for another point by fits of `errors` `[B, S]` to a power of `given` `[S]`; and how well these fit.

    Infinite where the error doesn't fall, or is less than a point.
    """
    across = np.log(given) - np.log(given).mean()
    up = np.log(errors.clip(1e-4))
    slope = up @ across / (across @ across)
    level = up.mean(1)
    fitted = level[:, None] + slope[:, None] * across
    spread = ((up - level[:, None]) ** 2).sum(1)
    bent = 1 - ((up - fitted) ** 2).sum(1) / np.maximum(spread, 1e-12)
    last = np.exp(fitted[:, -1])
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        factor = np.exp(np.log(np.maximum(1 - _POINT / last, 0)) / slope)
    return np.where((slope < 0) & (last > _POINT), given[-1] * (factor - 1), np.inf), bent


def _rounded(number: float) -> int:
    """To one digit, or to the nearest five below a hundred: it is a rough figure, and should look like one."""
    if number < 100:
        return max(5, 5 * round(number / 5))
    step = 10 ** (len(str(int(number))) - 1) // 2
    return int(step * round(number / step))
