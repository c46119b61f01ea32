"""Proposed labels that somebody rejected: they are not proposed again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from indexer.store.catalog import Catalog, now
from indexer.store.decision_tables import insert
from massl.core.errors import MasslError


class Rejections:
    """The rejected labels of a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add(self, rejected: Mapping[int, str]) -> int:
        """Remembers, image by image, a label that it doesn't have; returns how many were not known yet.

        Raises:
            MasslError: an image that the catalog doesn't hold.
        """
        rows = [(image, label, now()) for image, label in rejected.items()]
        with self._catalog.writing() as connection:
            try:
                return insert(connection, "rejected_labels", rows)
            except sqlite3.IntegrityError:
                raise MasslError("one of these images is no longer in the collection; nothing was remembered") from None

    def remove(self, rejected: Iterable[tuple[int, str]]) -> int:
        """Forgets rejections, each an image and a label; returns how many there were."""
        with self._catalog.writing() as connection:
            statement = "DELETE FROM rejected_labels WHERE image = ? AND label = ?"
            return connection.executemany(statement, list(rejected)).rowcount

    def by_image(self) -> dict[int, frozenset[str]]:
        """Image id to the labels that were rejected for it."""
        found: dict[int, set[str]] = {}
        for image, label in self._catalog.read("SELECT image, label FROM rejected_labels"):
            found.setdefault(image, set()).add(label)
        return {image: frozenset(names) for image, names in found.items()}
