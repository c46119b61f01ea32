"""How unusual the most unusual patch of each picture is, beside a memory of patches of other pictures.

As PatchCore (Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022) and AnomalyDINO (Damm et
al., WACV 2025) do, with the encoder's own patch tokens. The memory is drawn at random, evenly from its pictures, and
not a coreset. A small fault that hardly changes the picture's vector changes that of a patch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MEMORY = 20_000  # patches in it: 30 MB, whatever the number of pictures

Tokens = Callable[[int], "NDArray[np.float32] | None"]
"""Gives the patch tokens of a row's picture, `[P, D]`, of unit length; None where it can't be read any more."""


def worst_patches(
    tokens: Tokens,
    reference: NDArray[np.int64],
    asked: NDArray[np.int64],
    k: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """One minus the cosine of each picture's most unusual patch with the k-th nearest in the memory, float32 `[n]`.

    Args:
        tokens: of a picture.
        reference: rows of the pictures that the memory is drawn from, at least two.
        asked: rows whose score is wanted; a picture's own patches don't count.
        k: which of the nearest patches counts.
        report: told how many pictures are read, of how many.

    Returns:
        Not a number for pictures that can't be read.
    """
    draw = np.random.default_rng(0)
    each, total = max(1, MEMORY // len(reference)), min(len(reference), MEMORY) + len(asked)
    remembered, owners = [], []
    for done, row in enumerate(draw.permutation(reference)[:MEMORY].tolist(), 1):
        own = tokens(row)
        if own is not None:
            remembered.append(draw.permutation(own)[:each])
            owners += [row] * len(remembered[-1])
        report(done, total)
    scores = np.full(len(asked), np.nan, np.float32)
    if not remembered:
        return scores
    memory, owner = np.concatenate(remembered), np.array(owners)
    for place, row in enumerate(asked.tolist()):
        own = tokens(row)
        if own is not None:
            near = own @ memory.T
            near[:, owner == row] = -1.0
            nth = min(k, near.shape[1])
            scores[place] = 1 - np.partition(near, near.shape[1] - nth, axis=1)[:, near.shape[1] - nth].min()
        report(total - len(asked) + place + 1, total)
    return scores
