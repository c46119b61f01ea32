"""Which head to use for these labels, by cross-validation, and how far to trust it.

Every labelled image is held out once and named by heads that were fitted without it. The same held-out predictions
choose the head, calibrate its probabilities and estimate its accuracy.

Whoever labels takes what is easy: groups of like images, of which each is named by its neighbours, and proposals that
were right anyhow. What was only agreed to is therefore not judged by at all (see
`indexer.fewshot.classification.train`), and the probabilities are calibrated on two ways of hiding: images one by
one, and whole clusters of like ones at once, as in cross-validation of spatial data (Roberts et al.,
"Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic structure", 2017).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indexer.fewshot.classifiers import Candidate, candidates, softmax

MOST = 4_000  # labelled images that the choice is made on; more of them don't change it, and it would take minutes
FOLDS = 5
ENOUGH_DRAWN = 20  # labels of images drawn by chance: about a page of them
CLUSTER = 6  # like images that are hidden together, about: a group on the page has eight
MOST_DOUBT = 2.0  # times the temperature by hiding images one by one: clusters of a few labels can ask for one at which
# every class is as likely as the next
_CLUSTERS = 250  # at most, as k-means into more of them takes long
_DRAWS = 500


@dataclass(frozen=True)
class Compared:
    """How well one method did on images that were held out: the share it named rightly, with its best setting."""

    method: str
    accuracy: float


@dataclass(frozen=True)
class ModelSelection:
    """The head to use, and what is known of it.

    Attributes:
        candidate: method and setting.
        temperature: the divisor of its logits that calibrates them (Guo et al., 2017), on both ways of hiding alike,
            at most `MOST_DOUBT` times that of the first.
        temperatures: the same by each way of hiding: images one by one, and whole clusters.
        compared: each method at its best, the chosen one first; empty where nothing could be held out.
        accuracy: estimated share of right predictions, less what having chosen flatters it by; None likewise.
        interval: the 95 % interval of the accuracy; None likewise. Each head that was judged saw four fifths of the
            labels. The error of one that saw all is at most a fifth smaller, by which the upper end is raised.
        judged_on: how many held-out images accuracy and temperatures rest on, 0 or up to `MOST`.
        drawn: whether chance has drawn these from the unlabelled ones.
        confidences: float64 `[n]`, the probability of the class that each of these was given, by `temperature`.
        hits: bool `[n]`, whether it is theirs.
    """

    candidate: Candidate
    temperature: float
    temperatures: tuple[float, float]
    compared: tuple[Compared, ...]
    accuracy: float | None
    interval: tuple[float, float] | None
    judged_on: int
    drawn: bool = False
    confidences: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    hits: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))


def choose(
    features: NDArray[np.float32],
    targets: NDArray[np.integer],
    drawn: NDArray[np.bool_] | None = None,
    missed: int = 0,
) -> ModelSelection:
    """Chooses the head with the most right predictions on held-out images.

    Of equals it takes regression before class means before neighbours, as that is also how finely their probabilities
    tell the sure from the unsure; of settings of one method, that under which the labels are likeliest.

    Args:
        features: the labelled images' unit vectors, `[n, D]`.
        targets: their classes, `[n]`, each of 0 to C - 1 at least once, C at least 2.
        drawn: bool `[n]`, which of them chance has drawn from the unlabelled ones. From `ENOUGH_DRAWN` on accuracy and
            temperature rest on these alone: they are like the images that proposals are made for, the others like
            what somebody chose to label.
        missed: how many more images chance has drawn that are of no class: whatever they are called is wrong.
    """
    tried = candidates(len(targets))
    if np.bincount(targets).min() < 2:
        return untried(len(targets))
    rows = sample(targets, MOST)
    features, targets = features[rows], targets[rows]
    results = []
    for candidate in tried:
        logits = held_out(features, targets, candidate)
        temperature_found = temperature(logits, targets)
        surprise = _surprise(logits / temperature_found, targets) / len(targets)
        results.append((logits.argmax(1) == targets, surprise, temperature_found, logits))
    right = np.stack([result[0] for result in results])
    methods = list(dict.fromkeys(candidate.method for candidate in tried))
    order = sorted(
        range(len(tried)),
        key=lambda place: (-right[place].mean(), methods.index(tried[place].method), results[place][1]),
    )
    compared: dict[str, float] = {}
    for place in order:
        compared.setdefault(tried[place].method, float(right[place].mean()))
    _, _, alone, logits = results[order[0]]
    fair = np.zeros(len(rows), np.bool_) if drawn is None else drawn[rows]
    if fair.sum() and fair.sum() + missed >= ENOUGH_DRAWN:
        hits = np.hstack([right[order][:, fair], np.zeros((len(order), missed), np.bool_)])
        accuracy, count = _unflattered(hits), hits.shape[1]
        temperature_found = temperature(logits[fair], targets[fair])
        return ModelSelection(
            tried[order[0]],
            temperature_found,
            (temperature_found, temperature_found),
            tuple(Compared(*item) for item in compared.items()),
            accuracy,
            _interval(accuracy, count),
            count,
            True,
            softmax(logits[fair] / temperature_found).max(1),
            right[order[0]][fair],
        )
    accuracy = _unflattered(right[order])
    apart, hidden = _clusters_held_out(features, targets, tried[order[0]])
    apart, others = apart[hidden], targets[hidden]
    together = temperature(apart, others) if len(others) else alone
    both, twice = np.concatenate([logits, apart]), np.concatenate([targets, others])
    # Each image was hidden twice, and is one piece of evidence.
    joint = min(temperature(both, twice, len(targets) / len(twice)), MOST_DOUBT * alone)
    return ModelSelection(
        tried[order[0]],
        joint,
        (alone, together),
        tuple(Compared(*item) for item in compared.items()),
        accuracy,
        _interval(accuracy, len(targets)),
        len(targets),
        False,
        softmax(logits / joint).max(1),
        right[order[0]],
    )


def untried(examples: int) -> ModelSelection:
    """What to use where nothing can be held out, as a class has but one example."""
    return ModelSelection(candidates(examples)[1], 1.0, (1.0, 1.0), (), None, None, 0)


def held_out(
    features: NDArray[np.float32], targets: NDArray[np.integer], candidate: Candidate, seed: int = 0
) -> NDArray[np.float64]:
    """Logits `[n, C]` for each labelled image from a head fitted without it, by stratified cross-validation.

    Every class must have at least two of the images.
    """
    logits = np.zeros((len(targets), int(targets.max()) + 1))
    for inside, outside in folds(targets, seed):
        head = candidate.fit(features[inside], targets[inside], logits.shape[1])
        logits[outside] = head.logits(features[outside])
    return logits


def folds(targets: NDArray[np.integer], seed: int = 0) -> Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to fit and rows to hold out, `FOLDS` times where any class has as many; all classes are in each fit."""
    from sklearn.model_selection import StratifiedKFold

    count = min(FOLDS, int(np.bincount(targets).max()))
    with warnings.catch_warnings():
        # A class with fewer images than folds is held out in as many folds as it has images, which is what is wanted.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(targets, targets))


