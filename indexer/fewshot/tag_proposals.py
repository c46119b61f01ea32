"""Which other images probably have a tag: each tag against the rest, as a classification of two classes.

Examples without a tag are the images that somebody tagged otherwise, and those for which the tag was rejected. An image
without any tag says nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.fewshot.classification import examples, train
from indexer.fewshot.in_distribution import familiar
from indexer.fewshot.label_state import CollectionFewshot
from indexer.fewshot.open_set import open_set
from indexer.store import revision
from indexer.store.catalog import Catalog
from indexer.store.labels import ACCEPTED
from indexer.store.tags import RejectedTags, Tags, normalised
from massl.core.errors import MasslError

ENOUGH = 10  # images with a tag, and as many without, chosen by hand, from which on a probability is claimed
LEAST = 2  # from which on anything is proposed
_HAS, _OTHER = "has it", "other"
_KEPT = 32  # tags whose proposals are kept
_LIKE = 50  # tagged images most like one, whose tags are considered for it
_CONSIDERED = 8  # of these tags; each is a classification of all images


@dataclass(frozen=True)
class TagProposals:
    """Images that may have a tag and of which nobody said so, the likeliest first.

    Attributes:
        tag: which.
        images: int64 `[N]` ids.
        probability: float64 `[N]`, falling; only an order where `claimed` is not.
        familiar: bool `[N]`, whether an image is like the examples; the probabilities of the others mean little.
        examples, others: how many images have the tag, and how many are known not to.
        claimed: whether there are examples enough (`ENOUGH` of each kind that were chosen by hand) for the
            probabilities to be calibrated.
    """

    tag: str
    images: NDArray[np.int64]
    probability: NDArray[np.float64]
    familiar: NDArray[np.bool_]
    examples: int
    others: int
    claimed: bool

    def likely(self, least: float) -> list[tuple[int, float | None]]:
        """Images and their probability from this one on; None in place of it where none is claimed.

        Those that are unlike all examples are left out, unless `least` is 0.
        """
        fit = (self.probability >= least) & (self.familiar | (least <= 0))
        return [
            (int(image), float(value) if self.claimed else None)
            for image, value in zip(self.images[fit], self.probability[fit], strict=True)
        ]


class CollectionTagProposals:
    """Proposals of a collection's tags. Threads may share it: what it keeps is swapped whole."""

    def __init__(self, catalog: Catalog, fewshot: CollectionFewshot) -> None:
        self._catalog = catalog
        self._fewshot = fewshot
        self._kept: tuple[Hashable, Mapping[str, TagProposals]] = None, {}

    def of(self, tag: str) -> TagProposals:
        """The proposals of a tag; kept until a tag, a rejection or a vector changes.

        Raises:
            MasslError: no image has the tag, or too few have it or are known not to have it.
        """
        tag = normalised(tag)
        now = revision.read(self._catalog)
        kept = self._kept[1] if self._kept[0] == now.tagged else {}
        if tag not in kept:
            tagged = Tags(self._catalog).by_tag()
            if tag not in tagged:
                raise MasslError(f"no image has the tag {tag[:40]!r}; give it to {LEAST} images or more")
            found = propose(
                tag,
                *self._fewshot.vectors(now),
                tagged[tag],
                frozenset().union(*tagged.values()),
                RejectedTags(self._catalog).of_tag(tag),
                Tags(self._catalog).by_author(tag, ACCEPTED),
            )
            kept = dict([*kept.items(), (tag, found)][-_KEPT:])
            self._kept = now.tagged, kept
        return kept[tag]

    def for_image(self, image: int, least: float, most: int) -> list[tuple[str, float | None]]:
        """Tags that an image probably has too, the likeliest first, with their probability as `TagProposals.likely`.

        Only tags of the tagged images most like it are considered.

        Args:
            image: its id.
            least: the least probability.
            most: how many tags.
        """
        found = []
        for tag in self._of_like(image):
            try:
                likely = dict(self.of(tag).likely(least))
            except MasslError:
                continue  # there are too few examples of it
            if image in likely:
                found.append((tag, likely[image]))
        return sorted(found, key=lambda item: -(item[1] or 0))[:most]

    def _of_like(self, image: int) -> list[str]:
        """The tags of images like one that it doesn't have, and that weren't rejected for it; the commonest first."""
        tagged = Tags(self._catalog).by_tag()
        known = {image for images in tagged.values() for image in images} - {image}
        if not known:
            return []
        ids, vectors = self._fewshot.vectors()
        own, rows = np.flatnonzero(ids == image), np.flatnonzero(np.isin(ids, np.fromiter(known, np.int64)))
        if not len(own) or not len(rows):
            return []
        alike = vectors[rows] @ vectors[own[0]]
        near = np.argsort(-alike, kind="stable")[:_LIKE]
        weight = dict(zip(ids[rows[near]].tolist(), alike[near].tolist(), strict=True))
        answered = set(RejectedTags(self._catalog).of_image(image))
        score = {
            tag: sum(weight.get(each, 0.0) for each in images)
            for tag, images in tagged.items()
            if image not in images and tag not in answered
        }
        return sorted((tag for tag in score if score[tag] > 0), key=lambda tag: -score[tag])[:_CONSIDERED]


def propose(
    tag: str,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    tagged: Set[int],
    with_tags: Set[int],
    rejected: Set[int],
    accepted: Set[int] = frozenset(),
) -> TagProposals:
    """Which images probably have a tag.

    Args:
        tag: its name.
        ids: int64 `[N]`.
        vectors: float32 `[N, D]`, rows of unit length.
        tagged: the images that have it.
        with_tags: the images that have any tag; those of them without this one are examples of what it is not.
        rejected: the images that don't have it by what somebody said.
        accepted: those of `tagged` that were proposed and agreed to: learnt from, but no evidence.

    Raises:
        MasslError: too few images have it or are known not to have it.
    """
    known = set(ids.tolist())
    has, others = tagged & known, ((with_tags | rejected) - tagged) & known
    if len(has) < LEAST or len(others) < LEAST:
        raise MasslError(
            f"the tag {tag!r} is known of {len(has)} images, and {len(others)} are known not to have it; {LEAST} of "
            "each are needed: give it to more images, and give images without it another tag, or reject it for them"
        )
    given = {**dict.fromkeys(others, _OTHER), **dict.fromkeys(has, _HAS)}
    fitted = train(ids, vectors, given, accepted=accepted)
    rows, targets, classes = examples(ids, given)
    # What is of a kind that no example shows is likelier without the tag.
    judged = ~np.isin(ids[rows], np.fromiter(accepted, np.int64, len(accepted)))
    named = open_set(vectors, rows[judged], targets[judged]).named if judged.sum() > 1 else np.ones(len(ids))
    probability = fitted.probabilities(vectors)[:, classes.index(_HAS)] * named
    free = np.setdiff1d(np.arange(len(ids)), rows)
    order = free[np.argsort(-probability[free], kind="stable")]
    claimed = len(has - accepted) >= ENOUGH and len(others) >= ENOUGH
    close = familiar(vectors, rows)
    return TagProposals(tag, ids[order], probability[order], close[order], len(has), len(others), claimed)
