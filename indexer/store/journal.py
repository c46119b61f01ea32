"""The journal: a second copy of what people said, in a file beside the catalog, from which labels can be brought back.

One line of JSON for each label or decision that was made or taken back, in order, each with a CRC-32 of itself. Images
are named by path and content, not by number: the journal outlasts the catalog. What it says is the state after its
last line, so that lines may be written twice.

The catalog comes first. Triggers note each change in its table `unwritten` within the same transaction; after the
commit the notes are written to the journal, flushed to the disk, and deleted. A kill at any moment leaves them to the
next transaction of any process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from indexer.store.decision_tables import OF_FIFTH, OF_TAGS, TABLES, DecisionTable
from massl.core.disk_errors import cannot_write
from massl.core.files.atomic_writing import whole

NAME = "journal.jsonl"
_FORMAT = 1
_LOOSE = 1 << 20  # bytes below which lines that no longer count are left in it
_LINE = 400  # bytes, more than most lines take
_LOG = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE unwritten (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    act TEXT NOT NULL,
    path BLOB NOT NULL, hash BLOB,
    kind TEXT, about TEXT, author TEXT, at TEXT,
    other_path BLOB, other_hash BLOB
);
CREATE TRIGGER label_given AFTER INSERT ON labels
    BEGIN INSERT INTO unwritten (act, path, hash, about, author, at)
    SELECT 'label', path, hash, NEW.label, NEW.author, NEW.at FROM images WHERE id = NEW.image; END;
CREATE TRIGGER label_changed AFTER UPDATE OF label, author ON labels
    BEGIN INSERT INTO unwritten (act, path, hash, about, author, at)
    SELECT 'label', path, hash, NEW.label, NEW.author, NEW.at FROM images WHERE id = NEW.image; END;
CREATE TRIGGER label_taken AFTER DELETE ON labels
    BEGIN INSERT INTO unwritten (act, path, hash)
    SELECT 'unlabel', path, hash FROM images WHERE id = OLD.image; END;
"""


def _moves(tables: Mapping[str, DecisionTable]) -> str:
    """An image that somebody labelled or decided about has another name or content."""
    speaking = [("labels", "image"), *((name, "image") for name in tables), ("kept_both", "other")]
    there = " OR ".join(f"EXISTS (SELECT 1 FROM {name} WHERE {column} = NEW.id)" for name, column in speaking)
    return f"""
CREATE TRIGGER image_moved AFTER UPDATE OF path, hash ON images
    WHEN (OLD.path IS NOT NEW.path OR OLD.hash IS NOT NEW.hash)
    AND ({there})
    BEGIN INSERT INTO unwritten (act, path, hash, other_path, other_hash)
    VALUES ('move', OLD.path, OLD.hash, NEW.path, NEW.hash); END;
"""


MOVES = _moves({**OF_FIFTH, **OF_TAGS})
MOVES_OF_FIFTH = _moves(OF_FIFTH)  # history

_COLUMNS = "act, path, hash, kind, about, author, at, other_path, other_hash"
_LABELS = (
    "SELECT 'label', path, hash, NULL, label, author, at, NULL, NULL FROM labels JOIN images ON images.id = image "
    "ORDER BY at, image"
)
_DECISIONS = [
    f"SELECT 'decide', one.path, one.hash, '{table.kind}', {table.about}, {'author' if table.author else 'NULL'}, at, "
    "other.path, other.hash "
    f"FROM {name} JOIN images AS one ON one.id = image "
    f"LEFT JOIN images AS other ON other.id = {'other' if table.other else 'NULL'} ORDER BY at, image"
    for name, table in TABLES.items()
]


class Image(NamedTuple):
    """An image as the journal names it: its path below the root, and the SHA-256 of its content in hexadecimal."""

    path: str
    hash: str


@dataclass(frozen=True)
class Given:
    """A label."""

    label: str
    author: str
    at: str


class Decision(NamedTuple):
    """What was decided of an image. `about`: a label, a tag, or the seal of a content; `other`: of two images to keep
    both.
    """

    image: Image
    kind: str
    about: str
    other: Image | None


class Made(NamedTuple):
    """When a decision was made, and by whom where it says so."""

    at: str
    author: str = ""


