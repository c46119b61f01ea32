"""The tables of what people decided, one a kind of decision; and how formats before the fifth kept them, in one table.

A tag is kept as a decision: a picture has any number of them.

| table | the decision | until when it holds |
| --- | --- | --- |
| `kept_both` | two images are both to be kept | one of their contents changes |
| `kept_instead` | an image is to be kept in place of its duplicates | its content changes |
| `rejected_labels` | an image doesn't have a label that was proposed for it | it is taken back |
| `confirmed_labels` | an image's label is right although it is suspect | it is taken back |
| `tags` | an image has a tag | it is taken back |
| `rejected_tags` | an image doesn't have a tag that was proposed for it | it is taken back |

`kept_instead` has a row with the image's own content, and one for each content that it was chosen over.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecisionTable:
    """A table of decisions.

    Attributes:
        columns: those that a checksum is of, the image first.
        kind: what the journal, and formats before the fifth, call this kind of decision.
        about: the column that the journal has as `about`.
        other: whether it also names another image.
        author: whether it says who decided it.
    """

    columns: str
    kind: str
    about: str
    other: bool = False
    author: bool = False


OF_FIFTH: Mapping[str, DecisionTable] = {
    "kept_both": DecisionTable("image, other, contents, at", "distinct", "contents", other=True),
    "kept_instead": DecisionTable("image, content, at", "chosen", "content"),
    "rejected_labels": DecisionTable("image, label, at", "rejected", "label"),
    "confirmed_labels": DecisionTable("image, label, at", "confirmed", "label"),
}
"""Those that the fifth format has."""

OF_TAGS: Mapping[str, DecisionTable] = {
    "tags": DecisionTable("image, tag, author, at", "tagged", "tag", author=True),
    "rejected_tags": DecisionTable("image, tag, at", "untagged", "tag"),
}
"""Those that came with tags."""

TABLES: Mapping[str, DecisionTable] = {**OF_FIFTH, **OF_TAGS}
BY_KIND: Mapping[str, str] = {table.kind: name for name, table in TABLES.items()}

SCHEMA = """
CREATE TABLE kept_both (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE, -- the lower of the two numbers
    other INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    contents TEXT NOT NULL,             -- short for both contents: see `indexer.store.decisions`
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, other, contents)
) WITHOUT ROWID;
CREATE INDEX kept_both_by_other ON kept_both (other);
CREATE TABLE kept_instead (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    content TEXT NOT NULL,              -- short for its content
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, content)
) WITHOUT ROWID;
CREATE TABLE rejected_labels (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, label)
) WITHOUT ROWID;
CREATE TABLE confirmed_labels (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, label)
) WITHOUT ROWID;
"""

TAGS_SCHEMA = """
CREATE TABLE tags (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    author TEXT NOT NULL,
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, tag)
) WITHOUT ROWID;
CREATE INDEX tags_by_tag ON tags (tag, image);
CREATE TABLE rejected_tags (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    at TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (image, tag)
) WITHOUT ROWID;
"""


def _author(table: DecisionTable, of: str = "") -> str:
    return f"{of}author, " if table.author else ""


def _triggers(tables: Mapping[str, DecisionTable]) -> str:
    """Of checksums: see `indexer.store.checksums`. Of the journal: see `indexer.store.journal`."""
    return "".join(
        f"""
CREATE INDEX {name}_unsealed ON {name} (image) WHERE checksum IS NULL;
CREATE TRIGGER {name}_changed AFTER UPDATE OF {table.columns} ON {name}
    BEGIN UPDATE {name} SET checksum = NULL WHERE image = NEW.image AND {table.about} = NEW.{table.about}; END;
CREATE TRIGGER {name}_made AFTER INSERT ON {name}
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, {_author(table)}at, other_path, other_hash)
    SELECT 'decide', one.path, one.hash, '{table.kind}', NEW.{table.about}, {_author(table, "NEW.")}NEW.at, other.path,
    other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = {"NEW.other" if table.other else "NULL"}
    WHERE one.id = NEW.image; END;
CREATE TRIGGER {name}_forgotten AFTER DELETE ON {name}
    BEGIN INSERT INTO unwritten (act, path, hash, kind, about, other_path, other_hash)
    SELECT 'forget', one.path, one.hash, '{table.kind}', OLD.{table.about}, other.path, other.hash
    FROM images AS one LEFT JOIN images AS other ON other.id = {"OLD.other" if table.other else "NULL"}
    WHERE one.id = OLD.image; END;"""
        for name, table in tables.items()
    )


TRIGGERS = _triggers(OF_FIFTH)
TAGS_TRIGGERS = _triggers(OF_TAGS)

IMAGES = " UNION ".join([*(f"SELECT image FROM {name}" for name in TABLES), "SELECT other FROM kept_both"])
"""A query of the images that somebody decided about."""

EARLIER = "image, kind, about, at"
"""Columns of the one table `decisions` of formats before the fifth, those that a checksum is of."""

_PAIR = re.compile("([0-9]{1,18}) ([0-9a-f]{16})")
_FORM = {"kept_instead": re.compile("[0-9a-f]{16}")}  # of `about`; labels may be any text

# How a catalog of an earlier format, which can't be written, is read by today's statements.
VIEWS: Mapping[str, str] = {
    name: (
        f"SELECT image, about AS {table.about}, at, NULL AS checksum FROM main.decisions WHERE kind = '{table.kind}'"
        if not table.other
        else "SELECT image, CAST(substr(about, 1, instr(about, ' ') - 1) AS INTEGER) AS other, "
        "substr(about, instr(about, ' ') + 1) AS contents, at, NULL AS checksum "
        f"FROM main.decisions WHERE kind = '{table.kind}'"
    )
    for name, table in OF_FIFTH.items()
}

# What stands for tags in catalogs before the seventh format: no rows.
TAGS_VIEWS: Mapping[str, str] = {
    name: f"SELECT {', '.join(f'NULL AS {column}' for column in table.columns.split(', '))}, NULL AS checksum "
    "WHERE FALSE"
    for name, table in OF_TAGS.items()
}


def from_earlier(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Rows of `EARLIER` as the table and the row that they are today; rows that are of no kind of decision are left
    out.
    """
    for image, kind, about, at in rows:
        name = BY_KIND.get(kind)
        if name in OF_TAGS:  # which those formats didn't have
            continue
        if name == "kept_both":
            if found := _PAIR.fullmatch(about):
                yield name, (image, int(found[1]), found[2], at)
        elif name is not None and (name not in _FORM or _FORM[name].fullmatch(about)):
            yield name, (image, about, at)


def is_of_two(kind: str) -> bool:
    """Whether a decision of this kind names two images."""
    return kind in BY_KIND and TABLES[BY_KIND[kind]].other


def images(name: str, row: Sequence[Any]) -> set[int]:
    """The images that a row of a table is about."""
    return set(row[:2]) if TABLES[name].other else {row[0]}


def insert(connection: sqlite3.Connection, name: str, rows: Iterable[Sequence[Any]]) -> int:
    """Makes decisions, rows of the table's columns, within a transaction; returns how many were not made already.

    Raises:
        sqlite3.IntegrityError: one is about an image that isn't there.
    """
    columns = TABLES[name].columns
    marks = ", ".join("?" * len(columns.split(",")))
    # An image that isn't there is no repetition, so that OR IGNORE would say too little.
    statement = f"INSERT INTO {name} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"
    return max(0, connection.executemany(statement, rows).rowcount)
