"""What a run measures of its encoder: before the first step, while it learns, and of what is exported at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from massl.method.network import ProjectionHead, folded_head
from massl.training.adaptation import Adaptation
from massl.training.grids import neighbours_grid
from massl.training.learner import ACTIVATIONS
from massl.training.neighbour_record import BEFORE, NOW, STARTS, NeighbourRecord
from massl.training.out_of_memory import held_by
from massl.training.probe import Probe
from massl.training.run_state import RunState
from massl.training.tracking import RunLog


def starts_of(last: Mapping[str, Any], judged_anew: bool) -> dict[str, float]:
    """The figures of a run's start, by its last metrics; without that on labels where others judge it now."""
    known = {name: last[name] for name in STARTS.values() if last.get(name) is not None}
    return {name: value for name, value in known.items() if name != "knn_start" or not judged_anew}


class Measuring:
    """Measures a run's encoder, and notes what its images are near, see `NeighbourRecord`.

    Args:
        state: of the run.
        probe: what is measured on.
        device: where the networks live.
        resumed: whether the run goes on.
        adaptation: of a run that adapts an encoder.

    Attributes:
        started: figures before the first step, by the names of `STARTS`.
    """

    def __init__(
        self, state: RunState, probe: Probe, device: torch.device, resumed: bool, adaptation: Adaptation | None
    ) -> None:
        self.state, self.probe, self.device, self.adaptation = state, probe, device, adaptation
        self.started: dict[str, float] = {}
        self._neighbours = NeighbourRecord(state.out, state.source, np.array(probe.drawn), not resumed)

    def start(self, known: dict[str, float]) -> None:
        """Measures what the run begins with; where that is no longer there, `known` are its figures."""
        if self.adaptation or not self.state.done:
            z, figures = self._embed_and_measure(0.0)
            self.started = {STARTS[name]: value for name, value in figures.items() if name in STARTS}
            self._note(BEFORE, z, 0, figures)
        else:
            self.started = known

    def now(self, log: RunLog) -> dict[str, float]:
        """What the encoder is worth after a step; shown in `log`, too."""
        done = self.state.done
        z, figures = self._embed_and_measure(1.0, done == self.state.settings.steps)
        log.show("neighbours", neighbours_grid(self.probe.pixels, z), done)
        self._note(NOW, z, done, figures)
        return figures

    def end(self) -> dict[str, Any]:
        """Has an adapter end; for a run's summary."""
        if self.adaptation is None:
            return {}
        summary = self.adaptation.end()
        z, figures = self._embed_and_measure(self.state.share, bool(len(self.probe.labels)))
        self._note(NOW, z, self.state.done, figures, summary["why"])
        return summary

    def _embed_and_measure(self, share: float, linear: bool = False) -> tuple[Tensor, dict[str, float]]:
        """The embeddings of all images, and the figures; of an adapter with a share of its change."""
        embedded: list[Tensor] = []
        if self.adaptation:
            figures = self.adaptation.measure(share, linear, embedded.append)
        else:
            figures = self._measure_networks(linear, embedded.append)
        return embedded[0], figures

    def _measure_networks(self, linear: bool, show: Callable[[Tensor], None]) -> dict[str, float]:
        """As `Probe.measure`, of teacher and student."""
        learner, head = self.state.learner, None
        if self.state.settings.export_projection:
            assert isinstance(learner.teacher.head, ProjectionHead)
            head = folded_head(learner.teacher.head)
        precision = ACTIVATIONS[self.state.settings.precision]
        with held_by(self.device, "the images that are measured", "give a smaller --set export_size"):
            return self.probe.measure(
                learner.teacher.backbone, self.device, precision, learner.teacher.positions,
                learner.student.backbone, linear=linear, show=show, head=head,
            )  # fmt: skip

    def _note(self, when: str, z: Tensor, step: int, figures: Mapping[str, float], why: str = "") -> None:
        self._neighbours.note(when, z[len(self.probe.labels) :].numpy(), step, figures, why)
