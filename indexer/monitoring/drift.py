"""How unlike images are: those of a collection what its encoder learnt from, and the newest ones the older ones.

What the encoder's file tells of its training images is what whitening made of them (`massl.encoder.whitening`): seen
from their mean the embeddings point every way alike, so that two of them score 0 on average. What two images of a
collection score, seen from there, is therefore a distance from the training images, the squared length of the mean
embedding (the mean resultant length of Mardia and Jupp, "Directional statistics", 2000, chapter 9). A collection may
score high because it is of another kind or because it is of one kind only: the encoder has few of its directions for
what tells its images apart, either way.

The newest images are told from the older ones by a classifier (Lopez-Paz and Oquab, "Revisiting classifier two-sample
tests", ICLR 2017) that judges images which it has not seen. Nearest neighbours alone would not do: in a collection of
many kinds, pictures of a kind never seen before are often nearer to some picture than those are to each other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.store import arrivals
from indexer.store.catalog import Catalog
from indexer.store.vectors import CatalogVectors, unit
from massl.core.similarities import mean_cosine

FEWEST = 8  # images on either side, under which nothing is said
SAMPLE = 4_096  # images that a measure is taken on
# Mean scores of two images: up to the first a collection is as varied as what the encoder learnt from, from the second
# on it is far from it. See docs/measurements/page.md for those of real sets.
BOUNDS = (0.06, 0.25)
BY_HALF = (0.15, 0.45)  # of an encoder that is whitened by half: a few components weigh more there
# Of the lower bound. As judgements of one fold depend on each other it is nearer 0.006: 4 of 720 random splits of real
# sets raised one.
FALSE_ALARM = 0.001
FOLDS = 5
EXAMPLES = 12


@dataclass(frozen=True)
class Newest:
    """The newest images beside the older ones.

    Attributes:
        since: when the first of them had come, ISO 8601 in UTC.
        images: how many they are.
        older: how many the others are.
        unlike: how many of the newest look unlike the others, by the best estimate.
        at_least: how many do at least; 0 where chance could have brought the difference.
        examples: ids of those that look least like the others, the least first; none where `at_least` is 0.
    """

    since: str
    images: int
    older: int
    unlike: int
    at_least: int
    examples: tuple[int, ...]


@dataclass(frozen=True)
class Drift:
    """What was measured.

    Attributes:
        images: how many the measure was taken on.
        mean_score: of two images of the collection taken at random, seen from the mean of the encoder's training
            images; None under `FEWEST` images.
        familiar: `known`, `narrow` or `foreign`; None where the encoder's file doesn't say what it learnt from.
        bounds: mean scores between which it is `narrow`.
        newest: None where all images came at once, or too few later.
    """

    images: int
    mean_score: float | None
    familiar: str | None
    newest: Newest | None
    bounds: tuple[float, float] = BOUNDS

    def to_json(self) -> str:
        """As the catalog keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Drift:
        """The reverse of `to_json`."""
        values = json.loads(text)
        newest = values.pop("newest")
        if newest:
            newest = Newest(**newest | {"examples": tuple(newest["examples"])})
        return cls(**values | {"newest": newest, "bounds": tuple(values.get("bounds", BOUNDS))})


def of_collection(catalog: Catalog, whitening: float, mean: NDArray[np.float32] | float = 0.0) -> Drift:
    """Measures a collection.

    Args:
        catalog: its catalog.
        whitening: how strongly its encoder's embeddings are whitened on the images that it was trained on, 0 to 1.
        mean: of these images' embeddings, float32 `[D]`.
    """
    vectors = CatalogVectors(catalog)
    ids, packed = vectors.sample(SAMPLE)
    score = mean_score(unit(packed), mean) if len(ids) >= FEWEST else None
    came = arrivals.latest(catalog)
    newest = None
    if came.since and min(len(came.newest), len(came.older)) >= FEWEST:
        chosen, new = vectors.of(_draw(came.newest))
        found = unlike(unit(vectors.of(_draw(came.older))[1]), unit(new))
        count = len(came.newest)
        newest = Newest(
            came.since,
            count,
            len(came.older),
            round(found.share * count),
            int(found.at_least * count),
            tuple(int(image) for image in chosen[found.order[:EXAMPLES]]) if int(found.at_least * count) else (),
        )
    bounds = BY_HALF if 0 < whitening <= 0.75 else BOUNDS
    familiar = _familiar(score, bounds) if whitening and score is not None else None
    return Drift(len(ids), score, familiar, newest, bounds)


def mean_score(vectors: NDArray[np.float32], mean: NDArray[np.float32] | float = 0.0) -> float:
    """The mean cosine of two different rows of float32 `[N, D]`, of unit length, seen from `mean`; N at least 2."""
    vectors = vectors - mean
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)
    return round(mean_cosine(vectors), 4)


def _familiar(score: float, bounds: tuple[float, float]) -> str:
    if score >= bounds[1]:
        return "foreign"
    return "narrow" if score > bounds[0] else "known"


@dataclass(frozen=True)
class Unlike:
    """How newer images differ from older ones.

    Attributes:
        share: of the newer ones, how many could not be told from the older ones only by an excess of so many, 0 to 1.
        at_least: a lower bound of it, by Smirnov's test at `FALSE_ALARM`.
        order: the newer ones, least like the older ones first.
    """

    share: float
    at_least: float
    order: NDArray[np.int64]


def unlike(older: NDArray[np.float32], newer: NDArray[np.float32]) -> Unlike:
    """Tells newer vectors from older ones, float32 `[N, D]` and `[M, D]` of unit length, N and M at least `FEWEST`.

    The share is the largest difference of the two distributions of the classifier's judgement (Youden's index): the
    total variation distance between both kinds of images is at least that. Its lower bound takes off what Smirnov's
    test allows for chance. Both suppose that the images of either side are independent; photographs of one afternoon
    are not, and look unlike the rest sooner.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import
    from sklearn.model_selection import StratifiedKFold

    vectors = np.concatenate([older, newer])
    is_new = np.arange(len(vectors)) >= len(older)
    judged = np.empty(len(vectors))
    folds = StratifiedKFold(min(FOLDS, len(older), len(newer)), shuffle=True, random_state=0)
    for known, asked in folds.split(vectors, is_new):
        model = LogisticRegression(class_weight="balanced", max_iter=200).fit(vectors[known], is_new[known])
        judged[asked] = model.decision_function(vectors[asked])
    old, new = np.sort(judged[~is_new]), np.sort(judged[is_new])
    below = [np.searchsorted(side, judged, side="right") / len(side) for side in (old, new)]
    share = max(0.0, float((below[0] - below[1]).max()))
    by_chance = np.sqrt(-np.log(FALSE_ALARM) / 2 * (1 / len(old) + 1 / len(new)))
    return Unlike(share, max(0.0, share - float(by_chance)), np.argsort(-judged[is_new], kind="stable"))


def _draw(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `SAMPLE` of rising ids, drawn at random but the same each time, rising."""
    if len(ids) <= SAMPLE:
        return ids
    return np.sort(np.random.default_rng(0).choice(ids, SAMPLE, replace=False))
