"""Catalogs as earlier versions made them: their own statements, to the letter."""

from __future__ import annotations

import re
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,          -- relative to the root, the bytes of the file system: names need not be UTF-8
    size INTEGER NOT NULL,              -- bytes
    mtime_ns INTEGER NOT NULL,          -- -1: look at it again whatever it says
    hash BLOB,                          -- SHA-256 of the file
    width INTEGER, height INTEGER,      -- pixels, upright
    state TEXT NOT NULL CHECK (state IN ('ready', 'skipped', 'gone')),
    reason TEXT,                        -- why it was skipped
    embedding BLOB                      -- float16 [D]
);
CREATE INDEX images_by_hash ON images (hash);
CREATE INDEX images_by_state ON images (state, path, size, mtime_ns);
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

_SECOND = """
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

_THIRD = (
    _SECOND
    + """
CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, image INTEGER NOT NULL);
CREATE TRIGGER image_added AFTER INSERT ON images WHEN NEW.embedding IS NOT NULL
    BEGIN INSERT INTO changes (image) VALUES (NEW.id); END;
CREATE TRIGGER image_changed AFTER UPDATE OF embedding, state ON images
    WHEN OLD.embedding IS NOT NEW.embedding OR OLD.state IS NOT NEW.state
    BEGIN INSERT INTO changes (image) VALUES (NEW.id); END;
CREATE TRIGGER image_deleted AFTER DELETE ON images
    BEGIN INSERT INTO changes (image) VALUES (OLD.id); END;
"""
)

_FOURTH = (
    _THIRD
    + """
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
)

