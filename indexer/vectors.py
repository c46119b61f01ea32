"""Searching vectors with FAISS, and the file on disk that saves rebuilding the index.

The file is a cache of the catalog: written to a temporary name, flushed, renamed; its SHA-256 stands in the catalog
and is checked before FAISS reads a byte, as FAISS loads most damaged files without a word.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from massl.errors import MasslError

# A single query is 4 to 5 times slower on two threads than on one: starting them costs more than the scan.
faiss.omp_set_num_threads(1)


class VectorIndex(Protocol):
    """What a collection asks of a search engine; another one can take FAISS's place."""

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k most similar vectors of each query; see `FaissIndex.search`."""
        ...

    def vectors_of(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The stored vectors of these ids, float32 `[len(ids), D]`."""
        ...

    def __len__(self) -> int: ...


class FaissIndex:
    """Exact inner products over unit vectors, so cosine similarity."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(cls, ids: NDArray[np.int64], vectors: NDArray[np.float32], dim: int) -> FaissIndex:
        """Indexes float32 `[N, dim]` rows of unit length under int64 `[N]` ids."""
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        if len(ids):
            index.add_with_ids(np.ascontiguousarray(vectors, np.float32), ids)
        return cls(index)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The `k` most similar vectors of each query, best first.

        Args:
            queries: float32 `[Q, D]`.
            k: how many; fewer come back where fewer are stored.
            among: int64 ids to which the search is confined, inside FAISS and so without loss.

        Returns:
            Similarities float32 `[Q, k']` and ids int64 `[Q, k']`.
        """
        k = min(k, len(self) if among is None else len(among))
        if k <= 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        parameters = None
        if among is not None:
            parameters = faiss.SearchParameters()
            parameters.sel = faiss.IDSelectorBatch(among)
        return self._index.search(np.ascontiguousarray(queries, np.float32), k, params=parameters)

    def vectors_of(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The stored vectors of these ids, float32 `[len(ids), D]`."""
        rows = [self._index.reconstruct(int(identity)) for identity in ids]
        return np.stack(rows) if rows else np.empty((0, self._index.d), np.float32)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def write(self, folder: Path) -> tuple[str, str]:
        """Writes `vectors-<hash>.faiss` whole or not at all, and removes older ones; returns its name and SHA-256.

        Raises:
            MasslError: the disk is full or can't be written.
        """
        data = faiss.serialize_index(self._index).tobytes()
        digest = hashlib.sha256(data).hexdigest()
        path = folder / f"vectors-{digest[:16]}.faiss"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            for old in folder.glob("vectors-*.faiss"):
                if old != path:
                    old.unlink(missing_ok=True)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise MasslError(f"{path} could not be written: {error.strerror or error}; free some space") from error
        return path.name, digest

    @classmethod
    def read(cls, path: Path, sha256: str) -> FaissIndex | None:
        """Reads an index, or None when it is missing or not, to the byte, what was written."""
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        return cls(faiss.deserialize_index(np.frombuffer(data, np.uint8)))
