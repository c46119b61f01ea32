"""All SQL stands in `indexer/store/`: other shelves call named functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import indexer

ROOT = Path(indexer.__file__).parent.parent
STORE = ROOT / "indexer" / "store"
ROOMS = ("indexer", "app", "cli", "massl")
ELSEWHERE = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if STORE not in path.parents]

_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|PRAGMA|WITH|REPLACE|ATTACH|BEGIN|VACUUM)\b")
_RUNS = ("execute", "executemany", "executescript", "writing", "reading_from_threads")
# Pieces of statements that the store's modules share.
_PIECES = ("READY", "IMAGE", "EMBEDDING", "LABEL", "META", "TABLES", "IMAGES")


def _sql(tree: ast.AST) -> Iterator[str]:
    """What of a module is SQL, or runs it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _STATEMENT.match(node.value):
            yield node.value[:60]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = ast.unparse(node.func.value).rpartition(".")[2].strip("_")
            if node.func.attr in _RUNS or (node.func.attr == "read" and of in ("catalog", "connection")):
                yield ast.unparse(node.func)
        elif isinstance(node, ast.Import) and any(alias.name == "sqlite3" for alias in node.names):
            yield "import sqlite3"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("indexer.store"):
            yield from (alias.name for alias in node.names if alias.name in _PIECES)


def test_no_module_outside_the_store_holds_sql() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(_sql(ast.parse(path.read_text("utf-8")))) for path in ELSEWHERE}
    assert len(found) > 100
    assert {path: sql for path, sql in found.items() if sql} == {}


@pytest.mark.parametrize(
    "line",
    [
        'query = "SELECT id FROM images"',
        'query = f"""\n    UPDATE images SET state = {state}"""',
        "rows = self._catalog.read(query)",
        "connection.executemany(statement, rows)",
        "with collection.catalog.writing() as connection: pass",
        "import sqlite3",
        "from indexer.store.catalog import READY",
    ],
)
def test_sql_is_noticed(line: str) -> None:
    assert list(_sql(ast.parse(line)))


def test_the_store_itself_is_where_it_stands() -> None:
    assert any(list(_sql(ast.parse(path.read_text("utf-8")))) for path in STORE.glob("*.py"))
