"""A folder with one subfolder a class, embedded: what evaluation works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoder import Encoder
from indexer.indexing import batches
from massl.errors import MasslError
from massl.images import ImageFile, Skipped, walk


@dataclass(frozen=True)
class Embedded:
    """Unit vectors float32 `[N, D]`, labels int64 `[N]` as indices into `classes`, and the files passed over."""

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def embed_folder(root: Path, encoder: Encoder, report: Callable[[int, int], None]) -> Embedded:
    """Embeds every image below `root`; the name of the first folder on its path is its class.

    Raises:
        MasslError: no folder, or images of fewer than two classes.
    """
    files: list[ImageFile] = []
    skipped: list[Skipped] = []
    for item in walk(root):
        if isinstance(item, Skipped):
            skipped.append(item)
        elif "/" in item.path:
            files.append(item)
    vectors, paths = [], []
    done = 0
    for batch in batches(root, files, encoder):
        kept = [item for item in batch if item.pixels is not None]
        skipped += [Skipped(item.file.path, item.reason or "") for item in batch if item.pixels is None]
        if kept:
            vectors.append(encoder.embed(np.stack([item.pixels for item in kept if item.pixels is not None])))
            paths += [item.file.path for item in kept]
        done += len(batch)
        report(done, len(files))
    names = [path.split("/", 1)[0] for path in paths]
    classes = tuple(sorted(set(names)))
    if len(classes) < 2:
        raise MasslError(f"{root} must hold a subfolder of images for each of at least two classes")
    labels = np.array([classes.index(name) for name in names], np.int64)
    return Embedded(np.concatenate(vectors), labels, classes, tuple(paths), tuple(skipped))
