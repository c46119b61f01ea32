"""What is known of pictures beside their embeddings, read and written; see `indexer.store.fact_tables`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.store import checksums
from indexer.store.catalog import READY, Catalog, in_parts, to_bytes
from indexer.store.fact_tables import COLUMNS, MEASURES, METADATA
from indexer.store.paths import from_bytes
from massl.core.images.measures import HASH_BYTES, MEASURER, Measures
from massl.core.images.metadata import METADATA_READER, Metadata


class Unread(NamedTuple):
    """An image of which something is not known yet: its id, its path relative to the root, and its content's hash."""

    image: int
    path: str
    hash: bytes


class PictureFacts:
    """What is known of the pictures of a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def without_metadata(self, sidecars: Mapping[str, str]) -> list[Unread]:
        """Images whose file must be read, by path: nobody did, an earlier reader did, or the file beside it is another.

        Args:
            sidecars: the state of each that lies there now, by the path of its picture; see
                `massl.core.files.sidecars.Sidecar.state`.
        """
        query = (
            "SELECT images.id, path, hash, reader, sidecar FROM images "
            "LEFT JOIN file_metadata ON file_metadata.image = images.id "
            f"WHERE {READY} AND hash IS NOT NULL"
        )
        found = self._catalog.read(f"{query} AND (reader IS NOT ? OR sidecar <> '')", [METADATA_READER])
        rows = {row[0]: row for row in found}
        for part in _parts(list(sidecars)):
            marks = ", ".join("?" * len(part))
            named = self._catalog.read(f"{query} AND path IN ({marks})", [to_bytes(path) for path in part])
            rows |= {row[0]: row for row in named}
        wanted = []
        for image, path, digest, reader, sidecar in rows.values():
            name = from_bytes(path)
            if reader != METADATA_READER or sidecar != sidecars.get(name, ""):
                wanted.append(Unread(image, name, digest))
        return sorted(wanted, key=lambda item: item.path)

    def without_measures(self) -> list[Unread]:
        """Images whose pixels must be measured, by path."""
        rows = self._catalog.read(
            "SELECT images.id, path, hash FROM images LEFT JOIN pixel_measures ON pixel_measures.image = images.id "
            f"WHERE {READY} AND hash IS NOT NULL AND embedding IS NOT NULL AND measurer IS NOT ? ORDER BY path",
            [MEASURER],
        )
        return [Unread(image, from_bytes(path), digest) for image, path, digest in rows]

    def measured(self, digests: Sequence[bytes]) -> dict[bytes, Measures]:
        """What was measured of images of these contents."""
        found: dict[bytes, Measures] = {}
        for part in _parts(digests):
            marks = ", ".join("?" * len(part))
            query = (
                f"SELECT {MEASURES}, pixel_measures.checksum, hash FROM pixel_measures "
                f"JOIN images ON images.id = image WHERE measurer = {MEASURER} AND hash IN ({marks})"
            )
            rows = list(self._catalog.read(query, part))
            sound = self._catalog.sound(row[:-1] for row in rows)
            found |= {row[-1]: Measures(*values[2:-1]) for values, row in zip(sound, rows, strict=True)}
        return found

    def metadata(self, images: Sequence[int]) -> dict[int, Metadata]:
        """What is known of those of these images of which something is."""
        found: dict[int, Metadata] = {}
        for part in in_parts(images):
            marks = ", ".join("?" * len(part))
            query = f"SELECT {METADATA}, checksum FROM file_metadata WHERE image IN ({marks})"
            for row in self._catalog.sound(self._catalog.read(query, part)):
                found[row[0]] = _metadata(row)
        return found

    def keywords(self) -> dict[int, tuple[str, tuple[str, ...]]]:
        """Path and keywords of the searchable images that bring some, by id."""
        query = (
            f"SELECT {METADATA}, file_metadata.checksum, path FROM file_metadata JOIN images ON images.id = image "
            f"WHERE {READY} AND keywords <> '[]' ORDER BY path"
        )
        rows = list(self._catalog.read(query))
        sound = self._catalog.sound(row[:-1] for row in rows)
        return {
            known[0]: (from_bytes(row[-1]), _metadata(known).keywords) for known, row in zip(sound, rows, strict=True)
        }

    def taken(self, images: Sequence[int]) -> dict[int, str]:
        """When those of these images were taken that say so; see `massl.core.images.metadata.Metadata`."""
        found: dict[int, str] = {}
        for part in in_parts(images):
            marks = ", ".join("?" * len(part))
            query = f"SELECT image, taken FROM file_metadata WHERE taken IS NOT NULL AND image IN ({marks})"
            found |= dict(self._catalog.read(query, part))
        return found

    def measures(self, images: Sequence[int]) -> dict[int, Measures]:
        """What was measured of those of these images of which something was."""
        found: dict[int, Measures] = {}
        for part in in_parts(images):
            marks = ", ".join("?" * len(part))
            query = f"SELECT {MEASURES}, checksum FROM pixel_measures WHERE image IN ({marks})"
            for row in self._catalog.sound(self._catalog.read(query, part)):
                found[row[0]] = Measures(*row[2:-1])
        return found

    def hashes(self, images: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The perceptual hashes of images, also those within borders: positions among `images`, and uint8 `[H, 32]`.

        Args:
            images: ids, int64 `[N]`, in any order. Those without a hash are missing; some have two.
        """
        places = dict(zip(images.tolist(), range(len(images)), strict=True))
        found: list[int] = []
        hashes: list[bytes] = []
        query = f"SELECT image, whole_hash, trimmed_hash FROM pixel_measures WHERE measurer = {MEASURER}"
        for image, *both in self._catalog.read(query):
            for value in both:
                if value is not None and image in places:
                    if len(value) != HASH_BYTES:
                        raise self._catalog.damaged("a hash of pixels has another length")
                    found.append(places[image])
                    hashes.append(value)
        packed = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES)
        return np.array(found, np.int64), packed

    def write(self, metadata: Iterable[MetadataRow] = (), measures: Iterable[tuple[int, Measures]] = ()) -> None:
        """Writes what was read, in one transaction."""
        with self._catalog.writing() as connection:
            for row in metadata:
                put_metadata(connection, *row)
            for image, measured in measures:
                put_measures(connection, image, measured)

    def with_several_planes(self) -> set[int]:
        """Ids of the images with more than one picture in their file."""
        return {image for (image,) in self._catalog.read("SELECT image FROM file_metadata WHERE planes > 1")}

    def several_planes(self) -> dict[int, int]:
        """How many images have so many pictures in their file, of those with more than one."""
        rows = self._catalog.read(
            "SELECT planes, count(*) FROM file_metadata JOIN images ON images.id = image "
            f"WHERE planes > 1 AND {READY} GROUP BY planes ORDER BY planes"
        )
        return dict(rows)

    def planes(self) -> tuple[int, int]:
        """How many images are planes of stacks, and of how many stacks."""
        stack = "rtrim(CAST(path AS TEXT), '0123456789')"
        ((planes, stacks),) = self._catalog.read(
            f"SELECT count(*), count(DISTINCT {stack}) FROM file_metadata JOIN images ON images.id = image "
            f"WHERE planes = 0 AND {READY}"
        )
        return planes, stacks