@dataclass
class Said:
    """What people said, and have not taken back.

    Attributes:
        labels: by image.
        decisions: tags among them, with the time at which they were made.
        damaged: lines of the journal that can't be read.
    """

    labels: dict[Image, Given] = field(default_factory=dict)
    decisions: dict[Decision, Made] = field(default_factory=dict)
    damaged: int = 0
    _of: dict[Image, dict[Decision, None]] | None = field(default=None, repr=False, compare=False)

    def add(self, entry: dict[str, Any]) -> None:
        """Takes a line's content into account.

        Raises:
            KeyError, TypeError, ValueError: it is no line of ours.
        """
        act = entry["act"]
        if act == "journal":
            return
        image = _image(entry["path"], entry["hash"])
        if act == "label":
            self.labels[image] = Given(_text(entry["about"]), _text(entry["author"]), _text(entry["at"]))
        elif act == "unlabel":
            self.labels.pop(image, None)
        elif act in ("decide", "forget"):
            other = _image(entry["other_path"], entry["other_hash"]) if entry.get("other_path") is not None else None
            decision = Decision(image, str(entry["kind"]), _seal(str(entry["kind"]), str(entry["about"])), other)
            if act == "decide":
                self._decide(decision, Made(_text(entry["at"]), _text(entry.get("author", ""))))
            else:
                self._forget(decision)
        elif act == "move":
            self._move(image, _image(entry["other_path"], entry["other_hash"]))
        else:
            raise ValueError(act)

    def _move(self, image: Image, to: Image) -> None:
        if image in self.labels:
            self.labels[to] = self.labels.pop(image)
        if self._of is None:  # by image, as a renamed folder moves as many images as there are decisions
            self._of = {}
            for decision in self.decisions:
                self._note(decision)
        for decision in list(self._of.get(image, ())):
            made = self._forget(decision)
            place = to if decision.image == image else decision.image
            other = to if decision.other == image else decision.other
            self._decide(decision._replace(image=place, other=other), made or Made(""))

    def _decide(self, decision: Decision, made: Made) -> None:
        self.decisions[decision] = made
        if self._of is not None:
            self._note(decision)

    def _note(self, decision: Decision) -> None:
        assert self._of is not None
        for image in (decision.image, decision.other):
            if image is not None:
                self._of.setdefault(image, {})[decision] = None

    def _forget(self, decision: Decision) -> Made | None:
        for image in (decision.image, decision.other):
            if self._of is not None and image is not None:
                self._of.get(image, {}).pop(decision, None)
        return self.decisions.pop(decision, None)

    def entries(self) -> Iterator[dict[str, Any]]:
        """The lines' contents that say the same."""
        for image, given in self.labels.items():
            yield {"act": "label", **image._asdict(), "about": given.label, "author": given.author, "at": given.at}
        for decision, made in self.decisions.items():
            entry = {"act": "decide", **decision.image._asdict(), "kind": decision.kind, "about": decision.about}
            if decision.other is not None:
                entry |= {"other_path": decision.other.path, "other_hash": decision.other.hash}
            yield entry | ({"author": made.author} if made.author else {}) | {"at": made.at}

    def without(self, other: Said) -> Said:
        """What the other doesn't say of the same image."""
        return Said(
            {image: given for image, given in self.labels.items() if image not in other.labels},
            {decision: made for decision, made in self.decisions.items() if decision not in other.decisions},
        )

    def tagged(self) -> list[Decision]:
        """The tags among the decisions."""
        return [decision for decision in self.decisions if decision.kind == TABLES["tags"].kind]

    def __len__(self) -> int:
        return len(self.labels) + len(self.decisions)


