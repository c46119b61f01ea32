"""Bringing labels and decisions back into a catalog, in one transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from indexer.store import journal
from indexer.store.catalog import Catalog, parts
from indexer.store.decision_tables import BY_KIND, TABLES, insert
from indexer.store.journal import Given, Image, Made, Said


class Restoring:
    """What a transaction that brings something back reads and writes; see `restoring`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def said(self) -> Said:
        """What the catalog says itself."""
        return journal.of_catalog(self._connection)

    def by_content(self, hashes: Collection[bytes]) -> dict[str, list[tuple[int, str]]]:
        """Ids and paths of the images with these contents, by hash in hexadecimal; searchable ones first, by path."""
        found: dict[str, list[tuple[int, str]]] = {}
        for part in parts(sorted(hashes)):
            marks = ", ".join("?" * len(part))
            query = f"SELECT id, path, hash FROM images WHERE hash IN ({marks}) ORDER BY state = 'ready' DESC, path"
            for identity, path, digest in self._connection.execute(query, part):
                found.setdefault(digest.hex(), []).append((identity, os.fsdecode(path)))
        return found

    def labelled(self) -> set[int]:
        """Ids of the images that carry a label."""
        return {image for (image,) in self._connection.execute("SELECT image FROM labels")}

    def label(self, identity: int, given: Given, was: Image) -> None:
        """Gives an image its label, and tells the journal if it lies elsewhere now, so that it isn't missed there."""
        self._tell_of_move(identity, was)
        self._connection.execute(
            "INSERT INTO labels (image, label, author, at) VALUES (?, ?, ?, ?)",
            (identity, given.label, given.author, given.at),
        )

    def tag(self, identity: int, tag: str, made: Made, was: Image) -> bool:
        """As `label`, with a tag; False if the image has it already."""
        self._tell_of_move(identity, was)
        return insert(self._connection, "tags", [(identity, tag, made.author, made.at)]) > 0

    def _tell_of_move(self, identity: int, was: Image) -> None:
        self._connection.execute(
            "INSERT INTO unwritten (act, path, hash, other_path, other_hash) "
            "SELECT 'move', ?, ?, path, hash FROM images WHERE id = ? AND path IS NOT ?",
            (os.fsencode(was.path), bytes.fromhex(was.hash), identity, os.fsencode(was.path)),
        )

    def decide(self, kind: str, about: str, at: str, image: int, other: int | None = None) -> bool:
        """Makes a decision that the journal has, other than a tag; False if it was made already.

        Args:
            kind: as the journal has it, and so the next two.
            about: a label, a rejected tag, or short for contents.
            at: when it was made.
            image: that it is about.
            other: of two images to keep both, the other.
        """
        if kind not in BY_KIND or TABLES[BY_KIND[kind]].author:
            return False
        name = BY_KIND[kind]
        row = (image, about, at) if other is None else (min(image, other), max(image, other), about, at)
        return insert(self._connection, name, [row]) > 0


@contextmanager
def restoring(catalog: Catalog) -> Iterator[Restoring]:
    """One transaction: all of it, or on an exception or a kill nothing.

    Raises:
        MasslError: the disk is full or the file can't be written.
    """
    with catalog.writing() as connection:
        yield Restoring(connection)
