"""How much of what a device can multiply a run makes use of."""

from __future__ import annotations

import time

import torch

from massl.settings import Settings
from massl.training.cost import operations_of_an_image
from massl.training.learner import ACTIVATIONS
from massl.training.teaching import Teacher

SETTLED = 30.0  # seconds of a run before it is measured: shorter ones are not worth the second that it takes


class Utilisation:
    """Useful operations of a run over the measured rate of the device's matrix products.

    Args:
        settings: of the run.
        device: of this rank.
        ranks: that share a step's images.
        teacher: what embeds each view at each step, where something does.
    """

    def __init__(self, settings: Settings, device: torch.device, ranks: int, teacher: Teacher | None = None) -> None:
        self._settings, self._device, self._ranks, self._teacher = settings, device, ranks, teacher
        self._most: float | None = None  # images a second if nothing but products took time; 0: unknown

    def share(self, images_per_second: float, seconds: float) -> float | None:
        """The share, from 0 to about 1, at this rate; None early in a run and where operations can't be counted.

        Args:
            images_per_second: of the run, over all ranks.
            seconds: that the run has lasted.
        """
        if seconds < SETTLED:
            return None
        if self._most is None:
            frozen = self._teacher.operations if self._teacher and self._settings.teacher_crops else 0
            operations = operations_of_an_image(self._settings, frozen)
            rate = matrix_rate(self._device, ACTIVATIONS[self._settings.precision]) if operations else 0.0
            self._most = rate * self._ranks / operations if operations else 0.0
        return images_per_second / self._most if self._most else None


def matrix_rate(device: torch.device, kind: torch.dtype, side: int = 0) -> float:
    """Floating-point operations a second of a product of two square matrices, the best of ten rounds.

    Args:
        device: that multiplies.
        kind: of both matrices.
        side: of each; 0: 8,192 on a GPU, 1,024 elsewhere.
    """
    side = side or (8192 if device.type == "cuda" else 1024)
    draws = torch.Generator(device).manual_seed(0)  # its own: a run's draws stay what they are
    one, other = (torch.randn(side, side, device=device, generator=draws).to(kind) for _ in range(2))
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


def wait_for(device: torch.device) -> None:
    """Until all that was asked of it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
