"""What an image takes over of what people said of another: given in one transaction, and taken back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.store.catalog import Catalog
from indexer.store.decision_tables import insert


@dataclass(frozen=True)
class Statements:
    """What people said of an image.

    Attributes:
        label: its label and who gave it; None for none.
        tags: each tag, and who gave it.
        rejected_tags: each tag that it doesn't have, and since when that is known.
        rejected_labels, confirmed_labels: by name.
    """

    label: tuple[str, str] | None
    tags: dict[str, str]
    rejected_tags: dict[str, str]
    rejected_labels: frozenset[str]
    confirmed_labels: frozenset[str]


@dataclass(frozen=True)
class Inherited:
    """What an image takes over of another; only what it doesn't have already.

    Attributes:
        at: when, to the microsecond, in ISO 8601. It tells what was taken over from what somebody says later.
        label: the label and who gave it; None for none.
        tags: each tag, and who gave it.
        ended: those tags that were rejected for the image until now, and since when.
        rejected_tags, rejected_labels, confirmed_labels: by name.
        kept_both: other images that are to be kept beside it: the path of each, and what is short for both contents.
    """

    at: str = ""
    label: tuple[str, str] | None = None
    tags: tuple[tuple[str, str], ...] = ()
    ended: tuple[tuple[str, str], ...] = ()
    rejected_tags: tuple[str, ...] = ()
    rejected_labels: tuple[str, ...] = ()
    confirmed_labels: tuple[str, ...] = ()
    kept_both: tuple[tuple[str, str], ...] = ()


def said_of(catalog: Catalog, image: int) -> Statements:
    """What people said of an image, in any state."""

    def column(query: str) -> list[str]:
        return [value for (value,) in catalog.read(query, [image])]

    labels = [*catalog.read("SELECT label, author FROM labels WHERE image = ?", [image])]
    return Statements(
        (labels[0][0], labels[0][1]) if labels else None,
        dict(catalog.read("SELECT tag, author FROM tags WHERE image = ? ORDER BY tag", [image])),
        dict(catalog.read("SELECT tag, at FROM rejected_tags WHERE image = ? ORDER BY tag", [image])),
        frozenset(column("SELECT label FROM rejected_labels WHERE image = ?")),
        frozenset(column("SELECT label FROM confirmed_labels WHERE image = ?")),
    )


def give(catalog: Catalog, image: int, taken: Inherited, beside: Sequence[int]) -> None:
    """Gives an image what it takes over, all of it or nothing; what somebody said of it meanwhile stays.

    Args:
        catalog: of the image.
        image: its id.
        taken: what it takes over.
        beside: the ids of the images in `taken.kept_both`, in their order.
    """
    with catalog.writing() as connection:
        if taken.label is not None:
            statement = "INSERT INTO labels (image, label, author, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            connection.execute(statement, (image, *taken.label, taken.at))
        insert(connection, "tags", [(image, *tag, taken.at) for tag in taken.tags])
        ended = "DELETE FROM rejected_tags WHERE image = ? AND tag = ?"
        connection.executemany(ended, [(image, tag) for tag, _ in taken.ended])
        insert(connection, "rejected_tags", [(image, tag, taken.at) for tag in taken.rejected_tags])
        insert(connection, "rejected_labels", [(image, label, taken.at) for label in taken.rejected_labels])
        insert(connection, "confirmed_labels", [(image, label, taken.at) for label in taken.confirmed_labels])
        pairs = [
            (min(image, other), max(image, other), contents, taken.at)
            for other, (_, contents) in zip(beside, taken.kept_both, strict=True)
        ]
        insert(connection, "kept_both", pairs)


def take_back(catalog: Catalog, image: int, taken: Inherited) -> tuple[int, int]:
    """Takes back what an image took over, as far as it is as it was given; returns how many labels and tags that were.

    What somebody gave, changed or took away since stays so: that has another time.
    """
    labels = tags = 0
    with catalog.writing() as connection:
        if taken.label is not None:
            # Logs of before it was noted tell no time.
            statement = "DELETE FROM labels WHERE image = ? AND label = ? AND author = ? AND ? IN (at, '')"
            labels = connection.execute(statement, (image, *taken.label, taken.at)).rowcount
        ended = dict(taken.ended)
        for tag, author in taken.tags:
            statement = "DELETE FROM tags WHERE image = ? AND tag = ? AND author = ? AND at = ?"
            if connection.execute(statement, (image, tag, author, taken.at)).rowcount:
                tags += 1
                if tag in ended:
                    insert(connection, "rejected_tags", [(image, tag, ended[tag])])
        for table, column, names in (
            ("rejected_tags", "tag", taken.rejected_tags),
            ("rejected_labels", "label", taken.rejected_labels),
            ("confirmed_labels", "label", taken.confirmed_labels),
        ):
            statement = f"DELETE FROM {table} WHERE image = ? AND {column} = ? AND at = ?"
            connection.executemany(statement, [(image, name, taken.at) for name in names])
        statement = "DELETE FROM kept_both WHERE ? IN (image, other) AND contents = ? AND at = ?"
        connection.executemany(statement, [(image, contents, taken.at) for _, contents in taken.kept_both])
    return labels, tags


def heirs(catalog: Catalog, path: bytes, content: bytes) -> list[int]:
    """The image at a path, in any state; where there is none, those with this content, as the file was moved."""
    found = [image for (image,) in catalog.read("SELECT id FROM images WHERE path = ?", [path])]
    return found or [image for (image,) in catalog.read("SELECT id FROM images WHERE hash = ? ORDER BY id", [content])]
