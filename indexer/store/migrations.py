"""The catalog's schema, and how a catalog of an earlier format comes to it: one function a step, in place.

Each runs within one transaction, after which the catalog says its new number. None reads an image: what a step can't
know, it leaves as not known (-1, NULL), and whoever learns it next writes it.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing

from indexer.store import checksums, decision_tables, fact_tables, journal, schema, tile_tables
from indexer.store.decision_tables import TABLES

VERSION = 9

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

# How often labels, decisions and tags changed, by which caches tell that they did; see `indexer.store.revision`.
_COUNTED = {
    "labels": ("labels", checksums.LABEL),
    "kept_both": ("duplicates", TABLES["kept_both"].columns),
    "kept_instead": ("duplicates", TABLES["kept_instead"].columns),
    "rejected_labels": ("rejections", TABLES["rejected_labels"].columns),
    "confirmed_labels": ("confirmations", TABLES["confirmed_labels"].columns),
}
_TAGS_COUNTED = {
    "tags": ("tags", TABLES["tags"].columns),
    "rejected_tags": ("rejected_tags", TABLES["rejected_tags"].columns),
}


def _counting(counted: Mapping[str, tuple[str, str]]) -> str:
    return "".join(
        f"CREATE TRIGGER {table}_counted_{act.split()[0].lower()} AFTER {act} ON {table}\n"
        f"    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = '{subject}'; END;\n"
        for table, (subject, columns) in counted.items()
        for act in ("INSERT", "DELETE", f"UPDATE OF {columns}")  # not of checksums
    )


_COUNTS = """
CREATE TABLE revisions (subject TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO revisions (subject, number)
    VALUES ('labels', 0), ('duplicates', 0), ('rejections', 0), ('confirmations', 0);
""" + _counting(_COUNTED)
_TAGS = (
    decision_tables.TAGS_SCHEMA
    + decision_tables.TAGS_TRIGGERS
    + "\nINSERT INTO revisions (subject, number) VALUES ('tags', 0), ('rejected_tags', 0);\n"
    + _counting(_TAGS_COUNTED)
)

# What the step to the fourth format adds. History: it never changes again.
_FOURTH = """
ALTER TABLE images ADD COLUMN row_checksum INTEGER;
ALTER TABLE images ADD COLUMN embedding_checksum INTEGER;
ALTER TABLE labels ADD COLUMN checksum INTEGER;
ALTER TABLE decisions ADD COLUMN checksum INTEGER;
ALTER TABLE meta ADD COLUMN checksum INTEGER;
CREATE INDEX images_unsealed ON images (id) WHERE row_checksum IS NULL;
CREATE INDEX labels_unsealed ON labels (image) WHERE checksum IS NULL;
CREATE INDEX decisions_unsealed ON decisions (image) WHERE checksum IS NULL;
CREATE TRIGGER image_unsealed
    AFTER UPDATE OF id, path, size, mtime_ns, ctime_ns, hash, width, height, state, reason, embedding ON images
    BEGIN UPDATE images SET row_checksum = NULL, embedding_checksum = NULL WHERE id = NEW.id; END;
CREATE TRIGGER label_unsealed AFTER UPDATE OF image, label, author, at ON labels
    BEGIN UPDATE labels SET checksum = NULL WHERE image = NEW.image; END;
CREATE TRIGGER decision_unsealed AFTER UPDATE OF image, kind, about, at ON decisions
    BEGIN UPDATE decisions SET checksum = NULL WHERE image = NEW.image AND kind = NEW.kind AND about = NEW.about; END;
CREATE TRIGGER meta_unsealed AFTER UPDATE OF key, value ON meta
    BEGIN UPDATE meta SET checksum = NULL WHERE key = NEW.key; END;
CREATE TABLE unwritten (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    act TEXT NOT NULL,
    path BLOB NOT NULL, hash BLOB,
    kind TEXT, about TEXT, author TEXT, at TEXT,
    other_path BLOB, other_hash BLOB
);
CREATE TRIGGER label_given AFTER INSERT ON labels
    BEGIN INSERT INTO unwritten (act, path, hash, about, author, at)
    SELECT 'label', path, hash, NEW.label, NEW.author, NEW.at FROM images WHERE id = NEW.image; END;
CREATE TRIGGER label_changed AFTER UPDATE OF label, author ON labels
    BEGIN INSERT INTO unwritten (act, path, hash, about, author, at)
    SELECT 'label', path, hash, NEW.label, NEW.author, NEW.at FROM images WHERE id = NEW.image; END;
CREATE TRIGGER label_taken AFTER DELETE ON labels
    BEGIN INSERT INTO unwritten (act, path, hash)
    SELECT 'unlabel', path, hash FROM images WHERE id = OLD.image; END;
CREATE TRIGGER decision_made AFTER INSERT ON decisions
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, at, other_path, other_hash)
    SELECT 'decide', one.path, one.hash, NEW.kind, NEW.about, NEW.at, other.path, other.hash FROM images AS one
    LEFT JOIN images AS other ON NEW.kind = 'distinct' AND other.id = CAST(NEW.about AS INTEGER)
    WHERE one.id = NEW.image; END;
