"""What ends a run that waits for a batch: no room for it, a worker that is gone or stands still, a signal."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from massl.data.sources import find_source
from massl.encoder import checkpoint
from massl.settings import plan
from massl.training.loading import AHEAD, HELD, SHARE, Loading, plan_loading
from massl.training.loop import train
from tests.massl.conftest import SMALL_VIT, small_settings

CODE = "from cli import main; main()"
LONG = {**SMALL_VIT, "steps": "100000", "workers": "2", "precision": "fp32", "checkpoint_every": "100000"}


def command(photos: Path, out: Path, **settings: str) -> list[str]:
    flags = [f"--set={name}={value}" for name, value in {**LONG, **settings}.items()]
    return [sys.executable, "-c", CODE, "train", str(photos), "--out", str(out), *flags]


@contextlib.contextmanager
def training(photos: Path, out: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has learnt for a few steps."""
    process = subprocess.Popen(command(photos, out, **settings), stderr=subprocess.PIPE)
    try:
        metrics, deadline = out / "metrics.jsonl", time.monotonic() + 200
        while not metrics.exists() or metrics.read_text().count("\n") < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


def last_line(process: subprocess.Popen[bytes], code: int, timeout: float = 60) -> str:
    error = process.communicate(timeout=timeout)[1].decode()
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert not [line for line in error.splitlines() if "ERROR" in line]
    line = error.splitlines()[-1]
    assert line.startswith("massl: ")
    return line


def learnt(out: Path) -> int:
    return checkpoint.load(checkpoint.latest(out / "checkpoints"))["step"]


def test_a_batch_that_does_not_come_ends_the_run_in_a_sentence_and_keeps_what_was_learnt(
    photos: Path, tmp_path: Path
) -> None:
    with training(photos, tmp_path / "run", batch_timeout="3") as process:
        workers = workers_of(process)
        for worker in workers:
            worker.suspend()  # as on a drive that stops answering
        line = last_line(process, 1)
        assert "no batch came within 3 s" in line
        assert "batch_timeout" in line
        assert "--resume" in line
        assert learnt(tmp_path / "run") >= 3
        assert not [worker for worker in workers if worker.is_running()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_that_waits_for_a_batch(number: int, photos: Path, tmp_path: Path) -> None:
    with training(photos, tmp_path / "run") as process:
        for worker in workers_of(process):
            worker.suspend()
        time.sleep(2)  # until what was prepared ahead is used up
        process.send_signal(number)
        assert "go on with: massl train" in last_line(process, 130)
        assert learnt(tmp_path / "run") >= 3


def test_a_worker_that_is_killed_ends_the_run_in_a_sentence(photos: Path, tmp_path: Path) -> None:
    with training(photos, tmp_path / "run") as process:
        workers_of(process)[0].send_signal(signal.SIGKILL)  # as by the kernel that is out of memory
        line = last_line(process, 1)
        assert "killed, most likely as memory ran out" in line
        assert learnt(tmp_path / "run") >= 3


def test_a_worker_with_a_bus_error_ends_the_run_in_a_sentence(photos: Path, tmp_path: Path) -> None:
    with training(photos, tmp_path / "run") as process:
        workers_of(process)[0].send_signal(signal.SIGBUS)
        assert "--shm-size" in last_line(process, 1)


@pytest.mark.parametrize(("size", "said"), [("256k", "workers=0"), ("2m", "through pipes"), ("12m", "ahead")])
def test_little_shared_memory_is_said_and_trained_with(
    size: str, said: str, photos: Path, tmp_path: Path, namespace: list[str]
) -> None:
    wanted = {"steps": "3", "image_size": "128", "local_size": "64", "batch": "8", "workers": "4"}
    run = shlex.join(command(photos, tmp_path / "run", **wanted))
    mounted = f"mount -t tmpfs -o size={size} tmpfs /dev/shm && exec {run}"
    done = subprocess.run([*namespace, "sh", "-c", mounted], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (note,) = [line for line in done.stderr.splitlines() if "/dev/shm" in line]
    assert said in note
    assert "--shm-size" in note
    assert (tmp_path / "run" / "encoder.onnx").exists()


def test_a_temporary_folder_of_a_long_path_is_said_and_trained_with(photos: Path, tmp_path: Path) -> None:
    """The path of a socket, by which shared memory is handed over, has about a hundred bytes."""
    far = tmp_path / ("a" * 80)
    far.mkdir()
    run = command(photos, tmp_path / "run", steps="3")
    done = subprocess.run(run, capture_output=True, text=True, timeout=200, env={**os.environ, "TMPDIR": str(far)})
    assert done.returncode == 0, done.stderr
    assert "set TMPDIR to a shorter one" in done.stderr
    assert (tmp_path / "run" / "encoder.onnx").exists()


def test_shared_memory_that_another_program_fills_ends_the_run_in_a_sentence(
    photos: Path, tmp_path: Path, namespace: list[str]
) -> None:
    run = shlex.join(command(photos, tmp_path / "run", image_size="128", local_size="64", batch="8"))
    learns = f"[ -s {shlex.quote(str(tmp_path / 'run' / 'metrics.jsonl'))} ]"
    fill = f"(until {learns}; do sleep 0.1; done; cat /dev/zero > /dev/shm/full) 2> /dev/null"
    mounted = f"mount -t tmpfs -o size=64m tmpfs /dev/shm && ({fill} & exec {run})"
    done = subprocess.run([*namespace, "sh", "-c", mounted], capture_output=True, text=True, timeout=200)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "shared memory (/dev/shm) is full" in done.stderr.splitlines()[-1]


def test_batches_through_pipes_teach_the_same_as_those_in_shared_memory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = find_source(photos)
    settings = small_settings(steps="3", workers="2")
    train(source, tmp_path / "shared", settings)
    monkeypatch.setattr("massl.training.loop.plan_loading", lambda *run: Loading(2, 1, shared=False))
    train(source, tmp_path / "piped", settings)
    one, other = (checkpoint.load(checkpoint.latest(tmp_path / name / "checkpoints")) for name in ("shared", "piped"))
    assert all(bool((one["student"][name] == other["student"][name]).all()) for name in one["student"])


@pytest.mark.parametrize("megabytes", [0, 1, 64, 500, 1000, 4000, 100_000])
def test_what_is_on_its_way_fits_into_the_shared_memory_that_is_free(megabytes: int) -> None:
    settings = plan("gpu", 50_000, {"workers": "8"})[0]
    free = megabytes * 1_000_000
    planned = plan_loading(settings, ranks=2, ranks_here=2, free=free)
    views = 3 * (2 * settings.image_size**2 + settings.local_views * settings.local_size**2)
    taken = views * settings.batch // 2 * (planned.workers * planned.ahead + HELD)
    assert not planned.workers or not planned.shared or 2 * taken <= SHARE * free
    assert bool(planned.note) == (planned.ahead < AHEAD or planned.workers < 8)


def test_a_worker_s_error_reaches_a_person_without_its_traceback(photos: Path, tmp_path: Path) -> None:
    with training(photos, tmp_path / "run") as process:
        for picture in photos.rglob("*.jpg"):
            os.truncate(picture, 10)
        line = last_line(process, 1)
        assert "not one image of" in line
        assert "Traceback" not in line
