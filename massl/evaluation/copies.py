"""Copy detection: whether edited images are recognised, by a score that means the same for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from massl.core.similarities import Floats, similarities

PRECISION = 0.9


@dataclass(frozen=True)
class Copies:
    """Figures of one set of queries.

    Attributes:
        micro_ap: micro average precision, all pairs of query and reference in one ranking.
        recall_at_p90: the most copies that a single threshold finds with at most a tenth of the found being wrong.
        recall_at_1: share of queries whose nearest reference is their original; None for a list of pairs.
    """

    micro_ap: float
    recall_at_p90: float
    recall_at_1: float | None


def copy_detection(
    queries: Floats, originals: NDArray[np.integer], references: Floats, groups: NDArray[np.integer] | None = None
) -> dict[int, Copies]:
    """Micro average precision over all pairs of query and reference, the measure of the ISC2021 challenge.

    Douze et al., "The 2021 image similarity dataset and challenge", section 4.1. Pairs of exactly equal score count
    together, so that the order among them gains nothing.

    Args:
        queries: `[M, D]`, rows of unit length.
        originals: int `[M]`, the row of `references` that each query is a copy of.
        references: `[N, D]`, rows of unit length.
        groups: int `[M]`, from 0, to be measured each by itself; all together when left out.

    Returns:
        The figures by group; all queries together under the key -1.
    """
    groups = np.zeros(len(queries), np.int64) if groups is None else groups
    right = np.empty(len(queries))
    first = np.empty(len(queries), bool)
    for rows, block in similarities(queries, references):
        here = np.arange(len(rows))
        right[rows] = block[here, originals[rows]]
        block[here, originals[rows]] = -np.inf
        first[rows] = block.max(1) < right[rows] if block.shape[1] > 1 else True
    order = np.sort(right)
    names = np.unique(groups)
    # Of each group's wrong pairs: how many lie between two neighbouring scores of right pairs.
    between = np.zeros((int(groups.max()) + 1, len(order) + 1), np.int64)
    for rows, block in similarities(queries, references):
        block[np.arange(len(rows)), originals[rows]] = -np.inf
        for i, row in enumerate(rows):
            wrong = block[i][block[i] >= order[0]]
            np.add.at(between[groups[row]], np.searchsorted(order, wrong, "right"), 1)
    result = {-1: _figures(right, order, between.sum(0), first)}
    for name in names:
        mine = groups == name
        result[int(name)] = _figures(right[mine], order, between[name], first[mine])
    return result


def _figures(
    right: NDArray[np.float64], order: NDArray[np.float64], between: NDArray[np.int64], first: NDArray[np.bool_]
) -> Copies:
    # between[i] counts wrong pairs at or above order[i - 1] and below order[i], so this is those at or above order[i].
    wrong_at_least = between[::-1].cumsum()[::-1][1:]
    wrong = wrong_at_least[np.searchsorted(order, right, "left")]
    ascending = np.sort(right)
    good = len(right) - np.searchsorted(ascending, right, "left")
    precision = good / (good + wrong)
    reached = good[precision >= PRECISION]
    recall = reached.max() / len(right) if len(reached) else 0.0
    return Copies(float(precision.mean()), float(recall), float(first.mean()))


def pairs(scores: Floats, same: NDArray[np.bool_]) -> tuple[Copies, float]:
    """The figures of a list of pairs, float `[P]` and whether each is of the same, bool `[P]`; and the ROC's area."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    precision, recall, _ = precision_recall_curve(same, scores)
    figures = Copies(
        float(average_precision_score(same, scores)), float(recall[precision >= PRECISION].max(initial=0.0)), None
    )
    return figures, float(roc_auc_score(same, scores))
