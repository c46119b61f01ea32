"""Which kind of index, and how hard it must look: chosen by size, and by the recall on the user's own vectors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from indexer.search.engines.index_file import IndexFile
from indexer.search.engines.interface import IndexKind, Measured, Preparing, VectorIndex
from indexer.search.engines.recall import Truth
from indexer.search.engines.subjects import IMAGES, Subject
from indexer.store.catalog import Catalog
from indexer.store.vectors import VectorSource

LEAST = 4_000  # vectors below which there is nothing to learn codes from


@dataclass(frozen=True)
class Ladder:
    """An `Engine` of several kinds of index, by the number of vectors from which each is used, the most exact first.

    Attributes:
        steps: number and kind, rising; the first from 0 and exact.
        floor: the recall at ten below which the step before is taken instead.
        large: the number of vectors from which what changed gets an index of its own, as building takes long.
    """

    steps: tuple[tuple[int, IndexKind], ...]
    floor: float = 0.99
    large: int = 1_000_000

    def check(self) -> None:
        """See `Engine.check`: files can be written wherever there is a catalog."""

    def open(self, catalog: Catalog, folder: Path, subject: Subject = IMAGES) -> IndexFile:
        """See `Engine.open`."""
        return IndexFile(catalog, folder, self, subject)

    def build(self, source: VectorSource, preparing: Preparing) -> tuple[IndexKind, VectorIndex, Measured]:
        """Builds the fastest index that reaches the floor on these vectors."""
        started = time.monotonic()
        count = len(source)
        truth: Truth | None = None
        passed_over: dict[str, float] = {}
        for least, kind in reversed(self.steps):
            if count < least or (not kind.exact and count < LEAST):
                continue
            index = kind.build(source, preparing)
            recall, queries = 1.0, 0
            if not kind.exact:
                truth = truth or Truth.of(source, preparing)
                recall, queries = truth.tune(index, kind.efforts, self.floor), len(truth.measuring)
                if recall < self.floor:
                    passed_over[kind.name] = round(recall, 4)
                    continue
            seconds = round(time.monotonic() - started, 1)
            measured = Measured(kind.name, index.effort, round(recall, 4), queries, count, seconds, passed_over)
            return kind, index, measured
        raise AssertionError("the first step of a ladder is exact and from 0")

    def kind(self, name: str) -> IndexKind | None:
        """The kind of that name, if it is on the ladder."""
        return next((kind for _, kind in self.steps if kind.name == name), None)
