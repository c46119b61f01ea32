"""The tables of what is known of pictures beside their embeddings: what they bring with them, and what was measured.

A cache of the files: a row that is missing, or was made by an earlier reader, is made anew by the next update. Rows are
written whole, each with its checksum; see `indexer.store.checksums`.
"""

from __future__ import annotations

from collections.abc import Mapping

SCHEMA = """
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
    planes INTEGER NOT NULL,            -- pictures in the file; 0 of a plane of a stack
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

# What massl wrote into the file beside an image; see `indexer.store.sidecar_keywords`. No cache: nobody else knows.
SIDECAR_SCHEMA = """
CREATE TABLE sidecar_keywords (
    image INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    keywords TEXT NOT NULL,             -- a JSON list
    checksum INTEGER NOT NULL
);
"""

# Columns that a checksum is of, the image first.
METADATA = "image, reader, sidecar, taken, utc_offset, make, model, orientation, rating, keywords, planes"
MEASURES = "image, measurer, whole_hash, trimmed_hash, sharpness, brightness, overexposed, contrast, variety"
COLUMNS = {"file_metadata": METADATA, "pixel_measures": MEASURES}
SIDECAR_COLUMNS = {"sidecar_keywords": "image, keywords"}


def _no_rows(tables: Mapping[str, str]) -> dict[str, str]:
    return {
        name: f"SELECT {', '.join(f'NULL AS {column}' for column in columns.split(', '))}, NULL AS checksum WHERE FALSE"
        for name, columns in tables.items()
    }


# What stands for them in catalogs before the sixth format, and before the ninth, which have none.
VIEWS = _no_rows(COLUMNS)
SIDECAR_VIEWS = _no_rows(SIDECAR_COLUMNS)
