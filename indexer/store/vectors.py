"""What a collection asks of a search engine, so that another can take FAISS's place; and where vectors come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.store.catalog import READY, Catalog, in_parts
from indexer.store.checksums import EMBEDDING
from indexer.store.paths import from_bytes
from massl.core.errors import MasslError

BLOCK = 32_768  # vectors in memory at a time while an index is built


class VectorSource(Protocol):
    """The vectors that an engine builds its index of: float16, of unit length but for rounding, in the order of ids."""

    dim: int

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """All of them, a block at a time: ids int64 `[B]`, rising, and vectors `[B, D]`."""
        ...

    def sample(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """At most `count` of them, drawn at random but the same each time."""
        ...

    def of(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Those of `ids` that there are, in the order of ids: int64 `[n]`, float16 `[n, D]`."""
        ...


class VectorBlocks(ABC):
    """A `VectorSource` of a catalog's vectors, each of which belongs to a file."""

    dim: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def blocks(self, size: int = BLOCK) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """See `VectorSource.blocks`."""

    @abstractmethod
    def sample(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """See `VectorSource.sample`."""

    @abstractmethod
    def places(self, first: int, last: int) -> dict[int, tuple[bytes, int]]:
        """Path, as the catalog stores it, and time of the file, of the vectors from one number to another."""

    @abstractmethod
    def all_places(self, size: int) -> Iterator[dict[int, tuple[bytes, int]]]:
        """As `places`, of all, so many at a time, in the order of their numbers."""

    @abstractmethod
    def of(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """See `VectorSource.of`."""

    def blocks_of(self, ids: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """As `VectorSource.blocks`, of those of rising `ids` that there are."""
        for start in range(0, len(ids), BLOCK):
            yield self.of(ids[start : start + BLOCK])


class CatalogVectors(VectorBlocks):
    """A catalog's vectors, streamed: at no time are more than a block of them in memory."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.dim = catalog.meta().dim
        # Those without an embedding (there are some only while another encoder takes over) count too: to look at each
        # would be to read them all.
        ((self._count,),) = catalog.read("SELECT count(*) FROM images WHERE state = 'ready'")

    def __len__(self) -> int:
        return self._count

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """See `VectorSource.blocks`."""
        last = -1
        while True:
            query = f"SELECT {_VERIFIED} FROM images WHERE {_SEARCHABLE} AND id > ? ORDER BY id LIMIT {size}"
            ids, vectors = self._unpack(list(self._catalog.read(query, [last])))
            if len(ids):
                yield ids, vectors
                last = int(ids[-1])
            if len(ids) < size:
                return

    def sample(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """See `VectorSource.sample`."""
        rows = self._catalog.read("SELECT id FROM images WHERE state = 'ready'")
        return self.of(sampled(np.fromiter((identity for (identity,) in rows), np.int64), count))

    def of(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """See `VectorSource.of`."""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(ids), BLOCK):
            marks = ", ".join(map(str, ids[start : start + BLOCK].tolist()))
            rows += self._catalog.read(f"SELECT {_VERIFIED} FROM images WHERE {_SEARCHABLE} AND id IN ({marks})")
        return self._unpack(sorted(rows))

    def places(self, first: int, last: int) -> dict[int, tuple[bytes, int]]:
        """See `VectorBlocks.places`."""
        rows = self._catalog.read(
            f"SELECT id, path, mtime_ns FROM images WHERE {_SEARCHABLE} AND id BETWEEN ? AND ?", [first, last]
        )
        return {image: (path, mtime) for image, path, mtime in rows}

    def all_places(self, size: int) -> Iterator[dict[int, tuple[bytes, int]]]:
        """See `VectorBlocks.all_places`."""
        last = -1
        query = f"SELECT id, path, mtime_ns FROM images WHERE {_SEARCHABLE} AND id > ? ORDER BY id LIMIT ?"
        while rows := list(self._catalog.read(query, [last, size])):
            yield {image: (path, mtime) for image, path, mtime in rows}
            last = rows[-1][0]

    def _unpack(self, rows: list[tuple[Any, ...]]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        if len(ids) and not 0 <= ids.min() <= ids.max() <= LAST_ID:
            raise self._catalog.damaged("an image's number is out of all range")
        return ids, unpacked(self._catalog, [row[2] for row in self._catalog.sound(rows)], self.dim)


class SomeVectors:
    """Some of the vectors of a source, as if there were no others. A `VectorSource`.

    Args:
        source: of which they are.
        ids: rising; those that the source doesn't have are left out.

    Attributes:
        ids: int64 `[N]`, rising, of those that there are.
    """

    def __init__(self, source: VectorBlocks, ids: NDArray[np.int64]) -> None:
        self._source = source
        self.dim = source.dim
        self.ids: NDArray[np.int64] = np.concatenate(
            [np.empty(0, np.int64), *(some for some, _ in source.blocks_of(ids))]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """See `VectorSource.blocks`."""
        return self._source.blocks_of(self.ids)

    def sample(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """See `VectorSource.sample`."""
        return self.of(sampled(self.ids, count))

    def of(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """See `VectorSource.of`."""
        return self._source.of(ids)


def sampled(ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` ids, rising, drawn at random but the same each time."""
    return np.sort(ids if len(ids) <= count else np.random.default_rng(0).choice(ids, count, replace=False))


def unpacked(catalog: Catalog, embeddings: Sequence[bytes], dim: int) -> NDArray[np.float16]:
    """Embeddings as a catalog keeps them to float16 `[n, dim]`.

    Raises:
        MasslError: one is of another length, or holds what is no number.
    """
    if not {len(embedding) for embedding in embeddings} <= {2 * dim}:
        raise catalog.damaged(f"an embedding doesn't have {dim} numbers")
    packed = np.frombuffer(b"".join(embeddings), np.float16).reshape(len(embeddings), dim)
    if not np.isfinite(packed).all():
        raise catalog.damaged("an embedding holds a value that is not a number")
    return packed


LAST_ID = (1 << 31) - 1  # the largest id: a filtered search keeps a table of all up to the last
_VERIFIED = f"{EMBEDDING}, embedding_checksum"
_SEARCHABLE = f"{READY} AND embedding IS NOT NULL"


def stored(catalog: Catalog, image: int | None) -> NDArray[np.float32]:
    """An image's embedding, float32 `[D]`, as it was packed.

    Raises:
        MasslError: the catalog doesn't hold it.
    """
    rows = catalog.read(f"SELECT {_VERIFIED} FROM images WHERE id = ? AND {_SEARCHABLE}", [image])
    for _, _, embedding, _ in catalog.sound(rows):
        return unpacked(catalog, [embedding], catalog.meta().dim)[0].astype(np.float32)
    raise MasslError("that image is no longer in the collection; search again from another one")


def several(catalog: Catalog, ids: Sequence[int], dim: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """The embeddings of those of `ids` that can be searched, in no order: int64 `[n]`, float16 `[n, dim]`."""
    found: list[tuple[Any, ...]] = []
    for part in in_parts(ids):
        marks = ", ".join("?" * len(part))
        found += catalog.read(f"SELECT {_VERIFIED} FROM images WHERE {_SEARCHABLE} AND id IN ({marks})", part)
    packed = unpacked(catalog, [row[2] for row in catalog.sound(found)], dim)
    return np.fromiter((row[0] for row in found), np.int64, len(found)), packed


def by_content(catalog: Catalog, most: int, dim: int) -> tuple[list[str], list[bytes], NDArray[np.float16]]:
    """At most so many different contents, by hash: the first path of each, its hash, and float16 `[n, dim]`."""
    rows = list(
        catalog.read(
            f"SELECT {_VERIFIED}, min(path) FROM images WHERE {_SEARCHABLE} GROUP BY hash ORDER BY hash LIMIT ?", [most]
        )
    )
    sound = list(catalog.sound(row[:4] for row in rows))
    packed = unpacked(catalog, [row[2] for row in sound], dim)
    return [from_bytes(row[4]) for row in rows], [row[1] for row in rows], packed


def of_contents(catalog: Catalog, digests: Sequence[bytes]) -> dict[bytes | None, tuple[bytes, int, int]]:
    """Embedding, width and height of those of these contents, of one batch, that the catalog has, in any state."""
    marks = ", ".join("?" * len(digests))
    if not digests:
        return {}
    query = f"SELECT {_VERIFIED}, width, height FROM images WHERE embedding IS NOT NULL AND hash IN ({marks})"
    rows = list(catalog.read(query, digests))
    sound = catalog.sound(row[:4] for row in rows)
    return {digest: (embedding, *row[4:]) for (_, digest, embedding, _), row in zip(sound, rows, strict=True)}


@contextmanager
def lookup(catalog: Catalog) -> Iterator[Callable[[bytes], bool]]:
    """Tells, in any thread, whether the catalog has an embedding of a content, by its hash."""
    query = "SELECT 1 FROM images WHERE hash = ? AND embedding IS NOT NULL LIMIT 1"
    with catalog.reading_from_threads() as read:
        yield lambda digest: bool(read(query, [digest]))


def unit(packed: NDArray[np.float16]) -> NDArray[np.float32]:
    """Float16 rows as float32 of unit length: rounding has left them a little off."""
    vectors = packed.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)
    return vectors
