"""The index of a collection: built of its catalog, kept in a file, amended by what changed since.

The file is a cache: written to a temporary name, flushed, renamed; its SHA-256 stands in the catalog and is checked
before an engine reads a byte, as FAISS loads most damaged files without a word. Its name is its content's: it is never
written to again, so that whoever has it mapped goes on reading what they opened.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.engine_selection import Ladder, Measured
from indexer.search.engines.interface import Engine, Preparing, VectorIndex
from indexer.store import index_state
from indexer.store.catalog import Catalog
from indexer.store.index_state import IndexState, Overtaken
from indexer.store.vectors import CatalogVectors, unit
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import put, remove_older, temporary

SMALL = 20_000  # vectors that are indexed anew in less time than anyone notices
_TRIES = 3  # another process may put a newer file in a file's place while we are about to open it


@dataclass(frozen=True, eq=False)
class _Opened:
    """An index in memory or mapped."""

    index: VectorIndex
    measured: Measured
    exact: bool
    file: str | None
    since: int


class AmendedIndex:
    """An index, and the vectors that were added, changed or removed since it was built. See `VectorIndex`.

    Attributes:
        exact: whether it finds the nearest without fail.
        measured: how the index answers that it amends.
    """

    def __init__(
        self, base: _Opened, changed: NDArray[np.int64], ids: NDArray[np.int64], vectors: NDArray[np.float32]
    ) -> None:
        """`changed`: rising ids; of them, `ids` are there now, with unit `vectors`, float32 `[len(ids), D]`."""
        self.effort = base.index.effort
        self.exact = base.exact
        self.measured = base.measured
        self._base = base.index
        self._outdated = changed[base.index.holds(changed)]
        self._ids = ids
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._base) - len(self._outdated) + len(self._ids)

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `VectorIndex.holds`."""
        return (self._base.holds(ids) & ~np.isin(ids, self._outdated)) | np.isin(ids, self._ids)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `VectorIndex.search`."""
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


class CollectionIndex:
    """A collection's index, whatever happens to its catalog and its files. Safe to share by threads."""

    def __init__(self, catalog: Catalog, folder: Path, ladder: Ladder) -> None:
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
                if opened is not None or self._state().file == state.file:
                    break
            if opened is None or len(state.changed) > (_bearable(len(opened.index)) if not tidy else _tidy(opened)):
                opened, state = self._build(preparing)
            self._opened = opened
            if self._current is None or self._current[:2] != (opened, state.last):
                changed = np.array(state.changed, np.int64)
                ids, packed = CatalogVectors(self._catalog).of(changed)
                self._current = opened, state.last, AmendedIndex(opened, changed, ids, unit(packed))
            return self._current[2]

    def is_current(self) -> bool:
        """Whether the file is there and nothing changed since; it is not looked into."""
        state = self._state()
        return state.file is not None and not state.changed and (self._folder / state.file).exists()

    def measured(self) -> Measured | None:
        """How the index answers; None while there is none."""
        state = self._state()
        return Measured.from_json(state.measured) if state.file else None

    def _state(self) -> IndexState:
        unwritten = self._opened.since if self._opened and self._opened.file is None else 0
        return index_state.read(self._catalog, unwritten)

    def _open(self, state: IndexState) -> _Opened | None:
        """The index that the catalog names, if it is there and whole."""
        if self._opened and state.file is not None and self._opened.file == state.file:
            return self._opened
        if self._opened and self._opened.file is None and self._opened.since == state.since:
            return self._opened  # it could not be written
        if state.file is None or not state.measured:
            return None
        measured = Measured.from_json(state.measured)
        engine = self._ladder.engine(measured.engine)
        path = self._folder / state.file
        if engine is None or _digest(path) != state.sha256:
            return None
        try:
            index = engine.read(path)
        except OSError:
            return None
        index.effort = measured.effort
        return _Opened(index, measured, engine.exact, state.file, state.since)

    def _build(self, preparing: Preparing) -> tuple[_Opened, IndexState]:
        state = self._state()  # before the vectors are read: what changes meanwhile is amended
        made_with = self._catalog.meta().embedded_by
        engine, index, measured = self._ladder.build(CatalogVectors(self._catalog), preparing)
        file = None
        try:
            name, digest = _write(engine, index, self._folder)
            index_state.take(self._catalog, name, digest, measured.to_json(), state.last, made_with)
            file = name
            remove_older(self._folder / file, "vectors-*.faiss")
            index = engine.read(self._folder / file)  # mapped: its memory is given back, and shared by processes
            index.effort = measured.effort
        except Overtaken:  # what that one has of the changes since is noted nowhere any more
            state = self._state()
            if state.file != name:
                (self._folder / name).unlink(missing_ok=True)
            opened = self._open(state)
            return (opened, state) if opened is not None else self._build(preparing)
        except (MasslError, OSError):
            pass  # a read-only or full disk costs the cache, not the search
        self._opened = _Opened(index, measured, engine.exact, file, state.last)
        return self._opened, self._state()


def _bearable(count: int) -> int:
    """Changes that are searched beside an index of `count` vectors, rather than building it anew."""
    return min(20_000, max(1_000, count // 50))


def _tidy(opened: _Opened) -> int:
    return 0 if len(opened.index) <= SMALL else _bearable(len(opened.index))


def _write(engine: Engine, index: VectorIndex, folder: Path) -> tuple[str, str]:
    """Writes `vectors-<hash>.faiss`, whole or not at all; returns its name and SHA-256.

    Raises:
        OSError: the disk is full or can't be written.
    """
    with temporary(folder) as written:
        engine.write(index, written)
        with written.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"vectors-{digest[:16]}.faiss"
        put(written, folder / name)
    return name, digest


def _digest(path: Path) -> str | None:
    """The SHA-256 of a file; None if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
