"""The facade: short, without methods that only pass on, and the only way to a collection for screens and commands."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import indexer

ROOT = Path(indexer.__file__).parent.parent
FACADE = ROOT / "indexer" / "collection.py"
# What everybody asks for, so that nobody goes through the collection to its catalog.
SHORT_WAYS = {"encoder", "meta", "__len__", "close"}


def _reaches_through(code: str) -> Iterator[int]:
    """Lines that use a collection's catalog."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and node.attr.strip("_") == "catalog":
            yield node.lineno


def _passes_on(method: ast.FunctionDef) -> bool:
    """Whether a method only calls one of a part, with its own parameters."""
    body = [one for one in method.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    if len(body) != 1 or not isinstance(body[0], ast.Return | ast.Expr) or not isinstance(body[0].value, ast.Call):
        return False
    call = body[0].value
    own = {argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)}
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return ast.unparse(call.func).startswith("self.") and all(
        isinstance(value, ast.Name) and value.id in own for value in given
    )


def test_no_screen_and_no_command_reaches_through_to_the_catalog() -> None:
    paths = [path for room in ("app", "cli") for path in (ROOT / room).rglob("*.py")]
    assert len(paths) > 40
    found = {path.relative_to(ROOT).as_posix(): list(_reaches_through(path.read_text("utf-8"))) for path in paths}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("code", ["self.collection.catalog.meta()", "meta = collection.storage.catalog", "it._catalog"])
def test_reaching_through_is_noticed(code: str) -> None:
    assert list(_reaches_through(code))


def test_the_facade_can_be_read_at_one_sitting() -> None:
    assert len(FACADE.read_text("utf-8").splitlines()) < 300


def test_no_method_of_the_facade_only_passes_on() -> None:
    (facade,) = (node for node in ast.parse(FACADE.read_text("utf-8")).body if isinstance(node, ast.ClassDef))
    methods = [node for node in facade.body if isinstance(node, ast.FunctionDef)]
    assert {"open", "create", "update", "search"} <= {method.name for method in methods}
    assert {method.name for method in methods if _passes_on(method)} <= SHORT_WAYS


def test_passing_on_is_noticed() -> None:
    (method,) = ast.parse(
        'def add(self, label, images):\n    """Adds."""\n    return self.labels.add(label, images)'
    ).body
    assert isinstance(method, ast.FunctionDef)
    assert _passes_on(method)
