"""How fast a device takes steps; for the other scripts here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from massl.training.metering import peak_memory
from massl.training.utilisation import wait_for


class Pace(NamedTuple):
    """What steps took: seconds of one, the shortest and the median, and the most memory, in bytes."""

    shortest: float
    median: float
    peak: int


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