_FIFTH = """
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

CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, image INTEGER NOT NULL);
CREATE TRIGGER image_added AFTER INSERT ON images WHEN NEW.embedding IS NOT NULL
    BEGIN INSERT INTO changes (image) VALUES (NEW.id); END;
CREATE TRIGGER image_changed AFTER UPDATE OF embedding, state ON images
    WHEN OLD.embedding IS NOT NEW.embedding OR OLD.state IS NOT NEW.state
    BEGIN INSERT INTO changes (image) VALUES (NEW.id); END;
CREATE TRIGGER image_deleted AFTER DELETE ON images
    BEGIN INSERT INTO changes (image) VALUES (OLD.id); END;

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

CREATE TRIGGER image_moved AFTER UPDATE OF path, hash ON images
    WHEN (OLD.path IS NOT NEW.path OR OLD.hash IS NOT NEW.hash)
    AND (EXISTS (SELECT 1 FROM labels WHERE image = NEW.id) OR EXISTS (SELECT 1 FROM kept_both WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM kept_instead WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM rejected_labels WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM confirmed_labels WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM kept_both WHERE other = NEW.id))
    BEGIN INSERT INTO unwritten (act, path, hash, other_path, other_hash)
    VALUES ('move', OLD.path, OLD.hash, NEW.path, NEW.hash); END;

CREATE TABLE kept_both (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE, -- the lower of the two numbers
    other INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    contents TEXT NOT NULL,             -- short for both contents: see `indexer.store.decisions`
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, other, contents)
) WITHOUT ROWID;
CREATE INDEX kept_both_by_other ON kept_both (other);
CREATE TABLE kept_instead (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    content TEXT NOT NULL,              -- short for its content
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, content)
) WITHOUT ROWID;
CREATE TABLE rejected_labels (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, label)
) WITHOUT ROWID;
CREATE TABLE confirmed_labels (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, label)
) WITHOUT ROWID;

CREATE INDEX kept_both_unsealed ON kept_both (image) WHERE checksum IS NULL;
CREATE TRIGGER kept_both_changed AFTER UPDATE OF image, other, contents, at ON kept_both
    BEGIN UPDATE kept_both SET checksum = NULL WHERE image = NEW.image AND contents = NEW.contents; END;
CREATE TRIGGER kept_both_made AFTER INSERT ON kept_both
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, at, other_path, other_hash)
    SELECT 'decide', one.path, one.hash, 'distinct', NEW.contents, NEW.at, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NEW.other
    WHERE one.id = NEW.image; END;
CREATE TRIGGER kept_both_forgotten AFTER DELETE ON kept_both
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, other_path, other_hash)
    SELECT 'forget', one.path, one.hash, 'distinct', OLD.contents, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = OLD.other
    WHERE one.id = OLD.image; END;
CREATE INDEX kept_instead_unsealed ON kept_instead (image) WHERE checksum IS NULL;
CREATE TRIGGER kept_instead_changed AFTER UPDATE OF image, content, at ON kept_instead
    BEGIN UPDATE kept_instead SET checksum = NULL WHERE image = NEW.image AND content = NEW.content; END;
CREATE TRIGGER kept_instead_made AFTER INSERT ON kept_instead
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, at, other_path, other_hash)
    SELECT 'decide', one.path, one.hash, 'chosen', NEW.content, NEW.at, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = NEW.image; END;
CREATE TRIGGER kept_instead_forgotten AFTER DELETE ON kept_instead
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, other_path, other_hash)
    SELECT 'forget', one.path, one.hash, 'chosen', OLD.content, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = OLD.image; END;
CREATE INDEX rejected_labels_unsealed ON rejected_labels (image) WHERE checksum IS NULL;
CREATE TRIGGER rejected_labels_changed AFTER UPDATE OF image, label, at ON rejected_labels
    BEGIN UPDATE rejected_labels SET checksum = NULL WHERE image = NEW.image AND label = NEW.label; END;
CREATE TRIGGER rejected_labels_made AFTER INSERT ON rejected_labels
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, at, other_path, other_hash)
    SELECT 'decide', one.path, one.hash, 'rejected', NEW.label, NEW.at, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = NEW.image; END;
CREATE TRIGGER rejected_labels_forgotten AFTER DELETE ON rejected_labels
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, other_path, other_hash)
    SELECT 'forget', one.path, one.hash, 'rejected', OLD.label, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = OLD.image; END;
CREATE INDEX confirmed_labels_unsealed ON confirmed_labels (image) WHERE checksum IS NULL;
CREATE TRIGGER confirmed_labels_changed AFTER UPDATE OF image, label, at ON confirmed_labels
    BEGIN UPDATE confirmed_labels SET checksum = NULL WHERE image = NEW.image AND label = NEW.label; END;
CREATE TRIGGER confirmed_labels_made AFTER INSERT ON confirmed_labels
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, at, other_path, other_hash)
    SELECT 'decide', one.path, one.hash, 'confirmed', NEW.label, NEW.at, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = NEW.image; END;
CREATE TRIGGER confirmed_labels_forgotten AFTER DELETE ON confirmed_labels
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, other_path, other_hash)
    SELECT 'forget', one.path, one.hash, 'confirmed', OLD.label, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = OLD.image; END;
CREATE TABLE revisions (subject TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO revisions (subject, number)
    VALUES ('labels', 0), ('duplicates', 0), ('rejections', 0), ('confirmations', 0);
CREATE TRIGGER labels_counted_insert AFTER INSERT ON labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'labels'; END;
CREATE TRIGGER labels_counted_delete AFTER DELETE ON labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'labels'; END;
CREATE TRIGGER labels_counted_update AFTER UPDATE OF image, label, author, at ON labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'labels'; END;
CREATE TRIGGER kept_both_counted_insert AFTER INSERT ON kept_both
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'duplicates'; END;
CREATE TRIGGER kept_both_counted_delete AFTER DELETE ON kept_both
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'duplicates'; END;
CREATE TRIGGER kept_both_counted_update AFTER UPDATE OF image, other, contents, at ON kept_both
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'duplicates'; END;
CREATE TRIGGER kept_instead_counted_insert AFTER INSERT ON kept_instead
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'duplicates'; END;
CREATE TRIGGER kept_instead_counted_delete AFTER DELETE ON kept_instead
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'duplicates'; END;
CREATE TRIGGER kept_instead_counted_update AFTER UPDATE OF image, content, at ON kept_instead
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'duplicates'; END;
CREATE TRIGGER rejected_labels_counted_insert AFTER INSERT ON rejected_labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'rejections'; END;
CREATE TRIGGER rejected_labels_counted_delete AFTER DELETE ON rejected_labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'rejections'; END;
CREATE TRIGGER rejected_labels_counted_update AFTER UPDATE OF image, label, at ON rejected_labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'rejections'; END;
CREATE TRIGGER confirmed_labels_counted_insert AFTER INSERT ON confirmed_labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'confirmations'; END;
CREATE TRIGGER confirmed_labels_counted_delete AFTER DELETE ON confirmed_labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'confirmations'; END;
CREATE TRIGGER confirmed_labels_counted_update AFTER UPDATE OF image, label, at ON confirmed_labels
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'confirmations'; END;
"""

