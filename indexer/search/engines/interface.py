"""What a collection asks of a search engine, so that another can take FAISS's place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.store.vectors import VectorSource

Preparing = Callable[[str, int, int], None]
"""Told how far the building of an index is: the step, how many of its vectors are done, and how many there are."""


class VectorIndex(Protocol):
    """Vectors that can be searched. Safe to be searched by several threads at once.

    Attributes:
        effort: how thoroughly an index that approximates looks; one of its engine's `efforts`.
    """

    effort: int

    def __len__(self) -> int: ...

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these ids are stored, bool `[len(ids)]`."""
        ...

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The `k` vectors with the largest inner products with each query, best first.

        Args:
            queries: float32 `[Q, D]`.
            k: how many; `k'` come back, fewer where fewer are stored.
            among: rising int64 ids that the search is confined to; they need not all be stored.

        Returns:
            Inner products, float32 `[Q, k']`, and ids, int64 `[Q, k']`. Where an index that approximates found fewer
            for one query than for another, the rest is -inf and -1.
        """
        ...


class Engine(Protocol):
    """A kind of index: how to build one, and how to keep it in a file.

    Attributes:
        name: stands in the catalog beside the file, and in what `massl info` says.
        exact: whether it finds the nearest without fail.
        efforts: rising, how thoroughly its indexes can look; the collection takes the first that reaches its floor.
    """

    name: str
    exact: bool
    efforts: tuple[int, ...]

    def build(self, source: VectorSource, preparing: Preparing) -> VectorIndex:
        """Makes an index of all vectors."""
        ...

    def write(self, index: VectorIndex, path: Path) -> None:
        """Writes an index to a file.

        Raises:
            OSError: it can't be written.
        """
        ...

    def read(self, path: Path) -> VectorIndex:
        """Opens what `write` wrote; whoever calls has made sure that it is, to the byte.

        Raises:
            OSError: it can't be read.
        """
        ...
