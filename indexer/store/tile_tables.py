"""The tables of the tiles of large pictures: where each lies and its vector; and which of them changed.

Whoever takes an image's vector away takes its tiles away, too; and whoever makes an image searchable or takes it out of
sight does so with its tiles. The index of the tiles learns of both from `tile_changes`. Numbers are never used twice.
"""

from __future__ import annotations

COLUMNS = "id, image, x, y, width, height, embedding"

SCHEMA = """
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

# What stands for them in catalogs of earlier formats, which have none: no rows.
VIEWS = {
    "tiles": f"SELECT {', '.join(f'NULL AS {column}' for column in COLUMNS.split(', '))}, NULL AS checksum WHERE FALSE"
}
