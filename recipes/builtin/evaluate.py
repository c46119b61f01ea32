#!/usr/bin/env python3
"""Hold encoders to raw pixels and colour histograms on labelled sets, by neighbours, a few examples and retrieval.

    evaluate.py SETS OUT.json ENCODER.onnx[@PIXELS]...      SETS: a folder a set, with a subfolder a class in each

Weighted k-NN top-1 and mean average precision leave-one-out, and nearest class means of five images a class, as
`massl eval` measures them; of a larger set `MOST` images, the same for all. The baselines see the same decoded pictures
through the same code. What OUT.json holds already is not measured again. Prints Markdown tables.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer import Encoder
from indexer.encoder.onnx_encoder import Embeds
from indexer.ingest.embedding import embed_paths
from massl.core.images.fitting import fit
from massl.evaluation import knn_top1
from massl.evaluation.datasets import LabelledFiles, embed, read_labelled
from massl.evaluation.fewshot import few_shot
from massl.evaluation.retrieval import retrieval

# Where a class has about as many images as there are neighbours to vote, only the nearest one is asked.
NEIGHBOURS = {"emoji": 1, "stamps": 1}
USUAL = 20
MOST = 4_000
SHOTS, DRAWS = 5, 100
KINDS = {
    "knn": f"Weighted k-NN, k = {USUAL} ({', '.join(NEIGHBOURS)}: 1), leave-one-out",
    "fewshot": f"Nearest class mean of {SHOTS} images a class, mean of {DRAWS} draws",
    "map": "Retrieval, mean average precision, leave-one-out",
}


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


class Pixels:
    """16 x 16 pixels, each picture less its mean and scaled to unit length."""

    resize, device = 16, "cpu"

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        return np.asarray(fit(picture, 16, 16))

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        flat = pixels.reshape(len(pixels), -1).astype(np.float32)
        return unit(flat - flat.mean(1, keepdims=True))


class Colours:
    """A histogram of 8 x 8 x 8 RGB colours; the root of each share, so that products compare distributions."""

    resize, device = 64, "cpu"

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        return np.asarray(fit(picture, 64, 64))

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        levels = (pixels // 32).reshape(len(pixels), -1, 3).astype(np.int64)
        bins = levels @ np.array([64, 8, 1])
        return unit(np.sqrt([np.bincount(row, minlength=512) for row in bins]).astype(np.float32))


def sample(files: LabelledFiles) -> LabelledFiles:
    """Whole classes at random until there are `MOST` images where a class has few, else images at random."""
    if len(files.paths) <= MOST:
        return files
    draw = random.Random(0)
    order = list(range(len(files.paths)))
    draw.shuffle(order)
    if files.name in NEIGHBOURS:
        place = {label: order[index] for index, label in enumerate(sorted(set(files.labels)))}
        order.sort(key=lambda row: place[files.labels[row]])
    rows = sorted(order[:MOST])
    return replace(
        files, paths=tuple(files.paths[row] for row in rows), labels=tuple(files.labels[row] for row in rows)
    )


def measure(files: LabelledFiles, how: Embeds) -> dict[str, float]:
    """Shares by the names of `KINDS`; no five-shot where a class has fewer than six images."""
    table = embed(files, lambda root, paths, report: embed_paths(root, paths, how, report), lambda done, total: None)
    vectors, labels = table.vectors, table.labels
    k = NEIGHBOURS.get(files.name, USUAL)
    found = {"knn": knn_top1(vectors, labels, vectors, labels, k, leave_one_out=True)}
    if np.bincount(labels).min() > SHOTS:
        found["fewshot"] = few_shot(vectors, labels, None, None, [SHOTS], DRAWS, seed=0)[SHOTS].mean
    found["map"] = retrieval(vectors, labels, vectors, labels, leave_one_out=True).map
    return {kind: round(float(share), 4) for kind, share in found.items()}


def table(figures: dict[str, dict[str, dict[str, float]]], kind: str) -> str:
    names = list(next(iter(figures.values())))[1:]
    lines = ["| set | images | classes | " + " | ".join(names) + " |", "| --- " * (3 + len(names)) + "|"]
    for name, row in figures.items():
        shares = [row[each].get(kind) for each in names]
        best = max((share for share in shares if share is not None), default=None)
        cells = ["-" if x is None else f"**{x:.1%}**" if x == best else f"{x:.1%}" for x in shares]
        lines.append(f"| {name} | {row['set']['images']:,} | {row['set']['classes']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(sets: str, out: str, *encoder_files: str) -> None:
    judged: dict[str, Embeds] = {"16 x 16 pixels": Pixels(), "colours": Colours()}
    for file in encoder_files:
        path, _, pixels = file.partition("@")
        encoder = Encoder.load(path, image_size=int(pixels) if pixels else None)
        judged[f"{encoder.name}, {pixels} px" if pixels else encoder.name] = encoder.for_many(MOST, "onnxruntime")
    kept = Path(out)
    figures = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for folder in sorted(path for path in Path(sets).iterdir() if path.is_dir()):
        files = sample(read_labelled(folder))
        row = figures.setdefault(folder.name, {"set": {"images": len(files.paths), "classes": len(set(files.labels))}})
        for name, how in judged.items():
            if name not in row:
                row[name] = measure(files, how)
                kept.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for kind, words in KINDS.items():
        print(f"\n{words}\n\n{table(figures, kind)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
