"""Tags that people gave to images, any number each, and tags that they rejected."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.store.catalog import READY, Catalog, in_parts, now
from indexer.store.decision_tables import insert
from indexer.store.paths import from_bytes
from massl.core.errors import MasslError

MAX_TAG = 100  # characters
MAX_TAGS = 256  # of an image: readers of sidecars, ours among them, take no more
SEPARATOR = ","

TagPair = tuple[int, str]
"""An image's id and a tag."""


@dataclass(frozen=True)
class Tag:
    """A tag that someone gave."""

    path: str
    tag: str
    author: str
    at: str


class Tags:
    """The tags of a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add(self, tag: str, images: Iterable[int], author: str) -> int:
        """Gives images a tag beside those that they have; returns how many did not have it.

        Raises:
            MasslError: as `give`.
        """
        return len(self.give([(image, tag) for image in images], author))

    def give(self, wanted: Iterable[TagPair], author: str | Mapping[TagPair, str]) -> list[TagPair]:
        """Gives images tags, all of them or none; returns those that are new.

        A rejection of the same tag ends. `author` may be one for each of `wanted`, as written there.

        Raises:
            MasslError: no tag (see `checked`), an image that the catalog doesn't hold, or one that would have more
                than `MAX_TAGS`.
        """
        authors = {
            (image, checked(tag)): author if isinstance(author, str) else author[image, tag] for image, tag in wanted
        }
        with self._catalog.writing() as connection:
            had = _pairs(self._catalog, "tags", sorted({image for image, _ in authors}))
            new = [pair for pair in authors if pair not in had]
            try:
                insert(connection, "tags", [(image, tag, authors[image, tag], now()) for image, tag in new])
            except sqlite3.IntegrityError:
                raise MasslError("one of these images is no longer in the collection; nothing was tagged") from None
            connection.executemany("DELETE FROM rejected_tags WHERE image = ? AND tag = ?", list(authors))
            counts: dict[int, int] = {}
            for image, _ in [*had, *new]:
                counts[image] = counts.get(image, 0) + 1
            if full := [image for image, count in counts.items() if count > MAX_TAGS]:
                query = "SELECT path FROM images WHERE id = ?"
                ((path,),) = connection.execute(query, [full[0]]).fetchall()
                raise MasslError(
                    f"{from_bytes(path)} would have more than {MAX_TAGS} tags; nothing was tagged: remove some first"
                )
        return new

    def remove(self, unwanted: Iterable[TagPair]) -> list[tuple[int, str, str]]:
        """Takes tags off images; returns those that they had, as image, tag and author."""
        with self._catalog.writing() as connection:
            taken: list[tuple[int, str, str]] = []
            for image, tag in unwanted:
                # Also as it stands: earlier versions kept several spaces in a row.
                query = "DELETE FROM tags WHERE image = ? AND tag IN (?, ?) RETURNING image, tag, author"
                taken += connection.execute(query, (image, normalised(tag), tag)).fetchall()
        return taken

    def every(self) -> list[Tag]:
        """Every tag on a searchable image, by path and tag."""
        rows = self._catalog.read(
            f"SELECT path, tag, author, at FROM tags JOIN images ON images.id = image WHERE {READY} ORDER BY path, tag"
        )
        return [Tag(from_bytes(path), *rest) for path, *rest in rows]

    def counts(self) -> dict[str, int]:
        """How many searchable images carry each tag, by tag."""
        return dict(
            self._catalog.read(
                "SELECT tag, count(*) FROM tags JOIN images ON images.id = image "
                f"WHERE {READY} GROUP BY tag ORDER BY tag"
            )
        )

    def of(self, images: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """The tags, in order, of those of these images that have some."""
        found: dict[int, tuple[str, ...]] = {}
        for part in in_parts(images):
            marks = ", ".join("?" * len(part))
            for image, tag in self._catalog.read(
                f"SELECT image, tag FROM tags WHERE image IN ({marks}) ORDER BY image, tag", part
            ):
                found[image] = (*found.get(image, ()), tag)
        return found

    def by_tag(self) -> dict[str, frozenset[int]]:
        """The searchable images that carry each tag, by tag."""
        found: dict[str, set[int]] = {}
        query = f"SELECT tag, image FROM tags JOIN images ON images.id = image WHERE {READY} ORDER BY tag"
        for tag, image in self._catalog.read(query):
            found.setdefault(tag, set()).add(image)
        return {tag: frozenset(images) for tag, images in found.items()}

    def by_author(self, tag: str, author: str) -> frozenset[int]:
        """The images that have a tag by this author, as `indexer.store.labels.ACCEPTED`."""
        query = "SELECT image FROM tags WHERE tag = ? AND author = ?"
        return frozenset(image for (image,) in self._catalog.read(query, [tag, author]))

    def images(self) -> frozenset[int]:
        """The images that have a tag."""
        return frozenset(image for (image,) in self._catalog.read("SELECT DISTINCT image FROM tags"))

    def authors(self, image: int) -> dict[str, str]:
        """Who gave an image each of its tags."""
        return dict(self._catalog.read("SELECT tag, author FROM tags WHERE image = ? ORDER BY tag", [image]))


class RejectedTags:
    """The rejected tags of a catalog: they are not proposed again. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add(self, rejected: Iterable[TagPair]) -> list[TagPair]:
        """Remembers tags that images don't have, all or none; returns those that were not known yet.

        Raises:
            MasslError: no tag, an image that the catalog doesn't hold, or one that carries the tag.
        """
        wanted = list(dict.fromkeys((image, checked(tag)) for image, tag in rejected))
        images = sorted({image for image, _ in wanted})
        with self._catalog.writing() as connection:
            if carried := _pairs(self._catalog, "tags", images) & set(wanted):
                tag = next(iter(carried))[1]
                raise MasslError(f"{_some(len(carried))} the tag {tag!r} already; remove it first to reject it")
            had = _pairs(self._catalog, "rejected_tags", images)
            new = [pair for pair in wanted if pair not in had]
            try:
                insert(connection, "rejected_tags", [(*pair, now()) for pair in new])
            except sqlite3.IntegrityError:
                raise MasslError("one of these images is no longer in the collection; nothing was remembered") from None
        return new

    def remove(self, rejected: Iterable[TagPair]) -> int:
        """Forgets rejections; returns how many there were."""
        with self._catalog.writing() as connection:
            statement = "DELETE FROM rejected_tags WHERE image = ? AND tag = ?"
            return max(0, connection.executemany(statement, list(rejected)).rowcount)

    def of_tag(self, tag: str) -> frozenset[int]:
        """The images that a tag was rejected for."""
        return frozenset(
            image for (image,) in self._catalog.read("SELECT image FROM rejected_tags WHERE tag = ?", [tag])
        )

    def of_image(self, image: int) -> tuple[str, ...]:
        """The tags that were rejected for an image, in order."""
        query = "SELECT tag FROM rejected_tags WHERE image = ? ORDER BY tag"
        return tuple(tag for (tag,) in self._catalog.read(query, [image]))


