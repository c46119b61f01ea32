"""One name, one meaning: no two classes or types of the rooms are called alike."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import massl

ROOT = Path(massl.__file__).parent.parent
ROOMS = ("massl", "indexer", "app", "cli")


def named(source: str) -> Iterator[str]:
    """The classes of a module, and the types that it gives a name (`Payload = dict[str, Any]`)."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            yield from (
                target.id
                for target in node.targets
                if isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper()
            )


def test_what_is_named_is_noticed() -> None:
    source = "class One: ...\nTwo = dict[str, int]\nThree = int | str\nMOST = LIMITS['most']\nfour = list[int]\n"
    assert list(named(source)) == ["One", "Two", "Three"]


def test_a_name_has_one_meaning() -> None:
    places = defaultdict(list)
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for name in named(path.read_text("utf-8")):
                places[name].append(path.relative_to(ROOT).as_posix())
    assert len(places) > 150
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
