#!/usr/bin/env python3
"""Where in a picture lies what it was found for: the ways to ask its patch tokens, side by side.

    benchmarks/heat.py IMAGES [ENCODER.onnx]

IMAGES: a folder with a subfolder a class. Each picture looked at is made of four, of different classes; the query is
the original of one of them, or another picture of its class. What is counted is how often the quarter that it fills is
the warmest of the four (the pointing game, Zhang et al., ECCV 2016; a quarter of the time by chance).
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer import Encoder
from massl.core.images.decoding import open_image

CLASSES, PER_CLASS, QUERIES, SIDE = 24, 25, 200, 200


def main(images: str, encoder_file: str | None = None) -> None:
    encoder = Encoder.load(encoder_file, threads=1)
    draw = random.Random(0)
    kinds = [folder for folder in sorted(Path(images).iterdir()) if len(list(folder.iterdir())) >= 50][:CLASSES]
    files = {kind: draw.sample(sorted(kind.iterdir()), PER_CLASS) for kind in kinds}
    right: dict[tuple[str, str], int] = {}
    for _ in range(QUERIES):
        own, *others = draw.sample(kinds, 4)
        first, second = draw.sample(files[own], 2)
        place = draw.randrange(4)
        four = [draw.choice(files[kind]) for kind in others]
        four.insert(place, first)
        scene = Image.new("RGB", (2 * SIDE, 2 * SIDE))
        for position, part in enumerate(four):
            scene.paste(_square(open_image(part)), (position % 2 * SIDE, position // 2 * SIDE))
        tokens = encoder.embed_patches(encoder.prepare(scene)[None])[0]
        for what, query in (("the original", first), ("another of its class", second)):
            pixels = encoder.prepare(open_image(query))[None]
            whole, parts = encoder.embed(pixels)[0], encoder.embed_patches(pixels)[0]
            parts = parts.reshape(-1, parts.shape[-1])
            alike = tokens @ parts.T
            for way, heat in {
                "the query's embedding": tokens @ whole,
                "the mean of its tokens": alike.mean(-1),
                "the nearest of its tokens": alike.max(-1),
                "the mean of the nearest three": -np.sort(-alike, -1)[..., :3].mean(-1),
            }.items():
                right[way, what] = right.get((way, what), 0) + (int(np.argmax(_quarters(heat))) == place)
    print(f"{QUERIES} pictures of four, {len(kinds)} classes, encoder {encoder.name}, tokens {tokens.shape[:2]}")
    for (way, what), count in right.items():
        print(f"{way:32}{what:24}{count / QUERIES:.3f}")


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _quarters(heat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean heat of the quarters, from left to right and down, each token by how much of it lies there."""
    found = []
    for row in (0.0, 0.5):
        for column in (0.0, 0.5):
            weights = np.outer(_overlap(row, heat.shape[0]), _overlap(column, heat.shape[1]))
            found.append(float((weights * heat).sum() / weights.sum()))
    return np.array(found)


def _overlap(start: float, count: int) -> NDArray[np.float64]:
    edges = np.linspace(0, 1, count + 1)
    return np.clip(np.minimum(edges[1:], start + 0.5) - np.maximum(edges[:-1], start), 0, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
