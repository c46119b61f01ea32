"""What a score means in one collection, without any labels.

Two sources: edited copies of a sample of the collection's own images (what the same picture scores), and random pairs
of different images (what chance scores).
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.encoder import Encoder
from massl.images import ImageError, open_image

SAMPLE = 48  # images whose copies are embedded
PAIRS = 50_000  # random pairs
QUANTILES = 512
IDENTICAL = 0.9995  # what a picture scores with itself, after rounding to half precision


@dataclass(frozen=True)
class Calibration:
    """`same_from`: the score from which a pair counts as one picture; `null`: quantiles of what chance scores.

    Both empty or None while the collection is too small (fewer than 8 images) to tell.
    """

    same_from: float | None = None
    null: tuple[float, ...] = ()

    def false_matches(self, score: float, images: int) -> float:
        """How many of `images` unrelated images one expects to score at least this.

        Beyond the highest quantile the tail is continued as an exponential, fitted to the top twentieth of the null.
        """
        if not self.null:
            return float(images)
        null = np.asarray(self.null)
        cut = int(0.95 * (len(null) - 1))
        knee = self.null[cut]
        if score <= knee:
            share = 1 - float(np.searchsorted(null, score)) / len(null)
        else:
            excess = max(1e-6, float((null[cut:] - knee).mean()))
            share = 0.05 * float(np.exp(-(score - knee) / excess))
        return float(share * images)

    def match(self, score: float, images: int) -> str:
        """`same`: as similar as edited copies of one picture; `alike`: better than chance would give; else `weak`."""
        if score >= IDENTICAL or (self.same_from is not None and score >= self.same_from):
            return "same"
        return "alike" if self.null and self.false_matches(score, images) < 1 else "weak"

    def to_json(self) -> str:
        """As the catalog keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> Calibration:
        """The reverse of `to_json`; an empty calibration for None."""
        values = json.loads(text) if text else {}
        return cls(values.get("same_from"), tuple(values.get("null", ())))


def fit(paths: Sequence[Path], vectors: NDArray[np.float32], encoder: Encoder) -> Calibration:
    """Calibrates on a collection's own images.

    Args:
        paths: the image files.
        vectors: their embeddings in the same order, float32 `[N, D]` of unit length.
        encoder: the one that made them.
    """
    count = len(vectors)
    if count < 8:
        return Calibration()
    chance = np.random.default_rng(0)
    one = chance.integers(0, count, PAIRS)
    other = (one + chance.integers(1, count, PAIRS)) % count
    scores = np.concatenate(
        [(vectors[one[i : i + 4096]] * vectors[other[i : i + 4096]]).sum(1) for i in range(0, PAIRS, 4096)]
    )
    null = np.quantile(scores, np.linspace(0, 1, QUANTILES))
    positives = _copies_score(paths, vectors, encoder)
    same_from = None
    if len(positives) >= 8:
        # Nine of ten edited copies reach it, but never so low that chance would too: a thousandth of random pairs.
        same_from = max(float(np.quantile(positives, 0.1)), float(np.quantile(scores, 0.999)))
    return Calibration(same_from, tuple(round(float(value), 5) for value in null))


def _copies_score(paths: Sequence[Path], vectors: NDArray[np.float32], encoder: Encoder) -> NDArray[np.float32]:
    draw = random.Random(0)
    pixels, rows = [], []
    for row in draw.sample(range(len(paths)), min(SAMPLE, len(paths))):
        try:
            picture = open_image(paths[row], encoder.resize)
        except ImageError:
            continue  # changed since it was embedded
        pixels.append(encoder.prepare(_edited(picture, draw)))
        rows.append(row)
    if not rows:
        return np.empty(0, np.float32)
    return (encoder.embed(np.stack(pixels)) * vectors[rows]).sum(1)


def _edited(picture: Image.Image, draw: random.Random) -> Image.Image:
    """What happens to pictures on their way: cut by up to a tenth a side, scaled down, compressed again."""
    width, height = picture.size
    left, top = draw.uniform(0, 0.1) * width, draw.uniform(0, 0.1) * height
    right, bottom = width * (1 - draw.uniform(0, 0.1)), height * (1 - draw.uniform(0, 0.1))
    picture = picture.crop((int(left), int(top), max(int(left) + 1, int(right)), max(int(top) + 1, int(bottom))))
    scale = draw.uniform(0.5, 1.0)
    picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
    with io.BytesIO() as buffer:
        picture.save(buffer, "JPEG", quality=draw.randint(40, 90))
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