_SIXTH = (
    _FIFTH
    + """
CREATE TABLE file_metadata (
    image INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    reader INTEGER NOT NULL,            -- which version of massl.core.images.metadata read it
    sidecar TEXT NOT NULL,              -- what tells whether the file beside it is another; empty where there is none
    taken TEXT,                         -- ISO 8601 by the camera's clock, or a day alone; NULL: not known
    utc_offset INTEGER,                 -- minutes that this clock is ahead of UTC; NULL: not known
    make TEXT NOT NULL,
    model TEXT NOT NULL,
    orientation INTEGER NOT NULL,       -- EXIF's, 1 to 8
    rating INTEGER,                     -- -1 to 5; NULL: none
    keywords TEXT NOT NULL,             -- a JSON list
    planes INTEGER NOT NULL,            -- pictures in the file
    checksum INTEGER NOT NULL
);
CREATE INDEX metadata_by_taken ON file_metadata (taken);
CREATE TABLE pixel_measures (
    image INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    measurer INTEGER NOT NULL,          -- which version of massl.core.images.measures measured it
    whole_hash BLOB,                    -- 32 bytes; NULL: of nearly one colour
    trimmed_hash BLOB,                  -- the same within plain borders; NULL: there are none
    sharpness REAL NOT NULL,
    brightness REAL NOT NULL,
    overexposed REAL NOT NULL,
    contrast REAL NOT NULL,
    variety REAL NOT NULL,
    checksum INTEGER NOT NULL
);
"""
)

_SEVENTH = (
    _SIXTH
    + """
DROP TRIGGER image_moved;
CREATE TABLE tags (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    author TEXT NOT NULL,
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, tag)
) WITHOUT ROWID;
CREATE INDEX tags_by_tag ON tags (tag, image);
CREATE TABLE rejected_tags (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, tag)
) WITHOUT ROWID;
CREATE INDEX tags_unsealed ON tags (image) WHERE checksum IS NULL;
CREATE TRIGGER tags_changed AFTER UPDATE OF image, tag, author, at ON tags
    BEGIN UPDATE tags SET checksum = NULL WHERE image = NEW.image AND tag = NEW.tag; END;
CREATE TRIGGER tags_made AFTER INSERT ON tags
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, author, at, other_path, other_hash)
    SELECT 'decide', one.path, one.hash, 'tagged', NEW.tag, NEW.author, NEW.at, other.path,
    other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = NEW.image; END;
CREATE TRIGGER tags_forgotten AFTER DELETE ON tags
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, other_path, other_hash)
    SELECT 'forget', one.path, one.hash, 'tagged', OLD.tag, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = OLD.image; END;
CREATE INDEX rejected_tags_unsealed ON rejected_tags (image) WHERE checksum IS NULL;
CREATE TRIGGER rejected_tags_changed AFTER UPDATE OF image, tag, at ON rejected_tags
    BEGIN UPDATE rejected_tags SET checksum = NULL WHERE image = NEW.image AND tag = NEW.tag; END;
CREATE TRIGGER rejected_tags_made AFTER INSERT ON rejected_tags
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, at, other_path, other_hash)
    SELECT 'decide', one.path, one.hash, 'untagged', NEW.tag, NEW.at, other.path,
    other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = NEW.image; END;
CREATE TRIGGER rejected_tags_forgotten AFTER DELETE ON rejected_tags
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, other_path, other_hash)
    SELECT 'forget', one.path, one.hash, 'untagged', OLD.tag, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = NULL
    WHERE one.id = OLD.image; END;
CREATE TRIGGER tags_counted_insert AFTER INSERT ON tags
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'tags'; END;
CREATE TRIGGER tags_counted_delete AFTER DELETE ON tags
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'tags'; END;
CREATE TRIGGER tags_counted_update AFTER UPDATE OF image, tag, author, at ON tags
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'tags'; END;
CREATE TRIGGER rejected_tags_counted_insert AFTER INSERT ON rejected_tags
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'rejected_tags'; END;
CREATE TRIGGER rejected_tags_counted_delete AFTER DELETE ON rejected_tags
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'rejected_tags'; END;
CREATE TRIGGER rejected_tags_counted_update AFTER UPDATE OF image, tag, at ON rejected_tags
    BEGIN UPDATE revisions SET number = number + 1 WHERE subject = 'rejected_tags'; END;
CREATE TRIGGER image_moved AFTER UPDATE OF path, hash ON images
    WHEN (OLD.path IS NOT NEW.path OR OLD.hash IS NOT NEW.hash)
    AND (EXISTS (SELECT 1 FROM labels WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM kept_both WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM kept_instead WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM rejected_labels WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM confirmed_labels WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM tags WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM rejected_tags WHERE image = NEW.id)
    OR EXISTS (SELECT 1 FROM kept_both WHERE other = NEW.id))
    BEGIN INSERT INTO unwritten (act, path, hash, other_path, other_hash)
    VALUES ('move', OLD.path, OLD.hash, NEW.path, NEW.hash); END;
INSERT INTO revisions (subject, number) VALUES ('tags', 0), ('rejected_tags', 0);
"""
)

