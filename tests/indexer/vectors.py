"""Vectors as embeddings are, two engines that are not FAISS's, and a ladder on which little data climbs every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.engine_selection import Ladder
from indexer.search.engines.faiss_engine import Cells, Exact, FastScan
from indexer.search.engines.interface import Measured, Preparing, VectorIndex
from indexer.search.engines.subjects import IMAGES, Subject
from indexer.store import revision
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter
from indexer.store.vectors import VectorSource

SMALL_STEPS = Ladder(((0, Exact()), (4_000, FastScan()), (6_000, Cells())))


def clustered(count: int, dim: int, seed: int = 0) -> NDArray[np.float16]:
    """Unit vectors in groups within groups, as images are of kinds, float16 `[count, dim]`."""
    draw = np.random.default_rng(seed)
    kinds = draw.standard_normal((40, dim))
    groups = kinds[draw.integers(0, 40, count // 8 + 1)] + 0.8 * draw.standard_normal((count // 8 + 1, dim))
    vectors = groups[draw.integers(0, len(groups), count)] + 0.6 * draw.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


class Array:
    """Vectors in memory, under rising ids with gaps. A `VectorSource`."""

    def __init__(self, vectors: NDArray[np.float16], ids: NDArray[np.int64] | None = None) -> None:
        self.vectors = vectors
        self.ids = np.arange(len(vectors)) * 3 + 5 if ids is None else ids
        self.dim = vectors.shape[1]

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        for start in range(0, len(self), 1000):
            yield self.ids[start : start + 1000], self.vectors[start : start + 1000]

    def sample(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        rows = np.sort(np.random.default_rng(0).permutation(len(self))[:count])
        return self.ids[rows], self.vectors[rows]

    def of(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        rows = np.flatnonzero(np.isin(self.ids, ids))
        return self.ids[rows], self.vectors[rows]


class NumpyIndex:
    """A matrix. A `VectorIndex`."""

    effort = 0

    def __init__(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        self.ids = ids
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.ids)

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.isin(ids, self.ids)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rows = np.arange(len(self)) if among is None else np.flatnonzero(np.isin(self.ids, among))
        scores = queries @ self.vectors[rows].T
        best = np.argsort(-scores, 1)[:, :k]
        return np.take_along_axis(scores, best, 1), self.ids[rows][best]


class NumpyKind:
    """Another kind of index than FAISS's, in a file. An `IndexKind`."""

    name = "numpy"
    how = "every picture is compared by NumPy"
    exact = True
    efforts: tuple[int, ...] = (0,)

    def build(self, source: VectorSource, preparing: Preparing) -> VectorIndex:
        parts = list(source.blocks())
        return NumpyIndex(
            np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in parts)]),
            np.concatenate(
                [np.empty((0, source.dim), np.float32), *(vectors for _, vectors in parts)], dtype=np.float32
            ),
        )

    def write(self, index: VectorIndex, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, ids=index.ids, vectors=index.vectors)

    def read(self, path: Path, dim: int) -> VectorIndex:
        with np.load(path) as stored:
            return NumpyIndex(stored["ids"], stored["vectors"])


class CurrentMatrix:
    """A matrix. A `CurrentIndex`."""

    exact = True

    def __init__(self, catalog: Catalog, subject: Subject = IMAGES) -> None:
        self._catalog = catalog
        self._subject = subject
        parts = list(subject.vectors(catalog).blocks())
        self._index = NumpyIndex(
            np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in parts)]),
            np.concatenate([np.empty((0, catalog.meta().dim), np.float16), *(rows for _, rows in parts)]).astype("f"),
        )

    def __len__(self) -> int:
        return len(self._index)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | Filter | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        ids = self._subject.among(self._catalog, among) if isinstance(among, Filter) else among
        return self._index.search(queries, k, ids)


class OpenedMatrix:
    """Reads all vectors again whenever one changed. An `OpenedEngine`."""

    def __init__(self, catalog: Catalog, subject: Subject = IMAGES) -> None:
        self._catalog = catalog
        self._subject = subject
        self._current: tuple[object, CurrentMatrix] | None = None

    def get(self, preparing: Preparing, tidy: bool = False) -> CurrentMatrix:
        state = revision.read(self._catalog).embedded
        if self._current is None or self._current[0] != state:
            self._current = state, CurrentMatrix(self._catalog, self._subject)
        return self._current[1]

    def is_current(self) -> bool:
        return self._current is not None and self._current[0] == revision.read(self._catalog).embedded

    def measured(self) -> Measured | None:
        return Measured("matrix", 0, 1.0, 0, len(self._current[1]), 0.0, {}) if self._current else None

    def how(self) -> str:
        return "every picture is compared, in memory"

    def forget(self) -> None: ...


class MatrixEngine:
    """An engine that keeps nothing: no file, no checksum, no choice by size. An `Engine`."""

    def check(self) -> None: ...

    def open(self, catalog: Catalog, folder: Path, subject: Subject = IMAGES) -> OpenedMatrix:
        return OpenedMatrix(catalog, subject)
