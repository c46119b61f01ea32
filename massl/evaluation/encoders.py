"""What evaluation asks of an encoder, and an encoder or a table of embeddings under the name that it is shown by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from massl.core.errors import MasslError
from massl.core.files.scan import Skipped
from massl.core.images.decoding import open_image, within_memory
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import EACH_FILE, Rendering
from massl.core.progress import CountReport
from massl.evaluation.datasets import Embedded, LabelledFiles, Table, embed
from massl.evaluation.revisited import GroundTruth


class ImageEncoder(Protocol):
    """What evaluation asks of an encoder: image files in, embeddings of unit length out."""

    @property
    def sha256(self) -> str:
        """Of its file, in hexadecimal."""
        ...

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""
        ...

    def showing(self, rendering: Rendering) -> ImageEncoder:
        """The same for pictures whose deep numbers and stacks are shown so."""
        ...

    def embed_paths(
        self, root: Path, paths: Sequence[str], report: CountReport
    ) -> tuple[NDArray[np.float32], list[int], tuple[Skipped, ...]]:
        """Image files: float32 `[n, D]`, which of `paths` the rows are, and the files that could not be read.

        Raises:
            MasslError: not one could be read.
        """
        ...

    def embed_edited(
        self,
        root: Path,
        paths: Sequence[str],
        edits: Sequence[Callable[[Image.Image, int], Image.Image]],
        report: CountReport,
    ) -> NDArray[np.float32]:
        """Every image of `paths` under every one of `edits`: float32 `[len(paths), len(edits), D]`.

        Each edit takes a picture and the number of its image, and returns a picture.
        """
        ...

    def open_to_edit(self, path: Path) -> Image.Image:
        """A picture as `embed_edited` edits it; an `ImageError` where it can't be read."""
        ...

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        """A picture's pixels as the encoder takes them, `[S, S, 3]`."""
        ...

    def embed_pixels(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What `prepare` made of some pictures: float32 `[n, D]`."""
        ...


class Line(Protocol):
    """A line of progress."""

    def update(self, done: int, total: int) -> None:
        """Shows `done` of `total`."""
        ...


OpenProgress = Callable[[str, str], AbstractContextManager[Line]]
"""Begins a line of progress: what is done, and in what it is counted."""


@dataclass(frozen=True)
class EncoderUnderTest:
    """An encoder, or a table of embeddings, under the name that it is shown by; and how it is shown deep files."""

    name: str
    source: ImageEncoder | Table
    rendering: Rendering = EACH_FILE

    def showing(self, rendering: Rendering) -> EncoderUnderTest:
        """The same for pictures that are shown so."""
        source = self.source if isinstance(self.source, Table) else self.source.showing(rendering)
        return replace(self, source=source, rendering=rendering)

    @property
    def described(self) -> dict[str, Any]:
        """For the JSON."""
        return {"name": self.name, "sha256": self.source.sha256, "dim": self.source.dim}

    def encoder(self, why: str) -> ImageEncoder:
        """The encoder; a `MasslError` where it is a table."""
        if isinstance(self.source, Table):
            raise MasslError(f"{self.name} is a table of embeddings, and {why}; give an encoder")
        return self.source

    def embed(self, files: LabelledFiles, progress: OpenProgress) -> Embedded:
        """Labelled images to embeddings."""
        if isinstance(self.source, Table):
            return self.source.find(files)
        with progress(f"Embedding {files.name} with {self.name}", "images") as line:
            return embed(files, self.source.embed_paths, line.update)

    def embed_paths(
        self, root: Path, paths: Sequence[str], progress: OpenProgress
    ) -> tuple[NDArray[np.float32], list[int], tuple[Skipped, ...]]:
        """Images without labels to embeddings: see `ImageEncoder.embed_paths`."""
        encoder = self.encoder("this needs the pictures")
        with progress(f"Embedding with {self.name}", "images") as line:
            return encoder.embed_paths(root, paths, line.update)

    def embed_landmarks(
        self, folder: Path, truth: GroundTruth, progress: OpenProgress
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The images of Revisited Oxford or Paris, and its queries cropped to their box.

        Raises:
            MasslError: an image is missing or can't be read.
        """
        encoder = self.encoder("the queries are parts of pictures")
        where = folder / "jpg" if (folder / "jpg").is_dir() else folder
        images, _, skipped = self.embed_paths(where, [f"{name}.jpg" for name in truth.images], progress)
        if skipped:
            raise MasslError(f"{where}: {skipped[0].path!r}, which the ground truth names: {skipped[0].reason}")
        pixels = []
        for name, query in zip(truth.query_images, truth.queries, strict=True):
            try:
                with within_memory():
                    picture = open_image(where / f"{name}.jpg", rendering=self.rendering)
                    pixels.append(encoder.prepare(picture.crop(_within(query.box, picture.size))))
            except ImageError as error:
                raise MasslError(f"{where}: query {name!r}: {error}") from None
        return images, encoder.embed_pixels(pixels)


def _within(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in whole pixels, cut to the picture, at least one pixel large."""
    width, height = size
    left, top, right, bottom = (round(value) for value in box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)
