"""What the encoder is worth while it learns: measured on the same few images every time, by the teacher's backbone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from massl.core.errors import MasslError
from massl.core.files.scan import find_images
from massl.core.images.decoding import within_memory
from massl.core.images.fitting import fit
from massl.core.images.image_errors import ImageError
from massl.core.similarities import mean_cosine
from massl.data.sources import Files, Source, decoded
from massl.encoder.inference import all_stages
from massl.encoder.whitening import Moments, whitening_of
from massl.evaluation import knn_top1, rankme
from massl.evaluation.datasets import LabelledFiles, classes_below
from massl.evaluation.linear import logistic_probe
from massl.evaluation.retrieval import retrieval
from massl.method.augment import normalise
from massl.method.network import AS_DINO, Adapter, Network, PositionResizing, embed

IMAGES = 512  # unlabelled images that rank and spread are measured on
LABELLED = 2000  # labelled images at most, half of which are looked up among the other half
BATCH = 64
OF_A_COLLECTION = "collection"  # in a run's `config.toml`, of labels that no folder holds
STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # of the linear probe's penalty


@dataclass(frozen=True)
class Probe:
    """Images, decoded once: uint8 `[N, 3, S, S]`, and the labels int64 `[N]` of the first of them (or none).

    `bank` and `asked` index the labelled ones: neighbours of the second are looked for among the first. `dim` is the
    number of components by which the run's encoder will embed, see `massl.encoder.inference.whitened_stages`, or 0;
    `before` is what it will be whitened for beside its own images, see `massl.encoder.whitening.fit_whitening`. `drawn`
    are the numbers in the source of the images that follow the labelled ones.
    """

    pixels: Tensor
    labels: np.ndarray
    bank: np.ndarray
    asked: np.ndarray
    dim: int = 0
    before: Moments | None = None
    drawn: tuple[int, ...] = ()

    @classmethod
    def prepare(
        cls, source: Source, size: int, labelled: Path | LabelledFiles | None = None, dim: int = 0,
        before: Moments | None = None,
    ) -> Probe:  # fmt: skip
        """Draws and decodes the images, always the same ones.

        Args:
            source: the images that are trained on; some of them are drawn.
            size: side in pixels of what the network is given.
            labelled: a folder with a subfolder a class, or files with their labels, to measure k-NN on.
            dim: components of whitened stages that the run's encoder will embed by; 0: by its last layer.
            before: as of `massl.encoder.whitening.fit_whitening`.

        Raises:
            MasslError: `labelled` is no folder, or has fewer than two classes of two readable images each.
        """
        labels: list[int] = []
        pixels: list[Tensor] = []
        if labelled:
            files, classes = _open_labelled(labelled)
            files.shown_as = source.shown_as
            names = sorted(set(classes.values()))
            for index in random.Random(0).sample(range(len(files)), len(files)):
                if len(pixels) == LABELLED:
                    break
                name = classes.get(files.name(index))
                if name is not None and (picture := _decode(files, index, size)) is not None:
                    pixels.append(picture)
                    labels.append(names.index(name))
        halves = _halves(np.array(labels, np.int64))
        if labelled and len(np.unique(np.array(labels)[halves[1]] if labels else [])) < 2:
            raise _too_few(labelled)
        drawn: list[int] = []
        for index in random.Random(0).sample(range(len(source)), len(source)):
            if len(drawn) == IMAGES:
                break
            if (picture := _decode(source, index, size)) is not None:
                pixels.append(picture)
                drawn.append(index)
        return cls(torch.stack(pixels), np.array(labels, np.int64), *halves, dim, before, tuple(drawn))

    def measure(
        self,
        backbone: nn.Module,
        device: torch.device,
        precision: torch.dtype,
        positions: PositionResizing = AS_DINO,
        student: nn.Module | None = None,
        linear: bool = False,
        show: Callable[[Tensor], None] | None = None,
        head: nn.Module | None = None,
    ) -> dict[str, float]:
        """`rankme` and `spread` of the unlabelled images, and `knn_top1` of the labelled ones.

        Rank and spread are of the last layer; spread is the mean cosine distance of two images, 0 when all are alike.
        `knn_top1` and `show` are of what the run would export. Where that is whitened stages, they are whitened on all
        the images measured, by as many of the components as these allow. Where it is not the last layer, `knn_last` is
        of that.

        Args:
            backbone: normalised `[N, 3, S, S]` to `[N, D]`; left in the mode in which it was.
            device: where it lives.
            precision: that of its activations.
            positions: how its position embeddings are resized for pictures of this size.
            student: another backbone like it, of which `knn_student` is, by its last layer.
            linear: whether `linear_top1` is wanted, too: of a linear probe on what the run would export.
            show: is given the embeddings of all images, unit rows.
            head: on the CPU, by which the run would export, too: `[N, D]` of any length to `[N, out]`.
        """
        count = len(self.labels)
        whole = bool(self.dim and (count or show))
        features, stages = self._embed(backbone, device, precision, positions, len(self.pixels), whole)
        z = exported = nn.functional.normalize(features, dim=1)
        if head is not None:
            with torch.no_grad():
                exported = nn.functional.normalize(head(features), dim=1)
        if stages is not None:
            dim = self.dim if self.before else max(1, min(self.dim, len(stages) // 3))
            whitening = whitening_of(stages, dim, before=self.before)
            exported = nn.functional.normalize((stages - whitening.centre) @ whitening.matrix, dim=1)
        if show:
            show(exported)
        measured = self.label_free(z)
        if not count:
            return measured
        if exported is not z:
            measured["knn_last"] = self._knn(z)
        measured["knn_top1"] = self._knn(exported)
        if student is not None:
            features, _ = self._embed(student, device, precision, positions, count)
            measured["knn_student"] = self._knn(nn.functional.normalize(features, dim=1))
        if linear:
            measured["linear_top1"] = self.linear(exported)
        return measured

    def measure_adapted(
        self, frozen: Tensor, adapter: Adapter, linear: bool = False, show: Callable[[Tensor], None] | None = None
    ) -> dict[str, float]:
        """The same figures of a frozen backbone's embeddings `[N, d]`, from `embed`, as an adapter changes them."""
        with torch.no_grad():
            z = adapter(frozen)
        if show:
            show(z)
        measured = self.label_free(z)
        if len(self.labels):
            measured |= {"knn_top1": self._knn(z), "map": self._map(z)}
            if linear:
                measured["linear_top1"] = self.linear(z)
        return measured

    def embed(self, network: Network, device: torch.device, precision: torch.dtype) -> Tensor:
        """What a network's backbone makes of all images: unit rows, float32 `[N, d]`."""
        features, _ = self._embed(network.backbone, device, precision, network.positions, len(self.pixels))
        return nn.functional.normalize(features, dim=1)

    def label_free(self, z: Tensor) -> dict[str, float]:
        """`rankme` and `spread` of the unlabelled images' unit rows, of those `[N, d]` of all."""
        rest = z[len(self.labels) :].numpy()
        return {"rankme": rankme(rest), "spread": spread(rest)}

    def linear(self, z: Tensor) -> float:
        """The accuracy of a linear probe on the unit rows `[N, d]` of all images."""
        rows, labels = z.numpy(), self.labels
        probe = logistic_probe(rows[self.bank], labels[self.bank], rows[self.asked], strengths=STRENGTHS)
        return float((probe.predicted == labels[self.asked]).mean())

    def _embed(
        self,
        backbone: nn.Module,
        device: torch.device,
        precision: torch.dtype,
        positions: PositionResizing,
        count: int,
        whole: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The last layer's output for the first images, `[count, d]`; with `whole` all stages' unit rows, too."""
        training = backbone.training
        backbone.eval()
        rows, stages = [], []
        with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            for pixels in self.pixels[:count].split(BATCH):
                images = normalise(pixels.to(device))
                rows.append(embed(backbone, images, positions).float().cpu())
                if whole:
                    stages.append(all_stages(backbone, images)[0].cpu())
        backbone.train(training)
        return torch.cat(rows), nn.functional.normalize(torch.cat(stages), dim=1) if stages else None

    def _map(self, z: Tensor) -> float:
        """Mean average precision of the labelled images, each looking for the others of its class."""
        rows = z[: len(self.labels)].numpy()
        return retrieval(rows, self.labels, rows, self.labels, leave_one_out=True).map

    def _knn(self, z: Tensor) -> float:
        bank, asked, rows = self.bank, self.asked, z.numpy()
        return knn_top1(rows[bank], self.labels[bank], rows[asked], self.labels[asked])


def find_classes(labelled: Path) -> tuple[list[str], dict[str, str]]:
    """The images of a labelled folder, as paths below it, and the classes of those that have one.

    Raises:
        MasslError: it is no folder, or hasn't two classes with two images each.
    """
    paths, _ = find_images(labelled)
    classes, _ = classes_below(paths)
    if sum(count > 1 for count in Counter(classes.values()).values()) < 2:
        raise _too_few(labelled)
    return paths, classes


def _open_labelled(labelled: Path | LabelledFiles) -> tuple[Files, dict[str, str]]:
    """Images, and the classes of those that have one."""
    if isinstance(labelled, Path):
        paths, classes = find_classes(labelled)
        return Files(labelled, labelled, paths), classes
    classes = dict(zip(labelled.paths, labelled.labels, strict=True))
    return Files(labelled.root, labelled.root, labelled.paths), classes


def _too_few(labelled: Path | LabelledFiles) -> MasslError:
    if not isinstance(labelled, Path):
        return MasslError(
            f"{labelled.name}: fewer than two classes have two images that can be read; give --labels none to train "
            "without them"
        )
    return MasslError(
        f"{labelled} must hold a subfolder of at least two readable images for each of at least two classes"
    )


def spread(z: np.ndarray) -> float:
    """Mean cosine distance of two of the unit rows `[N, D]`: 0 when all are alike, about 1 when spread evenly."""
    return 1 - mean_cosine(z) if len(z) > 1 else 1.0


def _decode(source: Source, index: int, size: int) -> Tensor | None:
    try:
        with within_memory():
            picture = fit(decoded(source, index, size), size, size)
    except ImageError:  # training reports it
        return None
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def _halves(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every second image of each class, and the others; a class of one image is left out."""
    bank: list[int] = []
    asked: list[int] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) > 1:
            bank += rows[::2].tolist()
            asked += rows[1::2].tolist()
    return np.array(bank, np.int64), np.array(asked, np.int64)
