#!/usr/bin/env python3
"""How fast training is: the authors' own code, ours at the same setting, and ours at its best, in one run.

    benchmarks/train.py IMAGES [--authors CLONE] [--device cuda] [--batch 128] [--steps 30] [--workers N] [--rounds 1]

IMAGES is a folder with a subfolder a class, as the authors' code asks for. `--authors` is a clone of
https://github.com/sthalles/MaSSL, which is no part of this project; without it its row is left out. The setting is that
of their ViT-S/16: 2 views of 224 and 10 of 96 pixels, a memory of 131,072 slots in blocks of 16,384; theirs has fp16 on
a GPU, and on a CPU, for which it was not written, float32 with what asks for a GPU replaced from outside.

Whole runs, each in a process of its own, in turns; the first third of their steps is not counted. Prints images a
second, the share of the time that is spent waiting for images, the most memory, and utilisation: the operations of the
networks and the loss that each image takes (`massl.training.cost.operations_of_an_image`) in a second, over the rate of
a product of two matrices in the same precision, measured by the same process before.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed, nn

from massl.data.sources import find_source
from massl.planning import plan
from massl.settings import Settings
from massl.training.cost import operations_of_an_image
from massl.training.devices import choose_device
from massl.training.distributed import World
from massl.training.learner import ACTIVATIONS
from massl.training.loading import usual_workers
from massl.training.loop import fast_precision, train
from massl.training.metering import peak_memory
from massl.training.utilisation import matrix_rate, wait_for

ROWS = ("authors", "same", "best")


class Enough(Exception):
    """As many steps were taken as are counted."""


def settings_of(row: str, given: argparse.Namespace, device: torch.device, images: int) -> Settings:
    """Of a row: the authors' ViT-S/16 recipe for so many steps."""
    theirs = "fp16" if device.type == "cuda" else "fp32"
    chosen = {
        "batch": str(given.batch), "steps": str(given.steps), "log_every": "1", "probe_every": str(10**9),
        "workers": str(given.workers), "precision": theirs, "augment": "loader", "compile": "false", "seed": "0",
    }  # fmt: skip
    chosen |= {"backbone": given.backbone} if given.backbone else {}
    chosen |= dict(pair.split("=", 1) for pair in given.set)
    if row == "best":
        chosen["precision"] = fast_precision(device)
        if device.type == "cuda":
            chosen |= {"augment": "device", "compile": "true", "batch": str(given.best_batch or given.batch)}
    return plan("vit-s16-paper", images, chosen)[0]


