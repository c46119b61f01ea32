"""Labels that people gave to images, in the catalog."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.store import meta
from indexer.store.catalog import READY, Catalog, in_parts, now
from indexer.store.checksums import IMAGE
from indexer.store.meta import Meta
from indexer.store.paths import from_bytes
from massl.core.errors import MasslError
from massl.core.files import scan

MAX_LABEL = 100  # characters
ACCEPTED = "page (accepted)"  # author of what was proposed and agreed to: who agrees has not chosen the image
PREDICTED = "massl"  # of what is exported as a label and nobody gave
DRAWN = "page (drawn)"  # author of labels of images that chance has chosen, a whole page of them


@dataclass(frozen=True)
class Label:
    """A label that someone gave."""

    path: str
    label: str
    author: str
    at: str


def add(catalog: Catalog, label: str, images: Iterable[int], author: str) -> int:
    """Gives images a label, in place of the one they had; returns how many.

    Raises:
        MasslError: an empty label, one of more than 100 characters or with control characters, or an image that the
            catalog doesn't hold.
    """
    return give(catalog, dict.fromkeys(images, label), author)


def give(catalog: Catalog, wanted: Mapping[int, str], author: str | Mapping[int, str]) -> int:
    """Gives each image its label, as `add`, all of them or none; returns how many. `author` may be one an image.

    Raises:
        MasslError: as `add`.
    """
    for label in set(wanted.values()):
        check(label)
    authors = dict.fromkeys(wanted, author) if isinstance(author, str) else author
    rows = [(image, label.strip(), authors[image], now()) for image, label in wanted.items()]
    with catalog.writing() as connection:
        before = _noted_classes(connection.execute)
        try:
            connection.executemany("INSERT OR REPLACE INTO labels (image, label, author, at) VALUES (?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError:
            raise MasslError("one of these images is no longer in the collection; nothing was labelled") from None
        _note_classes(connection, before, [label for _, label, _, _ in rows])
    return len(rows)


def restore(catalog: Catalog, before: Mapping[int, tuple[str, str] | None], after: Mapping[int, str | None]) -> int:
    """Gives images back what they had, all of them or none; returns how many were left as somebody else labelled them.

    `before` is image to the label and author that it had, `after` to the label that it must carry still; None for none.
    Files that have gone may come back, so their images are seen to as well.
    """
    found: dict[int, str | None] = {}
    with catalog.writing() as connection:
        for part in in_parts(list(before)):
            marks = ", ".join("?" * len(part))
            query = f"SELECT id, label FROM images LEFT JOIN labels ON image = id WHERE id IN ({marks})"
            found |= dict(connection.execute(query, part))
        own = [image for image, label in found.items() if label == after[image]]
        rows = [(image, *given, now()) for image in own if (given := before[image]) is not None]
        classes = _noted_classes(connection.execute)
        connection.executemany("DELETE FROM labels WHERE image = ?", [(image,) for image in own])
        connection.executemany("INSERT INTO labels (image, label, author, at) VALUES (?, ?, ?, ?)", rows)
        if rows:
            _note_classes(connection, classes, [label for _, label, _, _ in rows])
    return len(found) - len(own)


def state(catalog: Catalog) -> tuple[tuple[str, int, str], ...]:
    """Each label, on how many images it is, and when it was last given: differs when labels do."""
    return tuple(catalog.read("SELECT label, count(*), max(at) FROM labels GROUP BY label ORDER BY label"))


def _note_classes(connection: sqlite3.Connection, before: Iterable[str], given: Iterable[str]) -> None:
    """Remembers in which order classes came; one that has lost all its labels ends when others are given."""
    used = {name for (name,) in connection.execute("SELECT DISTINCT label FROM labels")}
    order = tuple(name for name in dict.fromkeys([*before, *given]) if name in used)
    meta.write(connection, [Meta.classes.to(order)])


def _noted_classes(read: Callable[[str], Iterable[tuple[str]]]) -> list[str]:
    """In the order in which they came; of a catalog from before that was remembered, by the time of their labels."""
    for (noted,) in read("SELECT value FROM meta WHERE key = 'classes'"):
        return list(Meta.classes.of({"classes": noted}) or ())
    return [name for (name,) in read("SELECT label FROM labels GROUP BY label ORDER BY min(at), label")]


def check(label: str) -> None:
    """Raises MasslError for an empty label, one of more than 100 characters or with control characters."""
    label = label.strip()
    if not label or len(label) > MAX_LABEL or not label.isprintable():
        raise MasslError(f"a label is 1 to {MAX_LABEL} printable characters, not {label[:20]!r} ({len(label)})")


def remove(catalog: Catalog, images: Iterable[int]) -> int:
    """Takes the labels off images; returns how many had one."""
    with catalog.writing() as connection:
        return sum(connection.execute("DELETE FROM labels WHERE image = ?", (image,)).rowcount for image in images)


def every(catalog: Catalog) -> list[Label]:
    """Every label on a searchable image, by path."""
    rows = catalog.read(
        f"SELECT path, label, author, at FROM labels JOIN images ON images.id = image WHERE {READY} ORDER BY path"
    )
    return [Label(from_bytes(path), *rest) for path, *rest in rows]


def with_sides(catalog: Catalog) -> list[tuple[Label, int, int]]:
    """Every label on a searchable image, in no order, with the image's width and height; 0 where that isn't known."""
    query = f"SELECT path, label, author, at, width, height FROM labels JOIN images ON images.id = image WHERE {READY}"
    return [
        (Label(from_bytes(path), *given), width or 0, height or 0)
        for path, *given, width, height in catalog.read(query)
    ]


def on_embedded(catalog: Catalog) -> list[tuple[int, str, str]]:
    """Id, path and label of every labelled image that has an embedding, by content."""
    rows = catalog.read(
        "SELECT images.id, path, label FROM labels JOIN images ON images.id = labels.image "
        f"WHERE {READY} AND embedding IS NOT NULL ORDER BY hash, path"
    )
    return [(image, from_bytes(path), label) for image, path, label in rows]


def system_folders(catalog: Catalog) -> set[str]:
    """The names of folders made by a system in which searchable images lie that people labelled or decided about."""
    rows = catalog.read(
        f"SELECT path FROM images WHERE {READY} AND id IN (SELECT image FROM labels UNION SELECT image FROM decisions)"
    )
    return {name for (path,) in rows for name in scan.system_folders(from_bytes(path))}


def counts(catalog: Catalog) -> dict[str, int]:
    """How many searchable images carry each label, by label."""
    return dict(
        catalog.read(
            "SELECT label, count(*) FROM labels JOIN images ON images.id = image "
            f"WHERE {READY} GROUP BY label ORDER BY label"
        )
    )


def classes(catalog: Catalog) -> list[str]:
    """The classes of searchable images, in the order in which they were first named: the same for everybody."""
    used = counts(catalog)
    return [name for name in dict.fromkeys([*_noted_classes(catalog.read), *used]) if name in used]


def of(catalog: Catalog, images: Sequence[int]) -> dict[int, Label | None]:
    """The label of each of these images, or None.

    Raises:
        MasslError: one of them is no longer in the collection.
    """
    paths = dict(zip(images, catalog.paths_of(images), strict=True))
    found: dict[int, Label | None] = dict.fromkeys(images)
    for part in in_parts(images):
        marks = ", ".join("?" * len(part))
        query = f"SELECT image, label, author, at FROM labels WHERE image IN ({marks})"
        for image, label, author, at in catalog.read(query, part):
            found[image] = Label(paths[image], label, author, at)
    return found


def beside_paths(catalog: Catalog, images: Sequence[int]) -> dict[int, tuple[str, str | None]]:
    """Path and label of each of these images, None for no label; without those that are not in the collection."""
    found: dict[int, tuple[str, str | None]] = {}
    for part in in_parts(images):
        marks = ", ".join("?" * len(part))
        query = (
            f"SELECT {IMAGE}, row_checksum, label FROM images LEFT JOIN labels ON labels.image = images.id "
            f"WHERE {READY} AND images.id IN ({marks})"
        )
        rows = list(catalog.read(query, part))
        sound = catalog.sound(row[:-1] for row in rows)
        found |= {row[0]: (from_bytes(row[1]), given[-1]) for row, given in zip(sound, rows, strict=True)}
    return found


def by_image(catalog: Catalog) -> dict[int, str]:
    """Image id to label, for searchable images."""
    return dict(catalog.read(f"SELECT image, label FROM labels JOIN images ON images.id = image WHERE {READY}"))


def by_author(catalog: Catalog, author: str) -> frozenset[int]:
    """The images whose label is of this author, as `ACCEPTED` or `DRAWN`."""
    return frozenset(image for (image,) in catalog.read("SELECT image FROM labels WHERE author = ?", [author]))
