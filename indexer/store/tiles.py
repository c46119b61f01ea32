"""Tiles of large pictures, each with a vector of its own: read, written, and as a source of vectors for an index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.store.catalog import READY, Catalog, in_parts, parts
from indexer.store.filters import EVERYTHING, Filter
from indexer.store.meta import Meta
from indexer.store.tile_tables import COLUMNS
from indexer.store.tiling import Box, Tiling
from indexer.store.vectors import BLOCK, VectorBlocks, sampled, unpacked

_VERIFIED = f"{', '.join(f'tiles.{column} AS {column}' for column in COLUMNS.split(', '))}, checksum"
_SEARCHABLE = f"tiles JOIN images ON images.id = tiles.image WHERE {READY}"


class EmbeddedTile(NamedTuple):
    """A part of a picture and its vector, float16 as bytes."""

    box: Box
    embedding: bytes


class TilePlaces(NamedTuple):
    """Tiles, by rising id: their numbers, their images', and where they lie, int64 `[n]`, `[n]` and `[n, 4]`."""

    ids: NDArray[np.int64]
    images: NDArray[np.int64]
    boxes: NDArray[np.int64]


class TileVectors(VectorBlocks):
    """The tiles' vectors of the images that can be searched, streamed. A `VectorSource`; ids are the tiles'."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.dim = catalog.meta().dim
        ((self._count,),) = catalog.read(f"SELECT count(*) FROM {_SEARCHABLE}")

    def __len__(self) -> int:
        return self._count

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """See `VectorSource.blocks`."""
        last = -1
        while True:
            query = f"SELECT {_VERIFIED} FROM {_SEARCHABLE} AND tiles.id > ? ORDER BY tiles.id LIMIT {size}"
            ids, vectors = self._unpack(list(self._catalog.read(query, [last])))
            if len(ids):
                yield ids, vectors
                last = int(ids[-1])
            if len(ids) < size:
                return

    def sample(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """See `VectorSource.sample`."""
        rows = self._catalog.read(f"SELECT tiles.id FROM {_SEARCHABLE}")
        return self.of(sampled(np.fromiter((identity for (identity,) in rows), np.int64), count))

    def of(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """See `VectorSource.of`."""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(ids), BLOCK):
            marks = ", ".join(map(str, ids[start : start + BLOCK].tolist()))
            rows += self._catalog.read(f"SELECT {_VERIFIED} FROM {_SEARCHABLE} AND tiles.id IN ({marks})")
        return self._unpack(sorted(rows))

    def places(self, first: int, last: int) -> dict[int, tuple[bytes, int]]:
        """See `VectorBlocks.places`."""
        query = f"SELECT tiles.id, path, mtime_ns FROM {_SEARCHABLE} AND tiles.id BETWEEN ? AND ?"
        return {tile: (path, mtime) for tile, path, mtime in self._catalog.read(query, [first, last])}

    def all_places(self, size: int) -> Iterator[dict[int, tuple[bytes, int]]]:
        """See `VectorBlocks.all_places`."""
        last = -1
        query = f"SELECT tiles.id, path, mtime_ns FROM {_SEARCHABLE} AND tiles.id > ? ORDER BY tiles.id LIMIT ?"
        while rows := list(self._catalog.read(query, [last, size])):
            yield {tile: (path, mtime) for tile, path, mtime in rows}
            last = rows[-1][0]

    def _unpack(self, rows: list[tuple[Any, ...]]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        return ids, unpacked(self._catalog, [row[6] for row in self._catalog.sound(rows)], self.dim)


def count(catalog: Catalog, wanted: Filter = EVERYTHING) -> int:
    """How many tiles the images have that can be searched and pass a filter."""
    where, values = _of(wanted)
    ((found,),) = catalog.read(f"SELECT count(*) FROM {_SEARCHABLE}{where}", values)
    return int(found)


def among(catalog: Catalog, wanted: Filter) -> NDArray[np.int64] | None:
    """Rising numbers of the tiles whose image passes; None where nothing is filtered by.

    Raises:
        MasslError: see `Filter.check`.
    """
    if not wanted:
        return None
    wanted.check(catalog)
    where, values = _of(wanted)
    rows = catalog.read(f"SELECT tiles.id FROM {_SEARCHABLE}{where} ORDER BY tiles.id", values)
    return np.fromiter((tile for (tile,) in rows), np.int64)


def passing(catalog: Catalog, wanted: Filter, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of some tiles whose image passes, rising."""
    where, values = _of(wanted)
    marks = ", ".join(map(str, np.unique(ids).tolist()))
    rows = catalog.read(
        f"SELECT tiles.id FROM {_SEARCHABLE}{where} AND tiles.id IN ({marks}) ORDER BY tiles.id", values
    )
    return np.fromiter((tile for (tile,) in rows), np.int64)


