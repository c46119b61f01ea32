"""Few-shot classification: everything from a handful of labels, with probabilities that can be believed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.fewshot.classifiers import Head, softmax
from indexer.fewshot.in_distribution import familiar
from indexer.fewshot.model_selection import Compared, ModelSelection, choose, untried, wilson, with_all_labels
from indexer.fewshot.open_set import OpenSet, open_set
from indexer.store.labels import NONE_OF_THESE
from massl.core.errors import MasslError

NONE = -1  # in place of a class
UNNAMED = 0.1  # share of the unlabelled images that is of no named kind, from which on no accuracy is claimed
WIDEST = 0.5  # an interval that spans half of all that is possible says too little to be shown
EXAMPLES, SAMPLE = "examples", "sample"  # what a figure can be missing, see `Classification.needs`
FAR_MORE = 1.2  # times as many proposals of a class as there can be images of it, from which on one is warned
_WORTH = 4  # labels as they come, in groups of like images, that tell as much as one drawn at random


@dataclass(frozen=True)
class Expectation:
    """What to expect of proposals.

    Attributes:
        images: how many proposals it is about.
        accuracy: the share of them that is right: the mean of their probabilities.
        interval: where it very likely lies. See `Classification.expected`.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class ClassProposals:
    """What is proposed as one class, and how much of it can be right.

    Attributes:
        label: the class.
        proposed: unlabelled, familiar images that are proposed as it.
        right: how many of them should be: the sum of their probabilities, and no more than there should be of the class
            going by the random sample (Jeffreys' estimate of its share); None where no accuracy can be said.
        sampled: images of it in the random sample.
        at_most: how many images of it there are among all that are unlabelled and familiar, by the upper end of
            Wilson's 95 % interval of its share in the random sample; None without a sample to go by.
    """

    label: str
    proposed: int
    right: float | None
    sampled: int
    at_most: int | None

    @property
    def too_many(self) -> bool:
        """Whether it is proposed far more often than it can be, going by the random sample."""
        return self.at_most is not None and self.proposed > FAR_MORE * self.at_most


