"""What someone decided about duplicates: which files are to be kept both, and which one of a group is to be kept.

Decisions are about contents: they outlast moves, and end when a file's content changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.store.catalog import READY, Catalog, in_parts, now
from indexer.store.decision_tables import insert
from massl.core.errors import MasslError


@dataclass(frozen=True)
class Decided:
    """The decisions that still hold.

    Attributes:
        contents: pairs of contents to keep both, by hash, the lower first.
        images: pairs of images to keep both, by id, the lower first; also those with one content.
        chosen: images to keep in place of their duplicates.
        instead: of these, what they are to be kept in place of: the image, and short for its content and the other's.
    """

    contents: frozenset[tuple[bytes, bytes]] = frozenset()
    images: frozenset[tuple[int, int]] = frozenset()
    chosen: frozenset[int] = frozenset()
    instead: frozenset[tuple[int, str]] = frozenset()

    def over(self, image: int, one: bytes, other: bytes) -> bool:
        """Whether an image of content `one` was chosen over the content `other`, and not over something else."""
        return image in self.chosen and (image, _seal(one, other)) in self.instead

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
        contents, images = set(), set()
        for image, other, seal in self._kept_both():
            one, two = hashes.get(image), hashes.get(other)
            if one is None or two is None or _seal(one, two) != seal:
                continue
            images.add((image, other))
            if one != two:
                contents.add((min(one, two), max(one, two)))
        instead = frozenset(self._kept_instead())
        chosen = {image for image, seal in instead if (one := hashes.get(image)) and seal == _seal(one, one)}
        return Decided(frozenset(contents), frozenset(images), frozenset(chosen), instead)

    def keep_both(self, images: Sequence[int]) -> int:
        """Remembers that each two of these images are both to be kept, as long as neither's content changes.

        Returns:
            How many pairs were not remembered already.

        Raises:
            MasslError: fewer than two, or one that the collection doesn't hold.
        """
        hashes = self._hashes(images)
        if len(hashes) < 2:
            raise MasslError("name at least two images to keep")
        ids = sorted(hashes)
        rows = [
            (one, other, _seal(hashes[one], hashes[other]), now())
            for place, one in enumerate(ids)
            for other in ids[place + 1 :]
        ]
        with self._catalog.writing() as connection:
            return insert(connection, "kept_both", rows)

    def choose(self, image: int, over: Sequence[int]) -> None:
        """Remembers that an image is to be kept in place of its duplicates `over`, until its content changes.

        It is not chosen over what comes to be its duplicate later, or changes.

        Raises:
            MasslError: one that the collection doesn't hold.
        """
        hashes = self._hashes([image, *over])
        with self._catalog.writing() as connection:
            connection.executemany("DELETE FROM kept_instead WHERE image = ?", [(each,) for each in hashes])
            seals = {_seal(hashes[image], content) for content in hashes.values()}
            insert(connection, "kept_instead", [(image, seal, now()) for seal in sorted(seals)])

    def forget(self, images: Sequence[int] = ()) -> int:
        """Forgets decisions: all of them, all about one image, or those among several; returns how many."""
        chosen = set(images)

        def concerns(about: set[int]) -> bool:
            return not chosen or bool(about & chosen if len(chosen) == 1 else about <= chosen)

        both = [row for row in self._kept_both() if concerns({row[0], row[1]})]
        instead = [row for row in self._kept_instead() if concerns({row[0]})]
        with self._catalog.writing() as connection:
            connection.executemany("DELETE FROM kept_both WHERE image = ? AND other = ? AND contents = ?", both)
            connection.executemany("DELETE FROM kept_instead WHERE image = ? AND content = ?", instead)
        return len(both) + len({image for image, _ in instead})

    def kept_together(self) -> list[tuple[int, ...]]:
        """Images that are to be kept all, in groups: each is to be kept beside at least one other of its group."""
        hashes = hashes_of(self._catalog, {image for pair in self._kept_both() for image in pair[:2]})
        groups: dict[int, set[int]] = {}
        for one, other in sorted(self.decided(hashes).images):
            joined = groups.get(one, {one}) | groups.get(other, {other})
            groups |= dict.fromkeys(joined, joined)
        return sorted({tuple(sorted(group)) for group in groups.values()})

    def beside(self, image: int, heir: int) -> list[tuple[int, str]]:
        """What is to be kept beside an image, and is not yet to be kept beside another that takes its place.

        Returns:
            Of each such image its id, and what `kept_both` has as the contents of it and of the heir.
        """
        others = {each for pair in self._kept_both(image) for each in pair[:2]} - {image, heir}
        hashes = hashes_of(self._catalog, [image, heir, *others])
        decided = self.decided(hashes)
        return [
            (other, _seal(hashes[heir], hashes[other]))
            for other in sorted(others)
            if heir in hashes and decided.both(image, other) and not decided.both(heir, other)
        ]

    def _kept_both(self, about: int | None = None) -> list[tuple[int, int, str]]:
        query = "SELECT image, other, contents FROM kept_both WHERE ? IS NULL OR ? IN (image, other) ORDER BY 1, 2"
        rows = self._catalog.read(query, [about, about])
        return [(min(one, other), max(one, other), seal) for one, other, seal in rows]

    def _kept_instead(self) -> list[tuple[int, str]]:
        return [(image, seal) for image, seal in self._catalog.read("SELECT image, content FROM kept_instead")]

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


def _seal(one: bytes, other: bytes) -> str:
    """Short for two contents, whichever is named first."""
    return hashlib.sha256(min(one, other) + max(one, other)).hexdigest()[:16]
