"""Where a run stands: what its checkpoints keep of it, and how it is taken up again."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from massl.core.errors import MasslError
from massl.data.sources import Source, check_same
from massl.encoder import checkpoint
from massl.encoder.whitening import Moments
from massl.settings import Settings
from massl.training.learner import Learner
from massl.training.saving import Saving, copied

FORMAT = 3  # of checkpoints
USUAL_SHARE = 0.5  # of an adapter's change, until more is known; in trials better than the start and safer than all
EVERY = 300.0  # seconds after which a checkpoint is due, where the setting `checkpoint_every` says nothing


@dataclass
class RunState:
    """All that a run has learnt and counted so far.

    Attributes:
        out: the run's folder.
        settings: of the whole run.
        source: the images that it learns from.
        learner: student, teacher, memory and optimiser.
        moments: of what the encoder was whitened for that the run began with, if it did; see `massl.encoder.whitening`.
        origin: `source` and `licence` of the weights that it began with, where they are known.
        start: steps done before this process took it up.
        done: steps done.
        images_seen: in those.
        earlier_seconds: that the run took before this process took it up.
        best: the best measurement so far: its metric, value and step.
        share: of an adapter's change, that the run's encoder takes.
        saving: what writes checkpoints.
    """

    out: Path
    settings: Settings
    source: Source
    learner: Learner
    moments: Moments | None = None
    origin: dict[str, str] = field(default_factory=dict)
    start: int = 0
    done: int = 0
    images_seen: int = 0
    earlier_seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    share: float = USUAL_SHARE
    saving: Saving = field(default_factory=Saving)
    _saved: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)

    def begin_to_count(self) -> None:
        """Counts the run's time from now on: what was prepared before is no part of it."""
        self._began = self._saved = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time for a checkpoint, where time decides."""
        return not self.settings.checkpoint_every and time.monotonic() - self._saved >= EVERY

    @property
    def seconds(self) -> float:
        """What the run has taken so far, in all processes that took it up."""
        return self.earlier_seconds + time.monotonic() - self._began

    def save(self, improved: bool = False) -> None:
        """Begins to write a checkpoint, with `improved` also as the best one; `saving` says when it is written.

        Raises:
            MasslError: the one before could not be written; earlier checkpoints stay.
        """
        self.saving.finish()  # before another copy is in memory
        state = {
            "format": FORMAT,
            "settings": dataclasses.asdict(self.settings),
            **copied(self.learner.state_dict()),
            "step": self.done,
            "images": len(self.source),
            "source": self.source.identity,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "best": dict(self.best),
            "moments": self.moments and tuple(self.moments),
            "origin": self.origin,
            "share": self.share,
        }
        folder, keep = self.out / "checkpoints", self.settings.keep_checkpoints
        self.saving.begin(functools.partial(checkpoint.save, folder, self.done, state, keep, improved))
        self._saved = time.monotonic()

    def keep(self, leads: bool) -> bool:
        """Whether there is a checkpoint to go on from once no batch comes any more; rank 0 writes what was learnt."""
        if leads and self.done > self.start:
            self.save()
            self.saving.finish()
        return self.done > 0

    def load(self, version: object) -> list[str]:
        """Takes the run up from its newest sound checkpoint; returns a line about each newer one that is damaged.

        Args:
            version: of massl that the run's folder names, for the error.

        Raises:
            MasslError: there is no sound checkpoint, it is of other images, or another version's.
        """
        state, damaged = checkpoint.latest_sound(self.out / "checkpoints")
        check_same(self.source, state["images"], state.get("source"))
        if state.get("format") != FORMAT:
            raise MasslError(f"{self.out} is a run of another version of massl ({version}); start a new one")
        self.learner.load_state_dict(state)
        self.start = self.done = state["step"]
        self.images_seen, self.earlier_seconds = state["images_seen"], state["seconds"]
        self.best = state["best"]
        self.moments = Moments(*state["moments"]) if state.get("moments") else None
        self.origin = state.get("origin", {})
        self.share = state.get("share", USUAL_SHARE)
        return [f"{line}; going on from the checkpoint before it" for line in damaged]

    def improves(self, metrics: dict[str, Any]) -> bool:
        """Notes a measurement that beats the best: k-NN where there are labels, else RankMe after the warm-up."""
        name = "knn_top1" if "knn_top1" in metrics else "rankme"
        if name == "rankme" and metrics["step"] <= max(self.settings.warmup, self.settings.temperature_warmup):
            return False  # an untrained network's rank is high, and says nothing
        if not metrics[name] > self.best.get("value", -math.inf):  # nor what is no number
            return False
        self.best = {"metric": name, "value": metrics[name], "step": metrics["step"]}
        return True
