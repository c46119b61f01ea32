"""Edited copies of a folder's images, embedded: what copy detection is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.encoder.onnx_encoder import Encoder
from massl.core.images.decoding import open_image, within_memory
from massl.core.images.rendering import EACH_FILE, Rendering
from massl.core.lookahead import ahead

LEAST = 256  # pixels of the shorter side that an edit has to work on, where the file has them
AHEAD = 32  # images edited at most before they are embedded: those of all would fill the memory


def embed_edited(
    root: Path,
    paths: Sequence[str],
    encoder: Encoder,
    edits: Sequence[Callable[[Image.Image, int], Image.Image]],
    report: Callable[[int, int], None],
    rendering: Rendering = EACH_FILE,
) -> NDArray[np.float32]:
    """Embeds every image of `paths` under every one of `edits`: float32 `[len(paths), len(edits), D]`.

    Args:
        root: the folder that `paths` are relative to.
        paths: files that could be read a moment ago.
        encoder: what embeds them.
        edits: each takes a picture and the number of its image, and returns a picture.
        report: called with images done and images in all.
        rendering: how deep files are shown.

    Raises:
        ImageError: a file can no longer be read.
    """

    def prepare(item: tuple[int, str]) -> NDArray[np.uint8]:
        number, path = item
        with within_memory():
            picture = open_to_edit(root / path, encoder.resize, rendering)
            return np.stack([encoder.prepare(edit(picture, number)) for edit in edits])

    vectors = np.empty((len(paths), len(edits), encoder.dim), np.float32)
    with closing(ahead(prepare, enumerate(paths), AHEAD)) as prepared:
        for row, pixels in enumerate(prepared):
            vectors[row] = encoder.embed(pixels)
            report(row + 1, len(paths))
    return vectors


def open_to_edit(path: Path, shortest: int, rendering: Rendering = EACH_FILE) -> Image.Image:
    """A picture as `embed_edited` edits it for an encoder that needs `shortest` pixels.

    Raises:
        ImageError: it can't be read.
    """
    return open_image(path, max(LEAST, shortest), rendering=rendering)
