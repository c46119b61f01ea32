#!/usr/bin/env python3
"""Is an encoder better for a collection once `massl train` has adapted it? Before and after, on images it never saw.

    benchmarks/adapting.py SET... [--images 1000] [--seeds 0,1,2] [--out adapting.jsonl]

SET is a folder with one subfolder a class. A seed draws at most twice `--images` of its images, evenly over classes,
and cuts them in two. The first half is adapted to without its labels, by the defaults of `massl train`; all figures
are of the second half: k-NN with the first half as the bank, 5-shot accuracy and mean average precision within the
second half. `start` is the built-in encoder as it is. A line of JSON an encoder and seed, and a table at the end.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from indexer import Encoder
from indexer.encoder.encoder_file import builtin_encoder
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image
from massl.data.sources import find_source
from massl.encoder.export import export_run
from massl.encoder.weights import read_initial
from massl.evaluation import knn_top1
from massl.evaluation.fewshot import few_shot
from massl.evaluation.retrieval import retrieval
from massl.planning import plan
from massl.training.loop import fast_precision, train

BATCH = 32
FIGURES = ("knn", "five_shot", "map")


def halves(root: Path, images: int, seed: int) -> tuple[list[str], list[str]]:
    """The paths of both halves: of each class as many images in one as in the other, at least six."""
    classes: dict[str, list[str]] = defaultdict(list)
    for path in find_images(root)[0]:
        if "/" in path:
            classes[path.rsplit("/", 1)[0]].append(path)
    draw = random.Random(seed)
    usable = {name: sorted(paths) for name, paths in sorted(classes.items()) if len(paths) >= 12}
    each = max(6, images // max(1, len(usable)))
    first, second = [], []
    for paths in usable.values():
        draw.shuffle(paths)
        count = min(each, len(paths) // 2)
        first += paths[:count]
        second += paths[count : 2 * count]
    return first, second


def judge(encoder: Encoder, root: Path, first: list[str], second: list[str]) -> dict[str, float]:
    """Figures of the second half, in per cent."""
    rows = []
    for half in (first, second):
        parts = [half[start : start + BATCH] for start in range(0, len(half), BATCH)]
        embedded = [
            encoder.embed([encoder.prepare(open_image(root / path, encoder.resize)) for path in part]) for part in parts
        ]
        rows.append(np.concatenate(embedded).astype(np.float32))
    names = sorted({path.rsplit("/", 1)[0] for path in first})
    labels = [np.array([names.index(path.rsplit("/", 1)[0]) for path in half]) for half in (first, second)]
    bank, asked = rows
    found = {
        "knn": knn_top1(bank, labels[0], asked, labels[1]),
        "five_shot": few_shot(asked, labels[1], None, None, [5], 100, 0)[5].mean,
        "map": retrieval(asked, labels[1], asked, labels[1], leave_one_out=True).map,
    }
    return {name: round(100 * value, 2) for name, value in found.items()}


def adapted(root: Path, first: list[str], seed: int, folder: Path, size: int | None) -> tuple[Path, dict[str, Any]]:
    """The encoder that `massl train` makes of the first half by views of `size` pixels, and what the run says."""
    listed = folder / "images.txt"
    listed.write_text("".join(f"{root.resolve() / path}\n" for path in first), encoding="utf-8")
    source, _ = find_source(listed)
    initial = read_initial(str(builtin_encoder()))
    precision = fast_precision(torch.device("cpu"))
    wanted = {"seed": str(seed)} | ({"image_size": str(size)} if size else {})
    settings, _ = plan("adapt", len(source), wanted, precision=precision, begins=initial.begins)
    summary = train(source, folder / "run", settings, initial=initial)
    return export_run(folder / "run", "adapted", source), summary


def main() -> None:
    """Measures each set with each seed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("sets", type=Path, nargs="+")
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--seeds", default="0,1,2")
    arguments.add_argument("--image-size", type=int, help="pixels a side; the encoder's default if left out")
    arguments.add_argument("--out", type=Path, default=Path("adapting.jsonl"))
    given = arguments.parse_args()
    print("| set | images | seed | start | adapted | kept | wall s | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for root in given.sets:
        for seed in map(int, given.seeds.split(",")):
            first, second = halves(root, given.images, seed)
            before = judge(Encoder.load(builtin_encoder(), image_size=given.image_size), root, first, second)
            with tempfile.TemporaryDirectory() as folder:
                began, used = time.monotonic(), _processor_seconds()
                path, summary = adapted(root, first, seed, Path(folder), given.image_size)
                took, used = time.monotonic() - began, _processor_seconds() - used
                after = judge(Encoder.load(path, image_size=given.image_size), root, first, second)
            row = {
                "set": root.name,
                "images": len(first),
                "image_size": given.image_size,
                "seed": seed,
                "start": before,
                "adapted": after,
            }
            row |= {"kept": summary["kept"], "seconds": round(took), "processor_seconds": round(used)}
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            told = [" / ".join(f"{each[name]:.1f}" for name in FIGURES) for each in (before, after)]
            kept = summary["kept"]["share"]
            print(
                f"| {root.name} | {len(first)} | {seed} | {told[0]} | {told[1]} | {kept} | {took:.0f} | {used:.0f} |",
                flush=True,
            )


def _processor_seconds() -> float:
    """Of this process and of those that it started."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, kinds))


if __name__ == "__main__":
    main()
