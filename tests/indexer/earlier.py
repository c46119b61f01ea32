"""Catalogs as earlier versions wrote them, made of today's."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def to_format_3(file: Path) -> None:
    """A catalog as the version before wrote it."""
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT type, name FROM sqlite_master WHERE name LIKE '%unsealed'").fetchall()
        rows += connection.execute(
            "SELECT type, name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ('labels', 'decisions')"
        ).fetchall()
        for kind, name in dict.fromkeys([*rows, ("trigger", "image_moved"), ("table", "unwritten")]):
            connection.execute(f"DROP {kind} {name}")
        for table, column in (
            ("images", "row_checksum"), ("images", "embedding_checksum"), ("labels", "checksum"),
            ("decisions", "checksum"), ("meta", "checksum"),
        ):  # fmt: skip
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("DELETE FROM meta WHERE key IN ('format', 'verified')")
        connection.execute("PRAGMA user_version = 3")
    connection.close()
