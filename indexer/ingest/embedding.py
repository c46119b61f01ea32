"""Image files to embeddings, without a collection: of many files, of edited copies, of parts of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.encoder.onnx_encoder import Embeds, Encoder
from indexer.encoder.runtimes import Wanted
from indexer.ingest.edited_copies import embed_edited, open_to_edit
from indexer.ingest.indexing import batches
from massl.core.errors import MasslError
from massl.core.files.scan import ImageFile, Skipped
from massl.core.images.decoding import MAX_PIXELS
from massl.core.images.ranges import Ranges
from massl.core.images.rendering import EACH_FILE, Rendering
from massl.core.progress import CountReport


@dataclass(frozen=True)
class FileEmbedder:
    """An encoder and the runtime that embeds many pictures: what `massl.evaluation.encoders.ImageEncoder` asks for.

    `rendering` says how deep files and stacks are shown.
    """

    source: Encoder
    runtime: Wanted = "auto"
    rendering: Rendering = EACH_FILE

    def showing(self, rendering: Rendering) -> FileEmbedder:
        """The same for pictures that are shown so."""
        return replace(self, rendering=rendering)

    @property
    def sha256(self) -> str:
        """Of the encoder's file, in hexadecimal."""
        return self.source.sha256

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""
        return self.source.dim

    def embed_paths(
        self, root: Path, paths: Sequence[str], report: CountReport
    ) -> tuple[NDArray[np.float32], list[int], tuple[Skipped, ...]]:
        """See the function of this name."""
        encoder = self.source.for_many(len(paths), self.runtime)
        return embed_paths(root, paths, encoder, report, rendering=self.rendering)

    def embed_edited(
        self,
        root: Path,
        paths: Sequence[str],
        edits: Sequence[Callable[[Image.Image, int], Image.Image]],
        report: CountReport,
    ) -> NDArray[np.float32]:
        """Every image under every edit, float32 `[len(paths), len(edits), D]`: see `indexer.ingest.edited_copies`."""
        encoder = self.source.for_many(len(paths) * len(edits), self.runtime)
        return embed_edited(root, paths, encoder, edits, report, self.rendering)

    def open_to_edit(self, path: Path) -> Image.Image:
        """A picture as `embed_edited` edits it; an `ImageError` where it can't be read."""
        return open_to_edit(path, self.source.resize, self.rendering)

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        """A picture's pixels as the encoder takes them, `[S, S, 3]`."""
        return self.source.prepare(picture)

    def embed_pixels(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What `prepare` made of some pictures, in batches of 32: float32 `[n, D]`."""
        encoder = self.source.for_many(len(pixels), self.runtime)
        return np.concatenate([encoder.embed(pixels[row : row + 32]) for row in range(0, len(pixels), 32)])


def embed_paths(
    root: Path,
    paths: Sequence[str],
    encoder: Embeds,
    report: CountReport,
    max_pixels: int = MAX_PIXELS,
    rendering: Rendering = EACH_FILE,
) -> tuple[NDArray[np.float32], list[int], tuple[Skipped, ...]]:
    """Embeds image files: float32 `[n, D]`, which of `paths` the rows are, and the files that could not be read.

    Those of more than `max_pixels` pixels count as such. `rendering` says how deep files are shown.
    """
    vectors: list[NDArray[np.float32]] = []
    rows: list[int] = []
    skipped: list[Skipped] = []
    done = 0
    for batch in batches(
        root, [ImageFile(path, 0, 0) for path in paths], encoder, max_pixels, ranges=Ranges(rendering)
    ):
        kept = [(row, item.pixels) for row, item in enumerate(batch, done) if item.pixels is not None]
        skipped += [Skipped(item.file.path, item.reason or "") for item in batch if item.pixels is None]
        if kept:
            vectors.append(encoder.embed(np.stack([pixels for _, pixels in kept])))
            rows += [row for row, _ in kept]
        done += len(batch)
        report(done, len(paths))
    if not vectors:
        why = f"; the first: {skipped[0].path!r}, {skipped[0].reason}" if skipped else ""
        raise MasslError(f"no image could be read{why}")
    return np.concatenate(vectors), rows, tuple(skipped)
