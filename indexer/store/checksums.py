"""Checksums of a catalog's rows: what SQLite doesn't have, so that a flipped bit in a value is noticed.

A row's checksum is the CRC-32 of its values as Python writes a tuple of them. Triggers set it to NULL whenever a value
changes, whoever changes it; every transaction of ours ends by filling in what is NULL. So NULL means "not known", and
a checksum that differs means that the disk changed the row.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from indexer.store.decision_tables import TABLES
from indexer.store.tile_tables import COLUMNS as TILE

# Columns of the tables, those that a checksum is of.
IMAGE = "id, path, size, mtime_ns, ctime_ns, hash, width, height, state, reason"
EMBEDDING = "id, hash, embedding"
LABEL = "image, label, author, at"
META = "key, value"

_SEALED_AT_ONCE = 2_000  # images in a transaction: a catalog of an earlier format has them all without a checksum

SCHEMA = """
ALTER TABLE images ADD COLUMN row_checksum INTEGER;
ALTER TABLE images ADD COLUMN embedding_checksum INTEGER;
ALTER TABLE labels ADD COLUMN checksum INTEGER;
ALTER TABLE meta ADD COLUMN checksum INTEGER;
CREATE INDEX images_unsealed ON images (id) WHERE row_checksum IS NULL;
CREATE INDEX labels_unsealed ON labels (image) WHERE checksum IS NULL;
CREATE TRIGGER image_unsealed
    AFTER UPDATE OF id, path, size, mtime_ns, ctime_ns, hash, width, height, state, reason, embedding ON images
    BEGIN UPDATE images SET row_checksum = NULL, embedding_checksum = NULL WHERE id = NEW.id; END;
CREATE TRIGGER label_unsealed AFTER UPDATE OF image, label, author, at ON labels
    BEGIN UPDATE labels SET checksum = NULL WHERE image = NEW.image; END;
CREATE TRIGGER meta_unsealed AFTER UPDATE OF key, value ON meta
    BEGIN UPDATE meta SET checksum = NULL WHERE key = NEW.key; END;
"""

_SEALING = (
    f"UPDATE images SET row_checksum = checksum({IMAGE}), "
    f"embedding_checksum = iif(embedding IS NULL, NULL, checksum({EMBEDDING})) "
    f"WHERE id IN (SELECT id FROM images WHERE row_checksum IS NULL ORDER BY id DESC LIMIT {_SEALED_AT_ONCE})",
    f"UPDATE labels SET checksum = checksum({LABEL}) WHERE checksum IS NULL",
    *(
        f"UPDATE {name} SET checksum = checksum({table.columns}) WHERE checksum IS NULL"
        for name, table in TABLES.items()
    ),
    f"UPDATE tiles SET checksum = checksum({TILE}) WHERE checksum IS NULL",
    f"UPDATE meta SET checksum = checksum({META}) WHERE checksum IS NULL",
)


def checksum(*values: Any) -> int:
    """CRC-32 of a row's values: integers, texts, bytes and None."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def register(connection: sqlite3.Connection) -> None:
    """Lets a connection's statements call `checksum`."""
    connection.create_function("checksum", -1, checksum, deterministic=True)


def seal(connection: sqlite3.Connection) -> None:
    """Fills in the checksums of rows that were written, within the transaction that wrote them."""
    for statement in _SEALING:
        connection.execute(statement)


def unsealed(connection: sqlite3.Connection) -> bool:
    """Whether images are left without a checksum."""
    return connection.execute("SELECT 1 FROM images WHERE row_checksum IS NULL LIMIT 1").fetchone() is not None


def is_sound(row: Sequence[Any]) -> bool:
    """Whether a row is as it was written: values of one of the constants above, and their checksum behind them."""
    return row[-1] is None or row[-1] == checksum(*row[:-1])


def damaged(rows: Iterable[Sequence[Any]]) -> list[Any]:
    """The first values of rows that are not as they were written."""
    return [row[0] for row in rows if not is_sound(row)]
