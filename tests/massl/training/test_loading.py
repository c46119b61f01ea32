"""What ends a run that waits for a batch: no room for it, a worker that is gone or stands still, a signal."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from massl.data.sources import find_source
from massl.encoder import checkpoint
from massl.planning import plan
from massl.training.loading import AHEAD, HELD, NO_ROOM, SHARE, Loading, LoadingFailed, next_batch, plan_loading
from massl.training.loop import train
from tests.forked import Forks
from tests.massl.conftest import SMALL_VIT, small_settings

LONG = {**SMALL_VIT, "steps": "100000", "workers": "2", "precision": "fp32", "checkpoint_every": "100000"}


def command(photos: Path, out: Path, **settings: str) -> list[str]:
    flags = [f"--set={name}={value}" for name, value in {**LONG, **settings}.items()]
    return ["train", str(photos), "--out", str(out), *flags]


@dataclass
class Training:
    """A run in a process of its own, and the file that what it says goes to."""

    process: Any
    log: Path

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def last_line(self, code: int, timeout: float = 60) -> str:
        self.process.wait(timeout)
        error = self.log.read_text()
        assert self.process.returncode == code, error
        assert "Traceback" not in error
        assert not [line for line in error.splitlines() if "ERROR" in line]
        line = error.splitlines()[-1]
        assert line.startswith("massl: ")
        return line


Begin = Callable[..., contextlib.AbstractContextManager[Training]]


@pytest.fixture
def training(forks: Forks, photos: Path, tmp_path: Path) -> Begin:
    """Begins a run with settings, which has learnt for a few steps."""

    @contextlib.contextmanager
    def begun(**settings: str) -> Iterator[Training]:
        out, log = tmp_path / "run", tmp_path / "log.txt"
        with log.open("w") as said:
            running = Training(forks.start(command(photos, out, **settings), [said.fileno()] * 2), log)
        try:
            metrics, deadline = out / "metrics.jsonl", time.monotonic() + 200
            while not metrics.exists() or metrics.read_text().count("\n") < 3:
                assert time.monotonic() < deadline
                assert running.process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield running
        finally:
            running.process.kill()
            running.process.wait()

    return begun


@pytest.fixture(scope="module")
def forks_in_namespace(namespace: list[str]) -> Iterator[Forks]:
    """Starts `massl` where a test may mount what it likes."""
    made = Forks(namespace)
    yield made
    made.close()


def mounting(size: str, then: str = "true") -> list[str]:
    """What gives a process so much shared memory, and does something else."""
    return ["sh", "-c", f"mount -t tmpfs -o size={size} tmpfs /dev/shm && {then}"]


def learnt(out: Path) -> int:
    return checkpoint.load(checkpoint.latest(out / "checkpoints"))["step"]


def test_a_batch_that_does_not_come_ends_the_run_in_a_sentence_and_keeps_what_was_learnt(
    training: Begin, tmp_path: Path
) -> None:
    with training(batch_timeout="3") as running:
        workers = running.workers()
        for worker in workers:
            worker.suspend()  # as on a drive that stops answering
        line = running.last_line(1)
        assert "no batch came within 3 s" in line
        assert "batch_timeout" in line
        assert "--resume" in line
        assert learnt(tmp_path / "run") >= 3
        assert not [worker for worker in workers if worker.is_running()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_that_waits_for_a_batch(number: int, training: Begin, tmp_path: Path) -> None:
    with training() as running:
        for worker in running.workers():
            worker.suspend()
        time.sleep(2)  # until what was prepared ahead is used up
        running.process.send_signal(number)
        assert "go on with: massl train" in running.last_line(130)
        assert learnt(tmp_path / "run") >= 3


def test_a_worker_that_is_killed_ends_the_run_in_a_sentence(training: Begin, tmp_path: Path) -> None:
    with training() as running:
        running.workers()[0].send_signal(signal.SIGKILL)  # as by the kernel that is out of memory
        line = running.last_line(1)
        assert "killed, most likely as memory ran out" in line
        assert learnt(tmp_path / "run") >= 3


def test_a_worker_with_a_bus_error_ends_the_run_in_a_sentence(training: Begin, tmp_path: Path) -> None:
    with training() as running:
        running.workers()[0].send_signal(signal.SIGBUS)
        assert "--shm-size" in running.last_line(1)


@pytest.mark.parametrize("seen", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_that_is_about_to_end_is_waited_for(seen: Exception) -> None:
    """The connection to it breaks a moment before its exit code can be asked for."""

    def end_soon() -> None:
        time.sleep(0.2)
        os._exit(NO_ROOM)

    worker = multiprocessing.get_context("fork").Process(target=end_soon)
    worker.start()
    ready: queue.Queue[Any] = queue.Queue()
    ready.put(seen)
    with pytest.raises(LoadingFailed, match="--shm-size"):
        next_batch(ready, [worker], 60, lambda: False)


@pytest.mark.parametrize(("size", "said"), [("256k", "workers=0"), ("2m", "through pipes"), ("12m", "ahead")])
def test_little_shared_memory_is_said_and_trained_with(
    size: str, said: str, photos: Path, tmp_path: Path, forks_in_namespace: Forks
) -> None:
    wanted = {"steps": "3", "image_size": "128", "local_size": "64", "batch": "8", "workers": "4"}
    done = forks_in_namespace.run(command(photos, tmp_path / "run", **wanted), first=mounting(size))
    assert done.returncode == 0, done.stderr
    (note,) = [line for line in done.stderr.decode().splitlines() if "/dev/shm" in line]
    assert said in note
    assert "--shm-size" in note
    assert (tmp_path / "run" / "encoder.onnx").exists()


def test_a_temporary_folder_of_a_long_path_is_said_and_trained_with(forks: Forks, photos: Path, tmp_path: Path) -> None:
    """The path of a socket, by which shared memory is handed over, has about a hundred bytes."""
    far = tmp_path / ("a" * 80)
    far.mkdir()
    run = command(photos, tmp_path / "run", steps="3")
    done = forks.run(run, environment={**os.environ, "TMPDIR": str(far)})
    assert done.returncode == 0, done.stderr
    assert b"set TMPDIR to a shorter one" in done.stderr
    assert (tmp_path / "run" / "encoder.onnx").exists()


def test_shared_memory_that_another_program_fills_ends_the_run_in_a_sentence(
    photos: Path, tmp_path: Path, forks_in_namespace: Forks
) -> None:
    run = command(photos, tmp_path / "run", image_size="128", local_size="64", batch="8")
    learns = f"[ -s {shlex.quote(str(tmp_path / 'run' / 'metrics.jsonl'))} ]"
    # As long as the run lasts: what it frees by learning from a batch must not be left to the next one.
    fill = (
        f"until {learns}; do sleep 0.1; done; while kill -0 $PPID; do cat /dev/zero >> /dev/shm/full; sleep 0.05; done"
    )
    fill = f"({fill}) 2> /dev/null"
    done = forks_in_namespace.run(run, first=mounting("64m", f"{fill} &"))
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"shared memory (/dev/shm) is full" in done.stderr.splitlines()[-1]


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


def test_a_worker_s_error_reaches_a_person_without_its_traceback(training: Begin, photos: Path) -> None:
    with training() as running:
        for picture in photos.rglob("*.jpg"):
            os.truncate(picture, 10)
        line = running.last_line(1)
        assert "no image of" in line
        assert "Traceback" not in line