class MetadataRow(NamedTuple):
    """What is to be written of an image; `sidecar` is the state of the file beside it, or nothing."""

    image: int
    metadata: Metadata
    sidecar: str


def put_metadata(connection: sqlite3.Connection, image: int, known: Metadata, sidecar: str) -> None:
    """Writes what an image brings with it, within a transaction."""
    words = json.dumps(list(known.keywords), ensure_ascii=False)
    values = (known.taken, known.offset, known.make, known.model, known.orientation, known.rating, words, known.planes)
    _put(connection, "file_metadata", (image, METADATA_READER, sidecar, *values))


def put_measures(connection: sqlite3.Connection, image: int, measured: Measures) -> None:
    """Writes what was measured of an image, within a transaction."""
    _put(connection, "pixel_measures", (image, MEASURER, *vars(measured).values()))


def forget_changed(connection: sqlite3.Connection, image: int, digest: bytes) -> None:
    """Removes what is known of an image whose content is another now, within a transaction, before that is written."""
    for table in COLUMNS:
        connection.execute(
            f"DELETE FROM {table} WHERE image = ? "
            "AND EXISTS (SELECT 1 FROM images WHERE images.id = ? AND hash IS NOT ?)",
            (image, image, digest),
        )


def forget_measures(connection: sqlite3.Connection) -> None:
    """Removes what was measured of pixels, within a transaction."""
    connection.execute("DELETE FROM pixel_measures")


def _put(connection: sqlite3.Connection, table: str, values: tuple[Any, ...]) -> None:
    marks = ", ".join("?" * (len(values) + 1))
    connection.execute(
        f"INSERT OR REPLACE INTO {table} ({COLUMNS[table]}, checksum) VALUES ({marks})",
        (*values, checksums.checksum(*values)),
    )


def _metadata(row: Sequence[Any]) -> Metadata:
    _, _, _, taken, offset, make, model, orientation, rating, keywords, planes, _ = row
    return Metadata(taken, offset, make, model, orientation, rating, tuple(json.loads(keywords)), planes)


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """As `indexer.store.catalog.parts`, of values that a statement has beside others."""
    for start in range(0, len(values), 10_000):
        yield values[start : start + 10_000]
