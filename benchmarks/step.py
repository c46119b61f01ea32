#!/usr/bin/env python3
"""What a step of training takes on a CPU, with torch's own convolutions and with `massl.training.cpu_convolution`'s,
side by side.

    benchmarks/step.py [BACKBONE] [BATCH] [THREADS] [SIZE] [LOCAL_SIZE] [PRECISION] [BUSY]

Learners of `massl train --preset cpu`, on random views; sizes in pixels. PRECISION is fp32 or bf16; BUSY processes
that do nothing but count keep the cores busy meanwhile. Prints the shortest and the median of five steps each, taken
in turns, by the clock, and both gradients' norms of the first.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from massl.method.schedules import Rates
from massl.planning import plan
from massl.training import learner
from massl.training.cpu_convolution import compute_in_parts
from massl.training.distributed import World
from massl.training.learner import Learner


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that count, meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main(
    backbone: str = "",
    batch: str = "32",
    threads: str = "2",
    size: str = "",
    local_size: str = "",
    precision: str = "fp32",
    others: str = "0",
) -> None:
    torch.set_num_threads(int(threads))
    sides = {key: value for key, value in (("image_size", size), ("local_size", local_size)) if value}
    wanted = {"batch": batch, "precision": precision} | ({"backbone": backbone} if backbone else {}) | sides
    s, _ = plan("cpu", 1000, wanted)
    draws = torch.Generator().manual_seed(0)
    views = [
        torch.randn(count, s.batch, 3, side, side, generator=draws)
        for count, side in ((2, s.image_size), (s.local_views, s.local_size))
    ]
    rates = Rates(1e-4, 0.04, 0.99, 0.04)
    quicken = learner.quicken

    def ours(network: torch.nn.Module) -> None:
        quicken(network)
        if int(others):  # as a run does once it finds the processor busy
            compute_in_parts(network)

    learners = {}
    for name, change in (("torch", lambda network: None), ("ours", ours)):
        learner.quicken = change
        learners[name] = Learner(s, World(torch.device("cpu")))

    print(f"{s.backbone}, {s.batch} images, views of {s.image_size} and {s.local_size} px, {threads} threads, ", end="")
    print(f"{precision}, {others} busy processes")
    times: dict[str, list[float]] = {name: [] for name in learners}
    with busy(int(others)):
        for step in range(6):
            for name, one in learners.items():
                started = time.perf_counter()
                norm = one.step(views, rates, step).gradient_norm
                times[name].append(time.perf_counter() - started)
                if not step:
                    print(f"{name}: gradient's norm of the first step {norm:.7g}")
    best = {name: min(taken[1:]) for name, taken in times.items()}
    usual = {name: statistics.median(taken[1:]) for name, taken in times.items()}
    for name in times:
        rate = s.batch / best[name]
        print(f"{name}: {best[name] * 1e3:.0f} ms a step, median {usual[name] * 1e3:.0f}, {rate:.1f} images/s")
    print(f"ours / torch: {best['ours'] / best['torch']:.2f}, median {usual['ours'] / usual['torch']:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
