"""Labels that people gave to images, in the catalog."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.store import decision_tables, meta
from indexer.store.catalog import READY, Catalog, in_parts, now
from indexer.store.images import Images
from indexer.store.label_spelling import NONE_OF_THESE as NONE_OF_THESE
from indexer.store.label_spelling import normalised as normalised
from indexer.store.meta import Meta
from indexer.store.paths import from_bytes
from massl.core.errors import MasslError
from massl.core.files import scan

MAX_LABEL = 100  # characters
ACCEPTED = "page (accepted)"  # author of what was proposed and agreed to: who agrees has not chosen the image
PREDICTED = "massl"  # of what is exported as a label and nobody gave
DRAWN = "page (drawn)"  # author of labels of images that chance has chosen, a whole page of them
AGENT = "agent"  # of what programs labelled, which nobody has looked at


@dataclass(frozen=True)
class Label:
    """A label that someone gave."""

    path: str
    label: str
    author: str
    at: str


class Labels:
    """The labels of a catalog. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add(self, label: str, images: Iterable[int], author: str) -> int:
        """Gives images a label, in place of the one they had; returns how many.

        Raises:
            MasslError: an empty label, one of more than 100 characters or with control characters, or an image that the
                catalog doesn't hold.
        """
        return self.give(dict.fromkeys(images, label), author)

    def give(self, wanted: Mapping[int, str], author: str | Mapping[int, str]) -> int:
        """Gives each image its label, as `add`, all of them or none; returns how many. `author` may be one an image.

        Labels are kept as `normalised`. Those that an earlier version kept otherwise are joined with them.

        An image of the random sample stays one when a person labels it again: chance has chosen it all the same.
        Without the corrected ones the sample would look easier than the collection is.

        Raises:
            MasslError: as `add`.
        """
        for label in set(wanted.values()):
            check(label)
        authors = dict.fromkeys(wanted, author) if isinstance(author, str) else author
        with self._catalog.writing() as connection:
            drawn = {image for (image,) in self._catalog.read("SELECT image FROM labels WHERE author = ?", [DRAWN])}
            drawn = {image for image in drawn & wanted.keys() if authors[image] != AGENT}
            rows = [
                (image, normalised(label), DRAWN if image in drawn else authors[image], now())
                for image, label in wanted.items()
            ]
            self._join_spellings(connection)
            before = self._noted_classes()
            try:
                connection.executemany(
                    "INSERT OR REPLACE INTO labels (image, label, author, at) VALUES (?, ?, ?, ?)", rows
                )
            except sqlite3.IntegrityError:
                raise MasslError("one of these images is no longer in the collection; nothing was labelled") from None
            self._note_classes(connection, before, [label for _, label, _, _ in rows])
        return len(rows)

    def restore(self, before: Mapping[int, tuple[str, str] | None], after: Mapping[int, str | None]) -> int:
        """Gives images back what they had, all or none; returns how many were left as somebody else labelled them.

        `before` is image to the label and author that it had, `after` to the label that it must carry still; None for
        none. Files that have gone may come back, so their images are seen to as well.
        """
        found: dict[int, str | None] = {}
        with self._catalog.writing() as connection:
            for part in in_parts(list(before)):
                marks = ", ".join("?" * len(part))
                query = f"SELECT id, label FROM images LEFT JOIN labels ON image = id WHERE id IN ({marks})"
                found |= dict(self._catalog.read(query, part))
            own = [image for image, label in found.items() if _same(label, after[image])]
            rows = [
                (image, normalised(given[0]), given[1], now()) for image in own if (given := before[image]) is not None
            ]
            classes = self._noted_classes()
            connection.executemany("DELETE FROM labels WHERE image = ?", [(image,) for image in own])
            connection.executemany("INSERT INTO labels (image, label, author, at) VALUES (?, ?, ?, ?)", rows)
            if rows:
                self._note_classes(connection, classes, [label for _, label, _, _ in rows])
        return len(found) - len(own)

    def remove(self, images: Iterable[int]) -> int:
        """Takes the labels off images; returns how many had one."""
        with self._catalog.writing() as connection:
            return sum(connection.execute("DELETE FROM labels WHERE image = ?", (image,)).rowcount for image in images)

    def every(self) -> list[Label]:
        """Every label on a searchable image, by path."""
        rows = self._catalog.read(
            f"SELECT path, label, author, at FROM labels JOIN images ON images.id = image WHERE {READY} ORDER BY path"
        )
        return [Label(from_bytes(path), *rest) for path, *rest in rows]

    def with_sides(self) -> list[tuple[Label, int, int]]:
        """Every label on a searchable image, in no order, with the image's width and height; 0 for an unknown one."""
        query = (
            f"SELECT path, label, author, at, width, height FROM labels JOIN images ON images.id = image WHERE {READY}"
        )
        return [
            (Label(from_bytes(path), *given), width or 0, height or 0)
            for path, *given, width, height in self._catalog.read(query)
        ]

    def on_embedded(self) -> list[tuple[int, str, str]]:
        """Id, path and label of every labelled image that has an embedding, by content."""
        rows = self._catalog.read(
            "SELECT images.id, path, label FROM labels JOIN images ON images.id = labels.image "
            f"WHERE {READY} AND embedding IS NOT NULL ORDER BY hash, path"
        )
        return [(image, from_bytes(path), label) for image, path, label in rows]

    def system_folders(self) -> set[str]:
        """The names of folders made by a system that hold searchable images which people labelled or decided about."""
        rows = self._catalog.read(
            f"SELECT path FROM images WHERE {READY} AND id IN (SELECT image FROM labels UNION {decision_tables.IMAGES})"
        )
        return {name for (path,) in rows for name in scan.system_folders(from_bytes(path))}

    def counts(self) -> dict[str, int]:
        """How many searchable images carry each label, by label."""
        return dict(
            self._catalog.read(
                "SELECT label, count(*) FROM labels JOIN images ON images.id = image "
                f"WHERE {READY} GROUP BY label ORDER BY label"
            )
        )

    def classes(self) -> list[str]:
        """The classes of searchable images, in the order in which they were first named: the same for everybody."""
        used = self.counts()
        return [name for name in dict.fromkeys([*self._noted_classes(), *used]) if name in used]

    def of(self, images: Sequence[int]) -> dict[int, Label | None]:
        """The label of each of these images, or None.

        Raises:
            MasslError: one of them is no longer in the collection.
        """
        paths = dict(zip(images, Images(self._catalog).paths_of(images), strict=True))
        found: dict[int, Label | None] = dict.fromkeys(images)
        for part in in_parts(images):
            marks = ", ".join("?" * len(part))
            query = f"SELECT image, label, author, at FROM labels WHERE image IN ({marks})"
            for image, label, author, at in self._catalog.read(query, part):
                found[image] = Label(paths[image], label, author, at)
        return found

    def by_image(self) -> dict[int, str]:
        """Image id to label, for searchable images."""
        return dict(
            self._catalog.read(f"SELECT image, label FROM labels JOIN images ON images.id = image WHERE {READY}")
        )

    def by_author(self, author: str) -> frozenset[int]:
        """The images whose label is of this author, as `ACCEPTED` or `DRAWN`."""
        return frozenset(
            image for (image,) in self._catalog.read("SELECT image FROM labels WHERE author = ?", [author])
        )

    # What follows reads by the catalog, within the transaction: it makes sure that labels are texts.

    def _note_classes(self, connection: sqlite3.Connection, before: Iterable[str], given: Iterable[str]) -> None:
        """Remembers in which order classes came; one that has lost all its labels ends when others are given."""
        used = {name for (name,) in self._catalog.read("SELECT DISTINCT label FROM labels")}
        order = tuple(name for name in dict.fromkeys([*before, *given]) if name in used)
        meta.write(connection, [Meta.classes.to(order)])

    def _noted_classes(self) -> list[str]:
        """In the order in which they came; of a catalog from before that was noted, by the time of their labels."""
        for (noted,) in self._catalog.read("SELECT value FROM meta WHERE key = 'classes'"):
            return list(Meta.classes.of({"classes": noted}) or ())
        by_time = "SELECT label FROM labels GROUP BY label ORDER BY min(at), label"
        return [name for (name,) in self._catalog.read(by_time)]

    def _join_spellings(self, connection: sqlite3.Connection) -> None:
        """Has the labels that look the same be the same: earlier versions kept each as it was typed."""
        for (label,) in self._catalog.read("SELECT DISTINCT label FROM labels"):
            if (kept := normalised(label)) != label:
                connection.execute("UPDATE labels SET label = ? WHERE label = ?", (kept, label))
        for table in ("rejected_labels", "confirmed_labels"):
            for (label,) in self._catalog.read(f"SELECT DISTINCT label FROM {table}"):
                if (kept := normalised(label)) != label:
                    rows = f"SELECT image, ?, at FROM {table} WHERE label = ?"
                    connection.execute(f"INSERT OR IGNORE INTO {table} (image, label, at) {rows}", (kept, label))
                    connection.execute(f"DELETE FROM {table} WHERE label = ?", (label,))


def _same(one: str | None, other: str | None) -> bool:
    return one == other or (one is not None and other is not None and normalised(one) == normalised(other))


def check(label: str) -> None:
    """Raises MasslError for an empty label, one of more than 100 characters or with control characters."""
    label = normalised(label)
    if not label:
        raise MasslError(f"the label is empty; a label is 1 to {MAX_LABEL} printable characters")
    if len(label) > MAX_LABEL or not label.isprintable():
        raise MasslError(f"a label is 1 to {MAX_LABEL} printable characters, not {label[:20]!r} ({len(label)})")
