"""Images by a few kinds, to be told apart at a glance: by their label, or by the folder that they lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.store.catalog import Catalog
from indexer.store.images import Images
from indexer.store.labels import Labels

OTHERS, NONE = 254, 255  # of a kind beyond those that have a name; of none


@dataclass(frozen=True, eq=False)
class Kinds:
    """Which kind each image is of.

    Attributes:
        names: of the kinds, the most frequent first, or each in the place that is its own.
        counts: how many images each has.
        others: kinds beyond those, and how many images they have together.
        of: uint8 `[N]`, a place in `names`, or `OTHERS`, or `NONE`.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    others: tuple[int, int]
    of: NDArray[np.uint8]

    @classmethod
    def count(cls, kinds: Sequence[str | None], most: int, order: Sequence[str] = ()) -> Kinds:
        """From each image's kind, or None; the `most` most frequent keep their name.

        Where there is an `order`, the place of a kind in it is its place in `names`, whatever the counts; those beyond
        `most` take the places of those that are too rare for a name.
        """
        counted = Counter(kind for kind in kinds if kind is not None)
        ranked = sorted(counted, key=lambda kind: (-counted[kind], kind))
        if len(ranked) == most + 1:  # a single other one is no shorter
            most += 1
        named = _placed(ranked[:most], order) if order else ranked[:most]
        place = dict.fromkeys(ranked, OTHERS) | {kind: min(at, OTHERS) for at, kind in enumerate(named)}
        of = np.fromiter((NONE if kind is None else place[kind] for kind in kinds), np.uint8, len(kinds))
        rest = ranked[most:]
        return cls(
            tuple(named),
            tuple(counted[kind] for kind in named),
            (len(rest), sum(counted[kind] for kind in rest)),
            of,
        )


def _placed(named: Sequence[str], order: Sequence[str]) -> list[str]:
    """`named`, each in its place of `order`; what is left of them in the places that are left, in that order too."""
    places: list[str | None] = [kind if kind in named else None for kind in order[: len(named)]]
    places += [None] * (len(named) - len(places))
    rest = iter(kind for kind in dict.fromkeys([*order, *named]) if kind in named and kind not in places)
    return [next(rest) if kind is None else kind for kind in places]


def by_label(catalog: Catalog, ids: NDArray[np.int64], most: int) -> Kinds:
    """Kinds of these images by the label that somebody gave them, in the order in which classes came."""
    labels = Labels(catalog)
    given = labels.by_image()
    return Kinds.count([given.get(image) for image in ids.tolist()], most, labels.classes())


def by_folder(catalog: Catalog, ids: NDArray[np.int64], most: int) -> Kinds:
    """Kinds of these images by folder, relative to the root: the first folders in which they differ."""
    paths = dict(Images(catalog).ready())
    folders = [paths[image].split("/")[:-1] if image in paths else None for image in ids.tolist()]
    known = [folder for folder in folders if folder is not None]
    first, last = min(known, default=[]), max(known, default=[])  # what these two share, all in between share
    shared = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return Kinds.count(["/".join(folder[: shared + 1]) if folder is not None else None for folder in folders], most)


def typical(vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The `count` of these unit vectors, `[N, D]`, that are most like their mean, as rows, the most typical first."""
    return np.argsort(-(vectors @ vectors.mean(0)), kind="stable")[:count]
