"""What a catalog may consist of: the tables, indexes and triggers that we make, and nothing besides.

A catalog may come from somebody else. A trigger or a view in it would run with every statement, and a column that is
computed or checked would run functions of its author's choosing. So the whole schema is compared with ours before
anything is read by it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence

from indexer.store.decision_tables import TABLES
from indexer.store.fact_tables import SIDECAR_COLUMNS

# The first format's, from which migrations lead to all later ones. History: it never changes again.
FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    hash BLOB,
    width INTEGER, height INTEGER,
    state TEXT NOT NULL CHECK (state IN ('ready', 'skipped', 'gone')),
    reason TEXT,
    embedding BLOB
);
CREATE INDEX images_by_hash ON images (hash);
CREATE INDEX images_by_state ON images (state, path, size, mtime_ns);
CREATE TABLE labels (
    image INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    author TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE decisions (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    about TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (image, kind, about)
) WITHOUT ROWID;
"""

_LONGEST = 10_000  # characters of a statement; ours have a tenth, in ASCII alone
# Words of a table's statement that would make SQLite compute something of its author's choosing when it is read.
_COMPUTED = {"generated", "as", "virtual", "using"}
_TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|\s+|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\w+|.", re.DOTALL)

PartName = tuple[str, str]
"""Kind and name of a part of a schema, as `("table", "images")`."""

Form = tuple[object, ...]
"""A part of a schema, the same for all that SQLite takes to be the same: whatever the spaces, the comments, and whether
a column was there from the beginning or added later."""

Schema = Mapping[PartName, Form]


def of(connection: sqlite3.Connection) -> Schema:
    """The schema of an opened catalog. Runs nothing that stands in it.

    Raises:
        sqlite3.Error: it can't be read.
    """
    rows = connection.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master").fetchall()
    pages = [page for *_, page, _ in rows if page]  # a trigger has none
    # Two parts on one page would read each other's rows as their own.
    apart = len(set(pages)) == len(pages) and all(isinstance(page, int) and page > 1 for page in pages)
    found: dict[PartName, Form] = {}
    for kind, name, table, _, sql in rows:
        key = (str(kind), str(name))
        plain = len(str(sql)) <= _LONGEST and str(sql).isascii()
        found[key] = (table, *_form(str(sql))) if apart and plain and key not in found else ("twice", len(str(sql)))
    return found


def difference(found: Schema, expected: Schema) -> str | None:
    """What of a schema is not as expected, for a person; None if all of it is."""
    for kind, name in found:
        if (kind, name) not in expected:
            return f"it also has the {kind} {name!r}"
    for kind, name in expected:
        if (kind, name) not in found:
            return f"its {kind} {name!r} is missing"
        if found[kind, name] != expected[kind, name]:
            return f"its {kind} {name!r} is another"
    return None


def keep_tables(connection: sqlite3.Connection) -> None:
    """Removes all but the tables that a salvage reads from an opened catalog, so that reading it runs nothing else.

    What a table is made of is left as it stands there where it is a plain list of columns; any other is removed. The
    change holds for connections that are opened afterwards. Without it, the view or the trigger of somebody else would
    run where a damaged catalog is read.

    Raises:
        sqlite3.Error: it can't be read.
    """
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA writable_schema = ON")
    rows = connection.execute("SELECT rowid, type, name, tbl_name, rootpage, sql FROM sqlite_master").fetchall()
    pages = [page for *_, page, _ in rows if page]
    for row, kind, name, table, page, sql in rows:
        plain = kind == "table" and name == table and name in _SALVAGED and pages.count(page) == 1
        plain = plain and isinstance(sql, str) and len(sql) <= _LONGEST
        if not plain or not _COMPUTED.isdisjoint(map(str.lower, _TOKEN.findall(sql))):
            connection.execute("DELETE FROM sqlite_master WHERE rowid = ?", [row])


def statements(text: str) -> list[str]:
    """The statements of our own DDL, which ends each of them but those within a trigger with its line."""
    return [statement for statement in text.strip().split(";\n") if statement.strip()]


def _form(sql: str) -> Form:
    """A statement by its tokens; a table's columns that the first format doesn't have in no order."""
    tokens = [token for token in _TOKEN.findall(sql) if not (token.isspace() or token.startswith(("--", "/*")))]
    if tokens[:2] != ["CREATE", "TABLE"] or tokens[3:4] != ["("]:
        return tuple(tokens)
    end = _closing(tokens)
    parts = _parts(tokens[4:end])
    first = _FIRST_COLUMNS.get(tokens[2])
    if first is None:
        return (*tokens[:3], parts, tuple(tokens[end:]))
    kept = tuple(part for part in parts if part in first)
    return (*tokens[:3], kept, frozenset(parts) - first, len(parts), tuple(tokens[end:]))


def _closing(tokens: Sequence[str]) -> int:
    """Where the parenthesis ends that is the fourth token."""
    depth = 0
    for place, token in enumerate(tokens):
        depth += (token == "(") - (token == ")")
        if token == ")" and depth == 0:
            return place
    return len(tokens)


def _parts(tokens: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """What stands between the commas of a list."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if token == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return tuple(map(tuple, parts))


_FIRST_COLUMNS: dict[str, frozenset[tuple[str, ...]]] = {}
for _statement in statements(FIRST):
    _words = [token for token in _TOKEN.findall(_statement) if not token.isspace()]
    if _words[1] == "TABLE":
        _FIRST_COLUMNS[_words[2]] = frozenset(_parts(_words[4 : _closing(_words)]))

_SALVAGED = {*_FIRST_COLUMNS, *TABLES, *SIDECAR_COLUMNS}
