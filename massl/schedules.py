"""What changes over a run, as functions of the step."""

from __future__ import annotations

import math


def cosine(step: int, steps: int, start: float, end: float, warmup: int = 0) -> float:
    """A linear rise from 0 to `start` over `warmup` steps, then half a cosine from `start` to `end` at `steps`."""
    if step < warmup:
        return start * step / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def linear(step: int, warmup: int, start: float, end: float) -> float:
    """A straight line from `start` to `end` over `warmup` steps, then `end`."""
    return end if step >= warmup else start + (end - start) * step / warmup
