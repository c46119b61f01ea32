"""Pairs of images that may be duplicates, and pairs that can't be, from the nearest neighbours of embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.search.calibration import CROWD, FAR, neighbourhood, unrelated_ranks
from indexer.search.engines.interface import CurrentIndex
from indexer.store.vectors import VectorSource, unit

BLOCK = 1_024  # images whose neighbours are sought at once
NEIGHBOURS = 8  # of each image, that are candidates
FEWEST_LOOKS = 200  # pairs of which so many are looked at, if there are as many
ALWAYS = 2  # of the nearest of each image, that are candidates however little they stand out
PROPOSED = 2  # pairs an image, at most: those within a family of many copies leave room for others
NULL = 300  # pairs of unrelated images

Pair = tuple[int, int]
"""Two positions, the lower first."""


def candidates(
    index: CurrentIndex,
    vectors: VectorSource,
    ids: NDArray[np.int64],
    whole: bool,
    report: Callable[[str, int, int], None],
) -> list[Pair]:
    """Pairs of positions that may be duplicates, the most promising first.

    A self-join in blocks: beside the index it needs memory for one block and for the pairs that are kept, of which
    there are at most `PROPOSED` an image. Each image's nearest `ALWAYS` are among them: else the tightest families of
    copies would take all the room, and leave looser ones without any pair.

    Args:
        index: searches the embeddings.
        vectors: the embeddings.
        ids: of the images among which pairs are sought, int64 `[N]`, in any order.
        whole: whether these are all images of the index.
        report: is told how many images are done.
    """
    join = _Join(index, vectors, ids, whole)
    most = max(FEWEST_LOOKS, PROPOSED * len(ids))
    kept = first = Ranked.none()
    for start in range(0, len(ids), BLOCK):
        ones = np.arange(start, min(start + BLOCK, len(ids)))
        scores, others = join.neighbours(ones, FAR[1])
        if not scores.shape[1]:
            break
        standing_out = scores - CROWD * neighbourhood(scores)[:, None]
        near = others[:, :NEIGHBOURS]
        known = near >= 0
        one = np.broadcast_to(ones[:, None], near.shape)
        kept = kept.with_more(standing_out[:, :NEIGHBOURS][known], one[known], near[known])
        nearest = known[:, :ALWAYS]
        first = first.with_more(standing_out[:, :ALWAYS][nearest], one[:, :ALWAYS][nearest], near[:, :ALWAYS][nearest])
        if len(kept.values) > 3 * most:
            kept = kept.best(2 * most)
        report("neighbours", int(ones[-1]) + 1, len(ids))
    every = first.joined(kept.best(2 * most)).distinct()
    always = np.isin(every.keys(len(ids)), first.keys(len(ids)))
    taken = every.where(always)
    found = taken.joined(every.where(~always).best(max(0, most - len(taken.values)))).best(most)
    return list(zip(found.low.tolist(), found.high.tolist(), strict=True))


def unrelated(index: CurrentIndex, vectors: VectorSource, ids: NDArray[np.int64], whole: bool) -> list[Pair]:
    """Pairs of positions that are alike and yet no duplicates, at most `NULL`; the arguments are those of `candidates`.

    Images drawn evenly, each with one of its farther neighbours: so far that the frames of a burst, or the many
    versions of one picture, lie before it. See `indexer.search.calibration.unrelated_ranks`.
    """
    first, last = unrelated_ranks(len(ids))
    if last < first:
        return []
    join = _Join(index, vectors, ids, whole)
    drawn = np.unique(np.linspace(0, len(ids) - 1, min(NULL, len(ids))).astype(np.int64))
    found: dict[Pair, None] = {}
    for start in range(0, len(drawn), BLOCK):
        _, others = join.neighbours(drawn[start : start + BLOCK], last)
        for row, one in enumerate(drawn[start : start + BLOCK].tolist()):
            rank = first - 1 + (start + row) % (last - first + 1)
            if rank < others.shape[1] and (other := int(others[row, rank])) >= 0:
                found[_pair(one, other)] = None
    return list(found)


class _Join:
    """Images of a collection against each other, by position."""

    def __init__(self, index: CurrentIndex, vectors: VectorSource, ids: NDArray[np.int64], whole: bool) -> None:
        self._index = index
        self._vectors = vectors
        self._ids = ids
        self._places = np.argsort(ids)
        self._sorted = ids[self._places]
        self._among = None if whole else self._sorted

    def neighbours(self, positions: NDArray[np.int64], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Of each image the `count` most like it: scores, falling, and positions, float32 and int64 `[B, count]`.

        A position is -1 where there is no such image (any more, or yet).
        """
        block = self._ids[positions]
        stored, packed = self._vectors.of(np.sort(block))
        queries = np.zeros((len(block), self._vectors.dim), np.float32)  # of images removed meanwhile: like none
        queries[np.argsort(block)[np.isin(np.sort(block), stored)]] = unit(packed)
        scores, found = self._index.search(queries, count + 1, self._among)
        scores = np.where(found < 0, scores[:, :1], scores)  # fewer than asked for: nothing stands out among them
        own = found == block[:, None]
        own[~own.any(1), -1] = True  # not among its own neighbours, crowded out by pictures that score the same
        scores, found = (each[~own].reshape(len(block), -1) for each in (scores, found))
        slots = np.searchsorted(self._sorted, found).clip(max=len(self._ids) - 1)
        return scores, np.where(self._sorted[slots] == found, self._places[slots], -1)


@dataclass(frozen=True)
class Ranked:
    """Pairs of positions, `low` below `high`, int64 `[P]`, and how far each stands out, float64 `[P]`."""

    values: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @classmethod
    def none(cls) -> Ranked:
        """No pairs."""
        return cls(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))

    def with_more(self, values: NDArray[np.float32], one: NDArray[np.int64], other: NDArray[np.int64]) -> Ranked:
        """These and others, `one` and `other` in any order."""
        # Scores are sums in an order that may depend on the block: equal ones must not be told apart by their last bit.
        return Ranked(
            np.append(self.values, np.round(values.astype(np.float64), 5)),
            np.append(self.low, np.minimum(one, other)),
            np.append(self.high, np.maximum(one, other)),
        )

    def joined(self, others: Ranked) -> Ranked:
        """These and others."""
        mine, further = (self.values, self.low, self.high), (others.values, others.low, others.high)
        return Ranked(*(np.append(one, other) for one, other in zip(mine, further, strict=True)))

    def keys(self, images: int) -> NDArray[np.int64]:
        """A number for each pair of so many images, int64 `[P]`."""
        return self.low * images + self.high

    def where(self, wanted: NDArray[np.bool_]) -> Ranked:
        """Those of them, bool `[P]`."""
        return Ranked(self.values[wanted], self.low[wanted], self.high[wanted])

    def distinct(self) -> Ranked:
        """Each pair once. It is found from both sides, mostly: its better side counts."""
        ranked = self.best(len(self.values))
        _, places = np.unique(np.stack([ranked.low, ranked.high]), axis=1, return_index=True)
        return Ranked(ranked.values[places], ranked.low[places], ranked.high[places])

    def best(self, wanted: int) -> Ranked:
        """Those that stand out most."""
        order = np.lexsort((self.high, self.low, -self.values))[:wanted]
        return Ranked(self.values[order], self.low[order], self.high[order])


def _pair(one: int, other: int) -> Pair:
    return (one, other) if one < other else (other, one)
