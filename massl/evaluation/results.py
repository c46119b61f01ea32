"""What encoders made of sets of images: figures with what they were measured on, as JSON, and in a line of remarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from massl.core.files.scan import Skipped
from massl.evaluation.datasets import Embedded
from massl.evaluation.encoders import EncoderUnderTest
from massl.evaluation.tasks import TaskResult


@dataclass(frozen=True)
class Sought:
    """An edited picture that was looked for among all images.

    Attributes:
        edit: how it was edited.
        original: the path of what it is a copy of.
        found: the path of the most similar image.
        score: its similarity to its original.
        best: to what was found.
        edited: makes it again; an `ImageError` where its file can't be read any more.
    """

    edit: str
    original: str
    found: str
    score: float
    best: float
    edited: Callable[[], Image.Image]

    @property
    def is_found(self) -> bool:
        """Whether no image is more similar than its original, but for rounding."""
        return self.score > self.best - 1e-6


@dataclass(frozen=True)
class EvaluationResult:
    """What one encoder made of one set.

    Attributes:
        data: the set's name.
        encoder: or table.
        measured: the figures.
        embedded: the labelled embeddings; None where the task has no labels.
        root: the folder that the paths are relative to; None where a table brought the embeddings.
        images: their number, where `embedded` doesn't say.
        classes: likewise.
        skipped: likewise.
        sought: edited pictures, of `copies`.
    """

    data: str
    encoder: EncoderUnderTest
    measured: TaskResult
    embedded: Embedded | None
    root: Path | None = None
    images: int = 0
    classes: int | None = None
    skipped: tuple[Skipped, ...] = ()
    sought: Sequence[Sought] = ()

    @property
    def image_count(self) -> int:
        """Images that were used."""
        return len(self.embedded.labels) if self.embedded else self.images

    @property
    def class_count(self) -> int | None:
        """Classes; None where the task has none."""
        return len(self.embedded.classes) if self.embedded else self.classes

    @property
    def skipped_files(self) -> tuple[Skipped, ...]:
        """Files that were passed over."""
        return self.embedded.skipped if self.embedded else self.skipped


def described(task: str, results: Sequence[EvaluationResult]) -> dict[str, Any]:
    """The JSON: the first result in full, and all of them under `results` where there are several."""
    told = [
        {
            "metrics": result.measured.metrics,
            "images": result.image_count,
            "classes": result.class_count,
            "encoder": result.encoder.described,
            "data": result.data,
            "protocol": result.measured.protocol,
            "skipped": [{"path": item.path, "reason": item.reason} for item in result.skipped_files],
        }
        for result in results
    ]
    return {"task": task, **told[0], **({"results": told} if len(told) > 1 else {})}


def remarks(result: EvaluationResult) -> str:
    """What a person should know beside the figures: one line."""
    classes = f" of {result.class_count:,} classes" if result.class_count else ""
    line = f"{result.data}: {result.image_count:,} images{classes}; {result.measured.protocol}"
    metrics = result.measured.metrics
    if result.skipped_files:
        line += f"; skipped files: {len(result.skipped_files):,} (--json lists them)"
    if left_out := metrics.get("left_out_shots"):
        line += f"; the smallest class is too small for {', '.join(map(str, left_out))} shots"
    if (found := result.embedded) and (k := metrics.get("k")):
        voting = found.labels if found.train is None else found.labels[found.train]
        least = np.bincount(voting, minlength=len(found.classes)).min()
        if least < k:
            line += f"; the smallest class has {least:,} images, and {k} neighbours vote: a smaller -k is fairer to it"
    if lonely := metrics.get("queries_without_match"):
        line += f"; {lonely:,} images without another of their class are no queries"
    return line