def ours(settings: Settings, images: Path, device: torch.device) -> dict[str, float]:
    """A run of `massl.training.loop.train`; of its lines those after the first third count."""
    source, _ = find_source(images)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        train(source, Path(folder) / "run", settings, world=World.join(device),
              report=lambda progress: rows.append(progress.metrics))  # fmt: skip
    counted = rows[len(rows) // 3 :]
    seconds = [row["step_seconds"] for row in counted]
    waited = sum(row["data_wait_share"] * row["step_seconds"] for row in counted) / sum(seconds)
    return {"step_seconds": sum(seconds) / len(seconds), "wait": waited, "peak": counted[-1]["peak_bytes"]}


def theirs(settings: Settings, images: Path, device: torch.device, clone: Path) -> dict[str, float]:
    """A run of their `train_massl` at the same setting, ended after so many steps."""
    s = settings
    told = {
        "arch": "vit_small", "patch_size": 16, "out_dim": s.memory, "partition_size": s.block, "optimizer": "adamw",
        "lr": s.learning_rate, "min_lr": s.learning_rate_end, "epochs": 1000, "warmup_epochs": 0, "print_freq": 10**9,
        "batch_size_per_gpu": s.batch, "local_crops_number": s.local_views, "num_workers": s.workers,
        "data_path": images.resolve(), "clip_grad": s.clip, "drop_path_rate": s.drop_path,
        "use_bn_in_head": False, "use_mean_pooling": False,
    }  # fmt: skip
    ends: list[float] = []
    waits: list[float] = []
    cpu = device.type == "cpu"

    class AdamW(torch.optim.AdamW):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step(closure)
            wait_for(device)
            ends.append(time.perf_counter())
            if len(ends) == s.steps:
                raise Enough

    def one_process(args: argparse.Namespace) -> None:
        args.rank, args.local_rank, args.world_size = 0, device.index or 0, 1
        distributed.init_process_group("gloo" if cpu else "nccl", store=distributed.HashStore(), rank=0, world_size=1)

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.ExitStack() as stack:
        shutil.copytree(clone, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))  # it writes beside it
        sys.path.insert(0, folder)
        main: Any = importlib.import_module("main_massl")

        class Meter(main.AverageMeter):
            def update(self, value: float, *more: Any) -> None:
                super().update(value, *more)
                if self.name == "Data":
                    waits.append(value)

        parallel = nn.parallel.DistributedDataParallel
        patches: list[Any] = [
            mock.patch.object(torch.optim, "AdamW", AdamW),
            mock.patch.object(main.utils, "init_distributed_mode", one_process),
            mock.patch.object(main, "AverageMeter", Meter),
        ]
        if cpu:
            patches += [
                mock.patch.object(torch.Tensor, "cuda", lambda tensor, **options: tensor),
                mock.patch.object(nn.Module, "cuda", lambda module: module),
                mock.patch.object(torch.cuda.amp, "autocast", return_value=contextlib.nullcontext()),
                mock.patch.object(torch.cuda.amp, "GradScaler", return_value=torch.amp.GradScaler("cpu")),
                mock.patch.object(nn.parallel, "DistributedDataParallel", lambda net, device_ids: parallel(net)),
            ]
        for patch in patches:
            stack.enter_context(patch)
        flags = [word for name, value in told.items() for word in (f"--{name}", str(value))]
        args = argparse.ArgumentParser(parents=[main.get_args_parser()]).parse_args(flags)
        with contextlib.suppress(Enough), contextlib.redirect_stdout(sys.stderr):
            main.train_massl(args)
        distributed.destroy_process_group()
    first = s.steps // 3
    seconds = ends[-1] - ends[first]
    return {
        "step_seconds": seconds / (s.steps - 1 - first),
        "wait": sum(waits[first + 1 :]) / seconds,
        "peak": peak_memory(device),
    }


def one(row: str, given: argparse.Namespace) -> dict[str, Any]:
    """One row's run in this process."""
    device = choose_device(given.device)
    source, _ = find_source(given.images)
    settings = settings_of(row, given, device, len(source))
    rate = matrix_rate(device, ACTIVATIONS[settings.precision])
    operations = operations_of_an_image(settings)
    if row == "authors":
        run = theirs(settings, given.images, device, given.authors)
    else:
        run = ours(settings, given.images, device)
    speed = settings.batch / run["step_seconds"]
    used = speed * operations / rate if operations else None
    about = f"{settings.precision}, batch {settings.batch}, {settings.workers} workers"
    about += ", compiled" if settings.compile else ""
    return {"row": row, "about": about, "images_per_second": speed, **run, "utilisation": used,
            "operations_per_image": operations, "matrix_rate": rate}  # fmt: skip


def table(runs: list[dict[str, Any]]) -> str:
    """A row a form in Markdown, the best of its rounds; each speed also over the first row's."""
    best = {run["row"]: run for run in sorted(runs, key=lambda run: run["images_per_second"])}
    rows = [best[row] for row in ROWS if row in best]
    lines = ["| form | setting | images/s | of the first | waiting | peak memory | utilisation |", "|" + " --- |" * 7]
    for run in rows:
        used = "unknown" if run["utilisation"] is None else f"{run['utilisation']:.0%}"
        lines.append(
            f"| {run['row']} | {run['about']} | {run['images_per_second']:,.2f} | "
            f"{run['images_per_second'] / rows[0]['images_per_second']:.2f} | {run['wait']:.0%} | "
            f"{run['peak'] / 1e9:,.1f} GB | {used} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--authors", type=Path, help="a clone of the authors' repository")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--best-batch", type=int, default=0, help="of ours at its best, on a GPU; as --batch if left out"
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=usual_workers())
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--backbone", default="", help="of our rows; the authors' is always ViT-S/16")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another setting")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--one", choices=ROWS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given)))
        return
    runs = []
    for _ in range(given.rounds):
        for row in given.rows:
            if row == "authors" and (not given.authors or given.backbone):
                continue
            command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--one", row]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            runs.append(json.loads(answer.splitlines()[-1]))
            print(f"{row}: {runs[-1]['images_per_second']:.2f} images/s", file=sys.stderr)
    print(table(runs))


if __name__ == "__main__":
    main()
