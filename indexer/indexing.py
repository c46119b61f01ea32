"""Bringing a catalog up to date with a folder: what changed, decoded and embedded in batches, a transaction each."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.catalog import Catalog, to_bytes
from indexer.encoder import Encoder
from massl.images import ImageError, ImageFile, Skipped, decode, read_bytes, walk

BATCH = 32  # images in a batch, and so in a transaction: what a kill can cost at most


@dataclass(frozen=True)
class Progress:
    """`done` of `total` files looked at; `path` is one of the last."""

    done: int
    total: int
    path: str


@dataclass
class IndexReport:
    """What one run did, in files. `indexed` is how many can be searched now, `skipped` what can't and why."""

    indexed: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Images embedded a second over the whole run, walking and writing included."""
        return self.embedded / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class _Known:
    """A row of the catalog, without its embedding."""

    id: int
    size: int
    mtime_ns: int
    state: str
    hash: bytes | None


@dataclass(frozen=True)
class Loaded:
    """A file that was read: its pixels, or why there are none."""

    file: ImageFile
    hash: bytes | None = None
    pixels: NDArray[np.uint8] | None = None
    width: int = 0
    height: int = 0
    reason: str | None = None
    lasting: bool = True  # whether the reason lies in the content, and so holds until the file changes


def update(root: Path, catalog: Catalog, encoder: Encoder, report: Callable[[Progress], None]) -> IndexReport:
    """Makes the catalog say what is below `root` now.

    A file counts as unchanged while its size and time of change are. One with another path but the content of a file
    that has gone was moved: it keeps its identity, labels and embedding. Rows of files that have gone are kept, out of
    sight, so that an unplugged disk costs nothing when it comes back.
    """
    started = time.monotonic()
    result = IndexReport()
    known = {
        bytes(path): _Known(*rest)
        for path, *rest in catalog.read("SELECT path, id, size, mtime_ns, state, hash FROM images")
    }
    files: list[ImageFile] = []
    passed_over: list[Skipped] = []
    for found in walk(root):
        if isinstance(found, ImageFile):
            files.append(found)
        else:
            passed_over.append(found)
    present = {to_bytes(file.path) for file in files} | {to_bytes(skipped.path) for skipped in passed_over}

    vanished = [row for path, row in known.items() if path not in present and row.state != "gone"]
    with catalog.writing() as connection:
        connection.executemany("UPDATE images SET state = 'gone' WHERE id = ?", [(row.id,) for row in vanished])
        for skipped in passed_over:
            _write_skipped(connection, skipped.path, 0, -1, skipped.reason)
        if vanished:
            _next_generation(connection)

    todo = []
    for file in files:
        row = known.get(to_bytes(file.path))
        if row and row.state != "gone" and (row.size, row.mtime_ns) == (file.size, file.mtime_ns):
            result.unchanged += row.state == "ready"
        else:
            todo.append(file)

    removed = {row.id for row in vanished if row.state == "ready"}
    done = 0
    for batch in batches(root, todo, encoder):
        _commit(catalog, encoder, known, batch, removed, result)
        done += len(batch)
        report(Progress(done, len(todo), batch[-1].file.path))

    result.removed = len(removed)
    ((result.indexed,),) = catalog.read("SELECT count(*) FROM images WHERE state = 'ready'")
    result.skipped = skipped_files(catalog)
    result.seconds = time.monotonic() - started
    return result


def skipped_files(catalog: Catalog) -> list[Skipped]:
    """Every file and folder that is passed over at present, by path."""
    rows = catalog.read("SELECT path, reason FROM images WHERE state = 'skipped' ORDER BY path")
    return [Skipped(os.fsdecode(path), reason) for path, reason in rows]


def batches(root: Path, files: list[ImageFile], encoder: Encoder) -> Iterator[list[Loaded]]:
    """Reads files in threads, ahead of the encoder but never by more than four batches."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers, "decode") as pool:
        pending: deque[Future[Loaded]] = deque()
        try:
            remaining = iter(files)
            batch: list[Loaded] = []
            while True:
                while len(pending) < 4 * BATCH and (file := next(remaining, None)) is not None:
                    pending.append(pool.submit(_load, root, file, encoder))
                if not pending:
                    break
                batch.append(pending.popleft().result())
                if len(batch) == BATCH:
                    yield batch
                    batch = []
            if batch:
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _load(root: Path, file: ImageFile, encoder: Encoder) -> Loaded:
    try:
        data = read_bytes(root / file.path)
    except ImageError as error:
        return Loaded(file, reason=str(error), lasting=False)
    digest = hashlib.sha256(data).digest()
    try:
        decoded = decode(data, shortest=encoder.resize)
    except ImageError as error:
        return Loaded(file, digest, reason=str(error))
    return Loaded(file, digest, encoder.prepare(decoded.picture), decoded.width, decoded.height)


