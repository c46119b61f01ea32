"""Nothing leaves the machine, and nothing is written where it doesn't belong."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from massl.core.telemetry import BLOCKED, SWITCHES

ROOT = Path(__file__).parent.parent
REPORTING = {"onnxruntime", "openvino", "gradio", "gradio_client", "huggingface_hub", "mlflow", "wandb"}
ROOMS = ("massl", "indexer", "app", "cli")
OTHERS = ("benchmarks", "recipes", "docs")


def test_no_command_and_no_screen_asks_for_an_outside_name_or_writes_into_home(
    namespace: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*namespace, sys.executable, "-m", "tests.offline", tmp_path], cwd=ROOT, capture_output=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    seen = json.loads(done.stdout)
    assert seen == {"asked": [], "reached": [], "written": [], "failed": []}


@pytest.mark.parametrize(
    "first",
    ["massl", "massl.core.images.decoding", "indexer", "indexer.encoder.onnx_encoder", "app.page", "cli.doctor"],
)
def test_importing_any_room_switches_all_telemetry_off_whatever_the_environment_says(first: str) -> None:
    code = (
        f"import {first}, os, json, importlib.util; "
        f"print(json.dumps([dict(os.environ), importlib.util.find_spec({BLOCKED!r})]))"
    )
    environment = {**os.environ, **dict.fromkeys(SWITCHES, "0")}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    variables, package = json.loads(told)
    assert SWITCHES.items() <= variables.items()
    assert package is None


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs pip install 'massl[openvino]'")
def test_openvino_does_not_report_its_import_or_count_it_in_home(namespace: list[str], tmp_path: Path) -> None:
    code = (
        "import indexer, openvino, sys, time; print(openvino.Core().available_devices); time.sleep(1); "
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry.')))"
    )
    # Nothing else of the environment, as it keeps still where it finds the variables of a CI system.
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        [*namespace, sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['CPU']\n[]\n"
    assert list(tmp_path.iterdir()) == []


def test_no_module_imports_a_library_that_reports_home_before_the_switches_are_off() -> None:
    for room in ROOMS:
        at_once = _imports(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8")))
        room_is_safe = room == "massl" or next(_foreign(at_once), "") == "massl"
        for path in (ROOT / room).rglob("*.py"):
            early = _early(ast.parse(path.read_text(encoding="utf-8")))
            assert room_is_safe or not early, f"{path} imports {early} before massl"
    for folder in OTHERS:
        for path in (ROOT / folder).rglob("*.py"):
            assert not (early := _early(ast.parse(path.read_text(encoding="utf-8")))), f"{path}: {early}"


@pytest.mark.parametrize(
    "page", ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md")))]
)
def test_no_example_of_the_docs_lets_a_library_report_home(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        switched = "ORT_DISABLE_TELEMETRY" in block.partition("import onnxruntime")[0]
        assert not (_early(ast.parse(block)) - {"gradio_client"}) or switched, block


def _imports(tree: ast.AST) -> list[str]:
    """The packages that a module imports, in the order of its lines, also within functions."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.lineno, node.module))
    return [name.partition(".")[0] for _, name in sorted(found)]


def _foreign(names: list[str]) -> Iterator[str]:
    return (name for name in names if name not in sys.stdlib_module_names)


def _early(tree: ast.AST) -> set[str]:
    """Libraries that report home and are imported before anything of ours."""
    early = set()
    for name in _imports(tree):
        if name in ROOMS:
            break
        early.add(name)
    return early & REPORTING
