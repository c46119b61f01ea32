"""What a frozen backbone makes of each image's views: computed once, kept in the run's folder, drawn from at each step.

An adapter alone learns then, in a minute or two; nearly all of a run's time goes into these embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from massl.data.sources import Source
from massl.method.network import Network, embed
from massl.method.seeding import seed_of
from massl.method.views import Batch, Views, on_device
from massl.settings import Settings
from massl.training.kept_rows import KeptRows
from massl.training.loading import Keys, batches, make_loader, plan_loading

FILE = "views.npy"  # in the run's folder
BATCH = 32  # images whose views are embedded at a time
MOST = 8192  # images that are used: a linear layer has no use for more
SEEN = 12_000  # images to embed the views of, in all passes
PASSES = 3  # at most, each of two views an image
NEAREST = 10  # neighbours that views are to agree on, and at most a quarter of the other images
HELD_OUT = 8  # one of so many images is left out of the training, to judge it by
FEW = 4 * NEAREST * HELD_OUT  # images below which none is: those held out would be too few to have neighbours


def passes_over(images: int) -> int:
    """How often two views of each image are embedded."""
    return max(1, min(PASSES, round(SEEN / images)))


class ViewEmbeddings(KeptRows):
    """The embeddings of `2 · passes` views of each of N images, float16 `[N, 2 · passes, d]` in a file.

    Rows are not a number until they are computed, so that a run that was killed goes on where it was.
    """

    def __init__(self, folder: Path, source: Source, settings: Settings, width: int) -> None:
        self.settings, self.source = settings, source
        order = torch.Generator().manual_seed(seed_of(settings.seed, "images"))
        self.chosen = torch.randperm(len(source), generator=order)[:MOST].tolist()
        self.passes = passes_over(len(self.chosen))
        super().__init__(folder / FILE, (len(self.chosen), 2 * self.passes, width))

    def compute(
        self, network: Network, precision: torch.dtype, report: Callable[[int, int], None], stop: Callable[[], bool]
    ) -> dict[str, str]:
        """Computes what is missing.

        Args:
            network: whose backbone embeds.
            precision: that of its activations.
            report: told how many views are done, of how many.
            stop: asked after each batch; what was computed stays.

        Returns:
            The files that gave way to another image, with reasons.
        """
        device = next(network.backbone.parameters()).device
        keys = list(self._missing())
        whole = len(self) * self.passes
        done = whole - sum(map(len, keys))
        skipped: dict[str, str] = {}
        if not keys:
            return skipped
        training = network.backbone.training
        network.backbone.eval()
        views = Views(self.source, self.settings)
        loader = make_loader(views, Keys(keys), plan_loading(self.settings), pinned=device.type == "cuda")
        places = {index: row for row, index in enumerate(self.chosen)}
        for batch, named in zip(batches(loader, self.settings.batch_timeout, stop), keys, strict=False):
            with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
                pixels = on_device(batch, device, self.settings)[0]
                found = embed(network.backbone, pixels.flatten(0, 1), network.positions).float()
            rows = torch.nn.functional.normalize(found, dim=1).unflatten(0, pixels.shape[:2]).half().cpu().numpy()
            for at, (number, index) in enumerate(named):
                self.rows[places[index], 2 * number : 2 * number + 2] = rows[:, at]
            skipped |= dict(batch.skipped)
            done += len(named)
            report(2 * done, 2 * whole)
            if stop():
                break
        self.rows.flush()
        network.backbone.train(training)
        return skipped

    @property
    def complete(self) -> bool:
        """Whether the views of all images are embedded."""
        return next(self._missing(), None) is None

    @property
    def learnt(self) -> int:
        """How many of the images are learnt from, the first ones; the rest are held out."""
        return len(self) - (len(self) // HELD_OUT if len(self) >= FEW else 0)

    def means(self) -> Tensor:
        """The mean of each image's views, of those that are learnt from: float32 `[N, d]`."""
        return torch.from_numpy(self.rows[: self.learnt].astype(np.float32).mean(1))

    def held_out(self) -> Tensor:
        """The views of the images that are held out, float32 `[M, 2 · passes, d]`; of all where there are few."""
        first = self.learnt if self.learnt < len(self) else 0
        return torch.from_numpy(self.rows[first:].astype(np.float32))

    def batches(self, start: int, steps: int) -> Iterator[Batch]:
        """The pairs of views for steps `start` to `steps - 1`, by the seed and the step's number alone.

        Two different views of each of B images, float32 `[2, B, d]` in place of pixels.
        """
        s, views = self.settings, self.rows.shape[1]
        nothing = torch.zeros((0, s.batch, 1))
        for step in range(start, steps):
            draws = np.random.default_rng(seed_of(s.seed, "pairs", step))
            images = draws.choice(self.learnt, s.batch, replace=False)
            pairs = draws.permuted(np.tile(np.arange(views), (s.batch, 1)), axis=1)[:, :2]
            both = self.rows[images[:, None], pairs].swapaxes(0, 1)
            yield Batch(torch.from_numpy(both.astype(np.float32)), nothing, nothing, [])

    def _missing(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of (pass, image) that are still to be embedded."""
        left = np.isnan(self.rows[:, ::2, 0].astype(np.float32))
        for number in range(self.passes):
            rows = np.flatnonzero(left[:, number])
            for first in range(0, len(rows), BATCH):
                yield [(number, self.chosen[row]) for row in rows[first : first + BATCH]]


def agreement(views: Tensor) -> float:
    """How far views of an image agree on what is near it, `[M, V, d]` of unit length, from 0 to 1.

    Of the nearest other images by one view, the share that another view of the image finds, too. It needs no labels.
    In trials it rose with accuracy, and fell where training spoiled embeddings (docs/measurements/adapting.md).
    """
    count, each = views.shape[:2]
    near = max(1, min(NEAREST, (count - 1) // 4))
    own = torch.eye(count, dtype=torch.bool)
    found = [(views[:, one] @ views[:, 0].T).masked_fill(own, -2.0).topk(near).indices for one in range(each)]
    shared = [(found[0][:, :, None] == other[:, None, :]).any(2).float().mean() for other in found[1:]]
    return float(torch.stack(shared).mean())
