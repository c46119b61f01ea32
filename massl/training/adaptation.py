"""What a run does otherwise that adapts an encoder: its backbone is frozen, and an adapter learns on its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from massl.core.errors import MasslError
from massl.encoder.weights import Initial
from massl.method.network import Adapter, scaled
from massl.method.views import Batch
from massl.settings import Settings
from massl.training.learner import ACTIVATIONS
from massl.training.probe import Probe
from massl.training.run_state import RunState
from massl.training.view_embeddings import ViewEmbeddings, separation

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of what was learnt; 0: the start
GAIN = 0.005  # of a measure, that a larger share has to bring


@dataclass(frozen=True)
class Choice:
    """How much of what was learnt the run's encoder takes, and why.

    Attributes:
        share: 0 to 1; 0 is the encoder that the run began with.
        measure: by which it was chosen: `labels`, the mean of k-NN top-1 and mean average precision; or `separation`.
        figures: of each share that was tried, in the order of `SHARES`.
    """

    share: float
    measure: str
    figures: tuple[float, ...]

    @property
    def sentence(self) -> str:
        """The choice in a sentence."""
        start, best = self.figures[0], max(self.figures)
        by = "on your labels" if self.measure == "labels" else "by the separation of views, as no labels were given"
        if not self.share:
            return f"kept the encoder that it began with: nothing that was learnt is better {by}"
        chosen = self.figures[SHARES.index(self.share)]
        how = f"{start:.1%} before, {chosen:.1%} now" if self.measure == "labels" else f"{start:.2f}, now {chosen:.2f}"
        more = "" if chosen == best else f"; the highest is {best:.3g}, by less than counts"
        return f"took {self.share:.0%} of the change that was learnt: the best {by} ({how}{more})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"share": self.share, "measure": self.measure, "figures": dict(zip(SHARES, self.figures, strict=True))}


def origin_of(initial: Initial, settings: Settings) -> dict[str, str]:
    """What a run's checkpoints keep of where its weights come from; an adapted encoder is stored as its start was.

    Raises:
        MasslError: an encoder can't be adapted that begins with them.
    """
    if not settings.adapter:
        return dict(initial.origin)
    if initial.whitened:
        raise MasslError(
            "the encoder to begin with is adapted or whitened already; begin with the one that it was made from, or "
            "give --preset cpu or gpu"
        )
    if initial.patch_size is None:
        raise MasslError(f"{initial.architecture} is no vision transformer, which adapting takes; give --preset cpu")
    sizes = ",".join(map(str, initial.image_sizes))
    return {**initial.origin, "precision": initial.precision, "image_sizes": sizes}


class Adaptation:
    """The views' embeddings of a run, and what is measured on them.

    Args:
        state: of the run, with an adapter.
        probe: its images are embedded once.
    """

    def __init__(self, state: RunState, probe: Probe) -> None:
        self.state, self.probe = state, probe
        student = state.learner.student
        assert student.adapter is not None
        self.views = ViewEmbeddings(state.out, state.source, state.settings, len(student.adapter.centre))
        self._frozen: Tensor | None = None

    def prepare(self, report: Callable[[int, int], None], stop: Callable[[], bool]) -> dict[str, str]:
        """Embeds all views, and begins the run with them where it is at its beginning.

        Returns:
            As of `ViewEmbeddings.compute`. Where `stop` said so, views are left: `views.complete` tells.
        """
        learner = self.state.learner
        precision = ACTIVATIONS[self.state.settings.precision]
        skipped = self.views.compute(learner.teacher, precision, report, stop)
        if self.views.complete:
            self._frozen = self.probe.embed(learner.teacher, learner.world.device, precision)
            if not self.state.done:
                learner.begin_with(self.views.means())
        return skipped

    def measure(
        self, share: float = 1.0, linear: bool = False, show: Callable[[Tensor], None] | None = None
    ) -> dict[str, float]:
        """What the encoder would be worth with a share of the change; see `Probe.measure_adapted` and `separation`."""
        adapter = self._adapter(share)
        assert self._frozen is not None
        with torch.no_grad():
            apart = separation(adapter(self.views.held_out()))
        return {**self.probe.measure_adapted(self._frozen, adapter, linear, show), "separation": apart}

    def batches(self) -> Generator[Batch, None, None]:
        """The steps' batches that are left."""
        yield from self.views.batches(self.state.start, self.state.settings.steps)

    def end(self) -> dict[str, Any]:
        """Chooses, writes a checkpoint that says so, and removes the views; for a run's summary."""
        choice = self.choose()
        self.state.share = choice.share
        self.state.save()
        self.state.saving.finish()
        self.views.remove()
        return {"kept": choice.as_dict(), "why": choice.sentence}

    def choose(self) -> Choice:
        """Compares shares of the change, the start among them. The smallest wins where more brings next to nothing."""
        labelled = len(self.probe.labels) > 0
        figures = []
        for share in SHARES:
            found = self.measure(share)
            figures.append((found["knn_top1"] + found["map"]) / 2 if labelled else found["separation"])
        enough = max(figures) - GAIN * abs(max(figures))
        chosen = next(share for share, figure in zip(SHARES, figures, strict=True) if figure >= enough)
        return Choice(chosen, "labels" if labelled else "separation", tuple(figures))

    def _adapter(self, share: float) -> Adapter:
        adapter = self.state.learner.teacher.adapter
        assert adapter is not None
        return scaled(adapter, share)
