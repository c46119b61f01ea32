"""Names, in plain sentences, what goes wrong in a run while there is time to do something about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from massl.settings import Settings

COLLAPSED_RANK = 4.0  # effective rank below which embeddings tell a handful of kinds of image apart, no more
COLLAPSED_SPREAD = 0.02  # mean cosine distance below which all images look alike
PATIENCE = 3  # measurements in a row that must agree before anything is said
WAITING = 1 / 3  # share of the time spent waiting for images
CROWDED = 0.5  # share of its threads' time that a run on a CPU gets, below which other programs take much of it
UNIFORM = 0.02  # nats below log P at which a distribution over a block still tells nothing apart


def memory_use(teacher: Tensor, block: Tensor, temperature: float) -> Tensor:
    """Share of a block's slots that the teacher's distributions share among them, from 1/P to 1.

    The perplexity of the mean distribution over the images, over the size of the block. Near 1/P every image chooses
    the same slot.

    Args:
        teacher: `[B, D]`, unit rows.
        block: `[P, D]`, unit rows of the memory.
        temperature: the teacher's.
    """
    mean = torch.softmax(teacher.float() @ block.T / temperature, dim=1).mean(0)
    entropy = -(mean * mean.clamp_min(1e-12).log()).sum()
    return entropy.exp() / len(block)


def _against_collapse(s: Settings) -> str:
    """What may help of what the run doesn't have yet."""
    ways = [f"a lower rate (--set learning_rate={s.learning_rate / 4:g})"]
    if s.teacher_temperature_start < s.teacher_temperature:
        ways.append(f"a lower teacher temperature (--set teacher_temperature={s.teacher_temperature_start:g})")
    if not s.adapter and not s.projection_norm:  # an adapter has no projections of its own
        ways.append("--set projection_norm=true")
    return ", or ".join(ways)


class Monitor:
    """Looks at every logged step; says each thing once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._streaks: dict[str, int] = {}
        self._said: set[str] = set()
        self._best_knn = (0, -math.inf)
        self.crowded = False  # whether other programs were seen to take most of the processor

    def look(self, metrics: Mapping[str, Any]) -> list[str]:
        """What is to be said about this step's metrics, as `massl.training.loop` writes them; mostly nothing."""
        s = self.settings
        said = []
        step = metrics["step"]
        warm = step > max(s.warmup, s.temperature_warmup) // 2 and step * s.batch > 2 * s.memory
        collapsed = metrics.get("rankme", 99) < COLLAPSED_RANK or metrics.get("spread", 1) < COLLAPSED_SPREAD
        # An adapted encoder may have begun so: then it is the images that are alike.
        alike = s.adapter and metrics.get("rankme_start", 99) < COLLAPSED_RANK
        if self._persists("collapse", "rankme" in metrics and warm, collapsed and not alike):
            said.append(
                f"step {step}: the encoder is collapsing: it gives almost all images the same embedding (rank "
                f"{metrics['rankme']:.1f}, spread {metrics['spread']:.3f}). Stop it with Ctrl-C and try "
                f"{_against_collapse(s)}"
            )
        sizes = [s.block] * (s.memory // s.block) + [s.memory % s.block] * (s.memory % s.block > 0)
        uniform = sum(map(math.log, sizes)) / len(sizes)
        if self._persists("stall", warm, metrics["student_entropy"] > uniform - UNIFORM):
            said.append(
                f"step {step}: nothing is being learnt: the student is equally similar to all of the memory (entropy "
                f"{metrics['student_entropy']:.2f} of at most {uniform:.2f} nats). Try a higher rate "
                f"(--set learning_rate={s.learning_rate * 4:g}) or a shorter --set warmup={s.warmup // 2}"
            )
        if self._persists("frozen", warm, metrics["gradient_norm"] < 1e-6):
            said.append(
                f"step {step}: the gradient has vanished: student and teacher agree about everything. Try stronger "
                "views (--set local_scale=0.05,0.3) or a lower momentum (--set momentum=0.99)"
            )
        if self._persists("waiting", step > s.log_every, metrics["data_wait_share"] > WAITING):
            said.append(
                f"step {step}: {metrics['data_wait_share']:.0%} of the time goes into waiting for images: more "
                f"--workers than {s.workers} may help, or smaller images, or a faster disk"
            )
        share = metrics.get("processor_share", 1)
        if self._persists("crowded", step > s.log_every, share < CROWDED):
            self.crowded = True
            said.append(
                f"step {step}: other programs keep the processor busy: this run gets {share:.0%} of its cores' time "
                "and is slower accordingly. Nothing is lost if you stop it with Ctrl-C and go on later with --resume"
            )
        if "knn_top1" in metrics:
            at, best = self._best_knn
            if metrics["knn_top1"] > best:
                self._best_knn = (step, metrics["knn_top1"])
            elif self._persists("falling", True, metrics["knn_top1"] < best - 0.03):
                said.append(
                    f"step {step}: k-NN has fallen from {best:.1%} at step {at} to {metrics['knn_top1']:.1%}; the "
                    "checkpoint of then is kept as best.pt"
                )
        return said

    def _persists(self, name: str, judged: bool, wrong: bool) -> bool:
        """True once: when `wrong` has held in as many judged measurements in a row as patience asks."""
        if not judged:
            return False
        self._streaks[name] = self._streaks.get(name, 0) + 1 if wrong else 0
        if self._streaks[name] < PATIENCE or name in self._said:
            return False
        self._said.add(name)
        return True
