"""Damage to a catalog: how it is noticed, and what is said of it."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer.store import checksums, column_kinds
from indexer.store.decision_tables import TABLES
from indexer.store.fact_tables import COLUMNS, SIDECAR_COLUMNS
from massl.core.errors import MasslError

# A catalog up to this size is examined whole whenever it is opened: a tenth of a second of one core at most.
SMALL = 16 << 20  # bytes

# What SQLite says of a file that it can't make sense of although nothing is wrong with the statement.
_SYMPTOMS = (
    "could not decode to utf-8",
    "malformed",
    "no such table",
    "no such column",
    "unsupported file format",
    "unrecognized token",
    "has no column",
    "incomplete input",
    "syntax error",
    "string or blob too big",
    "user-defined function raised exception",  # of a text that is none, which the checksum can't be of
)


class CatalogDamaged(MasslError):
    """The catalog is not what was written to it."""

    def __init__(self, path: Path, detail: str) -> None:
        """`path` of the catalog, and what is wrong with it, in a few words."""
        self.path = path
        self.detail = detail
        folder = path.parent
        own = folder.name == ".massl"
        root = shlex.quote(str(folder.parent)) if own else f"IMAGES --index-dir {shlex.quote(str(folder))}"
        super().__init__(
            f"{path} is damaged ({detail}); run `massl index {root}`: it keeps the damaged file, takes over what is "
            "sound, embeds the rest anew, and brings labels back from the journal"
        )


@dataclass
class Findings:
    """What an examination found.

    Attributes:
        structure: what SQLite says of the file; empty where it is sound.
        images: rows of images that changed, by id.
        embeddings: images whose embedding changed, by id.
        labels, decisions: rows of these that changed, by image.
        facts: what pictures bring with them, was measured of them or written beside them, that changed, by image.
        tiles: those that changed.
        meta: keys of the collection's facts that changed.
    """

    structure: str = ""
    images: list[int] = field(default_factory=list)
    embeddings: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    decisions: list[int] = field(default_factory=list)
    facts: list[int] = field(default_factory=list)
    tiles: list[int] = field(default_factory=list)
    meta: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counted = [
            (len(self.labels), "label"), (len(self.decisions), "decision"), (len(self.images), "image"),
            (len(self.embeddings), "embedding"), (len(self.facts), "picture fact"),
            (len(self.tiles), "tile"),
            (len(self.meta), "fact about the collection"),
        ]  # fmt: skip
        said = [f"{count:,} {what}{'s' if count > 1 else ''} changed" for count, what in counted if count]
        return ", ".join(([self.structure] if self.structure else []) + said)


def is_damage(error: sqlite3.Error, connection: sqlite3.Connection | None = None) -> bool:
    """Whether SQLite, or Python's reading of its values, stumbles over a file that isn't what was written.

    Args:
        error: what it says.
        connection: the one that said it, if the statement itself may have been wrong.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT):
        return True
    text = str(error).lower()
    if connection is not None and ("no such" in text or "syntax error" in text) and _knows_its_tables(connection):
        return False
    return (code is None or code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG)) and any(
        symptom in text for symptom in _SYMPTOMS
    )


def _knows_its_tables(connection: sqlite3.Connection) -> bool:
    try:
        for columns, table in (
            (f"{checksums.IMAGE}, embedding", "images"),
            (checksums.LABEL, "labels"),
            *((table.columns, name) for name, table in TABLES.items()),
            *((columns, name) for name, columns in (COLUMNS | SIDECAR_COLUMNS).items()),
            (checksums.TILE, "tiles"),
            (checksums.META, "meta"),
        ):
            connection.execute(f"SELECT {columns} FROM {table} LIMIT 0")
    except (sqlite3.Error, UnicodeDecodeError):
        return False
    return True


def examine(connection: sqlite3.Connection, whole: bool) -> Findings:
    """Compares rows with their checksums: of labels, decisions and facts; if `whole`, all of the file.

    Args:
        connection: of a catalog of today's format, to be used for nothing else: its texts come out as they can.
        whole: also images and embeddings, and what SQLite can tell of pages and indexes. About 11 ms for a thousand
            images of 512 numbers.

    Raises:
        sqlite3.Error: it can't be read for a reason that is no damage.
    """
    found = Findings()
    connection.text_factory = _as_it_can
    try:
        if whole:
            for (said,) in connection.execute("PRAGMA integrity_check(1)"):
                if said != "ok":
                    found.structure = " ".join(str(said).replace("*** in database main ***", "").split())[:80]
        for target, columns, name in (
            (found.labels, checksums.LABEL, "labels"),
            (found.meta, checksums.META, "meta"),
        ):
            target += checksums.damaged(_bounded(connection, f"SELECT {columns}, checksum FROM {name}"))
        for name, table in TABLES.items():
            rows = _bounded(connection, f"SELECT {table.columns}, checksum FROM {name}")
            found.decisions += checksums.damaged(rows)
        if not found.structure and any(connection.execute("PRAGMA foreign_key_check")):
            found.structure = "labels or decisions of images that are not there"
        if whole:
            query = f"SELECT {checksums.IMAGE}, row_checksum FROM images"
            found.images += checksums.damaged(_bounded(connection, query))
            query = f"SELECT {checksums.EMBEDDING}, embedding_checksum FROM images WHERE embedding IS NOT NULL"
            found.embeddings += checksums.damaged(_bounded(connection, query))
            for name, columns in (COLUMNS | SIDECAR_COLUMNS).items():
                found.facts += checksums.damaged(_bounded(connection, f"SELECT {columns}, checksum FROM {name}"))
            for name in ("file_metadata", "sidecar_keywords"):  # of which somebody may have made a checksum, too
                rows = _bounded(connection, f"SELECT image, keywords FROM {name}")
                found.facts += [image for image, words in rows if not column_kinds.are_words(words)]
            found.tiles += checksums.damaged(_bounded(connection, f"SELECT {checksums.TILE}, checksum FROM tiles"))
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.Error) and not is_damage(error):
            raise
        found.structure = found.structure or str(error)
    return found


def most_rows(connection: sqlite3.Connection) -> int:
    """More rows than the file has room for. A page that several others point to would give its rows again and again."""
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    return 1_000 + int(pages) * int(size) // 8


def _bounded(connection: sqlite3.Connection, query: str) -> Iterator[Sequence[Any]]:
    left = most_rows(connection)
    for row in connection.execute(query):
        left -= 1
        if left < 0:
            raise sqlite3.DatabaseError("malformed: it has more rows than room for them")
        yield row


def _as_it_can(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
