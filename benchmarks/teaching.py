#!/usr/bin/env python3
"""What a teacher is worth to a small network: ways to train it, each given the same processor time.

    benchmarks/teaching.py SET... [--images 300] [--seeds 0] [--seconds 60] [--teacher FILE] [--out teaching.jsonl]

SET is a folder with one subfolder a class, of which halves are made as by `adapting.py`. The first half is learnt from
without its labels, all figures are of the second: k-NN with the first half as the bank, 5-shot accuracy and mean
average precision. The network is the preset `cpu`'s. Each is judged by all its stages, whitened, by its last layer
alone, and by its projection. The processor seconds of a way with a teacher hold those in which the teacher embeds.
`untrained` is the network with random weights.
A line of JSON a way, set and seed, and a table at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from adapting import FIGURES, halves, judge
from torch import Tensor

from indexer import Encoder
from indexer.encoder.encoder_file import builtin_encoder
from massl.data.sources import Source, find_source
from massl.encoder.export import export
from massl.method.loss import Loss, massl_loss
from massl.planning import plan
from massl.training import learner
from massl.training.loop import TrainingProgress, fast_precision, train
from massl.training.teaching import Teacher

CALIBRATED = (3, 10)  # steps between which the time of a step is taken
WAYS: Mapping[str, dict[str, Any]] = {
    "untrained": {"steps": 1, "set": {"learning_rate": "1e-9"}},
    "no teacher": {},
    "teacher": {"teacher": True},
    "teacher, crops": {"teacher": True, "set": {"teacher_crops": "true"}},
    "teacher, 8 blocks": {"teacher": True, "blocks": 8},
    "teacher, 1 block": {"teacher": True, "blocks": 1},
    "cosine regression": {"teacher": True, "loss": "cosine"},
}


def cosine(student: Tensor, teacher: Tensor, *rest: Any) -> Loss:
    """Plain regression: one minus the cosine of each view with the teacher's embedding; no memory."""
    loss = 1 - (student * teacher[0]).sum(-1).mean()
    nothing = torch.zeros((), device=student.device)
    return Loss(loss, nothing, nothing)


def trained(source: Source, teacher: Path, way: Mapping[str, Any], seed: int, seconds: float, out: Path) -> int:
    """Trains for so many processor seconds and exports; returns the steps that it took."""
    taught = Teacher(str(teacher), str(teacher)) if way.get("teacher") else None
    overrides = {"seed": str(seed), "workers": "0", "probe_every": "100000", "log_every": "1", **way.get("set", {})}
    loss = patch.object(learner, "massl_loss", cosine if way.get("loss") else massl_loss)

    def run(folder: Path, steps: int) -> list[float]:
        ticks: list[float] = []

        def note(progress: TrainingProgress) -> None:
            if progress.metrics:
                ticks.append(time.process_time())

        given = {**overrides, "steps": str(steps)}
        options: dict[str, Any] = {"precision": fast_precision(torch.device("cpu"))}
        options["teacher_dim"] = taught.dim if taught else 0
        settings, _ = plan("cpu", len(source), given, **options)
        if blocks := way.get("blocks"):
            given["block"] = str(max(1, settings.memory // blocks))
            settings, _ = plan("cpu", len(source), given, **options)
        with loss:
            train(source, folder, settings, teacher=taught, report=note)
        return ticks

    steps = way.get("steps")
    if steps is None:
        began = time.process_time()
        ticks = run(out / "calibration", CALIBRATED[1])
        each = (ticks[-1] - ticks[CALIBRATED[0] - 1]) / (CALIBRATED[1] - CALIBRATED[0])
        before = ticks[0] - began if taught else 0.0  # nearly all of it the teacher's
        steps = max(1, round((seconds - before) / each))
    run(out / "run", steps)
    export(str(out / "run"), out / "stages.onnx", projection=False, trained_on=source)
    newest = str(sorted((out / "run" / "checkpoints").glob("step-*.pt"))[-1])
    export(newest, out / "last.onnx", projection=False)
    export(newest, out / "projection.onnx", projection=True)
    return steps


def main() -> None:
    """Measures each way on each set with each seed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("sets", type=Path, nargs="+")
    arguments.add_argument("--images", type=int, default=300)
    arguments.add_argument("--seeds", default="0")
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--teacher", type=Path, default=builtin_encoder())
    arguments.add_argument("--ways", default=",".join(WAYS).replace(", ", "; "))
    arguments.add_argument("--out", type=Path, default=Path("teaching.jsonl"))
    given = arguments.parse_args()
    ways = [name.replace("; ", ", ") for name in given.ways.split(",")]
    print("| set | images | seed | way | steps | k-NN / 5-shot / mAP |\n| --- | --- | --- | --- | --- | --- |")
    for root in given.sets:
        for seed in map(int, given.seeds.split(",")):
            first, second = halves(root, given.images, seed)
            itself = judge(Encoder.load(given.teacher), root, first, second)
            _tell(given.out, root, seed, len(first), "the teacher itself", 0, itself)
            for name in ways:
                with tempfile.TemporaryDirectory() as folder:
                    listed = Path(folder) / "images.txt"
                    listed.write_text("".join(f"{root.resolve() / path}\n" for path in first), encoding="utf-8")
                    source, _ = find_source(listed)
                    steps = trained(source, given.teacher, WAYS[name], seed, given.seconds, Path(folder))
                    for file in ("stages", "last", "projection"):
                        figures = judge(Encoder.load(Path(folder) / f"{file}.onnx"), root, first, second)
                        _tell(given.out, root, seed, len(first), f"{name}, {file}", steps, figures)


def _tell(out: Path, root: Path, seed: int, images: int, way: str, steps: int, figures: dict[str, float]) -> None:
    row = {"set": root.name, "images": images, "seed": seed, "way": way, "steps": steps, **figures}
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    told = " / ".join(f"{figures[name]:.1f}" for name in FIGURES)
    print(f"| {root.name} | {images} | {seed} | {way} | {steps or ''} | {told} |", flush=True)


if __name__ == "__main__":
    main()