@dataclass(frozen=True)
class Classification:
    """Predictions for every image, and how far to trust them.

    Attributes:
        classes: the labels, sorted.
        counts: how many examples of each were given.
        images: int64 `[N]` ids.
        predicted: int `[N]`, an index into `classes`, or `NONE` where somebody rejected every class.
        probability: float `[N]`, of the predicted class, calibrated where an estimate could be made.
        bounds: float `[N, 2]`, the probability as it would be calibrated by hiding whole clusters of like examples, and
            by hiding examples one by one: pessimistic and optimistic, mostly.
        estimated_accuracy: share of right predictions to expect of the unlabelled images, from labelled images that
            were held out in turn, less the `unnamed` ones that there are at least; None where that can't be said.
        interval: the 95 % interval of the estimate; None likewise. At its lower end there are as many `unnamed` ones as
            there can be.
        needs: why nothing can be said: `EXAMPLES` where a class has a single example, as nothing can be held out then;
            `SAMPLE` where more than `UNNAMED` of the unlabelled images are of no named kind; else None.
        unnamed: the least and the largest share of the unlabelled images that may be of no named kind, as
            `indexer.fewshot.open_set` sees it; (0, 0) where chance has drawn the labels that the estimate rests on, as
            these tell it better.
        method: how the classes were told apart, one of those in `indexer.fewshot.classifiers`.
        judged_on: how many labels that somebody gave, not merely agreed to, the estimates rest on.
        drawn: whether these were drawn by chance: then the estimate is of all familiar images, not of those like the
            labelled ones.
        compared: each method's share of right predictions on held-out images, the chosen one first.
        labelled: bool `[N]`, whether somebody gave the label.
        familiar: bool `[N]`, whether an image is like the labelled ones; the estimate is of such images only, and the
            probabilities of the others mean little. See `indexer.fewshot.in_distribution`.
        hidden: of the labelled images that were held out, float64 and bool `[judged_on]`: the probability of the class
            that each was given, and whether that was right.
        sampled: how many images of each class chance has drawn.
        fitted: what tells the classes apart.
    """

    classes: tuple[str, ...]
    counts: dict[str, int]
    images: NDArray[np.int64]
    predicted: NDArray[np.integer]
    probability: NDArray[np.float64]
    bounds: NDArray[np.float64]
    estimated_accuracy: float | None
    interval: tuple[float, float] | None
    needs: str | None
    unnamed: tuple[float, float]
    method: str
    judged_on: int
    drawn: bool
    compared: tuple[Compared, ...]
    labelled: NDArray[np.bool_]
    familiar: NDArray[np.bool_]
    hidden: tuple[NDArray[np.float64], NDArray[np.bool_]]
    sampled: dict[str, int]
    fitted: Classifier

    def sure(self, least: float) -> NDArray[np.bool_]:
        """Which images have a class, bool `[N]`: labelled, or predicted with at least this probability, 0 to 1.

        Above 0, only where they are familiar, too.
        """
        enough = (self.probability >= least) & self.familiar if least > 0 else np.True_
        return self.labelled | ((self.predicted != NONE) & enough)

    def known_within(self, widest: float) -> bool:
        """Whether the interval of the estimate is at most so wide, 0 to 1."""
        return self.interval is not None and self.interval[1] - self.interval[0] <= widest

    def labels_known_within(self, widest: float) -> bool:
        """Whether it is known so closely, 0 to 1, how many of the labelled images are named rightly when hidden."""
        _, hits = self.hidden
        if not len(hits):
            return False
        low, high = wilson(float(hits.mean()), len(hits))
        return high - low <= widest

    def expected(self, least: float = 0.0) -> Expectation | None:
        """How many of the proposals with at least this probability are right; None where that can't be said.

        Of unlabelled, familiar images only. The interval goes from the lower end of Wilson's for the pessimistic
        probabilities to the upper end of that for the optimistic ones, or for the labelled images that were named as
        surely when they were hidden. At the lower end labels that chance has not drawn are worth a quarter as many, and
        as many images as there can be are of no named kind. What that comes to is measured in
        docs/measurements/labelling.md.
        """
        about = self.sure(least) & self.familiar & ~self.labelled
        if self.estimated_accuracy is None or not about.any():
            return None
        accuracy = float(self.probability[about].mean())
        means = [accuracy, *self.bounds[about].mean(0).tolist()]
        worth = 1 if self.drawn else _WORTH
        low = wilson(min(means), self.judged_on / worth)[0] * (1 - self.unnamed[1])
        high = wilson(max(means), self.judged_on)[1]
        confidences, hits = self.hidden
        alike = hits[confidences >= least]
        if len(alike):
            high = max(high, with_all_labels(wilson(float(alike.mean()), len(alike))[1]))
        return Expectation(int(about.sum()), accuracy, (low, high))

    def proposals(self, least: float = 0.0) -> list[ClassProposals]:
        """Of each class what is proposed with at least this probability, 0 to 1, and how much of it can be right.

        A rare class shows here: of few labels each, a head knows nothing of how seldom one of them occurs, and takes
        many images for it. Only the random sample tells how many there can be.
        """
        free = self.familiar & ~self.labelled
        about, drawn = self.sure(least) & free, sum(self.sampled.values())
        found = []
        for place, label in enumerate(self.classes):
            own, sampled = about & (self.predicted == place), self.sampled.get(label, 0)
            at_most = math.ceil(wilson(sampled / drawn, drawn)[1] * int(free.sum())) if self.drawn else None
            right = None if self.estimated_accuracy is None else float(self.probability[own].sum())
            if right is not None and self.drawn:
                right = min(right, (sampled + 0.5) / (drawn + 1) * int(free.sum()))
            found.append(ClassProposals(label, int(own.sum()), right, sampled, at_most))
        return found


