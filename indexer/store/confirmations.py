"""Suspect labels that somebody looked at and kept: they are not asked about again."""

from __future__ import annotations

from collections.abc import Iterable

from indexer.store.catalog import Catalog, now
from indexer.store.decision_tables import insert


class Confirmations:
    """The confirmed labels of a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add(self, labels: Iterable[tuple[int, str]]) -> None:
        """Remembers that somebody looked at these labels, each an image and its label, and kept them."""
        rows = [(image, label, now()) for image, label in labels]
        with self._catalog.writing() as connection:
            insert(connection, "confirmed_labels", rows)

    def remove(self, labels: Iterable[tuple[int, str]]) -> None:
        """Forgets that they were looked at."""
        with self._catalog.writing() as connection:
            connection.executemany("DELETE FROM confirmed_labels WHERE image = ? AND label = ?", list(labels))

    def every(self) -> set[tuple[int, str]]:
        """The labels that somebody looked at and kept."""
        return {(image, label) for image, label in self._catalog.read("SELECT image, label FROM confirmed_labels")}