def _of(wanted: Filter) -> tuple[str, list[Any]]:
    """A further condition on tiles, and its values."""
    if not wanted:
        return "", []
    where, values = wanted.where()
    return f" AND tiles.image IN (SELECT images.id FROM images WHERE {where})", list(values)


def places(catalog: Catalog, ids: Sequence[int] | None = None) -> TilePlaces:
    """Where tiles lie: those of these numbers that there are, or all that can be searched."""
    query = f"SELECT tiles.id AS id, image, x, y, tiles.width, tiles.height FROM {_SEARCHABLE}"
    rows: list[tuple[Any, ...]] = []
    if ids is None:
        rows += catalog.read(query)
    else:
        for part in in_parts(ids):
            rows += catalog.read(f"{query} AND tiles.id IN ({', '.join('?' * len(part))})", part)
    table = np.array(sorted(rows), np.int64).reshape(len(rows), 6)
    return TilePlaces(table[:, 0], table[:, 1], table[:, 2:])


def of_images(catalog: Catalog, images: Sequence[int]) -> NDArray[np.int64]:
    """Rising numbers of the tiles of these images."""
    found: list[int] = []
    for part in in_parts(images):
        marks = ", ".join("?" * len(part))
        found += [tile for (tile,) in catalog.read(f"SELECT id FROM tiles WHERE image IN ({marks})", part)]
    return np.sort(np.array(found, np.int64))


def of_contents(catalog: Catalog, digests: Sequence[bytes]) -> dict[bytes, list[EmbeddedTile]]:
    """The tiles of these contents, where the catalog has an embedding of them, in any state."""
    owners: dict[int, bytes] = {}
    for part in parts(digests):
        marks = ", ".join("?" * len(part))
        query = f"SELECT hash, min(id) FROM images WHERE embedding IS NOT NULL AND hash IN ({marks}) GROUP BY hash"
        owners |= {image: digest for digest, image in catalog.read(query, part)}
    found: dict[bytes, list[EmbeddedTile]] = {digest: [] for digest in owners.values()}
    for images in in_parts(list(owners)):
        marks = ", ".join("?" * len(images))
        query = f"SELECT {COLUMNS}, checksum FROM tiles WHERE image IN ({marks}) ORDER BY id"
        for _, image, *box, embedding, _ in catalog.sound(catalog.read(query, images)):
            x, y, width, height = box
            found[owners[image]].append(EmbeddedTile((x, y, width, height), embedding))
    return found


def put(connection: sqlite3.Connection, image: int, tiles: Sequence[EmbeddedTile]) -> None:
    """Writes an image's tiles in place of those that it has, within the transaction that writes the image."""
    connection.execute("DELETE FROM tiles WHERE image = ?", (image,))
    connection.executemany(
        "INSERT INTO tiles (image, x, y, width, height, embedding) VALUES (?, ?, ?, ?, ?, ?)",
        [(image, *tile.box, tile.embedding) for tile in tiles],
    )


def drop(catalog: Catalog) -> None:
    """Makes the collection one without tiles; images keep their own embeddings."""
    with catalog.writing() as connection:
        connection.execute("DELETE FROM tiles")
        connection.execute("DELETE FROM tile_changes")
        connection.execute("DELETE FROM meta WHERE key LIKE 'vectors_tiles%'")
        connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", Meta.tiles.to(Tiling()))