def sample(targets: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """At most about `most` rows, rising, each class by its share but with at least two of its own where it has them."""
    if len(targets) <= most:
        return np.arange(len(targets))
    draw = np.random.default_rng(0)
    parts = []
    for target in range(int(targets.max()) + 1):
        own = np.flatnonzero(targets == target)
        parts.append(draw.choice(own, min(len(own), max(2, round(len(own) * most / len(targets)))), replace=False))
    return np.sort(np.concatenate(parts))


def temperature(logits: NDArray[np.float64], targets: NDArray[np.integer], weight: float = 1.0) -> float:
    """The divisor of the logits `[n, C]` under which the held-out labels `[n]`, each of this weight, are likeliest.

    With a prior around 1 (half a unit of its logarithm): a few labels that all happen to come out right would
    otherwise ask for certainty.
    """
    from scipy.optimize import minimize_scalar

    def surprise(log_temperature: float) -> float:
        return log_temperature**2 / (2 * 0.5**2) + weight * _surprise(logits / np.exp(log_temperature), targets)

    return float(np.exp(minimize_scalar(surprise, bounds=(-3.0, 3.0), method="bounded").x))


def wilson(share: float, count: float, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share that was seen among `count` (Wilson, "Probable Inference", 1927).

    Unlike the usual plus-or-minus it says something of 6 right out of 6: from 0.61 to 1.

    Args:
        share: 0 to 1.
        count: of what it was seen among.
        z: standard errors either way, 1.96 for the 95 % interval.
    """
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


def with_all_labels(high: float) -> float:
    """The upper end of an accuracy's interval, for a head that saw all labels and not only all folds but one.

    Errors fall at most in proportion to the labels.
    """
    return 1 - (1 - high) * (FOLDS - 1) / FOLDS


def _interval(accuracy: float, count: int) -> tuple[float, float]:
    low, high = wilson(accuracy, count)
    return low, with_all_labels(high)


def _surprise(logits: NDArray[np.float64], targets: NDArray[np.integer]) -> float:
    """Minus the logarithm of the likelihood of all labels."""
    return float(-np.log(softmax(logits)[np.arange(len(targets)), targets] + 1e-12).sum())


def _clusters_held_out(
    features: NDArray[np.float32], targets: NDArray[np.integer], candidate: Candidate
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Logits `[n, C]` from heads that saw none of the images like it either, and which images could be so held out.

    The images of a class that all fall into one fold can't: no head would know the class.
    """
    from sklearn.cluster import KMeans

    classes, count = int(targets.max()) + 1, min(_CLUSTERS, max(2, len(targets) // CLUSTER))
    with warnings.catch_warnings():
        # Of copies there are fewer clusters than asked for, which does no harm.
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        members = KMeans(count, n_init=1, random_state=0).fit_predict(features)
    sizes = np.zeros((count, classes), np.int64)
    np.add.at(sizes, (members, targets), 1)
    # The largest first, each into the fold that has fewest of its classes.
    fold, load = np.zeros(count, np.int64), np.zeros((min(FOLDS, count), classes))
    for cluster in np.argsort(-sizes.sum(1), kind="stable"):
        fold[cluster] = np.lexsort((load.sum(1), load @ sizes[cluster]))[0]
        load[fold[cluster]] += sizes[cluster]
    logits, hidden = np.zeros((len(targets), classes)), np.zeros(len(targets), np.bool_)
    for number in range(len(load)):
        out = fold[members] == number
        out &= np.bincount(targets[~out], minlength=classes)[targets] > 0
        if out.any():
            head = candidate.fit(features[~out], targets[~out], classes)
            logits[out], hidden[out] = head.logits(features[out]), True
    return logits, hidden


def _unflattered(right: NDArray[np.bool_]) -> float:
    """The accuracy to expect of the best of several heads, from who named what rightly, bool `[heads, n]`, best first.

    The best of several looks better than it is, as it was chosen for looking good. So it is chosen again on each of
    many bootstrap draws of the images, and judged on the images that were not drawn (Tsamardinos et al.,
    "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation", 2018).
    """
    count = right.shape[1]
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _DRAWS)
    best = (drawn @ right.T).argmax(1)
    outside = drawn == 0
    some = outside.any(1)
    scores = (outside & right[best]).sum(1)[some] / outside.sum(1)[some]
    return float(scores.mean()) if len(scores) else float(right[0].mean())
