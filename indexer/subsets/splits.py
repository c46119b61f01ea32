"""Images divided into parts, as training, validation and test, so that near copies are never in two of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError

_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)


def parse_shares(text: str) -> dict[str, float]:
    """Parts and their shares from `train=0.8,val=0.1,test=0.1`.

    Raises:
        MasslError: it is written otherwise, a part is named twice, or the shares don't add up to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not _NAME.fullmatch(name) or not 0 < share <= 1 or name in shares:
            raise MasslError(
                f"{part.strip()!r} is no part of a split: give each part one name and a share, as in "
                "train=0.8,val=0.1,test=0.1"
            )
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise MasslError(f"the shares of a split add up to 1, and not to {sum(shares.values()):g}; change one of them")
    return shares


def connected(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group of each of `count` images, int64 `[N]`, where images of a pair `[P, 2]` are in one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def divide(groups: NDArray[np.int64], classes: Sequence[str], shares: Mapping[str, float], seed: int = 0) -> list[str]:
    """The part of each image. A group stays whole, and each class is divided by the shares as far as groups allow.

    Groups are dealt out in an order drawn at random, the large ones first, each to the part that lacks most of what
    the group holds.

    Args:
        groups: int64 `[N]`, see `connected`.
        classes: of each image, `[N]`.
        shares: name of a part to its share; they add up to 1.
        seed: of the draw.
    """
    names = list(shares)
    wanted = np.array([shares[name] for name in names])
    kinds, of = np.unique(np.asarray(classes, object).astype(str), return_inverse=True)
    totals = np.bincount(of, minlength=len(kinds))
    lacking = wanted[:, None] * totals[None]  # images of each class that each part is still to get
    members: dict[int, list[int]] = {}
    for row in np.random.default_rng(seed).permutation(len(groups)).tolist():
        members.setdefault(int(groups[row]), []).append(row)
    parts = [""] * len(groups)
    for rows in sorted(members.values(), key=len, reverse=True):
        held, counts = np.unique(of[rows], return_counts=True)
        part = int((lacking[:, held] / totals[held] * counts).sum(1).argmax())
        lacking[part, held] -= counts
        for row in rows:
            parts[row] = names[part]
    return parts


def cut_by_chance(pairs: int, shares: Mapping[str, float]) -> float:
    """How many of so many pairs a split that draws each image by itself puts into two parts, on average."""
    return pairs * (1 - sum(share**2 for share in shares.values()))
