"""What someone decided about duplicates: which files are to be kept both, and which one of a group is to be kept.

Decisions are about contents: they outlast moves, and end when a file's content changes.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.store.catalog import READY, Catalog, in_parts, now
from massl.core.errors import MasslError

DISTINCT = "distinct"  # of two images that are to be kept both
CHOSEN = "chosen"  # of an image that is to be kept in place of its duplicates
_ABOUT = {DISTINCT: re.compile("[0-9]{1,18} [0-9a-f]{16}"), CHOSEN: re.compile("[0-9a-f]{16}")}


@dataclass(frozen=True)
class Decided:
    """The decisions that still hold.

    Attributes:
        contents: pairs of contents to keep both, by hash, the lower first.
        images: pairs of images to keep both, by id, the lower first; also those with one content.
        chosen: images to keep in place of their duplicates.
    """

    contents: frozenset[tuple[bytes, bytes]] = frozenset()
    images: frozenset[tuple[int, int]] = frozenset()
    chosen: frozenset[int] = frozenset()

    def apart(self, one: bytes, other: bytes) -> bool:
        """Whether two contents are to be kept both."""
        return (min(one, other), max(one, other)) in self.contents

    def both(self, one: int, other: int) -> bool:
        """Whether two images are to be kept both."""
        return (min(one, other), max(one, other)) in self.images


class Decisions:
    """The decisions about duplicates in a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def decided(self, hashes: Mapping[int, bytes]) -> Decided:
        """The decisions about images whose contents, by id, are still those that were decided on."""
        contents, images, chosen = set(), set(), set()
        for image, kind, about in self._rows():
            one = hashes.get(image)
            if kind == CHOSEN:
                if one is not None and about == _seal(one, one):
                    chosen.add(image)
                continue
            other, seal = about.split()
            two = hashes.get(int(other))
            if one is None or two is None or _seal(one, two) != seal:
                continue
            images.add((min(image, int(other)), max(image, int(other))))
            if one != two:
                contents.add((min(one, two), max(one, two)))
        return Decided(frozenset(contents), frozenset(images), frozenset(chosen))

    def version(self) -> int:
        """Another number whenever a decision was made or forgotten."""
        return hash(tuple(self._rows()))

    def keep_both(self, images: Sequence[int]) -> int:
        """Remembers that each two of these images are both to be kept, as long as neither's content changes.

        Returns:
            How many pairs were not remembered already.

        Raises:
            MasslError: fewer than two, or one that the collection doesn't hold.
        """
        hashes = self._hashes(images)
        if len(hashes) < 2:
            raise MasslError("name at least two images that are to be kept both")
        ids = sorted(hashes)
        rows = [
            (one, DISTINCT, f"{other} {_seal(hashes[one], hashes[other])}", now())
            for place, one in enumerate(ids)
            for other in ids[place + 1 :]
        ]
        with self._catalog.writing() as connection:
            return connection.executemany(
                "INSERT OR IGNORE INTO decisions (image, kind, about, at) VALUES (?, ?, ?, ?)", rows
            ).rowcount

    def choose(self, image: int, over: Sequence[int]) -> None:
        """Remembers that an image is to be kept in place of its duplicates `over`, until its content changes.

        Raises:
            MasslError: one that the collection doesn't hold.
        """
        hashes = self._hashes([image, *over])
        others = [(other, CHOSEN) for other in hashes if other != image]
        with self._catalog.writing() as connection:
            connection.executemany("DELETE FROM decisions WHERE image = ? AND kind = ?", [(image, CHOSEN), *others])
            row = (image, CHOSEN, _seal(hashes[image], hashes[image]), now())
            connection.execute("INSERT INTO decisions (image, kind, about, at) VALUES (?, ?, ?, ?)", row)

    def forget(self, images: Sequence[int] = ()) -> int:
        """Forgets decisions: all of them, all about one image, or those among several; returns how many."""
        chosen = set(images)
        gone: list[tuple[int, str, str]] = []
        for image, kind, about in self._rows():
            pair = {image} if kind == CHOSEN else {image, int(about.split()[0])}
            if not chosen or (pair & chosen if len(chosen) == 1 else pair <= chosen):
                gone.append((image, kind, about))
        with self._catalog.writing() as connection:
            _delete(connection, gone)
        return len(gone)

    def kept_together(self) -> list[tuple[int, ...]]:
        """Images that are to be kept all, in groups: each is to be kept beside at least one other of its group."""
        pairs = [(image, int(about.split()[0])) for image, kind, about in self._rows() if kind == DISTINCT]
        hashes = hashes_of(self._catalog, {image for pair in pairs for image in pair})
        groups: dict[int, set[int]] = {}
        for one, other in sorted(self.decided(hashes).images):
            joined = groups.get(one, {one}) | groups.get(other, {other})
            groups |= dict.fromkeys(joined, joined)
        return sorted({tuple(sorted(group)) for group in groups.values()})

    def _rows(self) -> list[tuple[int, str, str]]:
        query = "SELECT image, kind, about FROM decisions WHERE kind IN (?, ?) ORDER BY image, kind, about"
        rows = [(image, kind, about) for image, kind, about in self._catalog.read(query, [DISTINCT, CHOSEN])]
        if not all(_ABOUT[kind].fullmatch(about) for _, kind, about in rows):
            raise self._catalog.damaged("a decision about duplicates can't be read")
        return rows

    def _hashes(self, images: Iterable[int]) -> dict[int, bytes]:
        wanted = set(images)
        found = hashes_of(self._catalog, wanted)
        if len(found) < len(wanted):
            raise MasslError("one of these images is no longer in the collection; nothing was remembered")
        return found


def hashes_of(catalog: Catalog, images: Iterable[int]) -> dict[int, bytes]:
    """The contents of those of these images that the collection holds."""
    found: dict[int, bytes] = {}
    for part in in_parts(list(images)):
        marks = ", ".join("?" * len(part))
        found |= dict(catalog.read(f"SELECT id, hash FROM images WHERE {READY} AND id IN ({marks})", part))
    return found


def _delete(connection: sqlite3.Connection, rows: Iterable[tuple[int, str, str]]) -> None:
    connection.executemany("DELETE FROM decisions WHERE image = ? AND kind = ? AND about = ?", rows)


def _seal(one: bytes, other: bytes) -> str:
    """Short for two contents, whichever is named first."""
    return hashlib.sha256(min(one, other) + max(one, other)).hexdigest()[:16]
