"""An index in a file: built of a collection's catalog, amended by what changed since.

The file is a cache: written to a temporary name, flushed, renamed; its SHA-256 stands in the catalog and is checked
before an engine reads a byte, as FAISS loads most damaged files without a word. Its name is its content's: it is never
changed, so a process that has it mapped continues to read what it opened.

A large index takes long to build. So what came since, or is another now, gets a second file, built anew whenever much
has come, until it holds a tenth as much as the first: only then is all built anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.search.engines.amended_index import AmendedIndex, ExtendedIndex
from indexer.search.engines.interface import IndexKind, Measured, Preparing, VectorIndex
from indexer.search.engines.subjects import IMAGES, Subject
from indexer.store import index_state
from indexer.store.catalog import Catalog
from indexer.store.index_state import IndexState, Overtaken
from indexer.store.vectors import SomeVectors
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import put, remove_older, temporary

if TYPE_CHECKING:
    from indexer.search.engines.engine_selection import Ladder


SMALL = 20_000  # vectors that are indexed anew in less time than anyone notices
_NAME = re.compile(r"(vectors|tiles)-[0-9a-f]{16}\.faiss")
_TRIES = 3  # another process may put a newer file in a file's place while we are about to open it


SHARE = 10  # a second file holds at most so small a part of what the first holds


@dataclass(frozen=True, eq=False)
class _Opened:
    """An index in memory or mapped.

    Attributes:
        kept: where it is, as `IndexState.kept`; empty if it could not be written.
        since: the last change that it has.
        noted: how many ids it lacks that are noted as changed all the same, as nothing is there any more.
    """

    index: VectorIndex
    measured: Measured
    exact: bool
    kept: str
    since: int
    noted: int = 0


@dataclass(frozen=True)
class _KeptFile:
    """One that the catalog names; its name and SHA-256, and how its index answers."""

    name: str
    sha256: str
    measured: str


class IndexFile:
    """A collection's index, whatever happens to its catalog and its files. An `OpenedEngine`; threads may share it."""

    def __init__(self, catalog: Catalog, folder: Path, ladder: Ladder, subject: Subject = IMAGES) -> None:
        self._subject = subject
        self._catalog = catalog
        self._folder = folder
        self._ladder = ladder
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._mapped: tuple[_KeptFile, IndexKind, VectorIndex] | None = (
            None  # the first file: a second one comes and goes
        )
        self._unwritten = 0  # changes for which no second file could be written, and that are searched beside
        self._current: tuple[_Opened, int, AmendedIndex] | None = None

    def get(self, preparing: Preparing, tidy: bool = False) -> AmendedIndex:
        """The index as the catalog is now: from memory, else from its file, else built.

        It is built anew when its file is missing or damaged, and when a fiftieth of the images changed; until then what
        changed is searched beside it. Of a large one only what changed is built, up to a tenth of it.

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
            if opened is None:
                opened, state = self._build(preparing)
            elif len(state.changed) - opened.noted > max(
                self._unwritten, _bearable(len(opened.index)) if not tidy else _tidy(opened)
            ):
                opened, state = self._extend(opened, state, preparing) or self._build(preparing)
            self._opened = opened
            if self._current is None or self._current[:2] != (opened, state.last):
                changed = np.array(state.changed, np.int64)
                about = self._catalog, self._subject, changed
                amended = AmendedIndex(*about, opened.index, opened.exact, opened.measured)
                self._current = opened, state.last, amended
            return self._current[2]

    def is_current(self) -> bool:
        """See `OpenedEngine.is_current`."""
        state = self._state()
        files, noted = _files_of(state)
        return (
            bool(files) and len(state.changed) <= noted and all((self._folder / file.name).exists() for file in files)
        )

    def measured(self) -> Measured | None:
        """See `OpenedEngine.measured`."""
        state = self._state()
        return Measured.from_json(state.measured) if _files_of(state)[0] else None

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
        files, noted = _files_of(state)
        read = [one for one in map(self._read, files) if one is not None]
        if not files or len(read) < len(files):
            return None
        self._mapped = files[0], *read[0]
        index = read[0][1] if len(files) == 1 else ExtendedIndex(read[0][1], read[1][1])
        if not len(index) and len(self._subject.vectors(self._catalog)):
            return None  # rather built anew than amended by all that there is
        exact = all(kind.exact for kind, _ in read)
        return _Opened(index, Measured.from_json(state.measured), exact, state.kept, state.since, noted)

    def _read(self, file: _KeptFile) -> tuple[IndexKind, VectorIndex] | None:
        """The index in a file, if it is there and whole."""
        if self._mapped and self._mapped[0] == file:
            return self._mapped[1:]
        measured = Measured.from_json(file.measured)
        kind = self._ladder.kind(measured.engine)
        path = self._folder / file.name
        if kind is None or _digest(path) != file.sha256:
            return None
        try:
            index = kind.read(path, self._subject.vectors(self._catalog).dim)
        except OSError:
            return None
        index.effort = measured.effort
        return kind, index

    def _extend(self, opened: _Opened, state: IndexState, preparing: Preparing) -> tuple[_Opened, IndexState] | None:
        """Builds a second index, of what changed since a large one was built; None where all is to be built anew."""
        files, _ = _files_of(state)
        large, changed = opened.index, np.array(state.changed, np.int64)
        if isinstance(large, ExtendedIndex):
            changed = np.union1d(large.later.ids, changed)
            large = large.large
        if not opened.kept or len(large) < self._ladder.large:
            return None
        made_with = self._catalog.meta().embedded_by
        vectors = SomeVectors(self._subject.vectors(self._catalog), changed)
        gone = np.setdiff1d(changed, vectors.ids, assume_unique=True)
        gone = gone[large.holds(gone)]
        if len(vectors) > len(large) // SHARE or len(gone) > len(large) // SHARE**2:
            return None
        kind, index, measured = self._ladder.build(vectors, preparing)
        name = ""
        try:
            name, digest = _write(kind, index, self._folder, self._subject.name)
            later = {"file": name, "sha256": digest, "measured": measured.to_json(), "noted": len(gone)}
            # Not as the only file is named: to an earlier massl, which would miss the second, there is none.
            kept = json.dumps({"large": {"file": files[0].name, "sha256": files[0].sha256}, "later": later})
            index_state.take(
                self._catalog, kept, state.measured, state.last, made_with, log=self._subject.log, again=gone.tolist()
            )
            remove_older(self._folder / name, f"{self._subject.name}-*.faiss", (files[0].name,))
            self._unwritten = 0
        except Overtaken:
            (self._folder / name).unlink(missing_ok=True)
        except (MasslError, OSError):  # a full disk, say: what changed is searched beside, until it is twice as much
            self._unwritten = 2 * len(state.changed)
            return opened, state
        state = self._state()
        again = self._open(state)
        return (again, state) if again is not None else None

    def _build(self, preparing: Preparing) -> tuple[_Opened, IndexState]:
        state = self._state()  # before the vectors are read: what changes meanwhile is amended
        made_with = self._catalog.meta().embedded_by
        vectors = self._subject.vectors(self._catalog)
        kind, index, measured = self._ladder.build(vectors, preparing)
        kept = ""
        try:
            name, digest = _write(kind, index, self._folder, self._subject.name)
            where = json.dumps({"file": name, "sha256": digest})
            index_state.take(self._catalog, where, measured.to_json(), state.last, made_with, log=self._subject.log)
            kept = where
            remove_older(self._folder / name, f"{self._subject.name}-*.faiss")
            # Mapped: its memory is given back, and shared by processes.
            index = kind.read(self._folder / name, vectors.dim)
            index.effort = measured.effort
            self._mapped = _KeptFile(name, digest, measured.to_json()), kind, index
        except Overtaken:  # what that one has of the changes since is noted nowhere any more
            state = self._state()
            if name not in [file.name for file in _files_of(state)[0]]:
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


def _files_of(state: IndexState) -> tuple[list[_KeptFile], int]:
    """The files that `IndexState.kept` tells of, the large one first, and `_Opened.noted`; none where it tells of none.

    The catalog may be anybody's: only such a name as we give leads to a file.
    """
    try:
        told = json.loads(state.kept)
        large, later = told.get("large", told), told.get("later")
        files, noted = [_KeptFile(str(large["file"]), str(large["sha256"]), state.measured)], 0
        if later is not None:
            files.append(_KeptFile(str(later["file"]), str(later["sha256"]), str(later["measured"])))
            noted = int(later["noted"])
        usable = all(_NAME.fullmatch(file.name) and Measured.from_json(file.measured) for file in files)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return [], 0
    return (files, noted) if usable else ([], 0)


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
