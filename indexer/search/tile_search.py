"""Images by the tile of theirs that is most like what is searched by."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import CurrentIndex, Engine, Preparing
from indexer.search.engines.recall import nearest
from indexer.search.engines.subjects import TILES
from indexer.store import tiles
from indexer.store.catalog import Catalog
from indexer.store.filters import EVERYTHING, Filter
from indexer.store.tiles import TilePlaces, TileVectors
from indexer.store.vectors import unit

_EACH = 4  # tiles asked for at first for each image that is wanted: neighbouring ones are alike


class BestTiles(NamedTuple):
    """Images, the best first: ids int64 `[n]`, scores float32 `[n]`, and their best tiles' boxes, int64 `[n, 4]`."""

    images: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.int64]


class TileSearch:
    """Searches the tiles of a collection, with the engine that its images have. Safe to share by threads."""

    def __init__(self, catalog: Catalog, folder: Path, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine.open(catalog, folder, TILES)

    def in_use(self) -> bool:
        """Whether the collection has tiles."""
        return bool(self._catalog.meta().tiles)

    def index(self, preparing: Preparing = lambda step, done, total: None, tidy: bool = False) -> CurrentIndex:
        """The tiles' vectors, ready to search, under the numbers of the tiles; see `OpenedEngine.get`."""
        return self._engine.get(preparing, tidy)

    def tidy_up(self, preparing: Preparing) -> None:
        """Puts in order what an update of the collection left."""
        if not self.in_use():
            if self._catalog.meta().engine_kept_tiles:  # it had some
                self._engine.forget()
        elif not self._engine.is_current():
            self.index(preparing, tidy=True)

    def best(
        self, target: NDArray[np.float32], count: int, wanted: Filter = EVERYTHING, exact: bool = False
    ) -> BestTiles:
        """At least `count` images, where there are so many, by the cosine of their best tile with `target`.

        Args:
            target: float32 `[D]`, of unit length.
            count: how many.
            wanted: what the images must be.
            exact: compare with every tile.
        """
        index = self.index()
        total = tiles.count(self._catalog, wanted) if wanted else len(index)
        asked = min(total, _EACH * count)
        while True:
            ids = self._nearest(index, target, asked, wanted, exact)
            there = tiles.places(self._catalog, ids.tolist())
            rows = np.searchsorted(there.ids, ids)
            rows = rows[np.append(there.ids, -1)[rows] == ids]  # without those that went meanwhile
            owners, first = np.unique(there.images[rows], return_index=True)
            if len(owners) >= count or asked >= total:
                break
            asked = min(total, _EACH * asked)
        return self._scored(there, rows[np.sort(first)], target)

    def _scored(self, there: TilePlaces, rows: NDArray[np.int64], target: NDArray[np.float32]) -> BestTiles:
        """One tile an image, scored by the catalog."""
        rows = np.sort(rows)
        ids, packed = TileVectors(self._catalog).of(there.ids[rows])
        rows = rows[np.isin(there.ids[rows], ids)]
        scores = unit(packed) @ target
        order = np.argsort(-scores, kind="stable")
        return BestTiles(there.images[rows][order], scores[order], there.boxes[rows][order])

    def _nearest(
        self,
        index: CurrentIndex,
        target: NDArray[np.float32],
        count: int,
        wanted: Filter,
        exact: bool,
    ) -> NDArray[np.int64]:
        """Numbers of tiles, the best first."""
        if count < 1:
            return np.empty(0, np.int64)
        if exact and not index.exact:
            vectors = TileVectors(self._catalog)
            passing = tiles.among(self._catalog, wanted)
            blocks = vectors.blocks() if passing is None else vectors.blocks_of(passing)
            _, ids = nearest(blocks, target[None], count)
        else:
            _, ids = index.search(target[None], count, wanted or None)
        return ids[0][ids[0] >= 0]


def with_tiles(
    images: NDArray[np.int64], scores: NDArray[np.float32], best: BestTiles
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[int, tuple[int, int, int, int]]]:
    """Images scored by the better of their whole and their best tile; and the boxes of those that a tile won.

    Args:
        images: int64 `[n]`, scored as a whole; the tiles' images are among them.
        scores: float32 `[n]`.
        best: their best tiles.
    """
    places = {image: row for row, image in enumerate(images.tolist())}
    better = scores.copy()
    boxes = {}
    for image, score, box in zip(best.images.tolist(), best.scores.tolist(), best.boxes.tolist(), strict=True):
        row = places.get(image)
        if row is not None and score > better[row] + _ALIKE:
            better[row] = score
            boxes[image] = (box[0], box[1], box[2], box[3])
    order = np.argsort(-better, kind="stable")
    return images[order], better[order], boxes


_ALIKE = 1e-6  # what rounding makes of the same vector
