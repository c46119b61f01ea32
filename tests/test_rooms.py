"""The house: which room may import what, in fresh processes; and which shelf imports which, by the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import massl

ROOT = Path(massl.__file__).parent.parent
ROOMS = ("massl", "indexer", "app", "cli")

# DESIGN's table, last column, and what must stay light.
FORBIDDEN = {
    "massl": ("indexer", "app", "cli", "torch", "timm"),
    "massl.core.images.decoding": ("indexer", "app", "cli", "torch", "timm"),
    "massl.core.files.scan": ("indexer", "app", "cli", "torch", "timm", "numpy", "PIL"),
    "massl.training.loop": ("indexer", "app", "cli"),
    "massl.training.run_report": ("indexer", "app", "cli", "torch", "timm"),
    "massl.encoder.export": ("indexer", "app", "cli"),
    "massl.evaluation.evaluate": ("indexer", "app", "cli", "torch", "timm"),
    "indexer": ("torch", "timm", "gradio", "openvino", "app", "cli"),
    "app": ("torch", "openvino", "cli"),
    "app.server": ("torch", "cli"),
    "app.page": ("torch", "cli"),
    "cli.commands": ("torch", "timm", "gradio", "faiss", "onnxruntime", "sklearn", "numpy", "PIL"),
}

# Who imports whom inside a room: sub-packages, and the modules that lie beside them. Whoever adds an edge adds it here.
EDGES: dict[str, set[str]] = {
    "app": set(),
    "app.access": set(),
    "app.agents": {"app.formatting", "app.uploads"},
    "app.formatting": set(),
    "app.interface": set(),
    "app.page": {
        "app.agents",
        "app.formatting",
        "app.progress",
        "app.screens",
        "app.scripts",
        "app.session",
        "app.uploads",
    },
    "app.progress": {"app.formatting"},
    "app.screens": {"app.formatting", "app.progress", "app.session", "app.uploads"},
    "app.scripts": set(),
    "app.server": {"app.access", "app.agents", "app.interface", "app.page", "app.scripts"},
    "app.session": set(),
    "app.uploads": set(),
    "indexer": {
        "indexer.collection",
        "indexer.encoder",
        "indexer.ingest",
        "indexer.search",
        "indexer.search.engines",
        "indexer.storage",
        "indexer.store",
    },
    "indexer.anomalies": {"indexer.storage", "indexer.search", "indexer.search.engines", "indexer.store"},
    "indexer.collection": {
        "indexer.anomalies",
        "indexer.duplicates",
        "indexer.encoder",
        "indexer.fewshot",
        "indexer.ingest",
        "indexer.label_formats",
        "indexer.monitoring",
        "indexer.projection",
        "indexer.recovery",
        "indexer.search",
        "indexer.search.engines",
        "indexer.storage",
        "indexer.store",
        "indexer.subsets",
        "indexer.updating",
    },
    "indexer.duplicates": {"indexer.search", "indexer.search.engines", "indexer.store"},
    "indexer.encoder": set(),
    "indexer.fewshot": {"indexer.encoder", "indexer.store"},
    "indexer.ingest": {"indexer.encoder", "indexer.jobs", "indexer.storage", "indexer.store"},
    "indexer.jobs": set(),
    "indexer.json_results": {"indexer.fewshot", "indexer.search", "indexer.store"},
    "indexer.label_formats": {"indexer.store"},
    "indexer.monitoring": {
        "indexer.encoder",
        "indexer.ingest",
        "indexer.storage",
        "indexer.store",
    },
    "indexer.projection": {"indexer.jobs", "indexer.store"},
    "indexer.recovery": {"indexer.store"},
    "indexer.search": {"indexer.encoder", "indexer.search.engines", "indexer.store"},
    "indexer.search.engines": {"indexer.store"},
    "indexer.storage": {
        "indexer.encoder",
        "indexer.recovery",
        "indexer.store",
    },
    "indexer.store": set(),
    "indexer.subsets": {"indexer.label_formats", "indexer.search", "indexer.store"},
    "indexer.updating": {
        "indexer.encoder",
        "indexer.ingest",
        "indexer.recovery",
        "indexer.search",
        "indexer.search.engines",
        "indexer.storage",
        "indexer.store",
    },
    "massl": {"massl.core"},
    "massl.core": set(),
    "massl.core.files": {"massl.core", "massl.core.images"},
    "massl.core.images": {"massl.core"},
    "massl.data": {"massl.core", "massl.core.files", "massl.core.images"},
    "massl.encoder": {
        "massl",
        "massl.core",
        "massl.core.files",
        "massl.data",
        "massl.method",
        "massl.planning",
        "massl.settings",
    },
    "massl.evaluation": {"massl.core", "massl.core.files", "massl.core.images"},
    "massl.method": {"massl.core", "massl.core.images", "massl.data", "massl.settings"},
    "massl.planning": {"massl.core", "massl.presets", "massl.settings"},
    "massl.presets": set(),
    "massl.settings": {"massl.core"},
    "massl.training": {
        "massl",
        "massl.core",
        "massl.core.files",
        "massl.core.images",
        "massl.data",
        "massl.encoder",
        "massl.evaluation",
        "massl.method",
        "massl.settings",
    },
}

# What a room takes from the others. `massl` alone is its version, and switches telemetry off.
OTHERS: dict[str, set[str]] = {
    "massl": set(),
    "indexer": {"massl", "massl.core", "massl.core.files", "massl.core.images"},
    "app": {"indexer", "massl", "massl.core", "massl.core.files", "massl.core.images"},
}


class Import(NamedTuple):
    """One import, by whom and of what: a module, and the name taken from it where that is no module."""

    by: str
    module: str
    name: str | None


def _modules() -> dict[str, Path]:
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def _imports(module: str, code: str) -> Iterator[Import]:
    """Those of our own modules, in functions too; not those that only a type checker sees."""

    def walk(node: ast.AST) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other)
                continue
            if isinstance(child, ast.Import):
                yield from (Import(module, alias.name, None) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.module is not None, f"{module} imports by dots"
                assert not child.level, f"{module} imports by dots"
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    yield Import(module, whole, None) if whole in MODULES else Import(module, child.module, alias.name)
            yield from walk(child)

    return (found for found in walk(ast.parse(code)) if found.module.split(".")[0] in ROOMS)


def _shelf(module: str) -> str:
    """The sub-package that a module lies in; itself where it lies in none."""
    package = module if module in PACKAGES else module.rpartition(".")[0]
    return package if package not in ROOMS else module


def _edges(imports: list[Import]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in imports:
        one, other = _shelf(each.by), _shelf(each.module)
        found.setdefault(one, set())
        if one != other:
            found[one].add(other)
    return found


def _circle(edges: dict[str, set[str]]) -> list[str]:
    """A circle, its beginning at both ends; empty where there is none."""
    done: set[str] = set()

    def search(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node not in done:
            for other in sorted(edges.get(node, ())):
                if found := search(other, [*way, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(edges) if (found := search(node, []))), [])


@cache
def _all_imports() -> list[Import]:
    return [each for module, path in MODULES.items() for each in _imports(module, path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    code = f"import sys, {room}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert room.split(".")[0] in loaded
    assert not set(FORBIDDEN[room]) & set(loaded)


@pytest.mark.parametrize("room", ["massl", "indexer", "app"])
def test_a_shelf_imports_the_shelves_that_are_listed_and_no_other(room: str) -> None:
    inside = {
        shelf: {other for other in others if other.split(".")[0] == room}
        for shelf, others in _edges(_all_imports()).items()
        if shelf.split(".")[0] == room
    }
    shelves = {_shelf(module) for module in MODULES if module.split(".")[0] == room}
    assert {shelf: inside.get(shelf, set()) for shelf in shelves} == {
        shelf: others for shelf, others in EDGES.items() if shelf.split(".")[0] == room
    }


@pytest.mark.parametrize("room", OTHERS)
def test_a_room_takes_from_the_others_what_is_listed(room: str) -> None:
    taken = {_shelf(each.module) for each in _all_imports() if each.by.split(".")[0] == room}
    outside = {shelf for shelf in taken if shelf.split(".")[0] != room}
    # Of massl its shelves are told apart; indexer is open as a whole.
    assert {shelf if shelf.startswith("massl") else shelf.split(".")[0] for shelf in outside} <= OTHERS[room]


def test_no_shelf_leads_back_to_itself() -> None:
    assert _circle(_edges(_all_imports())) == []


def test_what_begins_with_an_underscore_is_used_on_its_own_shelf_only() -> None:
    private = [
        each
        for each in _all_imports()
        if _shelf(each.by) != _shelf(each.module)
        and any(part.startswith("_") for part in (each.name or "", *each.module.split(".")) if part != "__version__")
    ]
    assert private == []
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr.startswith("_"):
                other = known.get(node.value.id, "")
                assert other not in MODULES or _shelf(other) == _shelf(module), f"{module} uses {other}.{node.attr}"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("massl.core.errors", "from massl.training import loop"),
        ("massl.method.loss", "def late():\n    from massl.encoder.weights import load_backbone"),
        ("indexer.store.catalog", "import indexer.search.query"),
        ("app.access.origin", "def late():\n    from app.server import serve"),
    ],
)
def test_a_new_edge_is_noticed_and_a_circle_too(module: str, line: str) -> None:
    more = [*_all_imports(), *_imports(module, line)]
    assert _edges(more) != _edges(_all_imports())
    assert module.split(".")[0] in _circle(_edges(more))[0]


def test_what_only_a_type_checker_sees_is_no_edge() -> None:
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from indexer.collection import Collection\n"
    assert list(_imports("indexer.store.catalog", code)) == []


def test_the_architecture_page_has_a_line_for_every_shelf() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shelves = [package.replace(".", "/") for package in PACKAGES if package not in ROOMS]
    assert [shelf for shelf in shelves if f"\n| `{shelf}/` |" not in page] == []
    named = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert [path for path in named if "*" not in path and not (ROOT / path).exists()] == []
