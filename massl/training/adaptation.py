"""What a run does otherwise that adapts an encoder: its backbone is frozen, and an adapter learns on its embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from massl.core.errors import MasslError
from massl.encoder.adapted import keep_start
from massl.encoder.weights import Initial
from massl.method.network import Adapter, scaled
from massl.method.views import Batch
from massl.settings import Settings
from massl.training.learner import ACTIVATIONS
from massl.training.monitor import COLLAPSED_RANK
from massl.training.probe import Probe
from massl.training.run_state import USUAL_SHARE, RunState
from massl.training.teaching import FILE as TAUGHT
from massl.training.view_embeddings import FILE as VIEWS
from massl.training.view_embeddings import ViewEmbeddings, agreement

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of what was learnt; 0: the start
GAIN = 0.005  # of a figure on labels, that a larger share has to bring


@dataclass(frozen=True)
class Choice:
    """How much of what was learnt the run's encoder takes, and why.

    Attributes:
        share: 0 to 1; 0 is the encoder that the run began with.
        measure: by which it was chosen: `labels`, the mean of k-NN top-1 and mean average precision; `agreement`; or
            `rank`, where the images are all alike.
        figures: of each share that was tried.
    """

    share: float
    measure: str
    figures: Mapping[float, float]

    @classmethod
    def by_labels(cls, figures: Mapping[float, float]) -> Choice:
        """The smallest share whose figure is as good as the best."""
        enough = max(figures.values()) - GAIN
        return cls(min(share for share, figure in figures.items() if figure >= enough), "labels", figures)

    @classmethod
    def by_agreement(cls, figures: Mapping[float, float], rank: float = math.inf) -> Choice:
        """The usual share, unless views agree less than they did at the start, or say nothing.

        `rank` is the lower effective rank of the images' embeddings, at the start and with the usual share. Where
        they are all alike, what is nearest is chance, and views may well agree about that.
        """
        if rank < COLLAPSED_RANK:
            return cls(0.0, "rank", figures)
        return cls(USUAL_SHARE if figures[USUAL_SHARE] >= figures[0.0] else 0.0, "agreement", figures)

    @property
    def sentence(self) -> str:
        """The choice in a sentence."""
        start, now = self.figures[0.0], self.figures[self.share]
        if self.measure == "rank":
            return (
                "kept the encoder that it began with: nearly all images got the same embedding, so it can't be told "
                "whether another is better; check that this is the right folder"
            )
        if self.measure == "labels":
            how = f"mean of k-NN and retrieval on your labels {start:.1%} before, {now:.1%} now"
        else:
            tried = self.figures[USUAL_SHARE]
            how = (
                f"different views of an image share {tried:.0%} of their nearest other images, before {start:.0%}; "
                "where this rose in trials, search got better"
            )
        if not self.share:
            return f"kept the encoder that it began with, as nothing that was learnt is better: {how}"
        return f"took {self.share:.0%} of the change that was learnt: {how}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"share": self.share, "measure": self.measure, "figures": {str(k): v for k, v in self.figures.items()}}


def origin_of(initial: Initial, settings: Settings) -> dict[str, str]:
    """What a run's checkpoints keep of where its weights come from; an adapted encoder is stored as its start was.

    Raises:
        MasslError: an encoder can't be adapted that begins with them.
    """
    if not settings.adapter:
        return dict(initial.origin)
    if initial.whitened:
        raise MasslError(
            "the encoder to begin with is adapted, whitened or projected already; begin with the one that it was made "
            "from, or give --preset cpu or gpu"
        )
    if initial.patch_size is None:
        raise MasslError(f"{initial.architecture} is no vision transformer, which adapting takes; give --preset cpu")
    sizes = ",".join(map(str, initial.image_sizes))
    return {**initial.origin, "precision": initial.precision, "image_sizes": sizes}


def keep_beginning(state: RunState, initial: Initial | None) -> str:
    """Writes what a run goes on from that is stopped before its first step: a checkpoint, and what file it adapts.

    Returns:
        That file's SHA-256; empty where it adapts none.

    Raises:
        MasslError: it can't be written.
    """
    for stale in (VIEWS, TAUGHT):  # of a run that came to nothing, and perhaps of another encoder
        (state.out / stale).unlink(missing_ok=True)
    digest = keep_start(initial.file, state.out) if state.settings.adapter and initial and initial.file else ""
    state.save()
    state.saving.finish()
    return digest


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
        self.views = ViewEmbeddings(state.out, state.source, state.settings, student.adapter.change.in_features)
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
        """What the encoder would be worth with a share of the change; see `Probe.measure_adapted` and `agreement`."""
        adapter = self._adapter(share)
        assert self._frozen is not None
        with torch.no_grad():
            agreed = agreement(adapter(self.views.held_out()))
        return {**self.probe.measure_adapted(self._frozen, adapter, linear, show), "agreement": agreed}

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
        """How much of the change to take: by labels where there are any, see `Choice`."""
        if not len(self.probe.labels):
            tried = {share: self.measure(share) for share in (0.0, USUAL_SHARE, 1.0)}
            agreed = {share: each["agreement"] for share, each in tried.items()}
            return Choice.by_agreement(agreed, min(tried[share]["rankme"] for share in (0.0, USUAL_SHARE)))
        found = {share: self.measure(share) for share in SHARES}
        return Choice.by_labels({share: (each["knn_top1"] + each["map"]) / 2 for share, each in found.items()})

    def _adapter(self, share: float) -> Adapter:
        adapter = self.state.learner.teacher.adapter
        assert adapter is not None
        return scaled(adapter, share)
