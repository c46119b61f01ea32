"""Where figures go."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from massl.core.errors import MasslError
from massl.settings import Settings
from massl.training.tracking import track


def test_a_resumed_run_rewrites_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    with track(tmp_path, Settings(), 0) as log:
        for step in (1, 2, 3):
            log.write(step, {"step": step, "loss": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    with track(tmp_path, Settings(), 2) as log:
        log.write(3, {"step": 3, "loss": float("nan")})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.2}, {"step": 3, "loss": None}]
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [event.step for event in board.Scalars("loss")] == [1, 2]


def test_wandb_is_told_the_same(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for run in ("one/run", "other/run", "one/run"):  # another run of the same name, and the first one resumed
        (tmp_path / run).mkdir(parents=True, exist_ok=True)
        with track(tmp_path / run, Settings(), 0, "wandb") as log:
            log.write(1, {"step": 1, "loss": 0.5})
    names = {
        run: {path.stem for path in tmp_path.glob(f"{run}/run/wandb/offline-run-*/*.wandb")} for run in ("one", "other")
    }
    assert [len(names["one"]), len(names["other"]), len(names["one"] | names["other"])] == [1, 1, 2]
    assert capsys.readouterr().out == ""


def test_mlflow_is_told_the_same_and_a_resumed_run_goes_on(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("mlflow")
    for step in (1, 2):
        with track(tmp_path, Settings(), step - 1, "mlflow") as log:
            log.write(step, {"step": step, "loss": step / 2})
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        rows = connection.execute(
            "SELECT run_uuid, step, value FROM metrics WHERE key = 'loss' ORDER BY step"
        ).fetchall()
    assert [row[1:] for row in rows] == [(1, 0.5), (2, 1.0)]
    assert len({row[0] for row in rows}) == 1


def test_an_unknown_tracker_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(MasslError, match="there is no tracker 'neptune'; choose one of wandb, mlflow"),
        track(tmp_path, Settings(), 0, "neptune"),
    ):
        pass


@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_a_folder_does_not_decide_where_runs_are_sent(tmp_path: Path, monkeypatch, folder: str) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / folder / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\nproject = mine\n")
    with (
        pytest.raises(MasslError, match=r"settings sets base_url, and .*WANDB_BASE_URL"),
        track(tmp_path / "run", Settings(), 0, "wandb"),
    ):
        pass
    (tmp_path / folder / "settings").write_text("[default]\nentity = me\nproject = mine\n")
    with track(tmp_path / "run", Settings(), 0, "wandb") as log:
        log.write(1, {"step": 1, "loss": 0.5})
