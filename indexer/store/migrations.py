"""The catalog's schema, and how a catalog of an earlier format comes to it: one function a step, in place.

Each runs within one transaction, after which the catalog says its new number. None reads an image: what a step can't
know, it leaves as not known (-1, NULL), and whoever learns it next writes it.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing

from indexer.store import checksums, journal, schema

VERSION = 4

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,          -- relative to the root, the bytes of the file system: names need not be UTF-8,
                                        -- or a zero byte and the id, of a gone one whose path another has now
    size INTEGER NOT NULL,              -- bytes
    mtime_ns INTEGER NOT NULL,          -- -1: look at it again whatever it says
    ctime_ns INTEGER NOT NULL DEFAULT -1, -- -1: not known
    hash BLOB,                          -- SHA-256 of the file
    width INTEGER, height INTEGER,      -- pixels, upright
    state TEXT NOT NULL CHECK (state IN ('ready', 'skipped', 'gone')),
    reason TEXT,                        -- why it was skipped
    embedding BLOB                      -- float16 [D]
);
CREATE INDEX images_by_hash ON images (hash);
CREATE INDEX images_by_state ON images (state, path, size, mtime_ns, ctime_ns);
CREATE INDEX images_unembedded ON images (id) WHERE embedding IS NULL;
CREATE TABLE labels (
    image INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    author TEXT NOT NULL,
    at TEXT NOT NULL                    -- ISO 8601, UTC
);
CREATE TABLE decisions (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,                 -- 'distinct' (of two near duplicates), 'rejected' (of a proposed label)
    about TEXT NOT NULL,                -- the other image's id, or the label
    at TEXT NOT NULL,
    PRIMARY KEY (image, kind, about)
) WITHOUT ROWID;
"""

# Whoever writes a vector, makes an image searchable or takes it out of sight: the index learns of it here. Numbers are
# never used twice.
_CHANGES = """
CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, image INTEGER NOT NULL);
CREATE TRIGGER image_added AFTER INSERT ON images WHEN NEW.embedding IS NOT NULL
    BEGIN INSERT INTO changes (image) VALUES (NEW.id); END;
CREATE TRIGGER image_changed AFTER UPDATE OF embedding, state ON images
    WHEN OLD.embedding IS NOT NEW.embedding OR OLD.state IS NOT NEW.state
    BEGIN INSERT INTO changes (image) VALUES (NEW.id); END;
CREATE TRIGGER image_deleted AFTER DELETE ON images
    BEGIN INSERT INTO changes (image) VALUES (OLD.id); END;
"""


def from_1_to_2(connection: sqlite3.Connection) -> None:
    """Adds the second time of change, by which two files of equal size and date that changed places are told apart.

    It is not known of files that were indexed before. Images without an embedding get an index of their own, as a
    rebuild asks for them again and again.
    """
    connection.execute("ALTER TABLE images ADD COLUMN ctime_ns INTEGER NOT NULL DEFAULT -1")
    connection.execute("DROP INDEX images_by_state")
    connection.execute("CREATE INDEX images_by_state ON images (state, path, size, mtime_ns, ctime_ns)")
    connection.execute("CREATE INDEX images_unembedded ON images (id) WHERE embedding IS NULL")


def from_2_to_3(connection: sqlite3.Connection) -> None:
    """Notes every change of a vector, so that an index is amended rather than built anew.

    An index that was built before notes nothing, and is forgotten.
    """
    _run(connection, _CHANGES)
    connection.execute("DELETE FROM meta WHERE key LIKE 'vectors_%'")


def from_3_to_4(connection: sqlite3.Connection) -> None:
    """Adds a checksum to every row, by which damage is noticed, and what the journal is written from.

    Rows have no checksum at first; `Catalog.seal` gives it to images, each transaction to the others.
    """
    _run(connection, checksums.SCHEMA + journal.SCHEMA)


STEPS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: from_1_to_2, 2: from_2_to_3, 3: from_3_to_4}
"""From each earlier format to the next."""


def make(connection: sqlite3.Connection) -> None:
    """Makes the tables, indexes and triggers of today's format in an empty file."""
    _run(connection, _SCHEMA + _CHANGES + checksums.SCHEMA + journal.SCHEMA)


@functools.cache
def schema_of(version: int) -> schema.Schema:
    """The schema of a format: the first format's, as the steps up to it make it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _run(connection, schema.FIRST)
        for step in range(1, version):
            STEPS[step](connection)
        return schema.of(connection)


def _run(connection: sqlite3.Connection, text: str) -> None:
    # A statement at a time: executescript would commit before the meta rows are in.
    for statement in schema.statements(text):
        connection.execute(statement)
