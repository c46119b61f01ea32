"""What a run does otherwise that has a frozen teacher, whose embeddings are computed once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from massl.core.errors import MasslError
from massl.core.files.run_folder import is_run
from massl.encoder import weights
from massl.encoder.inference import Deployed
from massl.method.augment import pixels_of
from massl.method.views import Batch, WholePictures
from massl.training.kept_rows import KeptRows
from massl.training.learner import ACTIVATIONS
from massl.training.loading import Keys, batches, make_loader, plan_loading
from massl.training.run_state import RunState

FILE = "teacher.npy"  # in the run's folder
BATCH = 32  # images that are embedded at a time
SAME = 0.999  # cosine of two embeddings of an image by the same teacher, on whatever machine


class Teacher:
    """An encoder that another network learns from. It is read where it is first needed.

    Args:
        named: as a person named it.
        source: what `massl.encoder.weights.read` takes; of a run's folder the encoder that it exported, if it did.
    """

    def __init__(self, named: str, source: str) -> None:
        self.named = named
        exported = Path(source) / "encoder.onnx"
        self.source = str(exported) if is_run(Path(source)) and exported.exists() else source

    @cached_property
    def found(self) -> weights.PretrainedBackbone:
        """Its network. Raises what `massl.encoder.weights.read` does."""
        found = weights.read(self.source)
        if found.strength and not found.whitening:
            raise MasslError(f"{self.named} embeds as an earlier version of massl did; export it anew")
        return found

    @cached_property
    def deployed(self) -> Deployed:
        """What computes its embeddings: of uint8 `[N, S, S, 3]`."""
        return Deployed(self.found, self.found.stages, self.found.whitening).eval()

    @cached_property
    def operations(self) -> int:
        """Floating-point operations in which it embeds one picture, counted as by `operations_of_an_image`."""
        size = self.found.image_size
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            self.deployed(torch.zeros((1, size, size, 3), dtype=torch.uint8, device=self.deployed.mean.device))
        return counted.get_total_flops()

    @cached_property
    def bytes(self) -> int:
        """Of its weights in memory."""
        return sum(tensor.numel() * tensor.itemsize for tensor in self.deployed.state_dict().values())

    @cached_property
    def dim(self) -> int:
        """Numbers in an embedding.

        Raises:
            MasslError: it gives none, or it can't be read.
        """
        size = self.found.image_size
        with torch.no_grad():
            embedding = self.deployed(torch.full((1, size, size, 3), 128, dtype=torch.uint8))[0]
        if not torch.isfinite(embedding).all() or not 0.99 < float(embedding.norm()) < 1.01:
            raise MasslError(f"{self.named} gives no embedding of a grey picture; take another teacher")
        return int(embedding.shape[1])


class TeacherEmbeddings(KeptRows):
    """A frozen teacher's embedding of each of N images, float16 `[N, d]` in a file of the run's folder."""

    def __init__(self, state: RunState) -> None:
        super().__init__(state.out / FILE, (len(state.source), state.settings.teacher_dim))
        self.state = state

    @property
    def complete(self) -> bool:
        """Whether all images are embedded."""
        return not self._missing()

    def compute(
        self, teacher: Teacher, device: torch.device, report: Callable[[int, int], None], stop: Callable[[], bool]
    ) -> dict[str, str]:
        """Computes what is missing, always in the same batches, so that a run that goes on has the same numbers.

        Args:
            teacher: what embeds.
            device: where.
            report: told how many images are done, of how many.
            stop: asked after each batch; what was computed stays.

        Returns:
            The files that gave way to another image, with reasons.

        Raises:
            MasslError: `teacher` is another one than the embeddings that are there are of.
            LoadingFailed: no batch will come.
        """
        keys, skipped = self._missing(), dict[str, str]()
        whole = len(self)
        done = whole - sum(map(len, keys))
        if done:
            keys.insert(0, list(range(min(BATCH, whole))))  # by which it is seen whether the teacher is the same
        settings, found = self.state.settings, teacher.found
        network = teacher.deployed.to(device)
        pictures = WholePictures(self.state.source, settings, found.image_size, found.resize or found.image_size)
        named = Keys([[(0, index) for index in part] for part in keys])
        loader = make_loader(pictures, named, plan_loading(settings), pinned=device.type == "cuda")
        for batch, part in zip(batches(loader, settings.batch_timeout, stop), keys, strict=False):
            with torch.no_grad():
                rows = network(batch.large[0].to(device).permute(0, 2, 3, 1))[0].float().cpu().numpy()
            had = self.rows[part].astype(np.float32)
            if not np.isnan(had).any():
                if not (rows * had).sum(1).mean() > SAME:
                    raise MasslError(
                        f"the teacher {teacher.named} is not what it was when the run began; bring it back, or start "
                        "a new run"
                    )
                continue
            self.rows[part] = rows
            skipped |= dict(batch.skipped)
            done += len(part)
            report(done, whole)
            if stop():
                break
        self.rows.flush()
        network.cpu()
        return skipped

    def all(self) -> Tensor:
        """Float32 `[N, d]`."""
        return torch.from_numpy(self.rows.astype(np.float32))

    def of(
        self, arriving: Generator[Batch, None, None], keys: Iterable[list[tuple[int, int]]]
    ) -> Generator[Batch, None, None]:
        """Batches with the embeddings of their images; `keys` names these as it did for `arriving`."""
        try:
            for batch, named in zip(arriving, keys, strict=False):
                rows = self.rows[[index for _, index in named]].astype(np.float32)
                yield batch._replace(embeddings=torch.from_numpy(rows))
        finally:
            arriving.close()

    def _missing(self) -> list[list[int]]:
        parts = (range(first, min(first + BATCH, len(self))) for first in range(0, len(self), BATCH))
        lacking = np.isnan(self.rows).any(1)
        return [list(part) for part in parts if lacking[part.start : part.stop].any()]


def begin_teaching(state: RunState, teacher: Teacher | None) -> Teaching | None:
    """The teaching that a run's settings ask for; None where they ask for none, or no step is left.

    Raises:
        MasslError: there is no `teacher`.
    """
    if not state.settings.teacher_dim or state.done >= state.settings.steps:
        return None
    if teacher is None:
        raise MasslError("the run learns from a teacher; give it")
    return Teaching(state, teacher)


class Teaching:
    """A run's frozen teacher, and what it says of each image, or with the setting `teacher_crops` of each view.

    Args:
        state: of the run.
        teacher: what it learns from.
    """

    def __init__(self, state: RunState, teacher: Teacher) -> None:
        self.state, self.teacher = state, teacher
        self.embeddings = TeacherEmbeddings(state)

    def prepare(self, report: Callable[[int, int], None], stop: Callable[[], bool]) -> dict[str, str]:
        """Embeds all images, and begins the run with them where it is at its beginning.

        Returns:
            As of `TeacherEmbeddings.compute`. Where `stop` said so, images are left: `embeddings.complete` tells.
        """
        skipped: dict[str, str] = {}
        learner = self.state.learner
        if not self.embeddings.complete:
            skipped = self.embeddings.compute(self.teacher, learner.world.device, report, stop)
        if self.embeddings.complete and not self.state.done:
            learner.begin_with(self.embeddings.all())
        return skipped

    def batches(
        self, arriving: Generator[Batch, None, None], keys: Iterable[list[tuple[int, int]]]
    ) -> Generator[Batch, None, None]:
        """As of `TeacherEmbeddings.of`; where the teacher sees views, batches as they come."""
        return arriving if self.state.settings.teacher_crops else self.embeddings.of(arriving, keys)

    @torch.no_grad()
    def embed(self, views: Tensor) -> Tensor:
        """What the teacher says of global views, normalised float `[2, B, 3, G, G]`: float32 `[2, B, d]`.

        They are brought to the size that it takes, and computed on their own device in the run's precision.
        """
        network, size = self.teacher.deployed.to(views.device), self.teacher.found.image_size
        pixels = interpolate(pixels_of(views.flatten(0, 1)), size, mode="bicubic", antialias=True).clamp(0, 255)
        precision = ACTIVATIONS[self.state.settings.precision]
        with torch.autocast(views.device.type, precision, enabled=precision != torch.float32):
            found = torch.cat([network(part.permute(0, 2, 3, 1))[0].float() for part in pixels.split(2 * BATCH)])
        return found.unflatten(0, views.shape[:2])

    def end(self) -> dict[str, str]:
        """Removes the embeddings; for a run's summary."""
        self.embeddings.remove()
        return {"teacher": self.teacher.named}
