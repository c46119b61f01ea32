"""Runs small enough for a test, made by the trainer itself."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from massl.data.sources import find_source
from massl.planning import plan
from massl.settings import Settings
from massl.training.loop import train
from tests.massl import shallow  # noqa: F401 - which timm knows then
from tests.massl.exporting import keep_the_table_of_operators, reuse_graphs

SMALL = {
    "projection_norm": "false", "colour_change": "1",
    "image_size": "32", "local_size": "16", "local_views": "2", "batch": "4", "memory": "32", "block": "8",
    "head_width": "32", "steps": "8", "log_every": "1", "checkpoint_every": "4", "workers": "0",
}  # fmt: skip
SMALL_VIT = {"backbone": "test_vit", **SMALL}  # of a command


@contextmanager
def full_disk(room: int = 100) -> Iterator[None]:
    """As if it were: no file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def small_settings(images: int = 24, **overrides: str) -> Settings:
    """Settings of a run of seconds."""
    return plan("cpu", images, {"backbone": "vit_shallow_patch16", **SMALL, **overrides}, precision="fp32")[0]


@pytest.fixture(scope="session", autouse=True)
def one_export_a_graph(of_all_workers: Path) -> Iterator[None]:
    """Of transformers that differ in their weights alone, torch exports one."""
    folder = of_all_workers / "graphs"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        keep_the_table_of_operators(patch.setattr)
        reuse_graphs(patch.setattr, folder)
        yield


@pytest.fixture(scope="session")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 8 steps on the bundled flags."""
    out = tmp_path_factory.mktemp("runs") / "run"
    source, _ = find_source(pictures / "flag")
    train(source, out, small_settings(len(source)))
    return out


@pytest.fixture
def massl_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `massl train` with the given words in an empty folder; gives what it wrote to standard output."""

    def run(*words: object) -> str:
        monkeypatch.chdir(tmp_path)
        ran = CliRunner().invoke(app, ["train", *map(str, words)], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        return ran.stdout

    return run
