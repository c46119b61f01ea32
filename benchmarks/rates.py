"""How fast a device multiplies, and how fast it takes steps; for the other scripts here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from massl.training.metering import peak_memory


class Pace(NamedTuple):
    """What steps took: seconds of one, the shortest and the median, and the most memory, in bytes."""

    shortest: float
    median: float
    peak: int


def matrix_rate(device: torch.device, kind: torch.dtype, side: int = 0) -> float:
    """Floating-point operations a second of a product of two square matrices, the best of ten rounds.

    Args:
        device: that multiplies.
        kind: of both matrices.
        side: of each; 0: 8,192 on a GPU, 1,536 elsewhere.
    """
    side = side or (8192 if device.type == "cuda" else 1536)
    one, other = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    for _ in range(2):
        one @ other
    times = []
    for _ in range(10):
        wait_for(device)
        began = time.perf_counter()
        one @ other
        wait_for(device)
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)


def pace(step: Callable[[int], object], device: torch.device, steps: int, warm: int = 2) -> Pace:
    """Takes `warm` steps that don't count, then `steps` that do, each waited for."""
    for number in range(warm):
        step(number)
    wait_for(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for number in range(warm, warm + steps):
        began = time.perf_counter()
        step(number)
        wait_for(device)
        times.append(time.perf_counter() - began)
    return Pace(min(times), sorted(times)[len(times) // 2], peak_memory(device))


def wait_for(device: torch.device) -> None:
    """Until all that was asked of it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
