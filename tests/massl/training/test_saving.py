"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
import torch

from massl.core.errors import MasslError
from massl.data.sources import find_source
from massl.encoder import checkpoint
from massl.training import run_state
from massl.training.loop import TrainingProgress, train
from massl.training.saving import Saving, copied
from tests.massl.conftest import full_disk, small_settings


def test_never_two_are_written_at_once_and_the_last_is_waited_for() -> None:
    at_once, done, lock = [0], [], threading.Lock()
    gate = threading.Event()

    def write(number: int) -> None:
        with lock:
            at_once.append(at_once[-1] + 1)
        gate.wait(5)
        with lock:
            at_once.append(at_once[-1] - 1)
            done.append(number)

    with Saving() as saving:
        saving.begin(lambda: write(1))
        saving.check()  # waits for nothing
        assert done == []
        threading.Timer(0.05, gate.set).start()
        saving.begin(lambda: write(2))
        assert done[:1] == [1]
    assert done == [1, 2]
    assert max(at_once) == 1


def test_what_could_not_be_written_is_raised_once() -> None:
    def fail() -> None:
        raise MasslError("no room")

    saving = Saving()
    saving.begin(fail)
    with pytest.raises(MasslError, match="no room"):
        saving.finish()
    saving.finish()
    with pytest.raises(MasslError, match="no room"), Saving() as other:
        other.begin(fail)
    other = Saving()
    other.begin(fail)
    other.__exit__(ValueError, ValueError("the first"), None)  # which is the one to hear of


def test_what_is_written_is_as_it_was_when_that_began() -> None:
    state = {"a": torch.zeros(3), "b": [{"c": torch.ones(2)}], "d": (1, None, "e")}
    kept = copied(state)
    state["a"] += 1
    state["b"][0]["c"] += 1
    assert kept["a"].tolist() == [0, 0, 0]
    assert kept["b"][0]["c"].tolist() == [1, 1]
    assert kept["d"] == (1, None, "e")


def test_a_run_saves_by_the_clock_unless_it_is_told_steps(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = find_source(photos)
    written: list[int] = []
    whole = checkpoint.save

    def save(folder: Path, step: int, *rest: object) -> Path:
        written.append(step)
        assert threading.current_thread().name == "checkpoint"
        return whole(folder, step, *rest)

    monkeypatch.setattr(checkpoint, "save", save)
    settings = small_settings(steps="4", checkpoint_every="0", probe_every="4")
    train(source, tmp_path / "one", settings)
    assert written == [4]
    monkeypatch.setattr(run_state, "EVERY", 0.0)
    train(source, tmp_path / "other", settings)
    assert written == [4, 1, 2, 3, 4]


def test_a_disk_that_fills_up_ends_the_run_with_a_sound_checkpoint(photos: Path, tmp_path: Path) -> None:
    source, _ = find_source(photos)
    folder = tmp_path / "run" / "checkpoints"
    with contextlib.ExitStack() as limits:

        def report(progress: TrainingProgress) -> None:
            if progress.step == 5:  # room for the logs, and not for a checkpoint
                limits.enter_context(full_disk((folder / "step-00000004.pt").stat().st_size - 1000))

        settings = small_settings(steps="8", checkpoint_every="2", probe_every="8")
        with pytest.raises(MasslError, match=r"step-00000006\.pt can't be written .* earlier checkpoints are kept"):
            train(source, tmp_path / "run", settings, report=report)
    assert checkpoint.latest_sound(folder)[0]["step"] == 4
    assert not [name for name in os.listdir(folder) if not name.endswith(".pt")]
