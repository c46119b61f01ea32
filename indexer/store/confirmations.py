"""Suspect labels that somebody looked at and kept, among the catalog's decisions: they are not asked about again."""

from __future__ import annotations

from collections.abc import Iterable

from indexer.store.catalog import Catalog, now

_KIND = "confirmed"


class Confirmations:
    """The confirmed labels of a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add(self, labels: Iterable[tuple[int, str]]) -> None:
        """Remembers that somebody looked at these labels, each an image and its label, and kept them."""
        rows = [(image, _KIND, label, now()) for image, label in labels]
        with self._catalog.writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO decisions (image, kind, about, at) VALUES (?, ?, ?, ?)", rows)

    def remove(self, labels: Iterable[tuple[int, str]]) -> None:
        """Forgets that they were looked at."""
        statement = "DELETE FROM decisions WHERE image = ? AND kind = ? AND about = ?"
        with self._catalog.writing() as connection:
            connection.executemany(statement, [(image, _KIND, label) for image, label in labels])

    def every(self) -> set[tuple[int, str]]:
        """The labels that somebody looked at and kept."""
        return set(self._catalog.read("SELECT image, about FROM decisions WHERE kind = ?", [_KIND]))