_EIGHTH = (
    _SEVENTH
    + """
CREATE TABLE tiles (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    x INTEGER NOT NULL, y INTEGER NOT NULL, -- pixels of the upright picture
    width INTEGER NOT NULL, height INTEGER NOT NULL,
    embedding BLOB NOT NULL,            -- float16 [D]
    checksum INTEGER                    -- NULL until the transaction ends
);
CREATE INDEX tiles_by_image ON tiles (image);
CREATE INDEX tiles_unsealed ON tiles (id) WHERE checksum IS NULL;
CREATE TABLE tile_changes (number INTEGER PRIMARY KEY AUTOINCREMENT, tile INTEGER NOT NULL);
CREATE TRIGGER tile_added AFTER INSERT ON tiles
    BEGIN INSERT INTO tile_changes (tile) VALUES (NEW.id); END;
CREATE TRIGGER tile_deleted AFTER DELETE ON tiles
    BEGIN INSERT INTO tile_changes (tile) VALUES (OLD.id); END;
CREATE TRIGGER tiles_seen AFTER UPDATE OF state ON images WHEN OLD.state IS NOT NEW.state
    BEGIN INSERT INTO tile_changes (tile) SELECT id FROM tiles WHERE image = NEW.id; END;
CREATE TRIGGER tiles_forgotten AFTER UPDATE OF embedding ON images WHEN OLD.embedding IS NOT NEW.embedding
    BEGIN DELETE FROM tiles WHERE image = NEW.id; END;
"""
)

STATEMENTS = {1: _FIRST, 2: _SECOND, 3: _THIRD, 4: _FOURTH, 5: _FIFTH, 6: _SIXTH, 7: _SEVENTH, 8: _EIGHTH}
_COPIED = (
    "meta", "images", "labels", "decisions", "kept_both", "kept_instead", "rejected_labels", "confirmed_labels",
    "file_metadata", "pixel_measures", "tags", "rejected_tags", "tiles",
)  # fmt: skip

# Decisions as formats before the fifth had them, in one table.
_DECISIONS = (
    "SELECT image, 'distinct', other || ' ' || contents, at FROM main.kept_both "
    "UNION ALL SELECT image, 'chosen', content, at FROM main.kept_instead "
    "UNION ALL SELECT image, 'rejected', label, at FROM main.rejected_labels "
    "UNION ALL SELECT image, 'confirmed', label, at FROM main.confirmed_labels"
)


# Which columns each checksum is of, from the fourth format on. The tables that the fifth adds bring theirs along.
_SEALED = {
    "images": {
        "row_checksum": "id, path, size, mtime_ns, ctime_ns, hash, width, height, state, reason",
        "embedding_checksum": "id, hash, embedding",
    },
    "labels": {"checksum": "image, label, author, at"},
    "decisions": {"checksum": "image, kind, about, at"},
    "meta": {"checksum": "key, value"},
}


def _seal(connection: sqlite3.Connection) -> None:
    """Fills in the checksums that the catalog's format has a column for, as that version did with each transaction."""
    connection.create_function(
        "checksum", -1, lambda *values: zlib.crc32(repr(values).encode("utf-8", "surrogatepass")), deterministic=True
    )
    for table, sums in _SEALED.items():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for column, columns in sums.items():
            if column in there:
                connection.execute(f"UPDATE {table} SET {column} = checksum({columns})")


def write_as_format(path: Path, version: int) -> None:
    """Writes a catalog that is there, and that nobody has open, anew as that format had it."""
    old = path.with_name("former.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("ATTACH ? AS former", [str(old)])
        for table in _COPIED:
            made = next(iter(re.findall(rf"CREATE TABLE {table} .*?;\n", STATEMENTS[version], re.DOTALL)), None)
            if made is None:
                continue
            connection.execute(made.replace(f"TABLE {table}", f"TABLE former.{table}"))
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA former.table_info({table})"))
            rows = _DECISIONS if table == "decisions" else f"SELECT {columns} FROM main.{table}"
            connection.execute(f"INSERT INTO former.{table} ({columns}) {rows}")
        connection.execute("DELETE FROM former.meta WHERE key IN ('format', 'verified')")  # later formats' facts
        connection.execute("DETACH former")
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.executescript(
            re.sub(rf"CREATE TABLE ({'|'.join(_COPIED)}) .*?;\n", "", STATEMENTS[version], flags=re.DOTALL)
        )
        _seal(connection)
        connection.execute(f"PRAGMA user_version = {version}")
    old.replace(path)
