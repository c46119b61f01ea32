"""How the file of a catalog is opened: made sure that it is one of ours, and read alone where it can't be written."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from indexer.store import checksums, fact_tables, migrations, schema, tile_tables
from indexer.store.damage import CatalogDamaged
from indexer.store.decision_tables import TAGS_VIEWS, VIEWS
from indexer.store.migrations import VERSION
from indexer.store.paths import folded
from indexer.store.sqlite_errors import may_be_full
from massl.core.errors import MasslError

UNCHANGING = "immutable=1"  # how SQLite opens a file that nobody writes

# How a catalog of an earlier format, which can't be written, is read by today's statements: formats before the fourth
# have no checksums, those before the fifth have all decisions in one table, those before the sixth know of no facts,
# those before the seventh of no tags, those before the eighth have no tiles, those before the ninth don't tell which
# keywords in sidecars are massl's own.
_CHECKED, _DECIDED, _KNOWN, _TAGGED, _TILED, _WRITTEN = 4, 5, 6, 7, 8, 9
_SHIMS = {
    "images": ("row_checksum", "embedding_checksum"),
    "labels": ("checksum",),
    "meta": ("checksum",),
}

_BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite opens of a catalog, by the ending of its name
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # how a journal ends that names another one
_MOST_BYTES = 1 << 28  # of one value: a calibration's comparisons take a few million


def beside(path: Path, ending: str) -> Path:
    """A file of SQLite's beside the catalog."""
    return path.with_name(path.name + ending)


def opening_of(path: Path, written: bool) -> str:
    """How SQLite is to open it: to write it, if that is possible, or to read it alone."""
    if written:
        return ""
    # Whoever writes it keeps what is new in a log beside it, which SQLite reads unless it is told that the file
    # doesn't change. It has to be told so where there is no log, as it could make none.
    return "mode=ro" if beside(path, "-wal").exists() else UNCHANGING


def connect(path: Path, opening: str, check_same_thread: bool = True) -> sqlite3.Connection:
    """Opens the file and makes sure that it is a catalog of ours before it does anything of its own.

    Raises:
        MasslError: it isn't.
    """
    _check_files(path)
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?{opening}" if opening else path,
        uri=bool(opening),
        isolation_level=None,
        timeout=30,
        check_same_thread=check_same_thread,
    )
    try:
        _distrust(connection)
        _check_schema(path, connection)
        checksums.register(connection)
        connection.create_function("folded", 1, folded, deterministic=True)
        if not opening:
            connection.execute("PRAGMA journal_mode = WAL")
        else:
            _add_shims(connection)
    except BaseException:
        connection.close()
        raise
    return connection


class Opened(NamedTuple):
    """A connection, how the file was opened for it, and why it wasn't opened to write where that was asked for."""

    connection: sqlite3.Connection
    opening: str
    unwritable: sqlite3.Error | None = None


def connect_or_read(path: Path, opening: str, check_same_thread: bool = True) -> Opened:
    """As `connect`; on a full disk it opens the file to read it alone.

    SQLite needs some space beside the catalog even to read it: 32 KiB, which its processes share.

    Raises:
        sqlite3.Error: it can't be opened, or something was written that isn't in the file itself yet.
        MasslError: as `connect`.
    """
    try:
        return Opened(connect(path, opening, check_same_thread), opening)
    except sqlite3.Error as error:
        if opening == UNCHANGING or not may_be_full(error) or _has_log(path):
            raise
        return Opened(connect(path, UNCHANGING, check_same_thread), UNCHANGING, error)


def _has_log(path: Path) -> bool:
    try:
        return beside(path, "-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _add_shims(connection: sqlite3.Connection) -> None:
    """Lets today's statements read a catalog of an earlier format."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for table, columns in _SHIMS.items() if version < _CHECKED else ():
        nothing = ", ".join(f"NULL AS {column}" for column in columns)
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {nothing} FROM main.{table}")
    missing = [
        (VIEWS, _DECIDED), (fact_tables.VIEWS, _KNOWN), (TAGS_VIEWS, _TAGGED), (tile_tables.VIEWS, _TILED),
        (fact_tables.SIDECAR_VIEWS, _WRITTEN),
    ]  # fmt: skip
    for table, query in (item for views, since in missing if version < since for item in views.items()):
        connection.execute(f"CREATE TEMP VIEW {table} AS {query}")


def _check_files(path: Path) -> None:
    """Refuses what SQLite would write, or delete, outside the catalog's own files.

    It follows links, also that of a log. And it deletes the file that a journal names as the one above it, as it
    does for several databases that are written at once; ours never are.
    """
    for ending in _BESIDE:
        file = beside(path, ending)
        with suppress(OSError):
            if not stat.S_ISREG(file.lstat().st_mode):
                raise _foreign(path, f"{file.name} is a link, or no ordinary file")
    with suppress(OSError), beside(path, "-journal").open("rb") as journal:
        length = journal.seek(0, os.SEEK_END)
        journal.seek(max(0, length - len(_SUPER_JOURNAL)))
        if journal.read() == _SUPER_JOURNAL:
            raise _foreign(path, "its journal names another file")


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < 1:
        raise CatalogDamaged(path, "it holds no version")
    found = schema.difference(schema.of(connection), migrations.schema_of(min(version, VERSION)))
    if version > VERSION:
        # The facts tell the format too: a number of which the disk changed a bit, or a newer version's.
        query = "SELECT 1 FROM meta WHERE (key, value) = ('format', ?)"
        one_bit = (version ^ VERSION).bit_count() == 1
        if one_bit and found is None and any(connection.execute(query, [str(VERSION)])):
            raise CatalogDamaged(path, f"it says to be of format {version}")
        raise MasslError(f"{path} was written by a newer version of massl (format {version}); update massl")
    if found:
        raise CatalogDamaged(path, f"it is not as massl makes it: {found}")


def _foreign(path: Path, detail: str) -> MasslError:
    return MasslError(
        f"{path} is not as massl makes it ({detail}), so nothing of it was used; if the folder came from "
        f"somebody else move {path.parent} away and run `massl index` again"
    )


def _distrust(connection: sqlite3.Connection) -> None:
    """Has SQLite take the file for one that somebody may have made to do harm."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)
