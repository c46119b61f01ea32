"""Which images to choose, by their vectors alone: far from one another, or typical of many. No two are near copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.store.vectors import unit

BLOCK = 32_768  # vectors in single precision at a time
POOL = 2_048  # of the images that are farthest from the chosen, among which the next ones are sought
BATCH = 256  # images that are chosen before all others are compared with them
CLUSTERS = 512  # at a time; for larger subsets each of them is divided again
_ITERATIONS = 10
_DENSITY = 20  # nearest neighbours whose mean cosine is an image's density, as in TypiClust
_REFERENCE = 1_024  # images of a cluster among which these are sought
_CANDIDATES = 1_024  # images nearest to a cluster's centre, of which the densest is taken

Vectors = NDArray[np.float16]
Rows = NDArray[np.int64]
Report = Callable[[int, int], None]


def _silent(done: int, total: int) -> None: ...


def farthest_first(
    vectors: Vectors, count: int, least: float = np.inf, chosen: Sequence[int] = (), report: Report = _silent
) -> Rows:
    """Rows that are far from one another: each next one is the farthest from those chosen before it.

    The greedy algorithm for k centres (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985),
    whose largest distance of an image to the nearest chosen one is at most twice the least possible. The result is
    exactly the greedy one. The farthest `POOL` images are compared with each image that is chosen, and all others only
    once in a while: their distances can but fall, so none of them comes next while one in the pool is farther.

    Args:
        vectors: `[N, D]`, of unit length but for rounding.
        count: how many to choose.
        least: the cosine from which two are near copies: it ends where all the rest are copies of the chosen.
        chosen: rows that are chosen already. Where there are none, the image most like the mean comes first.
        report: told how many are chosen, of how many.

    Returns:
        At most `count` rows, without those of `chosen`, in the order in which they were taken.
    """
    nearest = np.full(len(vectors), -np.inf, np.float32)  # each image's cosine with the nearest chosen one
    taken: list[int] = []
    fresh = list(chosen)
    if not fresh and count > 0 and len(vectors):
        fresh = taken = [_most_central(vectors)]
    while len(taken) < count and len(vectors):
        if fresh:
            _compare(nearest, vectors, fresh)
            report(len(taken), count)
        fresh = _next_ones(nearest, vectors, min(BATCH, count - len(taken)), least)
        if not fresh:
            break
        taken = taken + fresh
    return np.array(taken, np.int64)


def _most_central(vectors: Vectors) -> int:
    blocks = range(0, len(vectors), BLOCK)
    total = sum((unit(vectors[start : start + BLOCK]).sum(0, dtype=np.float64) for start in blocks), np.float64(0))
    centre = np.asarray(total, np.float32)
    return int(np.concatenate([unit(vectors[start : start + BLOCK]) @ centre for start in blocks]).argmax())


def _compare(nearest: NDArray[np.float32], vectors: Vectors, fresh: Sequence[int]) -> None:
    """Takes newly chosen images into account, in place."""
    newly = unit(vectors[np.asarray(fresh)])
    for start in range(0, len(vectors), BLOCK):
        part = nearest[start : start + BLOCK]
        for first in range(0, len(newly), BATCH):
            np.maximum(part, (unit(vectors[start : start + BLOCK]) @ newly[first : first + BATCH].T).max(1), out=part)
    nearest[np.asarray(fresh)] = np.inf


def _next_ones(nearest: NDArray[np.float32], vectors: Vectors, count: int, least: float) -> list[int]:
    """The next ones in the greedy order, as many as can be told from the farthest images alone."""
    if len(nearest) > POOL:
        order = np.argpartition(nearest, POOL)
        pool, bound = order[:POOL], float(nearest[order[POOL]])
    else:
        pool, bound = np.arange(len(nearest)), np.inf
    pool = np.sort(pool)
    near, features = nearest[pool].copy(), unit(vectors[pool])
    found: list[int] = []
    while len(found) < count:
        best = int(near.argmin())
        # Beyond the bound an image outside of the pool may be farther; the first of a pool never is beyond it.
        if near[best] >= least or np.isposinf(near[best]) or (found and near[best] > bound):
            break
        found.append(int(pool[best]))
        np.maximum(near, features @ features[best], out=near)
        near[best] = np.inf
    return found


def typical(vectors: Vectors, count: int, least: float = np.inf, report: Report = _silent) -> Rows:
    """Rows that are typical: the collection is divided into `count` clusters, and of each the densest image is taken.

    As TypiClust chooses what to label first (Hacohen, Dekel and Weinshall, "Active learning on a budget: opposite
    strategies suit high and low budgets", 2022). Clusters are those of k-means on the sphere. An image is dense where
    its nearest neighbours in the cluster are near; near copies don't count, so a burst is not a dense place.

    Args:
        vectors: `[N, D]`, of unit length but for rounding.
        count: how many to choose.
        least: the cosine from which two are near copies. Where the densest of two clusters are near copies, the first
            stays; what is then missing is chosen farthest first.
        report: told how many are chosen, of how many.

    Returns:
        At most `count` rows, those of the largest clusters first.
    """
    if count <= 0 or not len(vectors):
        return np.empty(0, np.int64)
    if count >= len(vectors):
        by_density = np.arange(len(vectors))
    else:
        by_density = np.array(_densest(vectors, np.arange(len(vectors)), count, least, report), np.int64)
    kept = by_density[without_near_copies(vectors[by_density], least)]
    if len(kept) < count:
        kept = np.concatenate([kept, farthest_first(vectors, count - len(kept), least, kept.tolist(), report)])
    return kept


def _densest(vectors: Vectors, rows: Rows, count: int, least: float, report: Report) -> list[int]:
    clusters = _clusters(vectors, rows, min(count, CLUSTERS))
    shares = _shares([len(members) for members in clusters], count)
    found: list[list[int]] = []
    for members, share in zip(clusters, shares, strict=True):
        if share == len(members):
            found.append(members.tolist())
        elif share == 1:
            found.append([_densest_one(vectors, members, least)])
        elif share:
            inner = len(members) < len(rows)  # else k-means can't tell them apart, and would not a second time
            found.append(_densest(vectors, members, share, least, _silent) if inner else members[:share].tolist())
        report(min(count, sum(map(len, found))), count)
    return [row for part in found for row in part]


def _clusters(vectors: Vectors, rows: Rows, count: int) -> list[Rows]:
    """The clusters of k-means, none of them empty, the largest first."""
    if count == 1:
        return [rows]
    means = faiss.Kmeans(
        vectors.shape[1], count, niter=_ITERATIONS, spherical=True, seed=1, min_points_per_centroid=1
    )  # of more than 256 images a cluster, so many are drawn at random
    drawn = rows
    if len(rows) > 256 * count:
        drawn = np.sort(np.random.default_rng(0).choice(rows, 256 * count, replace=False))
    means.train(unit(vectors[drawn]))
    assigned = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), BLOCK):
        part = unit(vectors[rows[start : start + BLOCK]])
        assigned[start : start + BLOCK] = means.index.search(part, 1)[1][:, 0]
    order = np.argsort(assigned, kind="stable")
    edges = np.flatnonzero(np.diff(assigned[order])) + 1
    return sorted(np.split(rows[order], edges), key=len, reverse=True)


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` divided in proportion to sizes: at least one each while there are enough, and no more than there are."""
    sizes_of = np.asarray(sizes, np.float64)
    shares = np.minimum(np.maximum(1, np.floor(count * sizes_of / sizes_of.sum())), sizes_of).astype(np.int64)
    wanted = count * sizes_of / sizes_of.sum()
    while shares.sum() < count:
        shares[np.argmax(np.where(shares < sizes_of, wanted - shares, -np.inf))] += 1
    while shares.sum() > count:
        shares[np.argmax(np.where(shares > 0, shares - wanted, -np.inf))] -= 1
    return [int(share) for share in shares]


def _densest_one(vectors: Vectors, members: Rows, least: float) -> int:
    reference = members[:: max(1, len(members) // _REFERENCE)][: 2 * _REFERENCE]
    against = unit(vectors[reference])
    candidates = members
    if len(members) > _CANDIDATES:
        centre = against.mean(0)
        near = np.concatenate(
            [unit(vectors[members[start : start + BLOCK]]) @ centre for start in range(0, len(members), BLOCK)]
        )
        candidates = np.sort(members[np.argpartition(-near, _CANDIDATES)[:_CANDIDATES]])
    cosines = unit(vectors[candidates]) @ against.T
    cosines[cosines >= least] = -1.0
    cosines[candidates[:, None] == reference[None]] = -1.0
    closest = min(_DENSITY, cosines.shape[1])
    density = np.partition(cosines, cosines.shape[1] - closest, axis=1)[:, -closest:].mean(1)
    return int(candidates[density.argmax()])


def balanced(vectors: Vectors, groups: Mapping[str, Rows], count: int, least: float = np.inf) -> Rows:
    """Rows from each group as equally many as it has, far from one another within it, in turns through the groups.

    Args:
        vectors: `[N, D]`, of unit length but for rounding.
        groups: rows by name, none in two of them. A small group gives all that it has, and the others share the rest.
        count: how many to choose.
        least: the cosine from which two are near copies, also from two groups.
    """
    found: dict[str, list[int]] = {}
    taken = np.empty(0, np.int64)
    waiting = sorted(groups, key=lambda name: (len(groups[name]), name))
    for place, name in enumerate(waiting):
        rows, quota = groups[name], -(-(count - len(taken)) // (len(waiting) - place))
        own = vectors[rows]
        if len(taken):
            nearest = np.full(len(rows), -np.inf, np.float32)
            compare(nearest, own, vectors[taken])
            rows, own = rows[nearest < least], own[nearest < least]
        found[name] = rows[farthest_first(own, quota, least)].tolist()
        taken = np.concatenate([taken, np.array(found[name], np.int64)])
    turns = [
        [part[turn] for part in found.values() if turn < len(part)]
        for turn in range(max(map(len, found.values()), default=0))
    ]
    return np.array([row for turn in turns for row in turn], np.int64)


def compare(nearest: NDArray[np.float32], vectors: Vectors, others: Vectors) -> None:
    against = unit(others)
    for start in range(0, len(vectors), BLOCK):
        part = unit(vectors[start : start + BLOCK])
        for first in range(0, len(against), BATCH):
            block = nearest[start : start + BLOCK]
            np.maximum(block, (part @ against[first : first + BATCH].T).max(1), out=block)


def without_near_copies(vectors: Vectors, least: float) -> Rows:
    """Rows of which no two are near copies; the first of several stays."""
    kept = np.ones(len(vectors), np.bool_)
    for start in range(0, len(vectors), BATCH):
        block = unit(vectors[start : start + BATCH])
        for first in range(0, start, BLOCK):
            before = np.flatnonzero(kept[first : min(start, first + BLOCK)]) + first
            if len(before):
                kept[start : start + BATCH] &= (block @ unit(vectors[before]).T).max(1) < least
        within = block @ block.T
        for place in range(1, len(block)):
            earlier = kept[start : start + place]
            if (within[place, :place][earlier] >= least).any():
                kept[start + place] = False
    return np.flatnonzero(kept)


def coverage(vectors: Vectors, chosen: Rows, at: Sequence[int], alike: float) -> list[tuple[float, float]]:
    """How much of a collection the first images of a subset cover.

    Args:
        vectors: `[N, D]`, of the whole collection.
        chosen: rows, in their order.
        at: rising numbers of images, each at most `len(chosen)` and at least 1.
        alike: the cosine from which an image is covered by a chosen one.

    Returns:
        For each of `at`: the share of the collection that is covered, and the mean cosine with the nearest chosen one.
    """
    nearest = np.full(len(vectors), -np.inf, np.float32)
    found, done = [], 0
    for size in at:
        compare(nearest, vectors, vectors[chosen[done:size]])
        nearest[chosen[done:size]] = 1.0
        done = size
        found.append((float((nearest >= alike).mean()), float(nearest.mean(dtype=np.float64))))
    return found