def _commit(
    catalog: Catalog,
    encoder: Encoder,
    known: dict[bytes, _Known],
    batch: list[Loaded],
    removed: set[int],
    result: IndexReport,
) -> None:
    """Embeds what of a batch is new content, and writes the whole batch in one transaction."""
    embeddings = _reusable(catalog, batch)
    new = {
        item.hash: item.pixels
        for item in batch
        if item.pixels is not None and item.hash is not None and item.hash not in embeddings
    }
    if new:
        rows = encoder.embed(np.stack(list(new.values()))).astype(np.float16)
        embeddings |= {digest: row.tobytes() for digest, row in zip(new, rows, strict=True)}
    result.embedded += len(new)
    with catalog.writing() as connection:
        # With every batch, so that no kill can leave a cache that looks current.
        _next_generation(connection)
        for item in batch:
            path = to_bytes(item.file.path)
            if item.pixels is None:
                mtime = item.file.mtime_ns if item.lasting else -1
                _write_skipped(connection, item.file.path, item.file.size, mtime, item.reason or "", item.hash)
                continue
            values = (
                item.file.size, item.file.mtime_ns, item.hash, item.width, item.height, embeddings[item.hash]
            )  # fmt: skip
            row = known.get(path)
            if row is None and (moved := _moved_from(connection, item.hash)):
                connection.execute(
                    "UPDATE images SET path = ?, size = ?, mtime_ns = ?, state = 'ready' WHERE id = ?",
                    (path, item.file.size, item.file.mtime_ns, moved),
                )
                # A row that went in an earlier run and comes back under a new name was counted as removed then.
                result.moved += moved in removed
                result.added += moved not in removed
                removed.discard(moved)
            elif row is None:
                connection.execute(
                    "INSERT INTO images (path, size, mtime_ns, hash, width, height, embedding, state) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, 'ready')",
                    (path, *values),
                )
                result.added += 1
            else:
                connection.execute(
                    "UPDATE images SET size = ?, mtime_ns = ?, hash = ?, width = ?, height = ?, embedding = ?, "
                    "state = 'ready', reason = NULL WHERE id = ?",
                    (*values, row.id),
                )
                if row.state != "ready":
                    result.added += 1
                elif row.hash == item.hash:
                    result.unchanged += 1  # touched, not changed
                else:
                    result.changed += 1


def _reusable(catalog: Catalog, batch: list[Loaded]) -> dict[bytes | None, bytes]:
    """Embeddings that the catalog already has for the content of a batch: copies and moved files cost nothing."""
    digests = [item.hash for item in batch if item.pixels is not None]
    marks = ", ".join("?" * len(digests))
    query = f"SELECT hash, embedding FROM images WHERE embedding IS NOT NULL AND hash IN ({marks})"
    return dict(catalog.read(query, digests)) if digests else {}


def _next_generation(connection: sqlite3.Connection) -> None:
    """Marks the vectors on disk as those of an earlier state."""
    connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")


def _moved_from(connection: sqlite3.Connection, digest: bytes | None) -> int | None:
    row = connection.execute("SELECT id FROM images WHERE hash = ? AND state = 'gone' LIMIT 1", (digest,)).fetchone()
    return row[0] if row else None


def _write_skipped(
    connection: sqlite3.Connection, path: str, size: int, mtime_ns: int, reason: str, digest: bytes | None = None
) -> None:
    connection.execute(
        "INSERT INTO images (path, size, mtime_ns, hash, state, reason) VALUES (?, ?, ?, ?, 'skipped', ?) "
        "ON CONFLICT (path) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, hash = excluded.hash, "
        "state = 'skipped', reason = excluded.reason, embedding = NULL",
        (to_bytes(path), size, mtime_ns, digest, reason),
    )
