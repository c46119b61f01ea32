"""Two ranks learn what one would have."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from massl.encoder import checkpoint
from massl.method.schedules import Rates
from massl.training.distributed import World
from massl.training.learner import Learner
from tests.forked import Forks
from tests.massl.conftest import SMALL_VIT, small_settings

RATES = Rates(1e-3, 0.04, 0.9, 0.05)
FLAGS = [f"--set={name}={value}" for name, value in SMALL_VIT.items()]


def learn(rank: int, ranks: int, out: Path, rendezvous: Path) -> None:
    """Two steps of one of `ranks` ranks on its share of eight images; what it ended with goes to a file."""
    torch.set_num_threads(1)
    if ranks > 1:
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=ranks)
    settings = small_settings(batch="8", backbone="test_vit", head_norm="false", drop_path="0", accumulate="2")
    learner = Learner(settings, World(torch.device("cpu"), rank, ranks))
    draws = torch.Generator().manual_seed(1)
    whole = [torch.randn(2, 8, 3, side, side, generator=draws) for side in (32, 16)]
    share = slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)
    gradients = []
    for step in range(2):
        result = learner.step([group[:, share] for group in whole], RATES, step)
        gradients.append([parameter.grad.clone() for parameter in learner.student.parameters()])
    torch.save(
        {"loss": result.loss, "gradients": gradients[0], "memory": learner.memory.rows, "random": torch.rand(1)},
        out / f"{rank}-of-{ranks}.pt",
    )


def test_two_ranks_have_the_memory_and_the_gradients_of_one(tmp_path: Path) -> None:
    multiprocessing.set_forkserver_preload([__name__])  # imported once for both
    multiprocessing.start_processes(learn, (2, tmp_path, tmp_path / "rendezvous"), nprocs=2, start_method="forkserver")
    learn(0, 1, tmp_path, tmp_path)
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    for rank in (first, second):
        for gradient, wanted in zip(rank["gradients"], one["gradients"], strict=True):
            torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(rank["loss"], one["loss"], atol=1e-4, rtol=0)
    assert torch.equal(first["memory"], second["memory"])
    torch.testing.assert_close(first["memory"], one["memory"], atol=1e-3, rtol=0)
    assert first["random"] != second["random"]  # drop-path draws differ


def test_the_command_trains_on_two_devices_as_on_one(forks: Forks, photos: Path, tmp_path: Path) -> None:
    losses = []
    for devices in (1, 2):
        flags = [*FLAGS, "--set=head_norm=false", "--set=drop_path=0", "--precision=fp32", f"--devices={devices}"]
        done = forks.run(["train", photos, *flags, f"--out={tmp_path / str(devices)}", "--json"])
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["images_seen"] == 32  # printed once, by the first of them
        assert b"Warning" not in done.stderr
        rows = (tmp_path / str(devices) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    # The first steps' are the same; later ones drift, as Adam makes much of rounding.
    assert losses[0][:3] == pytest.approx(losses[1][:3], abs=1e-3)
    assert len(losses[0]) == len(losses[1]) == 8


def test_sigterm_makes_all_ranks_checkpoint_and_end(forks: Forks, photos: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--set=steps=100000", "--set=checkpoint_every=100000", "--set=probe_every=100000"]
    with (tmp_path / "log").open("w") as log:
        run = forks.start(["train", photos, *flags, "--devices=2", f"--out={tmp_path / 'run'}"], [log.fileno()] * 2)
    deadline = time.monotonic() + 120
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_text():
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    assert run.wait(120) == 130
    errors = (tmp_path / "log").read_text()
    assert "go on with: massl train" in errors
    assert "Traceback" not in errors
    state = checkpoint.load(checkpoint.latest(tmp_path / "run" / "checkpoints"))
    assert int(state["memory"]["written"]) == 4 * state["step"]


def test_a_batch_that_can_not_be_shared_says_so(forks: Forks, photos: Path, tmp_path: Path) -> None:
    done = forks.run(["train", photos, *FLAGS, "--set=batch=3", "--devices=2", f"--out={tmp_path / 'run'}"])
    assert done.returncode == 1
    assert done.stderr.count(b"batch (3) must be a multiple of the 2 devices that share it") == 1
    assert b"Traceback" not in done.stderr
