#!/usr/bin/env python3
"""Searching by a part of a picture: by the pixels cut out, or by the mean of the patch tokens in it, side by side.

    benchmarks/crop.py IMAGES [--cells 2] [--pixels 200] [--image-size 126] [--encoder ENCODER.onnx]

IMAGES: a folder with a subfolder a class. Each query is a picture of four (of sixteen with --cells 4), the others being
of other classes, and the cell that one of them fills, so many pixels wide; what should be found is that one's original,
and others of its class.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer import Encoder
from massl.core.images.decoding import open_image

CLASSES, PER_CLASS, QUERIES = 24, 25, 200


def main(images: Path, encoder: Encoder, cells: int, side: int) -> None:
    draw = random.Random(0)
    kinds = [folder for folder in sorted(images.iterdir()) if len(list(folder.iterdir())) >= 50][:CLASSES]
    files = [file for kind in kinds for file in draw.sample(sorted(kind.iterdir()), PER_CLASS)]
    draw.shuffle(files)
    pictures = {file: open_image(file) for file in files}
    classes = np.array([file.parent.name for file in files])

    scenes: list[Image.Image] = []
    corners: list[tuple[int, int]] = []
    for file in files[:QUERIES]:
        parts = draw.sample([other for other in files if other.parent != file.parent], cells**2 - 1)
        place = draw.randrange(cells**2)
        parts.insert(place, file)
        scene = Image.new("RGB", (cells * side, cells * side))
        for position, part in enumerate(parts):
            scene.paste(_square(pictures[part], side), (position % cells * side, position // cells * side))
        scenes.append(scene)
        corners.append((place % cells * side, place // cells * side))

    gallery = _embed(encoder, [pictures[file] for file in files])
    cut = [scene.crop((x, y, x + side, y + side)) for scene, (x, y) in zip(scenes, corners, strict=True)]
    ways = {"the whole": _embed(encoder, scenes), "pixels": _embed(encoder, cut)}
    if encoder.has_patches:
        tokens = [encoder.embed_patches(encoder.prepare(scene)[None])[0] for scene in scenes]
        ways["patch tokens"] = np.stack(
            [_pooled(grid, corner, cells, side) for grid, corner in zip(tokens, corners, strict=True)]
        )
    size = f"{encoder.name} at {encoder.image_size} pixels; cells of {side} pixels, {cells} by {cells}"
    print(f"{QUERIES} queries in {len(files)} images of {len(kinds)} classes, {size}")
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


def _square(picture: Image.Image, side: int) -> Image.Image:
    own = min(picture.size)
    left, top = (picture.width - own) // 2, (picture.height - own) // 2
    return picture.crop((left, top, left + own, top + own)).resize((side, side), Image.Resampling.BICUBIC)


def _embed(encoder: Encoder, pictures: list[Image.Image]) -> NDArray[np.float32]:
    return np.concatenate([encoder.embed(encoder.prepare(picture)[None]) for picture in pictures])


def _pooled(tokens: NDArray[np.float32], corner: tuple[int, int], cells: int, side: int) -> NDArray[np.float32]:
    """The mean of a scene's tokens, each by how much of it lies in the cell."""

    def overlap(start: int, count: int) -> NDArray[np.float64]:
        edges = np.arange(count + 1) * cells * side / count
        return np.clip(np.minimum(edges[1:], start + side) - np.maximum(edges[:-1], start), 0, None)

    weights = np.outer(overlap(corner[1], tokens.shape[0]), overlap(corner[0], tokens.shape[1]))
    mean = np.tensordot(weights, tokens, 2)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--cells", type=int, default=2)
    parser.add_argument("--pixels", type=int, default=200)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--encoder")
    given = parser.parse_args()
    main(given.images, Encoder.load(given.encoder, threads=1, image_size=given.image_size), given.cells, given.pixels)
