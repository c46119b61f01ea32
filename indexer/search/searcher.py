"""Searching a collection: from examples to results, in two steps, so that a page describes what it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoder.onnx_encoder import Encoder
from indexer.search import calibration, query
from indexer.search.calibration import Calibration
from indexer.search.engines import engine_choice
from indexer.search.engines.interface import CurrentIndex, Engine, Measured, Preparing
from indexer.search.engines.recall import MARGIN, nearest
from indexer.search.heat_map import Heat, HeatMaps
from indexer.search.query import Query, Ranking, Result, TileChance
from indexer.search.tile_calibration import of_tiles
from indexer.search.tile_search import TileSearch, with_tiles
from indexer.store.catalog import Catalog
from indexer.store.filters import EVERYTHING, Filter, among, exists
from indexer.store.meta import Meta
from indexer.store.vectors import CatalogVectors
from massl.core.errors import MasslError


class Searcher:
    """What a collection is searched with. Safe to share by threads.

    Args:
        root: the folder of images.
        folder: the collection's own.
        catalog: what is known of the images.
        engine: what it is searched with.
        encoder: gives the collection's encoder as it is now; asked only where pixels are to be embedded.

    Attributes:
        tiles: searches the tiles of large pictures, where the collection has some.
    """

    def __init__(
        self, root: Path, folder: Path, catalog: Catalog, engine: Engine, encoder: Callable[[], Encoder]
    ) -> None:
        self._root = root
        self._folder = folder
        self._catalog = catalog
        self._encoder = encoder
        self._engine = engine.open(catalog, folder)
        self._heat = HeatMaps(catalog, root)
        self.tiles = TileSearch(catalog, folder, engine)

    def rank(self, queries: Sequence[Query], k: int, wanted: Filter = EVERYTHING, *, exact: bool = False) -> Ranking:
        """As `Collection.search`, but ids and scores alone, to be described a page at a time."""
        if not any(example.weight > 0 for example in queries):
            raise MasslError("give at least one example of what to look for")
        target = query.embed(queries, self._catalog, self._root, self._encoder)
        # A part of an image is searched by to find others that hold the same: its own whole is then no answer either.
        own = np.array([example.image for example in queries if example.image is not None], np.int64)
        wanted.check(self._catalog)
        index = self.index()
        more = max(k, calibration.FAR[1]) + len(own) + MARGIN
        if exact and not index.exact:
            vectors = CatalogVectors(self._catalog)
            passing = among(self._catalog, wanted)
            blocks = vectors.blocks() if passing is None else vectors.blocks_of(passing)
            _, ids = nearest(blocks, target[None], more)
        else:
            _, ids = index.search(target[None], more, wanted or None)
        if self.tiles.in_use():
            return self._rank_tiles(target, k, more, ids[ids >= 0], own, wanted, exact)
        images, scores = query.ranked(self._catalog, ids[(ids >= 0) & ~np.isin(ids, own)], target)
        # What is usual for this query, among all images whatever the filter.
        if not wanted:
            usual = scores[None]
        else:
            nearby = index.search(target[None], calibration.FAR[1] + len(own))[0][:, len(own) :]
            usual = nearby[:, np.isfinite(nearby[0])]  # places of images that went come last
        crowd = float(calibration.neighbourhood(usual)[0]) if usual.size else None
        return Ranking(images[:k], scores[:k], self.calibration(), crowd, len(index))

    def _rank_tiles(
        self,
        target: NDArray[np.float32],
        k: int,
        more: int,
        whole: NDArray[np.int64],
        own: NDArray[np.int64],
        wanted: Filter,
        exact: bool,
    ) -> Ranking:
        """By the better of each image's whole and its best tile, of the nearest by either.

        A picture that a tile won is judged by what best tiles score by chance, if that could be found out. Else each
        tile counts as an image: so many vectors were compared.
        """
        best = self.tiles.best(target, more, wanted, exact)
        candidates = np.union1d(whole, best.images)
        scored = query.ranked(self._catalog, candidates[~np.isin(candidates, own)], target)
        images, scores, boxes = with_tiles(*scored, best)
        everywhere = self.tiles.best(target, calibration.FAR[1] + len(own)) if wanted else best
        best_tiles = everywhere.scores[~np.isin(everywhere.images, own)]
        usual = best_tiles if wanted else scores
        crowd, tile_crowd = (
            float(calibration.neighbourhood(each[None])[0]) if len(each) else None for each in (usual, best_tiles)
        )
        among_all = len(self.index()) + len(self.tiles.index())
        known = Calibration.from_json(self._catalog.meta().calibration_tiles)
        chance = TileChance(known, tile_crowd, len(self.index())) if known.scores.values else None
        return Ranking(images[:k], scores[:k], self.calibration(), crowd, among_all, boxes, chance)

    def describe(self, ranking: Ranking, first: int = 0, last: int | None = None) -> list[Result]:
        """Paths, labels and matches of a ranking's results, from place `first` (from 0) up to before `last`.

        Images that have gone since are left out.
        """
        return query.described(self._catalog, ranking, first, last)

    def labelled_like(self, image: int, k: int = 6) -> list[Result]:
        """The `k` labelled images most like an image, best first; none where nothing is labelled."""
        if not exists(self._catalog, Filter(labelled=True)):
            return []
        return self.describe(self.rank([Query(image=image)], k, Filter(labelled=True)))

    def heat(self, queries: Sequence[Query], image: int) -> Heat:
        """Which parts of an image are like what was searched by; see `indexer.search.heat_map`.

        Raises:
            MasslError: the encoder has no patch tokens, or the image is gone or can't be read any more.
        """
        return self._heat.of(queries, image, self._encoder())

    def heat_beside(self, asked: Query, others: Sequence[Query]) -> Heat:
        """How alike each part of a picture is to the most similar part of others; see `HeatMaps.beside`."""
        return self._heat.beside(asked, others, self._encoder())

    def calibration(self) -> Calibration:
        """What scores mean in this collection."""
        return Calibration.from_json(self._catalog.meta().calibration)

    def calibrate(self) -> Calibration:
        """Finds out what they mean, anew; see `indexer.search.calibration`. What those of tiles mean is kept here."""
        found = calibration.of_collection(self._root, self._catalog, self._encoder())
        if self.tiles.in_use():
            self._catalog.set_meta(Meta.calibration_tiles.to(of_tiles(self._catalog, found).to_json()))
        return found

    def index(self, preparing: Preparing = lambda step, done, total: None, tidy: bool = False) -> CurrentIndex:
        """The vectors, ready to search; see `OpenedEngine.get`."""
        return self._engine.get(preparing, tidy)

    def tidy_up(self, preparing: Preparing) -> None:
        """Has the engine put in order what an update of the collection left."""
        if not self._engine.is_current():
            self._engine.get(preparing, tidy=True)
        self.tiles.tidy_up(preparing)

    def measured(self) -> Measured | None:
        """How the search engine's index answers, on these very vectors; None while there is none."""
        return self._engine.measured()

    def how(self) -> str:
        """How the search engine searches, for a person: half a sentence; empty while there is no index."""
        return self._engine.how()

    def use_engine(self, name: str, address: str = "") -> None:
        """Has the collection searched with another engine from now on; see `indexer.search.engines.engine_choice.use`.

        Whoever opened it with an engine of their own keeps that.
        """
        engine_choice.use(self._catalog, self._folder, name, address)
