"""How unusual the images of a collection are, kept in a file from one process to the next.

A cache, as the map's is: of a collection that has changed since, it is not read.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.store import array_file
from indexer.store.catalog import Catalog
from indexer.store.meta import Meta
from indexer.store.tiling import Box

_KINDS: array_file.Kinds = {"ids": (np.int64, ()), "scores": (np.float32, ()), "boxes": (np.int64, (5,))}


@dataclass(frozen=True, eq=False)
class KeptScores:
    """Scores of all images.

    Attributes:
        of: the part of the collection's revision that they follow from.
        ids: rising, int64 `[N]`.
        scores: float32 `[N]`, greater where less usual.
        boxes: the most unusual tile of those that have tiles, by id.
    """

    of: Hashable
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: Mapping[int, Box]

    @staticmethod
    def is_current(catalog: Catalog, now: Hashable) -> bool:
        """Whether the catalog names a file of this revision."""
        meta = catalog.meta()
        return bool(meta.unusual_file) and meta.unusual_of == repr(now)

    @classmethod
    def read(cls, catalog: Catalog, now: Hashable) -> KeptScores | None:
        """Those of this revision; None where there are none."""
        if not cls.is_current(catalog, now):
            return None
        meta = catalog.meta()
        stored = array_file.read(catalog.path.parent, meta.unusual_file, meta.unusual_sha256, _KINDS)
        if stored is None:
            return None
        ids, scores, boxes = (stored[name] for name in _KINDS)
        if len(ids) != len(scores):
            return None
        return cls(now, ids, scores, {image: tuple(box) for image, *box in boxes.tolist()})

    def write(self, catalog: Catalog) -> None:
        """Keeps them in place of those of before, if that can be written."""
        boxes = np.array([(image, *box) for image, box in self.boxes.items()], np.int64).reshape(-1, 5)
        array_file.keep(
            catalog.path.parent,
            "unusual",
            {"ids": self.ids, "scores": self.scores, "boxes": boxes},
            lambda name, digest: catalog.set_meta(
                Meta.unusual_file.to(name), Meta.unusual_sha256.to(digest), Meta.unusual_of.to(repr(self.of))
            ),
        )
