"""What a few of a run's images are near, before the first step and at the last measurement: kept for its report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from massl.core.disk_errors import cannot_write
from massl.core.files.atomic_writing import write
from massl.core.regular_files import read_regular
from massl.core.similarities import nearest
from massl.data.sources import Source

FILE = "neighbours.json"  # in the run's folder
QUERIES = 10
NEIGHBOURS = 6
_MOST_BYTES = 4 << 20  # twice 70 of the longest names are less
BEFORE, NOW = "before", "now"
# Figures that stand beside what was measured before the first step, and how that is called.
STARTS = {"knn_top1": "knn_start", "rankme": "rankme_start", "agreement": "agreement_start"}


class NeighbourRecord:
    """Ten images drawn at random, and the nearest of those that are measured.

    The file holds, for `before` and `now`: `step`, `figures`, `why`, and `rows`: of each image its name and its
    neighbours, `[name, cosine]`, the nearest first.

    Args:
        run: its folder.
        source: its images.
        measured: the numbers in it of those images that embeddings are noted of.
        begins: whether the run begins, so that what another one left is no part of it.
    """

    def __init__(self, run: Path, source: Source, measured: NDArray[np.integer], begins: bool) -> None:
        self.path = run / FILE
        self.source, self.measured = source, measured
        self._told: dict[str, Any] = {} if begins else read_record(run)
        count = min(QUERIES, len(measured))
        self._asked = np.sort(np.random.default_rng(0).permutation(len(measured))[:count])

    def note(self, when: str, z: NDArray[np.floating], step: int, figures: Mapping[str, float], why: str = "") -> None:
        """Notes what embeddings say, in place of what was noted of that time.

        Args:
            when: `BEFORE` or `NOW`.
            z: unit rows `[N, d]` of the measured images.
            step: steps done.
            figures: what was measured with them.
            why: a sentence about what was exported.

        Raises:
            MasslError: it can't be written.
        """
        if len(z) < 2:
            return
        found, cosines = nearest(z[self._asked], z, NEIGHBOURS + 1)
        rows = []
        for asked, near, likeness in zip(self._asked, found, cosines, strict=True):
            others = [
                [self._name(row), round(float(cosine), 4)]
                for row, cosine in zip(near, likeness, strict=True)
                if row != asked
            ]
            rows.append([self._name(asked), others[:NEIGHBOURS]])
        finite = {name: float(value) for name, value in figures.items() if math.isfinite(value)}
        self._told[when] = {"step": step, "figures": finite, "rows": rows, "why": why}
        try:
            write(self.path, json.dumps(self._told).encode())
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _name(self, row: np.integer) -> str:
        return self.source.name(int(self.measured[row]))


def read_record(run: Path) -> dict[str, Any]:
    """What a run's `NeighbourRecord` noted; nothing where there is no such file, or it is damaged."""
    try:
        told = json.loads(read_regular(run / FILE, _MOST_BYTES).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
