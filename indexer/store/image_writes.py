"""What the indexer writes about images: where they lie now, what was read of them, what can't be read. A transaction
each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from indexer.store import decision_tables, meta
from indexer.store.catalog import Catalog, to_bytes
from indexer.store.images import ImageRow
from indexer.store.meta import Meta, Written
from indexer.store.picture_facts import forget_changed, forget_measures, put_measures, put_metadata
from indexer.store.tiles import EmbeddedTile
from indexer.store.tiles import put as put_tiles
from massl.core.files.scan import ImageFile, Skipped
from massl.core.images.measures import Measures
from massl.core.images.metadata import Metadata

_STATE = "state = CASE WHEN embedding IS NULL AND reason IS NOT NULL THEN 'skipped' ELSE 'ready' END"
_TIMES = "size = ?, mtime_ns = CASE mtime_ns WHEN -1 THEN -1 ELSE ? END, ctime_ns = ?"


class EmbeddedFile(NamedTuple):
    """A file that was read, to be written: `image` is the id of its row, None for a new one; `embedding` is float16.

    `metadata` and `measures` are None where nobody looked: what is known of the same content stays. `tiles` replace
    those that the image has.
    """

    image: int | None
    file: ImageFile
    hash: bytes
    width: int
    height: int
    embedding: bytes
    metadata: Metadata | None = None
    measures: Measures | None = None
    tiles: Sequence[EmbeddedTile] = ()


class UnreadableFile(NamedTuple):
    """A file that can't be read, and why; `hash` where its content is known all the same."""

    file: ImageFile
    reason: str
    hash: bytes | None


def write_batch(
    catalog: Catalog, batch: Iterable[EmbeddedFile | UnreadableFile], facts: Iterable[Written] = ()
) -> None:
    """Writes what was read of some files, and facts of the collection that follow from them."""
    with catalog.writing() as connection:
        # With every batch, so that no kill can leave a cache that looks current.
        _next_generation(connection)
        for item in batch:
            if isinstance(item, UnreadableFile):
                _write_skipped(connection, *item)
                continue
            values = (*_times(item.file), item.hash, item.width, item.height, item.embedding)
            if item.image is None:
                cursor = connection.execute(
                    "INSERT INTO images (path, size, mtime_ns, ctime_ns, hash, width, height, embedding, state) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'ready')",
                    (to_bytes(item.file.path), *values),
                )
                image = cursor.lastrowid or 0
            else:
                image = item.image
                forget_changed(connection, image, item.hash)
                connection.execute(
                    "UPDATE images SET size = ?, mtime_ns = ?, ctime_ns = ?, hash = ?, width = ?, height = ?, "
                    "embedding = ?, state = 'ready', reason = NULL WHERE id = ?",
                    (*values, image),
                )
            if item.metadata is not None:
                put_metadata(connection, image, item.metadata, item.file.sidecar.state if item.file.sidecar else "")
            if item.measures is not None:
                put_measures(connection, image, item.measures)
            if item.tiles:
                put_tiles(connection, image, item.tiles)
        meta.write(connection, facts)


def write_places(
    catalog: Catalog,
    moved: Sequence[tuple[ImageRow, ImageFile]],
    kept: Sequence[tuple[ImageRow, ImageFile]],
    vanished: Sequence[ImageRow],
    displaced: Sequence[ImageRow],
    passed_over: Sequence[Skipped],
) -> None:
    """Writes everything that needs no embedding, in one transaction: what is seen is the folder before or after.

    Args:
        catalog: is written.
        moved: images whose content now lies under another path.
        kept: images with the content of before, whose times changed or which have come back.
        vanished: images without a file.
        displaced: images without a file, whose path another file has taken.
        passed_over: what lies there and is no image that can be read.
    """
    with catalog.writing() as connection:
        # Paths are unique, and images may have changed places: first all leave, then all arrive.
        leaving = [*(row for row, _ in moved), *displaced]
        connection.executemany(
            "UPDATE images SET path = ? WHERE id = ?", [(b"\0%d" % row.id, row.id) for row in leaving]
        )
        connection.executemany(
            "UPDATE images SET state = 'gone' WHERE id = ?", [(row.id,) for row in (*vanished, *displaced)]
        )
        connection.executemany(
            f"UPDATE images SET path = ?, {_TIMES}, {_STATE} WHERE id = ?",
            [(to_bytes(file.path), *_times(file), row.id) for row, file in moved],
        )
        connection.executemany(
            f"UPDATE images SET {_TIMES}, {_STATE} WHERE id = ?", [(*_times(file), row.id) for row, file in kept]
        )
        for item in passed_over:
            _write_skipped(connection, ImageFile(item.path, 0, -1), item.reason)
        # What was never embedded and says nothing of anything: skipped files that have gone.
        connection.execute(
            "DELETE FROM images WHERE state = 'gone' AND embedding IS NULL "
            f"AND id NOT IN (SELECT image FROM labels UNION {decision_tables.IMAGES})"
        )
        if moved:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES ('moves', '1') "
                "ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
            )
        back = any(row.state != "ready" for row, _ in (*moved, *kept))
        if back or vanished or displaced:
            _next_generation(connection)


def look_again(catalog: Catalog, readers: str, max_pixels: int, too_large_only: bool) -> None:
    """Has skipped files read anew, and remembers by what they are read: `readers`, up to so many pixels.

    Args:
        catalog: is written.
        readers: what reads images, with versions.
        max_pixels: the largest image that is read.
        too_large_only: only those that were too large.
    """
    which = "reason LIKE 'too large%'" if too_large_only else "TRUE"
    with catalog.writing() as connection:
        connection.execute(f"UPDATE images SET mtime_ns = -1 WHERE state = 'skipped' AND {which}")
        meta.write(connection, [Meta.readers.to(readers), Meta.readers_max_pixels.to(max_pixels)])


def forget_embeddings(catalog: Catalog, encoder: Iterable[Written], shown_otherwise: bool = False) -> None:
    """Makes the collection another encoder's, size's or range's: embeddings and all that follows from them go.

    Args:
        catalog: is written.
        encoder: the facts that tell of the encoder, to be replaced.
        shown_otherwise: pictures look otherwise from now on, so that what was measured of them goes too.
    """
    with catalog.writing() as connection:
        connection.execute("UPDATE images SET embedding = NULL")
        meta.forget_embeddings(connection)
        if shown_otherwise:
            meta.forget(connection, Meta.kind_ranges)
            forget_measures(connection)
        meta.write(connection, encoder)


def _times(file: ImageFile) -> tuple[int, int, int]:
    return file.size, file.mtime_ns, file.ctime_ns


def _next_generation(connection: sqlite3.Connection) -> None:
    """Marks the vectors on disk as those of an earlier state."""
    connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")


def _write_skipped(connection: sqlite3.Connection, file: ImageFile, reason: str, digest: bytes | None = None) -> None:
    # Of a file that can't be read the hash of before stays: by it its label is found again.
    connection.execute(
        "INSERT INTO images (path, size, mtime_ns, ctime_ns, hash, state, reason) VALUES (?, ?, ?, ?, ?, 'skipped', ?) "
        "ON CONFLICT (path) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, "
        "ctime_ns = excluded.ctime_ns, hash = coalesce(excluded.hash, hash), state = 'skipped', "
        "reason = excluded.reason, embedding = NULL",
        (to_bytes(file.path), *_times(file), digest, reason),
    )