@dataclass(frozen=True)
class Classifier:
    """A fitted head with what turns its logits into probabilities. See `train`."""

    classes: tuple[str, ...]
    head: Head
    choice: ModelSelection
    doubt: float

    def probabilities(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Unit vectors `[N, D]` to probabilities `[N, C]`."""
        return self.shares(self.head.logits(vectors), self.choice.temperature)

    def shares(self, logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
        """Logits `[N, C]` to probabilities, by this temperature."""
        return (1 - self.doubt) * softmax(logits / temperature) + self.doubt / len(self.classes)


def train(
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    labels: Mapping[int, str],
    accepted: Set[int] = frozenset(),
    drawn: Set[int] = frozenset(),
) -> Classifier:
    """Fits the head that does best by cross-validation to the labelled embeddings.

    Args:
        ids: int64 `[N]`.
        vectors: float32 `[N, D]`, rows of unit length.
        labels: id to label, for some of `ids`.
        accepted: ids whose label was proposed and agreed to: learnt from, but no evidence of how good proposals are.
        drawn: ids that chance has drawn from those without a label, to be labelled one and all: the best evidence.

    Raises:
        MasslError: labels of fewer than two classes.
    """
    rows, targets, classes = examples(ids, labels)
    alone = _alone(ids, labels)
    # What was agreed to was proposed by a head that knew the others: whoever hides one of these must hide that, too.
    given = ~np.isin(ids[rows], np.fromiter(accepted, np.int64, len(accepted)))
    fair = np.isin(ids[rows], np.fromiter(drawn, np.int64, len(drawn)))
    missing = np.bincount(targets[given], minlength=len(classes)).min() == 0
    if missing:
        choice = untried(len(rows))
    else:
        choice = choose(vectors[rows[given]], targets[given], fair[given], len(alone & drawn))
    head = choice.candidate.fit(vectors[rows], targets, len(classes))
    # No surer than so few examples can make anyone: after n of them, one more that is wrong is not ruled out
    # (Laplace's rule of succession).
    return Classifier(classes, head, choice, 1 / (len(rows) + 2))


def classify(
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    labels: Mapping[int, str],
    rejected: Mapping[int, frozenset[str]] | None = None,
    accepted: Set[int] = frozenset(),
    drawn: Set[int] = frozenset(),
) -> Classification:
    """Predicts a class for every image. Labelled images keep their own label, with probability 1.

    Args:
        ids: int64 `[N]`.
        vectors: float32 `[N, D]`, rows of unit length.
        labels: id to label, for some of `ids`.
        rejected: id to classes that somebody said it is not: they are not proposed for it. The remaining classes
            become no likelier by that, as the image may well be of none.
        accepted: as of `train`.
        drawn: as of `train`.

    Raises:
        MasslError: labels of fewer than two classes.
    """
    fitted = train(ids, vectors, labels, accepted=accepted, drawn=drawn)
    rows, targets, classes = examples(ids, labels)
    choice, logits = fitted.choice, fitted.head.logits(vectors)
    given = ~np.isin(ids[rows], np.fromiter(accepted, np.int64, len(accepted)))
    unseen = OpenSet(0.0, 0.0, np.ones(len(ids)))
    if not choice.drawn and given.sum() > 1:
        unseen = open_set(vectors, rows[given], targets[given])
    # Of few such images nothing is certain, and with every kind named their share is seldom 0 by the estimate.
    others = unseen.low > UNNAMED
    named = unseen.named if others else np.ones(len(ids))
    shares = fitted.shares(logits, choice.temperature) * named[:, None]
    place = {identity: row for row, identity in enumerate(ids.tolist())} if rejected else {}
    for image, names in (rejected or {}).items():
        if image in place:
            shares[place[image], [classes.index(name) for name in names if name in classes]] = 0
    predicted, probability = shares.argmax(1), shares.max(1)
    predicted[probability == 0] = NONE
    each = np.arange(len(ids))
    one_by_one, clusters = (
        fitted.shares(logits, temperature_found)[each, predicted] * named for temperature_found in choice.temperatures
    )
    bounds = np.stack([clusters, one_by_one], 1)
    predicted[rows], probability[rows], bounds[rows] = targets, 1.0, 1.0
    labelled = np.zeros(len(ids), np.bool_)
    labelled[rows] = True
    counts = Counter(classes[target] for target in targets)
    alone = np.flatnonzero(np.isin(ids, np.fromiter(single := _alone(ids, labels), np.int64, len(single))))
    if len(alone):
        classes = (*classes, NONE_OF_THESE)
        counts[NONE_OF_THESE] = len(alone)
        predicted[alone], probability[alone], bounds[alone], labelled[alone] = len(classes) - 1, 1.0, 1.0, True
    accuracy, interval, needs = _claim(choice, unseen)
    return Classification(
        classes, dict(counts), ids, predicted, probability, bounds, accuracy, interval, needs,
        (unseen.low, unseen.high), choice.candidate.method, choice.judged_on, choice.drawn, choice.compared, labelled,
        familiar(vectors, rows), (choice.confidences, choice.hits),
        dict(Counter(labels[image] for image in ids.tolist() if image in drawn and image in labels)), fitted,
    )  # fmt: skip


def _claim(choice: ModelSelection, unseen: OpenSet) -> tuple[float | None, tuple[float, float] | None, str | None]:
    """The accuracy that can be claimed, its interval, and what is missing where none can be."""
    if choice.accuracy is None or choice.interval is None:
        return None, None, EXAMPLES
    if unseen.low > UNNAMED:
        return None, None, SAMPLE
    low, high = choice.interval
    return choice.accuracy * (1 - unseen.low), (low * (1 - unseen.high), high), None


def _alone(ids: NDArray[np.int64], labels: Mapping[int, str]) -> frozenset[int]:
    """The single image of no named class, if there is but one: it teaches nobody what such images look like."""
    found = frozenset(image for image in ids.tolist() if labels.get(image) == NONE_OF_THESE)
    return found if len(found) == 1 else frozenset()


def examples(
    ids: NDArray[np.int64], labels: Mapping[int, str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Rows of the labelled images among `ids`, their targets, both int64 `[n]`, and the classes these stand for.

    `NONE_OF_THESE` is a class as any other from its second image on; a single one is left out.

    Raises:
        MasslError: labels of fewer than two classes.
    """
    rows = np.flatnonzero(np.isin(ids, np.fromiter(labels, np.int64, len(labels))))
    if alone := _alone(ids, labels):
        rows = rows[~np.isin(ids[rows], list(alone))]
    given = [labels[int(identity)] for identity in ids[rows]]
    classes = tuple(sorted(set(given)))
    if len(classes) < 2:
        have = f"only {classes[0]!r}" if classes else "none"
        raise MasslError(f"labels of at least two classes are needed, but there is {have}; label a few more images")
    places = {name: place for place, name in enumerate(classes)}
    return rows, np.array([places[label] for label in given], np.int64), classes
