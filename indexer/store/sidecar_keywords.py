"""Which keywords massl itself wrote into the file beside a picture: these alone may it take out again.

What isn't known here was written by somebody else, and stays.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from indexer.store import checksums
from indexer.store.catalog import Catalog
from indexer.store.fact_tables import SIDECAR_COLUMNS

_WRITTEN = SIDECAR_COLUMNS["sidecar_keywords"]


class SidecarKeywords:
    """The keywords in sidecars that are massl's own, in a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def every(self) -> dict[int, frozenset[str]]:
        """The keywords by image, in any state; without images that have none."""
        rows = self._catalog.read(f"SELECT {_WRITTEN}, checksum FROM sidecar_keywords")
        return {image: frozenset(json.loads(words)) for image, words, _ in self._catalog.sound(rows)}

    def set(self, written: Mapping[int, Iterable[str]]) -> None:
        """Remembers what is in the sidecars of images in place of what was, in one transaction."""
        with self._catalog.writing() as connection:
            for image, words in written.items():
                if own := sorted(words):
                    put(connection, image, json.dumps(own, ensure_ascii=False))
                else:
                    connection.execute("DELETE FROM sidecar_keywords WHERE image = ?", [image])


def put(connection: sqlite3.Connection, image: int, keywords: str) -> None:
    """Writes the keywords of an image, a JSON list, within a transaction."""
    connection.execute(
        f"INSERT OR REPLACE INTO sidecar_keywords ({_WRITTEN}, checksum) VALUES (?, ?, ?)",
        (image, keywords, checksums.checksum(image, keywords)),
    )
