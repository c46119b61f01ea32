"""An index in a file: built of a collection's catalog, amended by what changed since.

The file is a cache: written to a temporary name, flushed, renamed; its SHA-256 stands in the catalog and is checked
before an engine reads a byte, as FAISS loads most damaged files without a word. Its name is its content's: it is never
changed, so a process that has it mapped continues to read what it opened.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.interface import IndexKind, Measured, Preparing, VectorIndex
from indexer.store import index_state
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter
from indexer.store.filters import among as passing_ids
from indexer.store.index_state import IndexState, Overtaken
from indexer.store.tiles import TileVectors
from indexer.store.vectors import CatalogVectors, VectorSource, unit
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import put, remove_older, temporary

if TYPE_CHECKING:
    from indexer.search.engines.engine_selection import Ladder


@dataclass(frozen=True)
class Subject:
    """What the vectors of an index are of.

    Attributes:
        name: begins the names of its files.
        vectors: a catalog's, as they are now.
        log: where the catalog notes which of them changed.
    """

    name: str
    vectors: Callable[[Catalog], VectorSource]
    log: index_state.ChangeLog


IMAGES = Subject("vectors", CatalogVectors, index_state.IMAGES)
TILES = Subject("tiles", TileVectors, index_state.TILES)

SMALL = 20_000  # vectors that are indexed anew in less time than anyone notices
_NAME = re.compile(r"(vectors|tiles)-[0-9a-f]{16}\.faiss")
_TRIES = 3  # another process may put a newer file in a file's place while we are about to open it


@dataclass(frozen=True, eq=False)
class _Opened:
    """An index in memory or mapped; `kept` is where, empty if it could not be written."""

    index: VectorIndex
    measured: Measured
    exact: bool
    kept: str
    since: int


class AmendedIndex:
    """An index, and the vectors that were added, changed or removed since it was built. A `CurrentIndex`.

    Attributes:
        exact: whether it finds the nearest without fail.
        measured: how the index answers that it amends.
    """

    def __init__(self, catalog: Catalog, base: _Opened, changed: NDArray[np.int64], subject: Subject = IMAGES) -> None:
        """`changed`: rising ids of the images that did, or tiles; their vectors are read from the catalog."""
        ids, packed = subject.vectors(catalog).of(changed)
        self._catalog = catalog
        self.exact = base.exact
        self.measured = base.measured
        self._base = base.index
        self._outdated = changed[base.index.holds(changed)]
        self._ids = ids
        self._vectors = unit(packed)

    def __len__(self) -> int:
        return len(self._base) - len(self._outdated) + len(self._ids)

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `VectorIndex.holds`."""
        return (self._base.holds(ids) & ~np.isin(ids, self._outdated)) | np.isin(ids, self._ids)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | Filter | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `CurrentIndex.search`."""
        if isinstance(among, Filter):
            among = passing_ids(self._catalog, among)
        scores, ids = self._current(queries, k, among)
        if len(self._ids):
            passing = slice(None) if among is None else np.isin(self._ids, among)
            fresh = queries @ self._vectors[passing].T
            scores = np.concatenate([scores, fresh], 1)
            ids = np.concatenate([ids, np.broadcast_to(self._ids[passing], fresh.shape)], 1)
        best = np.argsort(-scores, 1, kind="stable")[:, : max(0, k)]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)

    def _current(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What the index finds, less what is outdated."""
        if among is not None:
            if len(self._outdated):
                among = np.setdiff1d(among, self._outdated, assume_unique=True)
            return self._base.search(queries, k, among)
        more = min(len(self._outdated), 16)
        while True:
            scores, ids = self._base.search(queries, k + more)
            outdated = np.isin(ids, self._outdated)
            if more >= len(self._outdated) or (outdated.sum(1) <= more).all():
                break
            more = min(len(self._outdated), 8 * more)  # a whole folder changed, say, just where the query looks
        scores[outdated], ids[outdated] = -np.inf, -1
        return scores, ids