def read(folder: Path) -> Said:
    """What the journal in an index's folder says; nothing if there is none. Damaged lines are counted and left out.

    Raises:
        OSError: it can't be read.
    """
    said = Said()
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return said
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            said.add(_entry(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            said.damaged += 1
    return said


def of_catalog(connection: sqlite3.Connection) -> Said:
    """What the catalog says."""
    said = Said()
    for query in (_LABELS, *_DECISIONS):
        for entry in _as_entries(connection.execute(query)):
            said.add(entry)
    return said


def is_behind(connection: sqlite3.Connection) -> bool:
    """Whether something was said that the journal doesn't have yet."""
    return connection.execute("SELECT 1 FROM unwritten LIMIT 1").fetchone() is not None


def catch_up(connection: sqlite3.Connection, folder: Path) -> None:
    """Writes to the journal what the catalog noted for it, in a transaction of its own, so by one process at a time.

    A full or read-only disk leaves it to the next time; a line says so.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        rows = connection.execute(f"SELECT number, {_COLUMNS} FROM unwritten ORDER BY number").fetchall()
        if rows:
            path = folder / NAME
            if path.exists():
                _append(path, _as_entries(row[1:] for row in rows))
                _tidy(connection, folder)
            else:
                _write(path, of_catalog(connection))
            connection.execute("DELETE FROM unwritten WHERE number <= ?", [rows[-1][0]])
        connection.execute("COMMIT")
    except OSError as error:
        connection.execute("ROLLBACK")
        _LOG.warning("%s: until then what you say is in the catalog alone", cannot_write(folder / NAME, error))
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def complete(connection: sqlite3.Connection, folder: Path) -> Said:
    """Adds to the journal what the catalog says and it doesn't; returns what it says and the catalog doesn't.

    Raises:
        OSError: it can't be read or written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        known, own = read(folder), of_catalog(connection)
        more = own.without(known)
        if len(more) or known.damaged or not (folder / NAME).exists():
            for entry in more.entries():
                known.add(entry)
            if len(known):
                _write(folder / NAME, known)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    left = known.without(own)
    left.damaged = known.damaged
    return left


def _append(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    data = b"".join(map(_line, entries))
    with path.open("r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":  # a line that a kill cut off: it stays one line, and is written again below
                data = b"\n" + data
        file.seek(size)
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:  # a full disk: what is there of these lines would be a damaged one
            file.truncate(size)
            raise


def _tidy(connection: sqlite3.Connection, folder: Path) -> None:
    """Leaves out lines that no longer count, once they are most of the journal."""
    size = (folder / NAME).stat().st_size
    ((labels,),) = connection.execute("SELECT count(*) FROM labels").fetchall()
    decisions = sum(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES)
    if size > _LOOSE and size > 3 * _LINE * (labels + decisions):
        said = read(folder)
        if not said.damaged:  # else `complete` sees to it, which has the catalog beside it
            _write(folder / NAME, said)


def _write(path: Path, said: Said) -> None:
    with whole(path) as written, written.open("wb") as file:
        file.write(_line({"act": "journal", "format": _FORMAT}))
        for entry in said.entries():
            file.write(_line(entry))


def _as_entries(rows: Iterable[Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Rows of `_COLUMNS` as lines' contents, but for those with values of another kind, which no person said."""
    for row in rows:
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            entry = _as_entry(row)
            if all(value is None or isinstance(value, str) for value in entry.values()):
                json.dumps(entry).encode()
                yield entry


def _as_entry(row: Sequence[Any]) -> dict[str, Any]:
    """A row of `_COLUMNS` as a line's content."""
    entry = dict(zip(_COLUMNS.split(", "), row, strict=True))
    for name in ("path", "other_path"):
        entry[name] = None if entry[name] is None else os.fsdecode(entry[name])
    for name in ("hash", "other_hash"):
        entry[name] = None if entry[name] is None else entry[name].hex()
    return {name: value for name, value in entry.items() if value is not None or name == "hash"}


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()[1:]  # without its first brace
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(text), text)


def _entry(line: bytes) -> dict[str, Any]:
    """A line's content.

    Raises:
        ValueError: it is not as it was written.
    """
    line = line.rstrip(b"\r")
    text = line[len('{"crc":"12345678",') :]
    if line[:18] != b'{"crc":"%08x",' % zlib.crc32(text):
        raise ValueError("another checksum")
    entry = json.loads(b"{" + text)
    if not isinstance(entry, dict):
        raise ValueError("no object")
    return entry


def _image(path: object, digest: object) -> Image:
    os.fsencode(str(path))  # of what no file can be called, it raises a ValueError
    bytes.fromhex(str(digest or ""))
    return Image(str(path), str(digest or ""))


def _text(value: object) -> str:
    str(value).encode()  # what can't be stored raises a ValueError
    return str(value)


def _seal(kind: str, about: str) -> str:
    """Of two images to keep both, lines of earlier versions also have the other's number, which means nothing here."""
    return about.split()[-1] if kind == "distinct" else about
