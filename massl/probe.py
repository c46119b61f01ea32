"""What the encoder is worth while it learns: measured on the same few images every time, by the teacher's backbone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from massl.augment import normalise
from massl.errors import MasslError
from massl.evaluation import knn_top1, rankme
from massl.images import ImageError, decode, find_images, fit
from massl.sources import Files, Source

IMAGES = 512  # unlabelled images that rank and spread are measured on
LABELLED = 2000  # labelled images at most, half of which are looked up among the other half
BATCH = 64


@dataclass(frozen=True)
class Probe:
    """Images, decoded once: uint8 `[N, 3, S, S]`, and the labels int64 `[N]` of the first of them (or none).

    `bank` and `asked` index the labelled ones: neighbours of the second are looked for among the first.
    """

    pixels: Tensor
    labels: np.ndarray
    bank: np.ndarray
    asked: np.ndarray

    @classmethod
    def prepare(cls, source: Source, size: int, labelled: Path | None = None) -> Probe:
        """Draws and decodes the images, always the same ones.

        Args:
            source: the images that are trained on; some of them are drawn.
            size: side in pixels of what the network is given.
            labelled: a folder with a subfolder a class, to measure k-NN on.

        Raises:
            MasslError: `labelled` is no folder, or has fewer than two classes of two readable images each.
        """
        labels: list[int] = []
        pixels: list[Tensor] = []
        if labelled:
            paths, _ = find_images(labelled)
            names = sorted({path.split("/", 1)[0] for path in paths if "/" in path})
            files = Files(labelled, labelled, paths)
            for index in random.Random(0).sample(range(len(files)), len(files)):
                if len(pixels) == LABELLED:
                    break
                if "/" in paths[index] and (picture := _decode(files, index, size)) is not None:
                    pixels.append(picture)
                    labels.append(names.index(paths[index].split("/", 1)[0]))
        halves = _halves(np.array(labels, np.int64))
        if labelled and len(np.unique(np.array(labels)[halves[1]] if labels else [])) < 2:
            raise MasslError(
                f"{labelled} must hold a subfolder of at least two readable images for each of at least two classes"
            )
        for index in random.Random(0).sample(range(len(source)), len(source)):
            if len(pixels) - len(labels) == IMAGES:
                break
            if (picture := _decode(source, index, size)) is not None:
                pixels.append(picture)
        return cls(torch.stack(pixels), np.array(labels, np.int64), *halves)

    def measure(self, backbone: nn.Module, device: torch.device, precision: torch.dtype) -> dict[str, float]:
        """`rankme` and `spread` of the unlabelled images' embeddings, and `knn_top1` of the labelled ones.

        Spread is the mean cosine distance of two images: 0 when all are alike.

        Args:
            backbone: normalised `[N, 3, S, S]` to `[N, D]`; left in the mode in which it was.
            device: where it lives.
            precision: that of its activations.
        """
        training = backbone.training
        backbone.eval()
        rows = []
        with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            for start in range(0, len(self.pixels), BATCH):
                rows.append(backbone(normalise(self.pixels[start : start + BATCH].to(device))).float().cpu())
        backbone.train(training)
        z = nn.functional.normalize(torch.cat(rows), dim=1).numpy()
        count = len(self.labels)
        rest = z[count:]
        measured = {"rankme": rankme(rest), "spread": spread(rest)}
        if count:
            bank, asked = self.bank, self.asked
            measured["knn_top1"] = knn_top1(z[bank], self.labels[bank], z[asked], self.labels[asked])
        return measured


def spread(z: np.ndarray) -> float:
    """Mean cosine distance of two of the unit rows `[N, D]`: 0 when all are alike, about 1 when spread evenly."""
    n = len(z)
    return float(1 - (np.square(z.sum(0, dtype=np.float64)).sum() - n) / max(1, n * (n - 1)))


def _decode(source: Source, index: int, size: int) -> Tensor | None:
    try:
        picture = fit(decode(source.read(index), size).picture, size, size)
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
