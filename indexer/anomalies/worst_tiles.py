"""How unusual the most unusual tile of each picture is, beside the tiles of other pictures.

As `indexer.anomalies.patch_memory`, with the vectors that the catalog has of tiles: nothing is read or embedded. A
fault that fills a thousandth of a scan hardly changes the scan's vector, and that of a tile much.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import CurrentIndex
from indexer.search.near_copies import neighbours
from indexer.store.tiles import TilePlaces
from indexer.store.vectors import unit

_MARGIN = 10  # neighbours asked for at first beyond those that count, as a picture's own tiles don't
_MORE = 8  # times as many where all are its own
_BLOCK = 1_024


def worst_tiles(
    index: CurrentIndex,
    places: TilePlaces,
    vectors: NDArray[np.float16],
    reference: NDArray[np.int64],
    asked: NDArray[np.int64],
    k: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One minus the cosine of each image's most unusual tile with the k-th nearest tile of others, 0 to 2.

    Args:
        index: holds the tiles' vectors, under their numbers.
        places: all tiles.
        vectors: of these, `[T, D]`, of unit length but for rounding.
        reference: rising ids of the images whose tiles are compared with. Where they have fewer than k, the farthest
            counts.
        asked: ids of the images whose scores are wanted, each with a tile. An image's own tiles are none of its
            neighbours.
        k: which of the neighbours counts.
        report: told how many tiles are done, of how many.

    Returns:
        Scores, float32 `[len(asked)]`, and each image's worst tile, rows of `places`, int64 `[len(asked)]`; -1 where it
        has none, and the score 0.
    """
    rows = np.flatnonzero(np.isin(places.images, asked))
    among = places.ids[np.isin(places.images, reference)]
    found = np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(rows)))
        found[block] = _distances(index, places, vectors, among, rows[block], k)
        report(int(block[-1]) + 1, len(rows))
    scores = np.zeros(len(asked), np.float32)
    worst = np.full(len(asked), -1, np.int64)
    order = np.lexsort((-found, places.images[rows]))  # each image's worst first
    images, first = np.unique(places.images[rows][order], return_index=True)
    at = np.searchsorted(images, asked).clip(0, max(0, len(images) - 1))
    there = images[at] == asked if len(images) else np.zeros(len(asked), np.bool_)
    best = order[first[at[there]]]
    scores[there], worst[there] = found[best], rows[best]
    return scores.clip(0), worst


def _distances(
    index: CurrentIndex,
    places: TilePlaces,
    vectors: NDArray[np.float16],
    among: NDArray[np.int64],
    rows: NDArray[np.int64],
    k: int,
) -> NDArray[np.float32]:
    found = np.zeros(len(rows), np.float32)
    waiting, count = np.arange(len(rows)), k + _MARGIN
    while len(waiting):
        own = rows[waiting]
        nearest, near = neighbours(index, places.ids, vectors, unit(vectors[own]), count, among)
        others = (places.images[nearest] != places.images[own][:, None]) & np.isfinite(near)
        enough = (others.sum(1) >= k) | (count >= len(among))
        place = np.minimum(others.sum(1), k)
        for row in np.flatnonzero(enough).tolist():
            cosines = near[row][others[row]]
            found[waiting[row]] = 1 - cosines[place[row] - 1] if len(cosines) else 0.0
        waiting, count = waiting[~enough], _MORE * count
    return found
