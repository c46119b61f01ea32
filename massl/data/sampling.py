"""Pictures drawn at random from a source, as a network takes them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from massl.core.images.decoding import within_memory
from massl.core.images.fitting import fit
from massl.core.images.image_errors import ImageError
from massl.data.sources import Source, decoded

BATCH = 64  # pictures at a time


def sampled(images: Source, most: int, size: int, resize: int) -> Iterator[Tensor]:
    """Batches of pictures drawn at random, the same at every call; those that can't be read are passed over.

    Args:
        images: to draw from.
        most: how many are drawn.
        size: S, in pixels.
        resize: shorter side before the centre is cut out, in pixels.

    Yields:
        uint8 `[N, S, S, 3]`, N at most `BATCH`.
    """
    batch: list[np.ndarray] = []
    for index in random.Random(0).sample(range(len(images)), min(most, len(images))):
        try:
            with within_memory():
                batch.append(
                    np.asarray(
                        fit(
                            decoded(images, index, resize),
                            size,
                            resize,
                        )
                    )
                )
        except ImageError:
            continue
        if len(batch) == BATCH:
            yield torch.from_numpy(np.stack(batch))
            batch = []
    if batch:
        yield torch.from_numpy(np.stack(batch))
