"""Retrieval: every image is a query, and the images of its class are what it should find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from massl.core.similarities import Floats, Targets, similarities


@dataclass(frozen=True)
class Retrieval:
    """Figures over the queries that have something to find.

    Attributes:
        average_precision: float64 `[M]`; NaN for a query without a match in the gallery.
        precision_at: `k` to the share of right ones among the first k, averaged over queries.
    """

    average_precision: NDArray[np.float64]
    precision_at: dict[int, float]

    @property
    def map(self) -> float:
        """Mean average precision."""
        return float(np.nanmean(self.average_precision)) if self.queries else float("nan")

    @property
    def queries(self) -> int:
        """How many queries have something to find."""
        return int(np.isfinite(self.average_precision).sum())


def retrieval(
    queries: Floats,
    query_labels: Targets,
    gallery: Floats,
    gallery_labels: Targets,
    at: Sequence[int] = (1, 10),
    leave_one_out: bool = False,
) -> Retrieval:
    """Mean average precision over the whole ranking, and precision at `at`.

    Average precision is the mean, over a query's matches, of the precision at each one's place (Manning et al.,
    "Introduction to information retrieval", section 8.4), not interpolated. Where scores are exactly equal the
    precision is that after all of them, as in scikit-learn, and wrong images come first in "precision at".

    Args:
        queries: `[M, D]`, rows of unit length.
        query_labels: int `[M]`.
        gallery: `[N, D]`, rows of unit length.
        gallery_labels: int `[N]`.
        at: the k of precision at k.
        leave_one_out: the gallery is the queries, and an image does not find itself.
    """
    # With the gallery in order of class, the matches of a query are one slice of its similarities.
    order = np.argsort(gallery_labels, kind="stable")
    sorted_labels = gallery_labels[order]
    begin = np.searchsorted(sorted_labels, query_labels, "left")
    end = np.searchsorted(sorted_labels, query_labels, "right")
    column = np.empty(len(order), np.int64)
    column[order] = np.arange(len(order))
    average = np.full(len(queries), np.nan)
    found = np.zeros((len(at), len(queries)))
    for rows, block in similarities(queries, gallery[order]):
        if leave_one_out:
            block[np.arange(len(rows)), column[rows]] = -np.inf
        matches = [np.sort(block[i, begin[row] : end[row]])[leave_one_out:] for i, row in enumerate(rows)]
        block.sort(axis=1)
        for i, row in enumerate(rows):
            good = matches[i]  # ascending; the query itself, at minus infinity, is cut off
            if not len(good):
                continue
            at_least = block.shape[1] - np.searchsorted(block[i], good, "left")
            good_at_least = len(good) - np.searchsorted(good, good, "left")
            average[row] = (good_at_least / at_least).mean()
            places = (at_least - good_at_least) + np.arange(len(good), 0, -1)
            found[:, row] = [(places <= k).sum() / k for k in at]
    counted = np.isfinite(average)
    precision = found[:, counted].mean(1) if counted.any() else np.full(len(at), np.nan)
    return Retrieval(average, dict(zip(at, precision.tolist(), strict=True)))
