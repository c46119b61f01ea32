"""The catalog: one SQLite file, the only truth about a collection. A batch is one transaction."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from indexer.store import checksums, column_kinds, damage, journal, meta, migrations
from indexer.store.connecting import UNCHANGING, beside, connect_or_read, opening_of
from indexer.store.damage import CatalogDamaged
from indexer.store.meta import Fact, Meta, Written
from indexer.store.migrations import VERSION
from indexer.store.sqlite_errors import cannot_write, explained, refusal
from massl.core.errors import MasslError
from massl.core.images.rendering import Rendering
from massl.core.printable import visible

Value = TypeVar("Value")

# The condition that an image can be searched, for queries that name images by id or need more than what the index of
# states holds. The plus keeps SQLite from going by that index, through every image: it takes a state to be rare.
READY = "+state = 'ready'"


class Catalog:
    """Connections to a catalog, one a thread, all in write-ahead mode: readers see whole batches while one writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._checked: tuple[list[tuple[Any, ...]], Meta] = [], Meta({})  # rows of facts, and what they say

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
        with self._explained(), closing(connect_or_read(self.path, self._opening()).connection) as connection:
            found = damage.examine(connection, whole)
        if str(found):
            raise CatalogDamaged(self.path, str(found))

    def seal(self) -> None:
        """Gives all images checksums, where the catalog is of an earlier format."""
        while checksums.unsealed(self._connection()):
            with self.writing():
                pass

    def can_be_written(self) -> bool:
        """Whether this user may write it; if not, it can be searched all the same. The disk may be full."""
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
        for file in (self.path, beside(self.path, "-wal")):
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
        if column := column_kinds.wrong(cursor, rows):
            raise self.damaged(f"one {column} is of another kind")
        return iter(rows)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or on an exception or a kill nothing.

        Raises:
            MasslError: the disk is full or the file can't be written.
        """
        with self._explained():
            connection = self._connection()
            if not self.can_be_written():  # said before a statement fails at a view; see `indexer.store.connecting`
                raise cannot_write(self.path.parent, refusal(self.path.parent))
            if self._local.unwritable is not None:
                raise cannot_write(self.path.parent, self._local.unwritable)
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
        connection = connect_or_read(self.path, self._opening(), check_same_thread=False).connection
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
        before, known = self._checked
        if rows == before:  # a search asks six times, and to check them takes longer than to read them
            return known
        if changed := checksums.damaged(rows):
            raise CatalogDamaged(self.path, f"{changed[0]} changed")
        facts = {key: value for key, value, _ in rows}
        for key, value in facts.items():
            if not meta.is_fact(key, value):
                raise self.damaged(f"its {key} can't be {str(value)[:40]!r}")
        self._checked = rows, Meta(facts)
        return self._checked[1]

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
        if (
            connection is not None
            and self._local.identity != self._identity(found, opening)
            and not connection.in_transaction
        ):
            self.close()
            connection = None
        if connection is not None and not connection.in_transaction and self._is_made_anew(connection):
            self.close()
            connection = None
        if connection is None:
            connection, self._local.opening, self._local.unwritable = connect_or_read(self.path, opening)
            self._local.identity = self._identity(found, opening)
            (self._local.cookie,) = connection.execute("PRAGMA schema_version").fetchone()
            (self._local.version,) = connection.execute("PRAGMA user_version").fetchone()
            # Every commit survives a kill of the process; only a power cut can take the last ones, never the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
        return connection

    def _identity(self, found: os.stat_result, opening: str) -> tuple[object, ...]:
        """What tells whether the file has to be opened anew."""
        identity: tuple[object, ...] = found.st_dev, found.st_ino, opening
        if self._local.opening == UNCHANGING:
            identity += (found.st_mtime_ns,)  # it changed all the same
        if self._local.opening != opening:
            identity += (shutil.disk_usage(self.path.parent).free,)  # with more of it, it may be written again
        return identity

    def _opening(self) -> str:
        return opening_of(self.path, self.can_be_written())

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
            trouble = explained(self.path, error, getattr(self._local, "connection", None))
            if trouble is None:
                raise
            raise trouble from error
        except UnicodeDecodeError as error:  # of a text, or of SQLite's own words about a name that changed
            raise CatalogDamaged(self.path, "a text in it is no text any more") from error
        except UnicodeEncodeError as error:
            raise _no_text(error) from None

    def damaged(self, detail: str) -> CatalogDamaged:
        """What to say where it holds what it can't hold."""
        return CatalogDamaged(self.path, detail)


def to_bytes(path: str) -> bytes:
    """A path as the catalog stores it; see `indexer.store.paths.from_bytes` for the reverse.

    Raises:
        MasslError: no file can be called so; see `indexer.store.paths.can_name_a_file`.
    """
    try:
        return os.fsencode(path)
    except UnicodeEncodeError as error:
        raise _no_text(error) from None


def _no_text(error: UnicodeEncodeError) -> MasslError:
    """What to say of a text that isn't UTF-8, or has half of a character that JSON writes as two, as `\\ud800`."""
    return MasslError(f"{visible(error.object[:40])} is not valid text; correct its character {error.start + 1}")


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
