"""Pairs of images that may be duplicates by their perceptual hashes: what embeddings don't propose.

An encoder sees a turned picture, a screenshot or a picture in a frame as another one. The hash of a picture holds those
of all its orientations, and a second one is of what lies within plain borders; see `massl.core.images.measures`.
"""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.duplicates.candidates import FEWEST_LOOKS, PROPOSED, Pair
from massl.core.images.measures import HASH_BYTES, orientations

FARTHEST = 64  # of 255 bits, that differ at most: of unrelated photographs, about half of them do
CROWD = (
    8  # other images as near as this make a crowd, as of documents on one form: a copy then has to stand out from it
)
STANDS_OUT = 0.5  # of the distance of the last of these, that a copy's is at most,
CLOSE = 12  # unless it is no more than so many bits
EXACT = 20_000  # hashes up to which each is compared with each
BLOCK = 2_048  # hashes whose neighbours are sought at once
_CELLS_SEEN = 32  # of about as many as the root of the hashes: copies lie in the same cell or in one beside it
_SEEN_IN_TRAINING = 40  # hashes of a cell


def hash_candidates(
    positions: NDArray[np.int64], hashes: NDArray[np.uint8], images: int, report: Callable[[str, int, int], None]
) -> list[Pair]:
    """Pairs of positions whose hashes are near each other in some orientation, the nearest first.

    At most `PROPOSED` an image, or `FEWEST_LOOKS`. Beside the hashes this takes memory for one block of them, for the
    pairs, and, above `EXACT`, for the cells: about 40 bytes a hash.

    Args:
        positions: of the image that each hash is of, int64 `[H]`.
        hashes: uint8 `[H, 32]`; see `indexer.store.picture_facts.PictureFacts.hashes`.
        images: how many there are.
        report: is told how many hashes are done.
    """
    if len(hashes) < 2:
        return []
    index = _index(hashes)
    found: dict[Pair, int] = {}
    crowded: set[Pair] = set()
    most = max(FEWEST_LOOKS, PROPOSED * images)
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK]
        distances, near = index.search(orientations(block).reshape(-1, HASH_BYTES), min(CROWD + 2, len(hashes)))
        rows = np.broadcast_to(np.tile(np.arange(len(block)), 8)[:, None], near.shape)
        others = positions[near.clip(0)]
        close = (near >= 0) & (distances <= FARTHEST) & (positions[start + rows] != others)
        for row, around in _by_row(rows[close], others[close], distances[close]).items():
            one = int(positions[start + row])
            limit = _limit(list(around.values()))
            for other, distance in around.items():
                pair = (one, other) if one < other else (other, one)
                if distance > limit:
                    crowded.add(pair)
                elif distance < found.get(pair, FARTHEST + 1):
                    found[pair] = distance
        if len(found) > 2 * most:
            found = dict(_ranked(found)[:most])
        report("hashes", min(start + BLOCK, len(hashes)), len(hashes))
    return [pair for pair, _ in _ranked(found) if pair not in crowded][:most]


def _by_row(
    rows: NDArray[np.int64], others: NDArray[np.int64], distances: NDArray[np.int32]
) -> dict[int, dict[int, int]]:
    """Of each row the images near it, with the distance in the orientation in which they are nearest."""
    found: dict[int, dict[int, int]] = {}
    for row, other, distance in zip(rows.tolist(), others.tolist(), distances.tolist(), strict=True):
        around = found.setdefault(row, {})
        around[other] = min(distance, around.get(other, distance))
    return found


def _limit(distances: list[int]) -> float:
    """How near a copy is at most, among other images as near as these."""
    if len(distances) < CROWD:
        return FARTHEST
    return max(CLOSE, STANDS_OUT * sorted(distances)[CROWD - 1])


def _ranked(found: dict[Pair, int]) -> list[tuple[Pair, int]]:
    """Pairs with their distances, the nearest first, and those of one distance in the order of positions."""
    return sorted(found.items(), key=lambda item: (item[1], item[0]))


def _index(hashes: NDArray[np.uint8]) -> faiss.IndexBinary:
    bits = 8 * HASH_BYTES
    if len(hashes) <= EXACT:
        index = faiss.IndexBinaryFlat(bits)
        index.add(hashes)
        return index
    cells = int(len(hashes) ** 0.5)
    index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, cells)
    index.own_fields = False
    drawn = np.random.default_rng(0).permutation(len(hashes))[: _SEEN_IN_TRAINING * cells]
    index.train(np.ascontiguousarray(hashes[np.sort(drawn)]))
    index.add(hashes)
    index.nprobe = _CELLS_SEEN
    return index