class IndexFile:
    """A collection's index, whatever happens to its catalog and its files. An `OpenedEngine`; threads may share it."""

    def __init__(self, catalog: Catalog, folder: Path, ladder: Ladder, subject: Subject = IMAGES) -> None:
        self._subject = subject
        self._catalog = catalog
        self._folder = folder
        self._ladder = ladder
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._current: tuple[_Opened, int, AmendedIndex] | None = None

    def get(self, preparing: Preparing, tidy: bool = False) -> AmendedIndex:
        """The index as the catalog is now: from memory, else from its file, else built.

        It is built anew when its file is missing or damaged, and when a fiftieth of the images changed; until then what
        changed is searched beside it.

        Args:
            preparing: told how far building is.
            tidy: build it anew for any change, if that takes no time.
        """
        with self._lock:
            for _ in range(_TRIES):
                state = self._state()
                opened = self._open(state)
                if opened is not None or self._state().kept == state.kept:
                    break
            if opened is None or len(state.changed) > (_bearable(len(opened.index)) if not tidy else _tidy(opened)):
                opened, state = self._build(preparing)
            self._opened = opened
            if self._current is None or self._current[:2] != (opened, state.last):
                changed = np.array(state.changed, np.int64)
                self._current = opened, state.last, AmendedIndex(self._catalog, opened, changed, self._subject)
            return self._current[2]

    def is_current(self) -> bool:
        """See `OpenedEngine.is_current`."""
        state = self._state()
        file, _ = _file_of(state.kept)
        return bool(file) and not state.changed and (self._folder / file).exists()

    def measured(self) -> Measured | None:
        """See `OpenedEngine.measured`."""
        state = self._state()
        return Measured.from_json(state.measured) if _file_of(state.kept)[0] else None

    def how(self) -> str:
        """See `OpenedEngine.how`."""
        measured = self.measured()
        kind = self._ladder.kind(measured.engine) if measured else None
        return kind.how if kind else ""

    def forget(self) -> None:
        """See `OpenedEngine.forget`: a file in the collection's folder costs nothing, and the next one removes it."""

    def _state(self) -> IndexState:
        unwritten = self._opened.since if self._opened and not self._opened.kept else 0
        return index_state.read(self._catalog, unwritten, self._subject.log)

    def _open(self, state: IndexState) -> _Opened | None:
        """The index that the catalog names, if it is there and whole."""
        if self._opened and state.kept and self._opened.kept == state.kept:
            return self._opened
        if self._opened and not self._opened.kept and self._opened.since == state.since:
            return self._opened  # it could not be written
        file, sha256 = _file_of(state.kept)
        if not file or not state.measured:
            return None
        measured = Measured.from_json(state.measured)
        kind = self._ladder.kind(measured.engine)
        path = self._folder / file
        if kind is None or _digest(path) != sha256:
            return None
        try:
            index = kind.read(path)
        except OSError:
            return None
        index.effort = measured.effort
        return _Opened(index, measured, kind.exact, state.kept, state.since)

    def _build(self, preparing: Preparing) -> tuple[_Opened, IndexState]:
        state = self._state()  # before the vectors are read: what changes meanwhile is amended
        made_with = self._catalog.meta().embedded_by
        kind, index, measured = self._ladder.build(self._subject.vectors(self._catalog), preparing)
        kept = ""
        try:
            name, digest = _write(kind, index, self._folder, self._subject.name)
            where = json.dumps({"file": name, "sha256": digest})
            index_state.take(self._catalog, where, measured.to_json(), state.last, made_with, log=self._subject.log)
            kept = where
            remove_older(self._folder / name, f"{self._subject.name}-*.faiss")
            index = kind.read(self._folder / name)  # mapped: its memory is given back, and shared by processes
            index.effort = measured.effort
        except Overtaken:  # what that one has of the changes since is noted nowhere any more
            state = self._state()
            if _file_of(state.kept)[0] != name:
                (self._folder / name).unlink(missing_ok=True)
            opened = self._open(state)
            return (opened, state) if opened is not None else self._build(preparing)
        except (MasslError, OSError):
            pass  # a read-only or full disk costs the cache, not the search
        self._opened = _Opened(index, measured, kind.exact, kept, state.last)
        return self._opened, self._state()


def _bearable(count: int) -> int:
    """Changes that are searched beside an index of `count` vectors, rather than building it anew."""
    return min(20_000, max(1_000, count // 50))


def _tidy(opened: _Opened) -> int:
    return 0 if len(opened.index) <= SMALL else _bearable(len(opened.index))


def _file_of(kept: str) -> tuple[str, str]:
    """Name and SHA-256 of the file that `IndexState.kept` tells of; empty where it tells of none.

    The catalog may be anybody's: only such a name as we give leads to a file.
    """
    try:
        told = json.loads(kept)
        file, sha256 = str(told["file"]), str(told["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", ""
    return (file, sha256) if _NAME.fullmatch(file) else ("", "")


def _write(kind: IndexKind, index: VectorIndex, folder: Path, subject: str) -> tuple[str, str]:
    """Writes `vectors-<hash>.faiss`, or of another subject, whole or not at all; returns its name and SHA-256.

    Raises:
        OSError: the disk is full or can't be written.
    """
    with temporary(folder) as written:
        kind.write(index, written)
        with written.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"{subject}-{digest[:16]}.faiss"
        put(written, folder / name)
    return name, digest


def _digest(path: Path) -> str | None:
    """The SHA-256 of a file; None if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
