"""A new encoder beside a collection's own, on the images that people labelled: before everything is embedded anew."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.catalog import Catalog
from indexer.encoder import Encoder
from indexer.labelled import embed_paths
from massl.errors import MasslError

MOST = 1_000  # labelled images that are embedded
FEWEST = 2  # images of a class, under which nothing can be held out
NEIGHBOURS = 10


@dataclass(frozen=True)
class Comparison:
    """How often each encoder's nearest neighbours name labelled images right, each left out in turn.

    Attributes:
        images, classes: how many it was measured on.
        present, other: shares of right answers, 0 to 1.
        only_present, only_other: images that only one of them named right.
        chance: how often a difference at least so large would come by chance were both equally good (McNemar's exact
            test), 0 to 1.
    """

    images: int
    classes: int
    present: float
    other: float
    only_present: int
    only_other: int
    chance: float


def compare(
    root: Path, catalog: Catalog, present: Encoder, other: Encoder, report: Callable[[int, int], None]
) -> Comparison:
    """Compares two encoders on a collection's labelled images, embedded anew by both; nothing is kept.

    Args:
        root: the collection's folder.
        catalog: its catalog.
        present: its encoder.
        other: the one that might take its place.
        report: told how many images are embedded, of how many; both encoders' together.

    Raises:
        MasslError: labels of fewer than two classes of two images, or none of the images can be read.
    """
    rows = catalog.read(
        "SELECT path, label FROM labels JOIN images ON images.id = labels.image "
        "WHERE state = 'ready' ORDER BY hash, path"
    )
    labelled = [(os.fsdecode(path), label) for path, label in rows]
    if len(labelled) > MOST:
        labelled = random.Random(0).sample(labelled, MOST)
    counts = Counter(label for _, label in labelled)
    labelled = [(path, label) for path, label in labelled if counts[label] >= FEWEST]
    if len({label for _, label in labelled}) < 2:
        raise MasslError("two classes of at least two labelled images each are needed to compare encoders; label some")
    paths = [path for path, _ in labelled]
    right: list[dict[int, bool]] = []
    for turn, encoder in enumerate((present, other)):

        def told(done: int, total: int, turn: int = turn) -> None:
            report(turn * total + done, 2 * total)

        vectors, kept, _ = embed_paths(root, paths, encoder, told)
        classes = np.unique([labelled[row][1] for row in kept], return_inverse=True)[1]
        right.append(dict(zip(kept, _named_right(vectors, classes).tolist(), strict=True)))
    both = np.array([(right[0][row], right[1][row]) for row in right[0] if row in right[1]], bool)
    only_present, only_other = int((both[:, 0] & ~both[:, 1]).sum()), int((both[:, 1] & ~both[:, 0]).sum())
    present_share, other_share = both.mean(0)
    classes_seen = len({labelled[row][1] for row in right[0]})
    return Comparison(
        len(both), classes_seen, float(present_share), float(other_share), only_present, only_other,
        _chance(only_present, only_other),
    )  # fmt: skip


def _named_right(vectors: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each image's nearest others, weighted by exp(cosine / 0.07), name its class: bool `[N]`."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    nearest = np.argsort(-similar, 1, kind="stable")[:, : min(NEIGHBOURS, len(vectors) - 1)]
    weights = np.exp(np.take_along_axis(similar, nearest, 1) / 0.07)
    votes = np.zeros((len(vectors), int(classes.max()) + 1))
    np.add.at(votes, (np.arange(len(vectors))[:, None], classes[nearest]), weights)
    return votes.argmax(1) == classes


def _chance(one: int, other: int) -> float:
    from scipy.stats import binomtest  # takes a moment to import

    return float(binomtest(one, one + other).pvalue) if one + other else 1.0
