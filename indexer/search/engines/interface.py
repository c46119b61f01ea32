"""What a collection asks of a search engine, so that another can take FAISS's place.

`Engine` is all that the rest of the project knows: a module of this folder that gives one is a search engine.
`IndexKind` and `VectorIndex` are a shorter way for those that keep their index in a file: `engine_selection.Ladder`
makes an `Engine` of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.subjects import IMAGES, Subject
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter
from indexer.store.vectors import VectorSource

Preparing = Callable[[str, int, int], None]
"""Told how far the building of an index is: the step, how many of its vectors are done, and how many there are."""


@dataclass(frozen=True)
class Measured:
    """How an index answers.

    Attributes:
        engine: its engine's name.
        effort: what it was set to; 0 where there is nothing to set.
        recall: share of the `AT` nearest others that it finds, over `queries` vectors of the collection other than
            those by which the effort was chosen; 1 where it is exact.
        queries: how many; 0 where it is exact.
        vectors: how many it was built of.
        seconds: to build and measure.
        passed_over: engines that would have been faster and missed the floor, with the recall that they reached.
    """

    engine: str
    effort: int
    recall: float
    queries: int
    vectors: int
    seconds: float
    passed_over: dict[str, float]

    def to_json(self) -> str:
        """As the catalog keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Measured:
        """The reverse of `to_json`."""
        return cls(**json.loads(text))


class TunableIndex(Protocol):
    """Vectors that can be searched. Safe to be searched by several threads at once.

    Attributes:
        effort: how thoroughly an index that approximates looks; one of its engine's `efforts`.
    """

    effort: int

    def __len__(self) -> int: ...

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The `k` vectors with the largest inner products with each query, best first.

        Args:
            queries: float32 `[Q, D]`.
            k: how many; `k'` come back, fewer where fewer are stored.
            among: rising int64 ids that the search is confined to; they need not all be stored.

        Returns:
            Inner products, float32 `[Q, k']`, and ids, int64 `[Q, k']`. Where an index that approximates found fewer
            for one query than for another, the rest is -inf and -1.
        """
        ...


class VectorIndex(TunableIndex, Protocol):
    """An index of vectors that are stored under ids."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """Of what is stored: int64 `[N]`, rising."""
        ...

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these ids are stored, bool `[len(ids)]`."""
        ...


class CurrentIndex(Protocol):
    """A collection's vectors as the catalog was when it was asked for. Safe to be searched by several threads at once.

    Attributes:
        exact: whether it finds the nearest without fail.
    """

    exact: bool

    def __len__(self) -> int: ...

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | Filter | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As `VectorIndex.search`; `among` may also be a filter, by label, folder or date.

        Raises:
            MasslError: the engine can't search at present.
        """
        ...


class OpenedEngine(Protocol):
    """A search engine at work for one collection. The catalog is the truth, and all that it keeps is a cache."""

    def get(self, preparing: Preparing, tidy: bool = False) -> CurrentIndex:
        """The vectors, ready to search: built, or brought up to date by what came and went, where need be.

        What it kept of another collection, another encoder or an earlier state is never searched.

        Args:
            preparing: told how far building is.
            tidy: whether an update of the collection has just ended: the moment for what need not be done at once.

        Raises:
            MasslError: the engine can't be reached or can't write, and nothing takes its place.
        """
        ...

    def is_current(self) -> bool:
        """Whether what it keeps is there, and is of the catalog as it is now; not looked into."""
        ...

    def measured(self) -> Measured | None:
        """How the index answers; None while there is none."""
        ...

    def how(self) -> str:
        """How it searches, for a person: half a sentence; empty while there is no index."""
        ...

    def forget(self) -> None:
        """Removes what it keeps outside the collection's folder, as another engine takes its place."""
        ...


class Engine(Protocol):
    """What a collection is searched with."""

    def check(self) -> None:
        """Makes sure that it can be used from here.

        Raises:
            MasslError: it can't be, with what to do about it.
        """
        ...

    def open(self, catalog: Catalog, folder: Path, subject: Subject = IMAGES) -> OpenedEngine:
        """Begins to work for the collection of a catalog, whose own files lie in `folder`. Nothing is read yet.

        Those of different subjects, as a collection's images and its tiles, have nothing to do with each other.
        """
        ...


class IndexKind(Protocol):
    """A kind of index that is kept in a file: how to build one, and how to write and read it.

    Attributes:
        name: stands in the catalog beside the file, and in what `massl info` says.
        how: how it searches, for a person: half a sentence.
        exact: whether it finds the nearest without fail.
        efforts: rising, how thoroughly its indexes can look; the collection takes the first that reaches its floor.
    """

    name: str
    how: str
    exact: bool
    efforts: tuple[int, ...]

    def build(self, source: VectorSource, preparing: Preparing) -> VectorIndex:
        """Makes an index of all vectors."""
        ...

    def write(self, index: VectorIndex, path: Path) -> None:
        """Writes an index to a file.

        Raises:
            OSError: it can't be written.
        """
        ...

    def read(self, path: Path, dim: int) -> VectorIndex:
        """Opens what `write` wrote, of vectors of so many numbers.

        Whoever calls has made sure that it is what the catalog names, to the byte; both may be somebody else's.

        Raises:
            OSError: it can't be read, or is no such index.
        """
        ...
