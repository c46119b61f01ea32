#!/usr/bin/env python3
"""Hold encoders to raw pixels and colour histograms on labelled sets: weighted k-NN top-1, leave-one-out.

    evaluate.py SETS OUT.json ENCODER.onnx...      SETS: a folder a set, with a subfolder a class in each

Prints a Markdown table. The baselines see the same decoded pictures through the same code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer import Encoder
from indexer.labelled import embed_folder
from massl.evaluation import knn_top1
from massl.images import fit

# Where a class has about as many images as there are neighbours to vote, only the nearest one is asked.
NEIGHBOURS = {"emoji": 1, "stamps": 1}
USUAL = 20


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


class Pixels:
    """16 x 16 pixels, each picture less its mean and scaled to unit length."""

    resize = 16

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        return np.asarray(fit(picture, 16, 16))

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        flat = pixels.reshape(len(pixels), -1).astype(np.float32)
        return unit(flat - flat.mean(1, keepdims=True))


class Colours:
    """A histogram of 8 x 8 x 8 RGB colours; the root of each share, so that products compare distributions."""

    resize = 64

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        return np.asarray(fit(picture, 64, 64))

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        levels = (pixels // 32).reshape(len(pixels), -1, 3).astype(np.int64)
        bins = levels @ np.array([64, 8, 1])
        return unit(np.sqrt([np.bincount(row, minlength=512) for row in bins]).astype(np.float32))


def main(sets: str, out: str, *encoder_files: str) -> None:
    encoders = [Encoder.load(file) for file in encoder_files]
    judged = {"16 x 16 pixels": Pixels(), "colours": Colours()} | {encoder.name: encoder for encoder in encoders}
    figures: dict[str, dict[str, object]] = {}
    print("| set | images | classes | k | " + " | ".join(judged) + " |\n" + "| --- " * (4 + len(judged)) + "|")
    for folder in sorted(path for path in Path(sets).iterdir() if path.is_dir()):
        k = NEIGHBOURS.get(folder.name, USUAL)
        scores = {}
        for name, how in judged.items():
            table = embed_folder(folder, how, lambda done, total: None)  # type: ignore[arg-type]
            scores[name] = knn_top1(table.vectors, table.labels, table.vectors, table.labels, k, leave_one_out=True)
        best = max(scores.values())
        cells = [f"**{score:.1%}**" if score == best else f"{score:.1%}" for score in scores.values()]
        print(
            f"| {folder.name} | {len(table.labels):,} | {len(table.classes)} | {k} | {' | '.join(cells)} |", flush=True
        )
        figures[folder.name] = {"images": len(table.labels), "classes": len(table.classes), "k": k} | {
            name: round(score, 4) for name, score in scores.items()
        }
    Path(out).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
