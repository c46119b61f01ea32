"""Two ranks learn what one would have."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import multiprocessing

from massl.encoder import checkpoint
from massl.method.schedules import Rates
from massl.training.distributed import World
from massl.training.learner import Learner
from tests.forked import INTERPRETER, Forks
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


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_ranks_have_the_memory_and_the_gradients_of_one(tmp_path: Path, ranks: int) -> None:
    multiprocessing.set_forkserver_preload([__name__])  # imported once for all
    given = (ranks, tmp_path, tmp_path / "rendezvous")
    multiprocessing.start_processes(learn, given, nprocs=ranks, start_method="forkserver")
    learn(0, 1, tmp_path, tmp_path)
    one = torch.load(tmp_path / "0-of-1.pt")
    several = [torch.load(tmp_path / f"{rank}-of-{ranks}.pt") for rank in range(ranks)]
    for rank in several:
        for gradient, wanted in zip(rank["gradients"], one["gradients"], strict=True):
            torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(rank["loss"], one["loss"], atol=1e-4, rtol=0)
        assert torch.equal(rank["memory"], several[0]["memory"])
    torch.testing.assert_close(several[0]["memory"], one["memory"], atol=1e-3, rtol=0)
    assert len({float(rank["random"]) for rank in several}) == ranks  # drop-path draws differ


def run_ranks(forks: Forks, arguments: list[object], ranks: int, folder: Path) -> dict[str, Any]:
    """`massl` in so many processes as torchrun starts them, but forked; the JSON that the first of them printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    logs, running = [folder / f"{ranks}-{rank}.log" for rank in range(ranks)], []
    for rank, log in enumerate(logs):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        environment = os.environ | told | {name: str(number) for name, number in numbers.items()}
        with log.with_suffix(".out").open("wb") as output, log.open("wb") as errors:
            running.append(forks.start(arguments, [output.fileno(), errors.fileno()], environment=environment))
    assert [one.wait(240) for one in running] == [0] * ranks, logs[0].read_text()
    assert not any("Warning" in log.read_text() for log in logs)
    first, *others = [log.with_suffix(".out").read_text() for log in logs]
    assert not any(others)  # printed once, by the first of them
    return dict(json.loads(first))


def test_a_run_goes_on_with_two_ranks_as_with_one(forks: Forks, photos: Path, tmp_path: Path) -> None:
    begun = [*FLAGS, "--set=head_norm=false", "--set=drop_path=0", "--precision=fp32", "--set=steps=4"]
    done = forks.run(["train", photos, *begun, f"--out={tmp_path / '1'}"])
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    losses = []
    for ranks in (1, 2):
        run = tmp_path / str(ranks)
        told = run_ranks(forks, ["train", photos, f"--resume={run}", "--set=steps=8", "--json"], ranks, tmp_path)
        assert told["images_seen"] == 32
        losses.append([json.loads(row)["loss"] for row in (run / "metrics.jsonl").read_text().splitlines()])
    # The first steps' are the same; later ones drift, as Adam makes much of rounding.
    assert losses[0][4:7] == pytest.approx(losses[1][4:7], abs=1e-3)
    assert len(losses[0]) == len(losses[1]) == 8


def test_sigterm_makes_all_ranks_checkpoint_and_end(forks: Forks, stand_in: Path, photos: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--set=steps=100000", "--set=checkpoint_every=100000", "--set=probe_every=100000"]
    command = ["train", photos, *flags, "--devices=2", f"--out={tmp_path / 'run'}"]
    with (tmp_path / "log").open("w") as log:
        run = forks.start(command, [log.fileno()] * 2, environment=os.environ | {INTERPRETER: str(stand_in)})
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


HOSTS = ("10.77.0.1", "10.77.0.2")


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them, as two hosts, by name."""
    if os.getuid() != 0 or not shutil.which("ip"):
        pytest.skip("two hosts need root and ip")
    names = [f"massl{os.getpid() % 10**5}{letter}" for letter in "ab"]
    made = [f"netns add {name}" for name in names]
    made.append(f"link add {names[0]} netns {names[0]} type veth peer name {names[1]} netns {names[1]}")
    for name, address in zip(names, HOSTS, strict=True):
        made += [
            f"-n {name} addr add {address}/24 dev {name}",
            f"-n {name} link set lo up",
            f"-n {name} link set {name} up",
        ]
    try:
        for words in made:
            done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def on_host(host: str, rank: int, arguments: list[object], log: Path) -> subprocess.Popen[bytes]:
    """`massl train` on one of two hosts, as the how-to has it."""
    line = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes=2"]
    line += [f"--node-rank={rank}", "--nproc-per-node=1", f"--master-addr={HOSTS[0]}", "--master-port=29500"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": host, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(
            [*line, "-m", "cli", "train", *map(str, arguments)], env=environment, stdout=file, stderr=file
        )


def test_a_rank_killed_on_another_host_ends_the_run_with_a_checkpoint_and_one_goes_on(
    hosts: list[str], forks: Forks, photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = [*FLAGS, "--set=steps=100000", "--set=checkpoint_every=100000", "--set=probe_every=100000"]
    logs = [tmp_path / f"{rank}.log" for rank in (0, 1)]
    agents = [on_host(host, rank, [photos, *flags, f"--out={run}"], logs[rank]) for rank, host in enumerate(hosts)]
    try:
        metrics, deadline = run / "metrics.jsonl", time.monotonic() + 240
        while not metrics.exists() or metrics.read_text().count("\n") < 3:
            assert time.monotonic() < deadline, logs[0].read_text()
            assert [agent.poll() for agent in agents] == [None, None], logs[0].read_text() + logs[1].read_text()
            time.sleep(0.1)
        (killed,) = psutil.Process(agents[1].pid).children()
        killed.kill()
        assert agents[0].wait(120) == agents[1].wait(120) == 1
    finally:
        for agent in agents:
            agent.kill()
    (line,) = (line for line in logs[0].read_text().splitlines() if line.startswith("massl: "))
    assert line.startswith("massl: another process of this run has ended, or can't be reached; go on with: massl train")
    state = checkpoint.load(checkpoint.latest(run / "checkpoints"))
    step = state["step"]
    assert step >= 3
    assert int(state["memory"]["written"]) == 4 * step  # it is whole: of each step all that both saw

    done = forks.run(["train", photos, f"--resume={run}", f"--set=steps={step + 2}", "--devices=1", "--json"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == step + 2
    rows = [json.loads(row)["step"] for row in metrics.read_text().splitlines()]
    assert rows == list(range(1, step + 3))


def test_a_batch_that_can_not_be_shared_says_so(forks: Forks, stand_in: Path, photos: Path, tmp_path: Path) -> None:
    words = ["train", photos, *FLAGS, "--set=batch=3", "--devices=2", f"--out={tmp_path / 'run'}"]
    done = forks.run(words, environment=os.environ | {INTERPRETER: str(stand_in)})
    assert done.returncode == 1
    assert done.stderr.count(b"batch (3) must be a multiple of the 2 devices that share it") == 1
    assert b"Traceback" not in done.stderr
