"""The images of a catalog, by their rows: which there are, where they lie, what they hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.store.catalog import READY, Catalog, in_parts, parts, to_bytes
from indexer.store.filters import Filter
from indexer.store.paths import from_bytes
from massl.core.files.scan import ImageFile, Skipped


class Row(NamedTuple):
    """An image in any state. `hash` is None where it isn't known, or wasn't asked for yet."""

    id: int
    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int
    state: str
    hash: bytes | None = None

    def is_as(self, file: ImageFile) -> bool:
        """Whether the file can't have changed since: same size, and no time of change is another.

        The second time (of the inode) is what tells two files of equal size and date that changed places. Catalogs
        of the first format don't have it.
        """
        return (self.size, self.mtime_ns) == (file.size, file.mtime_ns) and self.ctime_ns in (-1, file.ctime_ns)


@dataclass(frozen=True)
class StoredFile:
    """The file of a searchable image: its id, its path as the catalog stores it, and what it holds."""

    image: int
    path: bytes
    hash: bytes
    size: int
    width: int
    height: int
    mtime_ns: int


class Described(NamedTuple):
    """A file's path, relative to the root, its size in bytes, its pixels, and when it was last modified."""

    path: str
    size: int
    width: int
    height: int
    mtime_ns: int


def count(catalog: Catalog) -> int:
    """How many can be searched."""
    ((found,),) = catalog.read("SELECT count(*) FROM images WHERE state = 'ready'")
    return found


def unembedded(catalog: Catalog) -> int:
    """How many can be searched but for their embedding."""
    ((found,),) = catalog.read(f"SELECT count(*) FROM images WHERE {READY} AND embedding IS NULL")
    return found


def ready(catalog: Catalog, limit: int = -1, offset: int = 0) -> list[tuple[int, str]]:
    """Ids and paths of those that can be searched, by path."""
    rows = catalog.read(
        "SELECT id, path FROM images WHERE state = 'ready' ORDER BY path LIMIT ? OFFSET ?", [limit, offset]
    )
    return [(identity, from_bytes(path)) for identity, path in rows]


def rows(catalog: Catalog) -> dict[bytes, Row]:
    """All of them, in any state, by their path as the catalog stores it; without their hashes."""
    found = catalog.read("SELECT id, path, size, mtime_ns, ctime_ns, state FROM images")
    return {row[1]: Row(*row) for row in found}


def without_embedding(catalog: Catalog) -> set[int]:
    """Ids of all that have no embedding, in any state."""
    return {row[0] for row in catalog.read("SELECT id FROM images WHERE embedding IS NULL")}


def skipped(catalog: Catalog) -> list[Skipped]:
    """Every file and folder that is passed over at present, by path."""
    found = catalog.read("SELECT path, reason FROM images WHERE state = 'skipped' ORDER BY path")
    return [Skipped(from_bytes(path), reason) for path, reason in found]


def at_path(catalog: Catalog, path: str) -> tuple[int, str, str | None] | None:
    """Id, state and reason of what lies under this path, relative to the root; None for nothing."""
    return next(catalog.read("SELECT id, state, reason FROM images WHERE path = ?", [to_bytes(path)]), None)


def file_of(catalog: Catalog, image: int) -> tuple[str, bytes] | None:
    """Path and content's hash of a searchable image; None where there is none."""
    row = next(catalog.read(f"SELECT path, hash FROM images WHERE id = ? AND {READY}", [image]), None)
    return None if row is None else (from_bytes(row[0]), row[1])


def by_id(catalog: Catalog, ids: NDArray[np.int64]) -> list[str]:
    """Paths of those of these rising ids that there are, in any state, in the order of ids."""
    marks = ", ".join(map(str, ids.tolist()))
    found = catalog.read(f"SELECT path FROM images WHERE id IN ({marks}) ORDER BY id")
    return [from_bytes(path) for (path,) in found]


def described(catalog: Catalog, ids: Sequence[int]) -> dict[int, Described]:
    """The files of those of these images that there are, in any state."""
    found: dict[int, Described] = {}
    for part in in_parts(ids):
        marks = ", ".join("?" * len(part))
        query = f"SELECT id, path, size, width, height, mtime_ns FROM images WHERE id IN ({marks})"
        found |= {row[0]: Described(from_bytes(row[1]), *row[2:]) for row in catalog.read(query, part)}
    return found


def sides(catalog: Catalog, ids: Sequence[int]) -> dict[int, tuple[str, int, int]]:
    """Path, width and height in pixels of those of these images that can be searched; 0 for a side that isn't known."""
    found: dict[int, tuple[str, int, int]] = {}
    for part in in_parts(ids):
        marks = ", ".join("?" * len(part))
        query = f"SELECT id, path, width, height FROM images WHERE {READY} AND id IN ({marks})"
        for image, path, width, height in catalog.read(query, part):
            found[image] = from_bytes(path), width or 0, height or 0
    return found


def files(catalog: Catalog, wanted: Filter, embedded: bool) -> Iterator[StoredFile]:
    """The files of the searchable images that pass a filter.

    Args:
        catalog: whose.
        wanted: the filter, checked already.
        embedded: only those that have an embedding.

    Raises:
        CatalogDamaged: one has no hash or no size.
    """
    where, values = wanted.where()
    query = f"SELECT id, path, hash, size, width, height, mtime_ns FROM images WHERE {where}"
    if embedded:
        query += " AND embedding IS NOT NULL"
    for row in catalog.read(query, values):
        if None in row:
            raise catalog.damaged("an image has no hash or no size")
        yield StoredFile(*row)


def hashes(catalog: Catalog, ids: Sequence[int]) -> dict[int, bytes | None]:
    """The content's hash of those of these images that there are, in any state; None where it isn't known."""
    found: dict[int, bytes | None] = {}
    for part in in_parts(ids):
        marks = ", ".join("?" * len(part))
        found |= {row[0]: row[1] for row in catalog.read(f"SELECT id, hash FROM images WHERE id IN ({marks})", part)}
    return found


def known_hashes(catalog: Catalog, digests: Collection[bytes]) -> set[bytes]:
    """Which of these contents the catalog has, in any state."""
    found: set[bytes] = set()
    for part in parts(list(digests)):
        marks = ", ".join("?" * len(part))
        found |= {row[0] for row in catalog.read(f"SELECT hash FROM images WHERE hash IN ({marks})", part)}
    return found


def contents(catalog: Catalog) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Rising ids of the embedded images that can be searched, `[N]`, and the first 8 bytes of each content's hash."""
    pairs = list(
        catalog.read(f"SELECT id, substr(hash, 1, 8) FROM images WHERE {READY} AND embedding IS NOT NULL ORDER BY id")
    )
    begun = b"".join((digest or b"").ljust(8, b"\0") for _, digest in pairs)
    return np.fromiter((identity for identity, _ in pairs), np.int64, len(pairs)), np.frombuffer(begun, np.uint64)
