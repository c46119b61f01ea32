"""Reading what can be read of a damaged catalog, and writing it into a sound one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from indexer.store import checksums, column_kinds, damage, decision_tables, sidecar_keywords
from indexer.store.catalog import Catalog
from indexer.store.connecting import connect
from indexer.store.decision_tables import TABLES
from indexer.store.meta import Meta, is_fact
from indexer.store.paths import from_bytes
from indexer.store.schema import keep_tables
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import temporary

_MISSING = {"ctime_ns": "-1"}  # what stands for columns that earlier formats don't have; else nothing does
_GAP = 200_000  # ids that are looked up one by one between what can be read from either end

# The first 100 bytes of a catalog are the same in each, but for counters: (place, bytes), by SQLite's file format.
_HEADER = ((0, b"SQLite format 3\0\x10\0\2\2\0\x40\x20\x20"), (44, b"\0\0\0\4"), (56, b"\0\0\0\1"))


@dataclass
class Salvaged:
    """What of a damaged catalog is as it was written.

    Attributes:
        meta: facts about the collection.
        images: rows of `indexer.store.checksums.IMAGE` and the embedding, None where that changed.
        labels: rows of these.
        decisions: rows of each of `indexer.store.decision_tables.TABLES`, tags among them.
        sidecars: image, and the keywords in its sidecar that are massl's own. Where one can't be read, they count as
            somebody else's.
        lost_images, lost_labels, lost_decisions: rows that were read and had changed, or belong to an image that had.
    """

    meta: dict[str, str] = field(default_factory=dict)
    images: list[tuple[Any, ...]] = field(default_factory=list)
    labels: list[tuple[Any, ...]] = field(default_factory=list)
    decisions: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in TABLES})
    sidecars: list[tuple[int, str]] = field(default_factory=list)
    lost_images: int = 0
    lost_labels: int = 0
    lost_decisions: int = 0

    @property
    def embedded(self) -> int:
        """Images whose embedding is sound."""
        return sum(row[-1] is not None for row in self.images)

    @property
    def decided(self) -> int:
        """Decisions, of all kinds but tags."""
        return sum(map(len, self.decisions.values())) - self.tagged

    @property
    def tagged(self) -> int:
        """Tags."""
        return len(self.decisions["tags"])


def read(path: Path) -> Salvaged:
    """Reads what can be read of a catalog, whatever has happened to it. The file stays as it is.

    Raises:
        OSError: there is no room for a copy of it beside it, or it can't be read at all.
    """
    with temporary(path.parent) as copy:
        shutil.copyfile(path, copy)
        wal, copied_wal = (file.with_name(f"{file.name}-wal") for file in (path, copy))
        try:
            if wal.exists():
                shutil.copyfile(wal, copied_wal)
            with copy.open("r+b") as file:
                for place, data in _HEADER:
                    file.seek(place)
                    file.write(data)
            with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                keep_tables(connection)
            with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                return _read(connection)
        except (sqlite3.Error, UnicodeDecodeError):
            return Salvaged()
        finally:
            for ending in ("-wal", "-shm"):
                copy.with_name(copy.name + ending).unlink(missing_ok=True)


def put_in_place(path: Path, found: Salvaged, facts: Mapping[str, str]) -> None:
    """Puts a sound catalog of what was read in a damaged one's place.

    Args:
        path: of the damaged catalog; of the sound one afterwards.
        found: what is to be in it. Embeddings of another length than `facts` tell are left out.
        facts: all facts about the collection.

    Raises:
        OSError, MasslError: nothing can be written; the damaged catalog is then as it was.
    """
    size = 2 * Meta.dim.of(facts)
    rebuilt = path.with_name("catalog-rebuilt.sqlite")
    try:
        catalog = Catalog.create(rebuilt, facts)
        with closing(connect(catalog.path, "")) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # so that all of it is in one file
            connection.execute("BEGIN")
            images = [(*row[:-1], row[-1] if len(row[-1] or b"") == size else None) for row in found.images]
            connection.executemany(
                f"INSERT OR IGNORE INTO images ({checksums.IMAGE}, embedding) VALUES ({', '.join('?' * 11)})", images
            )
            there = {identity for (identity,) in connection.execute("SELECT id FROM images")}
            connection.executemany(
                f"INSERT OR IGNORE INTO labels ({checksums.LABEL}) VALUES (?, ?, ?, ?)",
                [row for row in found.labels if row[0] in there],
            )
            for name, rows in found.decisions.items():
                decision_tables.insert(
                    connection, name, [row for row in rows if decision_tables.images(name, row) <= there]
                )
            for image, words in found.sidecars:
                if image in there:
                    sidecar_keywords.put(connection, image, words)
            while checksums.unsealed(connection):
                checksums.seal(connection)
            checksums.seal(connection)
            connection.execute("COMMIT")
        for ending in ("-wal", "-shm"):  # the damaged one's, which SQLite would put into this one
            path.with_name(path.name + ending).unlink(missing_ok=True)
        os.replace(rebuilt, path)
    finally:
        for ending in ("", "-wal", "-shm", "-journal"):
            rebuilt.with_name(rebuilt.name + ending).unlink(missing_ok=True)


def _read(connection: sqlite3.Connection) -> Salvaged:
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    for pragma in ("writable_schema = ON", "cell_size_check = ON", "trusted_schema = OFF"):
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
            connection.execute(f"PRAGMA {pragma}")
    found = Salvaged()
    given = {
        table: {name for _, name, *_ in _all(connection, f"PRAGMA table_info({table})")}
        for table in ("meta", "images", "labels", "decisions", "sidecar_keywords", *TABLES)
    }

    def columns(table: str, *names: str) -> str:
        """Those of a table that it has; catalogs of earlier formats have no checksums."""
        return ", ".join(name if name in given[table] else f"{_MISSING.get(name, 'NULL')} AS {name}" for name in names)

    wanted = columns("meta", *checksums.META.split(", "), "checksum")
    for key, value, checksum in _all(connection, f"SELECT {wanted} FROM meta"):
        if checksums.is_sound((key, value, checksum)) and _is_text(key, value) and is_fact(key, value):
            found.meta[key] = value
    wanted = columns("images", *checksums.IMAGE.split(", "), "row_checksum", "embedding", "embedding_checksum")
    query = f"SELECT {wanted} FROM images NOT INDEXED"
    for *row, checksum, embedding, embedding_checksum in _by_number(connection, query, "id"):
        if not checksums.is_sound((*row, checksum)) or not _is_image(row):
            found.lost_images += 1
            continue
        sound = isinstance(embedding, bytes) and checksums.is_sound((row[0], row[5], embedding, embedding_checksum))
        found.images.append((*row, embedding if sound else None))
    there = {row[0] for row in found.images}
    wanted = columns("labels", *checksums.LABEL.split(", "), "checksum")
    for *row, checksum in _by_number(connection, f"SELECT {wanted} FROM labels NOT INDEXED", "image"):
        if checksums.is_sound((*row, checksum)) and _is_text(*row[1:]) and row[0] in there:
            found.labels.append(tuple(row))
        else:
            found.lost_labels += 1
    wanted = columns("sidecar_keywords", "image", "keywords", "checksum")
    for image, words, checksum in _all(connection, f"SELECT {wanted} FROM sidecar_keywords"):
        if checksums.is_sound((image, words, checksum)) and image in there and column_kinds.are_words(words):
            found.sidecars.append((image, words))
    for name, decision in _decisions(connection, columns, found):
        if _is_decision(name, decision) and decision_tables.images(name, decision) <= there:
            found.decisions[name].append(decision)
        else:
            found.lost_decisions += 1
    return found


def _decisions(
    connection: sqlite3.Connection, columns: Callable[..., str], found: Salvaged
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Rows of decisions that are as they were written; the others are counted as lost."""
    for name, table in TABLES.items():
        wanted = columns(name, *table.columns.split(", "), "checksum")
        for *row, checksum in _all(connection, f"SELECT {wanted} FROM {name}"):
            if checksums.is_sound((*row, checksum)):
                yield name, tuple(row)
            else:
                found.lost_decisions += 1
    wanted = columns("decisions", *decision_tables.EARLIER.split(", "), "checksum")  # of formats before the fifth
    for *row, checksum in _all(connection, f"SELECT {wanted} FROM decisions"):
        if checksums.is_sound((*row, checksum)) and _is_text(*row[1:]):
            yield from decision_tables.from_earlier([row])
        else:
            found.lost_decisions += 1


