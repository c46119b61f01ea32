"""Exact search in the catalog itself: what takes the place of an engine that can't be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import Measured, Preparing
from indexer.search.engines.recall import nearest
from indexer.search.engines.subjects import IMAGES, Subject
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter
from massl.core.errors import MasslError

MOST = 1_000_000  # vectors that are read for a search: a few seconds


class CatalogScan:
    """Compares with every vector of a catalog. A `CurrentIndex`.

    Args:
        catalog: is read at each search.
        why: why no engine is asked, for a person; raised where there are more vectors than anyone would wait for.
        subject: whose vectors they are.
    """

    exact = True

    def __init__(self, catalog: Catalog, why: str, subject: Subject = IMAGES) -> None:
        self._catalog = catalog
        self._subject = subject
        self._why = why

    def __len__(self) -> int:
        return len(self._subject.vectors(self._catalog))

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | Filter | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `CurrentIndex.search`."""
        vectors = self._subject.vectors(self._catalog)
        ids = self._subject.among(self._catalog, among) if isinstance(among, Filter) else among
        count = len(vectors) if ids is None else len(ids)
        if count > MOST:
            raise MasslError(f"{self._why}; {count:,} vectors are too many to compare one by one")
        blocks = vectors.blocks() if ids is None else vectors.blocks_of(ids)
        if min(k, count) <= 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        return nearest(blocks, queries, min(k, count))


class NoEngine:
    """An `OpenedEngine` in the place of one that can't be used here.

    Args:
        catalog: is searched itself.
        folder: is left as it is.
        why: why, for a person.
        subject: whose vectors are searched.
    """

    def __init__(self, catalog: Catalog, folder: Path, why: str, subject: Subject = IMAGES) -> None:
        self._scan = CatalogScan(catalog, why, subject)
        self._why = why

    def get(self, preparing: Preparing, tidy: bool = False) -> CatalogScan:
        """See `OpenedEngine.get`."""
        return self._scan

    def is_current(self) -> bool:
        """See `OpenedEngine.is_current`: there is nothing to bring up to date."""
        return True

    def measured(self) -> Measured | None:
        """See `OpenedEngine.measured`."""
        return None

    def how(self) -> str:
        """See `OpenedEngine.how`."""
        return f"every picture is compared, as {self._why}"

    def forget(self) -> None:
        """See `OpenedEngine.forget`: what can't be reached can't be removed."""
