"""The images of a catalog, by their rows: which there are, where they lie, what they hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.store.catalog import READY, Catalog, in_parts, parts, to_bytes
from indexer.store.checksums import IMAGE
from indexer.store.filters import EVERYTHING, Filter, in_order, modified
from indexer.store.filters import count as passing
from indexer.store.image_facts import Facts
from indexer.store.ordering import Placed, ordered
from indexer.store.paths import can_name_a_file, from_bytes
from indexer.store.picture_facts import PictureFacts
from massl.core.errors import MasslError
from massl.core.files.scan import ImageFile, Skipped

_FEWEST_DIGITS = 12  # of a content's name: fewer might mean several


class ImageRow(NamedTuple):
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


class FileFacts(NamedTuple):
    """A file's path, relative to the root, its size in bytes, its pixels, and when it was last modified."""

    path: str
    size: int
    width: int
    height: int
    mtime_ns: int


class Images:
    """The images of a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def count(self, wanted: Filter = EVERYTHING) -> int:
        """How many can be searched, of those that pass a filter."""
        if wanted:
            return passing(self._catalog, wanted)
        ((found,),) = self._catalog.read("SELECT count(*) FROM images WHERE state = 'ready'")
        return found

    def unembedded(self) -> int:
        """How many can be searched but for their embedding."""
        ((found,),) = self._catalog.read(f"SELECT count(*) FROM images WHERE {READY} AND embedding IS NULL")
        return found

    def ready(self, limit: int = -1, offset: int = 0) -> list[tuple[int, str]]:
        """Ids and paths of those that can be searched, by path."""
        rows = self._catalog.read(
            "SELECT id, path FROM images WHERE state = 'ready' ORDER BY path LIMIT ? OFFSET ?", [limit, offset]
        )
        return [(identity, from_bytes(path)) for identity, path in rows]

    def rows(self) -> dict[bytes, ImageRow]:
        """All of them, in any state, by their path as the catalog stores it; without their hashes."""
        found = self._catalog.read("SELECT id, path, size, mtime_ns, ctime_ns, state FROM images")
        return {row[1]: ImageRow(*row) for row in found}

    def without_embedding(self) -> set[int]:
        """Ids of all that have no embedding, in any state."""
        return {row[0] for row in self._catalog.read("SELECT id FROM images WHERE embedding IS NULL")}

    def skipped(self) -> list[Skipped]:
        """Every file and folder that is passed over at present, by path."""
        found = self._catalog.read("SELECT path, reason FROM images WHERE state = 'skipped' ORDER BY path")
        return [Skipped(from_bytes(path), reason) for path, reason in found]

    def at_path(self, path: str) -> tuple[int, str, str | None] | None:
        """Id, state and reason of what lies under this path, relative to the root; None for nothing."""
        if not can_name_a_file(path):
            return None
        return next(self._catalog.read("SELECT id, state, reason FROM images WHERE path = ?", [to_bytes(path)]), None)

    def file_of(self, image: int) -> tuple[str, bytes] | None:
        """Path and content's hash of a searchable image; None where there is none."""
        row = next(self._catalog.read(f"SELECT path, hash FROM images WHERE id = ? AND {READY}", [image]), None)
        return None if row is None else (from_bytes(row[0]), row[1])

    def by_id(self, ids: NDArray[np.int64]) -> list[str]:
        """Paths of those of these rising ids that there are, in any state, in the order of ids."""
        marks = ", ".join(map(str, ids.tolist()))
        found = self._catalog.read(f"SELECT path FROM images WHERE id IN ({marks}) ORDER BY id")
        return [from_bytes(path) for (path,) in found]

    def file_facts(self, ids: Sequence[int]) -> dict[int, FileFacts]:
        """The files of those of these images that there are, in any state."""
        found: dict[int, FileFacts] = {}
        for part in in_parts(ids):
            marks = ", ".join("?" * len(part))
            query = f"SELECT id, path, size, width, height, mtime_ns FROM images WHERE id IN ({marks})"
            found |= {row[0]: FileFacts(from_bytes(row[1]), *row[2:]) for row in self._catalog.read(query, part)}
        return found

    def sides(self, ids: Sequence[int]) -> dict[int, tuple[str, int, int]]:
        """Path, width and height in pixels of those of these images that can be searched; 0 for an unknown side."""
        found: dict[int, tuple[str, int, int]] = {}
        for part in in_parts(ids):
            marks = ", ".join("?" * len(part))
            query = f"SELECT id, path, width, height FROM images WHERE {READY} AND id IN ({marks})"
            for image, path, width, height in self._catalog.read(query, part):
                found[image] = from_bytes(path), width or 0, height or 0
        return found

    def files(self, wanted: Filter, embedded: bool) -> Iterator[StoredFile]:
        """The files of the searchable images that pass a filter.

        Args:
            wanted: the filter, checked already.
            embedded: only those that have an embedding.

        Raises:
            CatalogDamaged: one has no hash or no size.
        """
        where, values = wanted.where()
        query = f"SELECT id, path, hash, size, width, height, mtime_ns FROM images WHERE {where}"
        if embedded:
            query += " AND embedding IS NOT NULL"
        for row in self._catalog.read(query, values):
            if None in row:
                raise self._catalog.damaged("an image has no hash or no size")
            yield StoredFile(*row)

    def hashes(self, ids: Sequence[int]) -> dict[int, bytes | None]:
        """The content's hash of those of these images that there are, in any state; None where it isn't known."""
        found: dict[int, bytes | None] = {}
        for part in in_parts(ids):
            marks = ", ".join("?" * len(part))
            found |= {
                row[0]: row[1] for row in self._catalog.read(f"SELECT id, hash FROM images WHERE id IN ({marks})", part)
            }
        return found

    def known_hashes(self, digests: Collection[bytes]) -> set[bytes]:
        """Which of these contents the catalog has, in any state."""
        found: set[bytes] = set()
        for part in parts(list(digests)):
            marks = ", ".join("?" * len(part))
            found |= {row[0] for row in self._catalog.read(f"SELECT hash FROM images WHERE hash IN ({marks})", part)}
        return found

    def contents(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Rising ids of the embedded images that can be searched, `[N]`, and each content's hash's first 8 bytes."""
        pairs = list(
            self._catalog.read(
                f"SELECT id, substr(hash, 1, 8) FROM images WHERE {READY} AND embedding IS NOT NULL ORDER BY id"
            )
        )
        begun = b"".join((digest or b"").ljust(8, b"\0") for _, digest in pairs)
        return np.fromiter((identity for identity, _ in pairs), np.int64, len(pairs)), np.frombuffer(begun, np.uint64)

    def paths_of(self, images: Sequence[int]) -> list[str]:
        """Paths of searchable images by id, in the order given.

        Raises:
            MasslError: one of them is not there, or no longer.
        """
        paths: dict[int, str] = {}
        for part in in_parts(images):
            marks = ", ".join("?" * len(part))
            query = f"SELECT {IMAGE}, row_checksum FROM images WHERE {READY} AND id IN ({marks})"
            paths |= {row[0]: from_bytes(row[1]) for row in self._catalog.sound(self._catalog.read(query, part))}
        try:
            return [paths[int(image)] for image in images]
        except KeyError:
            raise MasslError("one of these images is no longer in the collection; reload the page") from None

    def with_labels(self, images: Sequence[int]) -> dict[int, tuple[str, str | None]]:
        """Path and label of each of these images, None for no label; without those that are not in the collection."""
        found: dict[int, tuple[str, str | None]] = {}
        for part in in_parts(images):
            marks = ", ".join("?" * len(part))
            query = (
                f"SELECT {IMAGE}, row_checksum, label FROM images LEFT JOIN labels ON labels.image = images.id "
                f"WHERE {READY} AND images.id IN ({marks})"
            )
            rows = list(self._catalog.read(query, part))
            sound = self._catalog.sound(row[:-1] for row in rows)
            found |= {row[0]: (from_bytes(row[1]), given[-1]) for row, given in zip(sound, rows, strict=True)}
        return found

    def described(self, images: Sequence[int]) -> list[tuple[int, str, str | None]]:
        """Id, path and label of these images, in their order, without those that are not in the collection."""
        found = self.with_labels(images)
        return [(image, *found[image]) for image in images if image in found]

    def facts(self, image: int) -> Facts:
        """What is known of an image.

        Raises:
            MasslError: it is no longer in the collection.
        """
        rows = self._catalog.read(
            "SELECT path, hash, size, mtime_ns, width, height, label, author FROM images "
            f"LEFT JOIN labels ON labels.image = images.id WHERE images.id = ? AND {READY}",
            [image],
        )
        for path, content, size, mtime_ns, width, height, label, author in rows:
            if content is None:
                raise self._catalog.damaged("an image has no hash")
            changed = None if mtime_ns == -1 else modified(mtime_ns)
            known = PictureFacts(self._catalog)
            said, measured = known.metadata([image]).get(image), known.measures([image]).get(image)
            file = (from_bytes(path), content.hex(), size, changed, width, height)
            return Facts(image, *file, label, author, said, measured)
        raise MasslError("this picture is no longer in the collection; reload the page")

    def of_content(self, content: str) -> int:
        """The id of an image with this content: the first 12 or more hexadecimal digits of its SHA-256.

        Of several copies, the first by path.

        Raises:
            MasslError: no image of the collection has it.
        """
        if re.fullmatch(rf"[0-9a-f]{{{_FEWEST_DIGITS},64}}", content):
            span = [bytes.fromhex(content.ljust(64, digit)) for digit in "0f"]
            rows = self._catalog.read(
                f"SELECT id FROM images WHERE hash BETWEEN ? AND ? AND {READY} ORDER BY path LIMIT 1", span
            )
            for (image,) in rows:
                return image
        raise MasslError("this search used a picture that is no longer in the collection")

    def check(self, wanted: Filter) -> None:
        """Raises a `MasslError` unless some image carries each label, lies in each folder, and has such a date."""
        wanted.check(self._catalog)

    def browse(
        self, wanted: Filter = EVERYTHING, after: str = "", limit: int = 100
    ) -> list[tuple[int, str, str | None]]:
        """Id, path and label of images by path; see `indexer.store.filters.in_order`.

        Raises:
            MasslError: no image carries a label, or lies in a folder, that is filtered by.
        """
        wanted.check(self._catalog)
        return in_order(self._catalog, wanted, after, limit)

    def ordered(
        self, by: str, wanted: Filter = EVERYTHING, limit: int = -1, images: Sequence[int] | None = None
    ) -> list[Placed]:
        """The images that pass, or those of `images`, in an order of `indexer.store.ordering.ORDERS`.

        Raises:
            MasslError: there is no such order, or no image that a filter asks for.
        """
        wanted.check(self._catalog)
        return ordered(self._catalog, by, wanted, limit, images)

    def left_out(self) -> dict[str, int]:
        """How many pictures that aren't read, and of what else the last update left out, by kind."""
        return self._catalog.meta().left_out
