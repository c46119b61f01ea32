#!/usr/bin/env python3
"""What `massl classify` claims where some kinds have no name: how often its interval holds the share that is right.

    benchmarks/unnamed_kinds.py SET... [--kinds 15] [--named 3,5,15] [--labels 5,10,15] [--draws 2] [--images 40]

Each SET is a folder with a subfolder a class; its largest classes are taken, and of each at most so many images, drawn
at random. Of them so many classes are named (all, if there are fewer), drawn at random, with so many labels each. A run
holds where the share of all unlabelled images that are predicted right lies in the interval, or no figure is given.
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer import Encoder
from indexer.fewshot.classification import Classification, classify
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image


def embedded(folder: Path, kinds: int, images: int, encoder: Encoder) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings, float32 `[N, D]`, and the class of each, int64 `[N]`."""
    by_class: dict[str, list[str]] = {}
    for path in find_images(folder)[0]:
        by_class.setdefault(str(Path(path).parent), []).append(path)
    largest = sorted(by_class, key=lambda name: (-len(by_class[name]), name))[:kinds]
    draw = random.Random(0)
    vectors, targets = [], []
    for target, name in enumerate(largest):
        for path in draw.sample(sorted(by_class[name]), min(images, len(by_class[name]))):
            pixels = encoder.prepare(open_image(folder / path, encoder.resize))
            vectors.append(encoder.embed(pixels[None])[0])
            targets.append(target)
    return np.array(vectors), np.array(targets)


def run(
    vectors: NDArray[np.float32], targets: NDArray[np.int64], named: int, each: int, seed: int
) -> tuple[Classification, float]:
    """A classification by `each` labels of `named` kinds, and the share of the unlabelled that it predicts right."""
    draw = np.random.default_rng([named, each, seed])
    kinds = int(targets.max()) + 1
    chosen = draw.choice(kinds, min(named, kinds), replace=False)
    rows = np.concatenate([draw.choice(np.flatnonzero(targets == kind), each, replace=False) for kind in chosen])
    result = classify(np.arange(len(targets)), vectors, {int(row): f"{targets[row]:03d}" for row in rows})
    predicted = np.array([int(result.classes[place]) if place >= 0 else -1 for place in result.predicted])
    return result, float((predicted == targets)[~result.labelled].mean())


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("sets", type=Path, nargs="+")
    arguments.add_argument("--encoder")
    arguments.add_argument("--kinds", type=int, default=15)
    arguments.add_argument("--named", type=numbers, default=[3, 5, 15])
    arguments.add_argument("--labels", type=numbers, default=[5, 10, 15])
    arguments.add_argument("--draws", type=int, default=2)
    arguments.add_argument("--images", type=int, default=40)
    given = arguments.parse_args()
    encoder = Encoder.load(given.encoder)
    sets = {folder.name: embedded(folder, given.kinds, given.images, encoder) for folder in given.sets}
    for name, (_, targets) in sets.items():
        print(f"{name}: {len(targets)} images of {targets.max() + 1} kinds", flush=True)
    print("| named | labels each | right | figures given | of these estimated | interval | held |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for named, each in itertools.product(given.named, given.labels):
        runs = [
            run(vectors, targets, named, each, seed)
            for vectors, targets in sets.values()
            for seed in range(given.draws)
        ]
        told = [(result.estimated_accuracy, result.interval, truth) for result, truth in runs if result.interval]
        held = len(runs) - len(told) + sum(low <= truth <= high for _, (low, high), truth in told)
        estimated = f"{np.mean([share for share, _, _ in told]):.0%}" if told else ""
        ends = np.mean([interval for _, interval, _ in told], 0) if told else ()
        right = np.mean([truth for _, truth in runs])
        print(
            f"| {named} of {given.kinds} | {each} | {right:.0%} | {len(told)} of {len(runs)} | {estimated} "
            f"| {' to '.join(f'{end:.0%}' for end in ends)} | {held} of {len(runs)} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