def _is_decision(name: str, row: Sequence[Any]) -> bool:
    """Whether the values of a decision are what they can be."""
    images = len(decision_tables.images(name, row))
    return all(isinstance(value, int) for value in row[:images]) and _is_text(*row[images:])


def _all(connection: sqlite3.Connection, query: str) -> Iterator[Sequence[Any]]:
    """Rows up to the first that can't be read, and no more than the file has room for."""
    with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeDecodeError):
        yield from islice(connection.execute(query), damage.most_rows(connection))


def _by_number(connection: sqlite3.Connection, query: str, number: str) -> Iterator[Sequence[Any]]:
    """Rows from the first on, from the last back, and one by one between: a page that is damaged costs its own rows."""
    low, high = 0, None
    seen: set[int] = set()
    for row in _all(connection, f"{query} ORDER BY {number}"):
        if isinstance(row[0], int) and row[0] not in seen:
            low = max(low, row[0])
            seen.add(row[0])
            yield row
    for row in _all(connection, f"{query} ORDER BY {number} DESC"):
        if isinstance(row[0], int):
            if row[0] in seen:
                break
            high = row[0] if high is None else min(high, row[0])
            seen.add(row[0])
            yield row
    for between in range(low + 1, min(high or 0, low + _GAP)):
        if between not in seen:
            for row in _all(connection, f"{query} WHERE {number} = {between}"):
                if row[0] == between:
                    seen.add(between)
                    yield row


def _is_image(row: Sequence[Any]) -> bool:
    """Whether the values of `checksums.IMAGE` are what they can be."""
    identity, path, size, mtime_ns, ctime_ns, digest, width, height, state, reason = row
    numbers = all(isinstance(value, int) for value in (identity, size, mtime_ns, ctime_ns))
    sides = all(value is None or isinstance(value, int) for value in (width, height))
    content = digest is None or isinstance(digest, bytes)
    told = state in ("ready", "skipped", "gone") and (reason is None or _is_text(reason))
    return numbers and sides and content and told and (state == "gone" or _is_path(path)) and isinstance(path, bytes)


def _is_path(value: Any) -> bool:
    try:
        return bool(from_bytes(value))
    except MasslError:
        return False


def _is_text(*values: Any) -> bool:
    try:
        return all(isinstance(value, str) and bool(value.encode()) for value in values)
    except UnicodeEncodeError:
        return False
