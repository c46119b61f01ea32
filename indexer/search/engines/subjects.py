"""What an index can be of: the images of a collection, or the tiles of large ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.store import filters, index_state, tiles
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter
from indexer.store.tiles import TileVectors
from indexer.store.vectors import CatalogVectors, VectorBlocks


@dataclass(frozen=True)
class Subject:
    """What the vectors of an index are of, each under its number.

    Attributes:
        name: begins the names of its files.
        vectors: a catalog's, as they are now.
        log: where the catalog notes which of them changed.
        among: rising numbers of those whose image passes a filter; None where nothing is filtered by.
        passing: those of some numbers whose image passes, rising.
        count: how many pass.
    """

    name: str
    vectors: Callable[[Catalog], VectorBlocks]
    log: index_state.ChangeLog
    among: Callable[[Catalog, Filter], NDArray[np.int64] | None]
    passing: Callable[[Catalog, Filter, NDArray[np.int64]], NDArray[np.int64]]
    count: Callable[[Catalog, Filter], int]


IMAGES = Subject("vectors", CatalogVectors, index_state.IMAGES, filters.among, filters.passing, filters.count)
TILES = Subject("tiles", TileVectors, index_state.TILES, tiles.among, tiles.passing, tiles.count)
