"""How many of the unlabelled images are of kinds that nobody named: of those every prediction is wrong.

Labelled and unlabelled images are compared by how near they are to the labelled ones. If every kind is named, and each
kind's labels are typical of it, a labelled image that is hidden is as near to the others as the unlabelled images are.
Unlabelled images that are farther than that are of other kinds. Nothing can be seen of kinds that look like a named
one; only labels of a random sample tell how many those are.

Scores are compared in ranks, as in conformal prediction, each hidden image with the unlabelled ones by the same
examples (Vovk, "Cross-conformal predictors", 2015). The share is that of a mixture one of whose parts is known
(Blanchard, Lee and Scott, "Semi-Supervised Novelty Detection", 2010).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.fewshot.model_selection import wilson

NEAREST = 3  # labelled images whose mean cosine tells how near an image is to what was labelled
MOST = 500  # labelled images that are compared with
SAMPLE = 4_000  # other images from which the share is estimated
_SHARES = (0.3, 0.5, 0.7)  # nearest of the hidden images, against which the unlabelled ones are counted
_ONE_SIDED = 1.64  # standard errors to a bound that holds 19 times in 20
_BLOCK = 4096


@dataclass(frozen=True)
class OpenSet:
    """What is of no named kind.

    Attributes:
        low: the share of the unlabelled images, 0 to 1, that is of no named kind; 19 times in 20 it is no less.
        high: the largest such share that the check can't rule out. Kinds that look like named ones are not seen.
        named: float64 `[N]`, how likely each image is of a named kind, if `low` of them are not.
    """

    low: float
    high: float
    named: NDArray[np.float64]


def open_set(vectors: NDArray[np.float32], rows: NDArray[np.int64], targets: NDArray[np.integer]) -> OpenSet:
    """Estimates what share of all other images is unlike the labelled ones.

    Args:
        vectors: unit vectors `[N, D]`.
        rows: of the labelled images, at least two. Those that were merely agreed to are left out, as they are the
            nearest of the unlabelled ones. At random, `MOST` of them are compared with.
        targets: their classes, `[n]`. People label about as many of a rare class as of a common one, so each class
            counts by how many of the other images it is the nearest to.
    """
    draw = np.random.default_rng(0)
    others = np.setdiff1d(np.arange(len(vectors)), rows)
    if not len(others):
        return OpenSet(0.0, 0.0, np.ones(len(vectors)))
    if len(rows) > MOST:
        chosen = np.sort(draw.choice(len(rows), MOST, replace=False))
        rows, targets = rows[chosen], targets[chosen]
    sample = others if len(others) <= SAMPLE else np.sort(draw.choice(others, SAMPLE, replace=False))
    # What all images of a collection have in common tells nothing.
    middle = vectors[draw.choice(len(vectors), SAMPLE, replace=False) if len(vectors) > SAMPLE else slice(None)].mean(0)
    known = _centred(vectors[rows], middle)
    count = min(NEAREST, len(rows) - 1)
    near = _nearest(_centred(vectors[sample], middle), known, count + 1)
    ranks = _ranks(known, *near, count)
    given = np.bincount(targets)[targets]
    weights = np.bincount(targets[near[1][:, 0]], minlength=int(targets.max()) + 1)[targets] / given
    order = np.argsort(ranks, kind="stable")
    ranks, weights = ranks[order], weights[order]
    low, high = _share(ranks, weights)
    named = np.ones(len(vectors))
    if low > 0:
        by_rank = -np.sort(-near[0][:, :count].mean(1))
        for start in range(0, len(others), _BLOCK):
            part = others[start : start + _BLOCK]
            scores = _nearest(_centred(vectors[part], middle), known, count)[0].mean(1)
            places = np.searchsorted(-by_rank, -scores, side="left") / len(by_rank)
            # After so many hidden images that were not there, one more may be (Laplace's rule of succession).
            named[part] = ((1 - low) * _density(ranks, weights, places)).clip(1 / (len(ranks) + 2), 1)
    return OpenSet(low, high, named)


def _centred(vectors: NDArray[np.float32], middle: NDArray[np.float32]) -> NDArray[np.float32]:
    moved = vectors - middle
    return moved / np.linalg.norm(moved, axis=1, keepdims=True).clip(1e-6)


def _nearest(
    vectors: NDArray[np.float32], known: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The highest cosines with known images, falling, and which these are, both `[N, count]`."""
    cosines = vectors @ known.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(cosines, order, 1), order


def _ranks(
    known: NDArray[np.float32], cosines: NDArray[np.float32], nearest: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """For each known image that is hidden, what share of the others is at least as near to the rest, `[n]`."""
    among = known @ known.T
    np.fill_diagonal(among, -np.inf)
    own = -np.sort(-among, axis=1)[:, :count].mean(1)
    whole = cosines[:, :count].mean(1)
    ranks = np.empty(len(known))
    for hidden in range(len(known)):
        at = nearest[:, :count] == hidden
        has = at.any(1)
        # Without the hidden image the next nearest counts.
        less = (cosines[has].sum(1) - cosines[has][:, :count][at[has]]) / count
        ranks[hidden] = ((whole[~has] >= own[hidden]).sum() + (less >= own[hidden]).sum()) / len(whole)
    return ranks


def _share(ranks: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """The bounds of the share that is of no named kind, from rising ranks and how much each counts.

    Where a share h of the hidden images is, and of the others only t, at most t / h of the others are like these.
    """
    so_far = np.cumsum(weights) / weights.sum()
    count = weights.sum() ** 2 / (weights**2).sum()  # Kish's effective number
    lows, highs = [], []
    for share in _SHARES:
        place = min(int(np.searchsorted(so_far, share - 1e-9)), len(ranks) - 1)
        others = max(float(ranks[place]), 1e-3)
        least, most = wilson(share, count, _ONE_SIDED)[0], wilson(share, count)[1]
        lows.append(1 - others / least)
        highs.append(1 - others / most)
    return max(0.0, *lows), max(0.0, float(np.median(highs)))


def _density(
    ranks: NDArray[np.float64], weights: NDArray[np.float64], places: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How much likelier a named kind's image is found at `places`, 0 to 1 of the others by nearness, than any other.

    The falling density of `ranks` that is likeliest: the slopes of the least concave curve above their distribution
    (Grenander, 1956).
    """
    across = np.concatenate([[0.0], ranks, [1.0]])
    up = np.concatenate([[0.0], np.cumsum(weights) / weights.sum(), [1.0]])
    hull = [0]
    for point in range(1, len(across)):
        while len(hull) > 1 and _slope(across, up, hull[-2], hull[-1]) <= _slope(across, up, hull[-2], point):
            hull.pop()
        hull.append(point)
    slopes = [_slope(across, up, one, other) for one, other in itertools.pairwise(hull)]
    return np.array(slopes)[np.searchsorted(across[hull[1:-1]], places, side="right")]


def _slope(across: NDArray[np.float64], up: NDArray[np.float64], one: int, other: int) -> float:
    return float((up[other] - up[one]) / max(across[other] - across[one], 1e-9))
