"""What changes over a run, as functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from massl.settings import Settings


@dataclass(frozen=True)
class Rates:
    """What one step is taken with."""

    learning_rate: float
    weight_decay: float
    momentum: float  # of the teacher
    teacher_temperature: float

    @classmethod
    def at(cls, step: int, settings: Settings) -> Rates:
        """The rates of step `step`, counted from 0 (the paper's recipe, section 4)."""
        s = settings
        return cls(
            cosine(step, s.steps, s.learning_rate * s.batch / 256, s.learning_rate_end, s.warmup),
            cosine(step, s.steps, s.weight_decay, s.weight_decay_end),
            cosine(step, s.steps, s.momentum, 1.0),
            linear(step, s.temperature_warmup, s.teacher_temperature_start, s.teacher_temperature),
        )


def cosine(step: int, steps: int, start: float, end: float, warmup: int = 0) -> float:
    """A linear rise from 0 to `start`, there on the last of `warmup` steps; then half a cosine to `end` at `steps`."""
    if step < warmup:
        return linear(step, warmup, 0.0, start)
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def linear(step: int, warmup: int, start: float, end: float) -> float:
    """A straight line from `start` to `end`, reached on the last of `warmup` steps, then `end`."""
    return end if step >= warmup else start + (end - start) * step / max(1, warmup - 1)