CREATE TRIGGER decision_forgotten AFTER DELETE ON decisions
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, other_path, other_hash)
    SELECT 'forget', one.path, one.hash, OLD.kind, OLD.about, other.path, other.hash FROM images AS one
    LEFT JOIN images AS other ON OLD.kind = 'distinct' AND other.id = CAST(OLD.about AS INTEGER)
    WHERE one.id = OLD.image; END;
CREATE TRIGGER image_moved AFTER UPDATE OF path, hash ON images
    WHEN (OLD.path IS NOT NEW.path OR OLD.hash IS NOT NEW.hash)
    AND (EXISTS (SELECT 1 FROM labels WHERE image = NEW.id) OR EXISTS (SELECT 1 FROM decisions WHERE image = NEW.id))
    BEGIN INSERT INTO unwritten (act, path, hash, other_path, other_hash)
    VALUES ('move', OLD.path, OLD.hash, NEW.path, NEW.hash); END;
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
    _run(connection, _FOURTH)


def from_4_to_5(connection: sqlite3.Connection) -> None:
    """Gives each kind of decision a table of its own, and counts changes of what people said, as caches depend on it.

    Decisions that name an image which is no longer there are left out; one that is not as it was written is damage.
    """
    _run(connection, decision_tables.SCHEMA)
    _take_over_decisions(connection)
    connection.execute("DROP TABLE decisions")
    connection.execute("DROP TRIGGER image_moved")
    _run(connection, decision_tables.TRIGGERS + journal.MOVES_OF_FIFTH + _COUNTS)


def from_5_to_6(connection: sqlite3.Connection) -> None:
    """Adds what pictures bring with them, and what is measured of them.

    Nothing of it is known at first; the next update reads it from the files.
    """
    _run(connection, fact_tables.SCHEMA)


def from_6_to_7(connection: sqlite3.Connection) -> None:
    """Adds tags, of which an image may have several, and tags that were rejected; no image has any at first."""
    connection.execute("DROP TRIGGER image_moved")
    _run(connection, _TAGS + journal.MOVES)


def from_7_to_8(connection: sqlite3.Connection) -> None:
    """Adds the tiles of large pictures. No collection has any before it is indexed with them."""
    _run(connection, tile_tables.SCHEMA)


def from_8_to_9(connection: sqlite3.Connection) -> None:
    """Adds which keywords in sidecars are massl's. Those that it wrote before count as somebody else's, and stay."""
    _run(connection, fact_tables.SIDECAR_SCHEMA)


def _take_over_decisions(connection: sqlite3.Connection) -> None:
    """Copies the decisions of the one table of earlier formats to the tables of the fifth.

    Raises:
        sqlite3.DatabaseError: one is not as it was written.
    """
    there = {identity for (identity,) in connection.execute("SELECT id FROM images")}
    rows = connection.execute(f"SELECT {decision_tables.EARLIER}, checksum FROM decisions").fetchall()
    if checksums.damaged(rows):
        raise sqlite3.DatabaseError("malformed: a decision changed")  # which counts as damage, and is repaired
    for name, row in decision_tables.from_earlier(row[:-1] for row in rows):
        if decision_tables.images(name, row) <= there:
            decision_tables.insert(connection, name, [row])


STEPS: Mapping[int, Callable[[sqlite3.Connection], None]] = {
    1: from_1_to_2,
    2: from_2_to_3,
    3: from_3_to_4,
    4: from_4_to_5,
    5: from_5_to_6,
    6: from_6_to_7,
    7: from_7_to_8,
    8: from_8_to_9,
}
"""From each earlier format to the next."""


def make(connection: sqlite3.Connection) -> None:
    """Makes the tables, indexes and triggers of today's format in an empty file."""
    _run(connection, _SCHEMA + _CHANGES + checksums.SCHEMA + journal.SCHEMA + journal.MOVES)
    _run(connection, decision_tables.SCHEMA + decision_tables.TRIGGERS + _COUNTS + fact_tables.SCHEMA + _TAGS)
    _run(connection, tile_tables.SCHEMA + fact_tables.SIDECAR_SCHEMA)


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
