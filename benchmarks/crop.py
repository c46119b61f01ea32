#!/usr/bin/env python3
"""Searching by a part of a picture: by the pixels cut out, or by the mean of the patch tokens in it, side by side.

    benchmarks/crop.py IMAGES [ENCODER.onnx]

IMAGES: a folder with a subfolder a class. Each query is a picture of four, of different classes, and the quarter that
one of them fills; what should be found is that one's original, and others of its class.
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
    files = [file for kind in kinds for file in draw.sample(sorted(kind.iterdir()), PER_CLASS)]
    draw.shuffle(files)
    pictures = {file: open_image(file) for file in files}
    classes = np.array([file.parent.name for file in files])

    scenes: list[Image.Image] = []
    corners: list[tuple[int, int]] = []
    for file in files[:QUERIES]:
        four = draw.sample([other for other in files if other.parent != file.parent], 3)
        place = draw.randrange(4)
        four.insert(place, file)
        scene = Image.new("RGB", (2 * SIDE, 2 * SIDE))
        for position, part in enumerate(four):
            scene.paste(_square(pictures[part]), (position % 2 * SIDE, position // 2 * SIDE))
        scenes.append(scene)
        corners.append((place % 2 * SIDE, place // 2 * SIDE))

    gallery = _embed(encoder, [pictures[file] for file in files])
    cut = [scene.crop((x, y, x + SIDE, y + SIDE)) for scene, (x, y) in zip(scenes, corners, strict=True)]
    ways = {"the whole": _embed(encoder, scenes), "pixels": _embed(encoder, cut)}
    if encoder.has_patches:
        tokens = [encoder.embed_patches(encoder.prepare(scene)[None])[0] for scene in scenes]
        ways["patch tokens"] = np.stack([_pooled(grid, corner) for grid, corner in zip(tokens, corners, strict=True)])
    print(f"{QUERIES} queries in {len(files)} images of {len(kinds)} classes, encoder {encoder.name}")
    for name, queries in ways.items():
        scores = queries @ gallery.T
        own = scores[np.arange(QUERIES), np.arange(QUERIES)].copy()
        rank = (scores > own[:, None]).sum(1)
        scores[np.arange(QUERIES), np.arange(QUERIES)] = -1
        nearest = np.argsort(-scores, 1)[:, :10]
        right = (classes[nearest] == classes[:QUERIES, None]).mean()
        print(
            f"{name:13} original first {np.mean(rank == 0):.3f}, in ten {np.mean(rank < 10):.3f}; its class {right:.3f}"
        )


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _embed(encoder: Encoder, pictures: list[Image.Image]) -> NDArray[np.float32]:
    return np.concatenate([encoder.embed(encoder.prepare(picture)[None]) for picture in pictures])


def _pooled(tokens: NDArray[np.float32], corner: tuple[int, int]) -> NDArray[np.float32]:
    """The mean of a scene's tokens, each by how much of it lies in the quarter."""

    def overlap(start: int, count: int) -> NDArray[np.float64]:
        edges = np.arange(count + 1) * 2 * SIDE / count
        return np.clip(np.minimum(edges[1:], start + SIDE) - np.maximum(edges[:-1], start), 0, None)

    weights = np.outer(overlap(corner[1], tokens.shape[0]), overlap(corner[0], tokens.shape[1]))
    mean = np.tensordot(weights, tokens, 2)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


if __name__ == "__main__":
    main(*sys.argv[1:])