def checked(tag: str) -> str:
    """A tag as the catalog keeps it: without spaces around it or several in a row, in Unicode's composed form.

    Raises:
        MasslError: empty, of more than 100 characters, with control characters, or with a comma, which separates tags.
    """
    found = normalised(tag)
    if not found:
        raise MasslError(f"the tag is empty; a tag is 1 to {MAX_TAG} printable characters")
    if len(found) > MAX_TAG or not found.isprintable():
        raise MasslError(f"a tag is 1 to {MAX_TAG} printable characters, not {found[:20]!r} ({len(found)})")
    if SEPARATOR in found:
        raise MasslError(f"a tag holds no comma, not as in {found[:20]!r}; commas separate tags")
    return found


def normalised(tag: str) -> str:
    """A tag as it is compared, whether it is one or not: several spaces are one."""
    return unicodedata.normalize("NFC", re.sub(" +", " ", tag.strip()))


def split(text: str) -> list[str]:
    """The tags in a text, with commas between; empty parts are left out.

    Raises:
        MasslError: one is no tag.
    """
    return list(dict.fromkeys(checked(part) for part in text.split(SEPARATOR) if part.strip()))


def _pairs(catalog: Catalog, table: str, images: Collection[int]) -> set[TagPair]:
    found: set[TagPair] = set()
    for part in in_parts(list(images)):
        marks = ", ".join("?" * len(part))
        found |= set(catalog.read(f"SELECT image, tag FROM {table} WHERE image IN ({marks})", part))
    return found


def _some(count: int) -> str:
    return "one of these images has" if count == 1 else f"{count:,} of these images have"
