"""The catalog: one SQLite file, the only truth about a collection. A batch is one transaction."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from indexer.store import checksums, damage, fact_tables, journal, meta, migrations, schema, tile_tables
from indexer.store.damage import CatalogDamaged
from indexer.store.decision_tables import TAGS_VIEWS, VIEWS
from indexer.store.meta import Fact, Meta, Written
from indexer.store.migrations import VERSION
from massl.core import disk_errors
from massl.core.errors import MasslError
from massl.core.files.scan import CATALOG
from massl.core.images.rendering import Rendering

Value = TypeVar("Value")

# The condition that an image can be searched, for queries that name images by id or need more than what the index of
# states holds. The plus keeps SQLite from going by that index, through every image: it takes a state to be rare.
READY = "+state = 'ready'"

_UNCHANGING = "immutable=1"

_UNWRITABLE = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip
_NEARLY_FULL = 1 << 20  # bytes free, below which a failed write is put down to a full disk

# How a catalog of an earlier format, which can't be written, is read by today's statements: formats before the fourth
# have no checksums, those before the fifth have all decisions in one table, those before the sixth know of no facts,
# those before the seventh of no tags, those before the eighth have no tiles.
_CHECKED, _DECIDED, _KNOWN, _TAGGED, _TILED = 4, 5, 6, 7, 8
_SHIMS = {
    "images": ("row_checksum", "embedding_checksum"),
    "labels": ("checksum",),
    "meta": ("checksum",),
}

_BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite opens of a catalog, by the ending of its name
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # how a journal ends that names another one
# What values of a column are, or of one that is called so; a join may have none.
_KINDS: dict[str, set[type]] = {
    "id": {int},
    "image": {int},
    "path": {bytes},
    "size": {int},
    "mtime_ns": {int},
    "ctime_ns": {int},
    "oldest": {int, type(None)},
    "newest": {int, type(None)},
    "hash": {bytes, type(None)},
    "width": {int, type(None)},
    "height": {int, type(None)},
    "state": {str},
    "reason": {str, type(None)},
    "embedding": {bytes, type(None)},
    "tile": {int},
    "x": {int},
    "y": {int},
    "label": {str, type(None)},
    "tag": {str},
    "author": {str, type(None)},
    "at": {str, type(None)},
    "other": {int},
    "content": {str},
    "contents": {str},
    "taken": {str, type(None)},
    "utc_offset": {int, type(None)},
    "make": {str},
    "model": {str},
    "orientation": {int},
    "rating": {int, type(None)},
    "keywords": {str},
    "planes": {int},
    "whole_hash": {bytes, type(None)},
    "trimmed_hash": {bytes, type(None)},
    "sharpness": {float},
    "brightness": {float},
    "overexposed": {float},
    "contrast": {float},
    "variety": {float},
}

_MOST_BYTES = 1 << 28  # of one value: a calibration's comparisons take a few million


class Catalog:
    """Connections to a catalog, one a thread, all in write-ahead mode: readers see whole batches while one writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, str]) -> Catalog:
        """Makes a catalog that holds nothing but these facts, as texts; see `indexer.store.meta`.

        Raises:
            MasslError: the folder can't be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path.parent, error) from None
        # Under another name first: a kill here must not leave an empty catalog that looks like a damaged one.
        temporary = path.with_name(f"{path.name}.new")
        try:
            for rest in (temporary, temporary.with_name(f"{temporary.name}-journal")):
                rest.unlink(missing_ok=True)
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.execute("BEGIN")
                migrations.make(connection)
                connection.execute(f"PRAGMA user_version = {VERSION}")
                meta.write(connection, [*facts.items(), Meta.format.to(str(VERSION))])
                checksums.register(connection)
                checksums.seal(connection)
                connection.execute("COMMIT")
            for ending in ("-wal", "-shm"):  # an earlier catalog's, which SQLite would put into this one
                path.with_name(path.name + ending).unlink(missing_ok=True)
            temporary.replace(path)
        except (sqlite3.Error, OSError) as error:
            temporary.unlink(missing_ok=True)
            raise cannot_write(path.parent, error) from None
        return cls(path)

    @classmethod
    def open(cls, path: Path, whole: bool = False) -> Catalog:
        """Opens an existing catalog, examines it, and brings one of an earlier format to today's.

        Args:
            path: its file.
            whole: examine all of it, however large it is; see `indexer.store.damage.examine`.

        Raises:
            CatalogDamaged: it is not what was written to it, or not made by massl.
            MasslError: missing, or written by a newer version.
        """
        catalog = cls(path)
        ((version,),) = catalog.read("PRAGMA user_version")
        if version < VERSION and catalog.can_be_written():
            catalog._migrate()
        if version == VERSION:
            catalog.examine(whole or path.stat().st_size <= damage.SMALL)
        return catalog

    def examine(self, whole: bool) -> None:
        """Compares what it holds with the checksums.

        Raises:
            CatalogDamaged: something is not as it was written.
        """
        with self._explained(), closing(self.connect(self._opening())) as connection:
            found = damage.examine(connection, whole)
        if str(found):
            raise CatalogDamaged(self.path, str(found))

    def seal(self) -> None:
        """Gives all images checksums, where the catalog is of an earlier format."""
        while checksums.unsealed(self._connection()):
            with self.writing():
                pass

    def can_be_written(self) -> bool:
        """Whether this user may write it; if not, it can be searched all the same."""
        return os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)

    def _migrate(self) -> None:
        with self.writing() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()  # another process may have been faster
            for step in range(version, VERSION):
                migrations.STEPS[step](connection)
            meta.write(connection, [Meta.format.to(str(VERSION))])
            connection.execute(f"PRAGMA user_version = {max(version, VERSION)}")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read within is of one moment."""
        with self._explained():
            connection = self._connection()
            connection.execute("BEGIN")
        try:
            yield
        finally:
            connection.execute("COMMIT")

    def is_of_todays_format(self) -> bool:
        """Whether it is: an earlier one is read as it is where it can't be written."""
        self._connection()
        return bool(self._local.version == VERSION)

    def written_ns(self) -> int:
        """When its files were last written, in nanoseconds."""
        found = 0
        for file in (self.path, self._beside("-wal")):
            with suppress(OSError):
                found = max(found, file.stat().st_mtime_ns)
        return found

    def notes_changes(self) -> bool:
        """Whether it is of a format that does: an earlier one is read as it is where it can't be written."""
        return any(self.read("SELECT 1 FROM sqlite_master WHERE name = 'changes'"))

    def read(self, query: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Runs a query and yields its rows.

        Raises:
            MasslError: the file is damaged, or the disk it lies on is full or gone.
        """
        with self._explained():
            cursor = self._connection().execute(query, tuple(values))
            rows = cursor.fetchall()
        for place, (name, *_) in enumerate(cursor.description or ()):
            # SQLite keeps a value of any kind in any column.
            kinds = _KINDS.get(name)
            if kinds and not {type(row[place]) for row in rows} <= kinds:
                raise self.damaged(f"one {name} is of another kind")
        return iter(rows)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or on an exception or a kill nothing.

        Raises:
            MasslError: the disk is full or the file can't be written.
        """
        with self._explained():
            connection = self._connection()
            if not self.can_be_written():  # said before a statement fails at a view; see `_SHIMS`
                raise cannot_write(self.path.parent, _refusal(self.path.parent))
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                checksums.seal(connection)
                behind = journal.is_behind(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        if behind:
            with contextlib.suppress(MasslError), self._explained():  # it is written; the journal has time
                journal.catch_up(connection, self.path.parent)

    @contextmanager
    def reading_from_threads(self) -> Iterator[Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]]:
        """A query function over a connection of its own that threads take turns at, and that is closed at the end."""
        connection = self.connect(self._opening(), check_same_thread=False)
        turn = threading.Lock()

        def read(query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
            with turn, self._explained():
                return connection.execute(query, values).fetchall()

        try:
            yield read
        finally:
            with turn:  # SQLite crashes where a connection goes while a thread reads
                connection.close()

    def complete_journal(self) -> journal.Said:
        """Adds to the journal what only the catalog says; returns what only the journal does.

        Raises:
            OSError: the journal can't be read or written.
        """
        with self._explained():
            connection = self._connection()
            journal.catch_up(connection, self.path.parent)
            return journal.complete(connection, self.path.parent)

    def meta(self) -> Meta:
        """All of the collection's own facts: encoder, schema, cache.

        Raises:
            CatalogDamaged: one of them is not as it was written, or names a file or is a number and doesn't look so.
        """
        rows = list(self.read(f"SELECT {checksums.META}, checksum FROM meta"))
        if changed := checksums.damaged(rows):
            raise CatalogDamaged(self.path, f"{changed[0]} changed")
        facts = {key: value for key, value, _ in rows}
        for key, value in facts.items():
            if not meta.is_fact(key, value):
                raise self.damaged(f"its {key} can't be {str(value)[:40]!r}")
        return Meta(facts)

    @property
    def max_pixels(self) -> int:
        """The most pixels that an image of the collection may have."""
        return self.meta().max_pixels

    @property
    def rendering(self) -> Rendering:
        """How the collection's files of more than 8 bits are shown."""
        return self.meta().rendering

    def set_meta(self, *facts: Written) -> None:
        """Adds or replaces facts, each as `Meta.checked.to(now())`."""
        with self.writing() as connection:
            meta.write(connection, facts)

    def forget_meta(self, *facts: Fact[Any]) -> None:
        """Removes facts."""
        with self.writing() as connection:
            meta.forget(connection, *facts)

    def sound(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Rows of the columns of one of `indexer.store.checksums`, with their checksum behind them, that are as
        written.

        Raises:
            CatalogDamaged: one is not.
        """
        for row in rows:
            if not checksums.is_sound(row):
                raise CatalogDamaged(self.path, f"the row of image {row[0]} changed")
            yield row

    def close(self) -> None:
        """Closes this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            del self._local.connection

    def _connection(self) -> sqlite3.Connection:
        """The calling thread's, to the file that lies there now: it may have been deleted, or another put there.

        Raises:
            MasslError: it has gone.
        """
        connection = getattr(self._local, "connection", None)
        try:
            found = os.stat(self.path)
        except OSError:
            raise MasslError(
                f"the index in {self.path.parent} is no longer there; if its disk was unplugged bring it back, if it "
                "was deleted run `massl index` again"
            ) from None
        opening = self._opening()
        identity: tuple[object, ...] = found.st_dev, found.st_ino, opening
        if opening == _UNCHANGING:
            identity += (found.st_mtime_ns,)  # it changed all the same
        if connection is not None and self._local.identity != identity and not connection.in_transaction:
            self.close()
            connection = None
        if connection is not None and not connection.in_transaction and self._is_made_anew(connection):
            self.close()
            connection = None
        if connection is None:
            connection = self.connect(opening)
            self._local.identity = identity
            (self._local.cookie,) = connection.execute("PRAGMA schema_version").fetchone()
            (self._local.version,) = connection.execute("PRAGMA user_version").fetchone()
            # Every commit survives a kill of the process; only a power cut can take the last ones, never the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
        return connection

    def _opening(self) -> str:
        """How SQLite is to open it: to write it, or to read it alone."""
        if self.can_be_written():
            return ""
        # Whoever writes it keeps what is new in a log beside it, which SQLite reads unless it is told that the file
        # doesn't change. It has to be told so where there is no log, as it could make none.
        return "mode=ro" if self._beside("-wal").exists() else _UNCHANGING

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def connect(self, opening: str, check_same_thread: bool = True) -> sqlite3.Connection:
        """Opens the file and makes sure that it is a catalog of ours before it does anything of its own.

        Raises:
            MasslError: it isn't.
        """
        self._check_files()
        connection = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?{opening}" if opening else self.path,
            uri=bool(opening),
            isolation_level=None,
            timeout=30,
            check_same_thread=check_same_thread,
        )
        try:
            _distrust(connection)
            self._check_schema(connection)
            checksums.register(connection)
            if not opening:
                connection.execute("PRAGMA journal_mode = WAL")
            else:
                self._add_shims(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _add_shims(self, connection: sqlite3.Connection) -> None:
        """Lets today's statements read a catalog of an earlier format."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for table, columns in _SHIMS.items() if version < _CHECKED else ():
            nothing = ", ".join(f"NULL AS {column}" for column in columns)
            connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {nothing} FROM main.{table}")
        missing = [
            (VIEWS, _DECIDED), (fact_tables.VIEWS, _KNOWN), (TAGS_VIEWS, _TAGGED), (tile_tables.VIEWS, _TILED),
        ]  # fmt: skip
        for table, query in (item for views, since in missing if version < since for item in views.items()):
            connection.execute(f"CREATE TEMP VIEW {table} AS {query}")

    def _check_files(self) -> None:
        """Refuses what SQLite would write, or delete, outside the catalog's own files.

        It follows links, also that of a log. And it deletes the file that a journal names as the one above it, as it
        does for several databases that are written at once; ours never are.
        """
        for ending in _BESIDE:
            path = self._beside(ending)
            with suppress(OSError):
                if not stat.S_ISREG(path.lstat().st_mode):
                    raise self._foreign(f"{path.name} is a link, or no ordinary file")
        with suppress(OSError), self._beside("-journal").open("rb") as journal:
            length = journal.seek(0, os.SEEK_END)
            journal.seek(max(0, length - len(_SUPER_JOURNAL)))
            if journal.read() == _SUPER_JOURNAL:
                raise self._foreign("its journal names another file")

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < 1:
            raise self.damaged("it holds no version")
        found = schema.difference(schema.of(connection), migrations.schema_of(min(version, VERSION)))
        if version > VERSION:
            # The facts tell the format too: a number of which the disk changed a bit, or a newer version's.
            query = "SELECT 1 FROM meta WHERE (key, value) = ('format', ?)"
            one_bit = (version ^ VERSION).bit_count() == 1
            if one_bit and found is None and any(connection.execute(query, [str(VERSION)])):
                raise self.damaged(f"it says to be of format {version}")
            raise MasslError(f"{self.path} was written by a newer version of massl (format {version}); update massl")
        if found:
            raise self.damaged(f"it is not as massl makes it: {found}")

    def _is_made_anew(self, connection: sqlite3.Connection) -> bool:
        """Whether somebody changed the schema: another version of massl, or whoever means ill. It is compared anew."""
        (cookie,) = connection.execute("PRAGMA schema_version").fetchone()
        return bool(cookie != self._local.cookie)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Says in a sentence what SQLite finds fault with, unless the fault is ours."""
        try:
            yield
        except sqlite3.Error as error:
            trouble = self._trouble(error)
            if trouble is None:
                raise
            raise trouble from error
        except UnicodeDecodeError as error:  # of a text, or of SQLite's own words about a name that changed
            raise CatalogDamaged(self.path, "a text in it is no text any more") from error

    def _trouble(self, error: sqlite3.Error) -> MasslError | None:
        """What to say of an error of SQLite's; None if neither the file nor the disk is to blame."""
        code = _code(error)
        if damage.is_damage(error, getattr(self._local, "connection", None)):
            return CatalogDamaged(self.path, str(error))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return MasslError(f"{self.path} is being written by another process; try again in a moment")
        if code == sqlite3.SQLITE_PROTOCOL:
            return MasslError(
                f"{self.path.parent} is on a disk where files can't be locked ({error}), as on some network drives; "
                "choose a local one with --index-dir"
            )
        if code == sqlite3.SQLITE_CANTOPEN and self.path.exists() and not os.access(self.path, os.R_OK):
            return MasslError(f"{self.path} can't be read (permission denied); whoever made the index can allow it")
        if code in _UNWRITABLE:
            return cannot_write(self.path.parent, error)
        return None

    def _foreign(self, detail: str) -> MasslError:
        return MasslError(
            f"{self.path} is not as massl makes it ({detail}), so nothing of it was used; if the folder came from "
            f"somebody else move {self.path.parent} away and run `massl index` again"
        )

    def damaged(self, detail: str) -> CatalogDamaged:
        """What to say where it holds what it can't hold."""
        return CatalogDamaged(self.path, detail)


def _distrust(connection: sqlite3.Connection) -> None:
    """Has SQLite take the file for one that somebody may have made to do harm."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)


def to_bytes(path: str) -> bytes:
    """A path as the catalog stores it; see `indexer.store.paths.from_bytes` for the reverse."""
    return os.fsencode(path)


def in_parts(images: Sequence[int]) -> Iterator[list[int]]:
    """Ids in `parts`, which may be numpy's."""
    for part in parts(images):
        yield [int(image) for image in part]


def parts(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Slices of at most as many values as SQLite takes in one statement everywhere."""
    for start in range(0, len(values), 30_000):
        yield values[start : start + 30_000]


def now() -> str:
    """The time as the catalog stores it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cannot_write(folder: Path, error: OSError | sqlite3.Error) -> MasslError:
    """What to say where a collection's folder can't be written."""
    if isinstance(error, sqlite3.Error):
        error = _as_system_error(folder, error)
    return disk_errors.cannot_write(folder, error, "choose another place with --index-dir")


def _refusal(folder: Path) -> OSError:
    """Why a folder, or the catalog in it, may not be written."""
    read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    if not read_only and os.access(folder, os.W_OK) and os.access(folder / CATALOG, os.W_OK):
        return OSError("something else refuses it")
    number = errno.EROFS if read_only else errno.EACCES
    return OSError(number, os.strerror(number))


def _as_system_error(folder: Path, error: sqlite3.Error) -> OSError:
    """SQLite says that reading or writing failed, but not why: a disk that is full and one that breaks say the same."""
    code, number = _code(error), None
    if code == sqlite3.SQLITE_FULL:
        number = errno.ENOSPC
    elif code == sqlite3.SQLITE_IOERR:
        with contextlib.suppress(OSError):
            number = errno.ENOSPC if shutil.disk_usage(folder).free < _NEARLY_FULL else errno.EIO
    elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        with contextlib.suppress(OSError):
            number = _refusal(folder).errno
    return OSError(number, str(error))


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's own number of an error, less what it adds of the circumstances; None if Python raised it."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
