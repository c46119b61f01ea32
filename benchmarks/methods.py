#!/usr/bin/env python3
"""MaSSL, the authors' own loss code, DINO and a supervised bound: same network, images, crops, optimiser and steps.

    benchmarks/methods.py SET --out RESULTS [--seen 24000] [--seeds 3] [--authors CLONE] [--preset cpu]

SET is a folder with one subfolder a class. It is shuffled by the seed and cut in two as `benchmarks/small.py` does; the
first half is trained on and is the bank of k-NN, linear probing (logistic regression) and 5-shot classification (100
draws); the second half is asked. What is judged is the last layer of the backbone alone: of the teacher, of the student
where there is no teacher.

- `massl`: as `massl train` by default: its loss, its head with batch normalisation of the projections.
- `authors`: the same run with the loss computed by the authors' `random_partition.py` and `criterion.py`, from a clone
  of their repository (not part of this project; left out without `--authors`).
- `paper`: the head as in the paper, without batch normalisation.
- `dino`: head and loss of the library lightly (`pip install lightly`): batch normalisation in the head, as DINO asks
  for with convolutional networks; last layer frozen for the first hundredth, teacher temperature 0.04.
- `supervised`: cross-entropy on the true labels, all views of an image.

Every run is a process of its own, whose peak memory and time are its own. Runs follow each other; on a machine that
does other work, compare processor seconds. Prints a Markdown table: mean over the seeds, and in brackets their lowest
and highest.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small import Split, embed
from torch import Tensor, nn
from torch.nn import functional

from massl.data.sources import Files
from massl.encoder import weights
from massl.encoder.inference import Deployed
from massl.evaluation.linear import logistic_probe
from massl.method.loss import Loss
from massl.method.network import build_backbone, clip_gradients, output_width, parameter_groups
from massl.method.schedules import Rates
from massl.method.seeding import seed_of
from massl.method.views import EndlessBatches, Views, on_device
from massl.planning import plan
from massl.settings import Settings
from massl.training import learner
from massl.training.devices import choose_device
from massl.training.distributed import World
from massl.training.learner import ACTIVATIONS, Learner
from massl.training.loading import batches, make_loader, plan_loading, usual_workers
from massl.training.loop import fast_precision

METHODS = ("massl", "authors", "paper", "dino", "supervised")
PROTOTYPES = 4096  # of DINO's last layer; 65,536 in its paper, for 1.28 million images

Step = Callable[[list[Tensor], list[int], int], None]  # views, the images' places in the bank, number of the step
Builder = Callable[[Settings, torch.device], tuple[nn.Module, Step]]


def massl(s: Settings, device: torch.device) -> tuple[nn.Module, Step]:
    """Our own step, whichever loss is in `massl.training.learner`."""
    learns = Learner(s, World(device))

    def step(views: list[Tensor], images: list[int], number: int) -> None:
        learns.step(views, Rates.at(number, s), number)

    return learns.teacher.backbone, step


def authors_loss(clone: Path, s: Settings, device: torch.device) -> Callable[..., Loss]:
    """The loss by the authors' own classes, in the form of `massl.method.loss.massl_loss`."""
    sys.path.insert(0, str(clone))
    from criterion import Criterion  # type: ignore[import-not-found]
    from random_partition import RandomPartition  # type: ignore[import-not-found]

    if device.type == "cpu":
        Tensor.cuda = lambda self: self  # type: ignore[assignment, method-assign, misc]  # theirs asks for a GPU
    views = 2 + s.local_views
    cut = RandomPartition(argparse.Namespace(ncrops=views, out_dim=s.memory))
    compare = Criterion()
    nothing = torch.zeros((), device=device)

    def loss(
        student: Tensor, teacher: Tensor, memory: Tensor, order: Tensor, block: int, tau_s: float, tau_t: float
    ) -> Loss:
        rows = memory.detach().clone().T  # a copy a step, as theirs
        ours, theirs = cut(student.flatten(0, 1) @ rows / tau_s, teacher.flatten(0, 1) @ rows / tau_t, block)
        return Loss(compare(ours, theirs), nothing, nothing)

    return loss


def dino(s: Settings, device: torch.device) -> tuple[nn.Module, Step]:
    """DINO by lightly's head and loss; optimiser, schedules and clipping are ours."""
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead

    torch.manual_seed(seed_of(s.seed, "weights"))
    backbone = build_backbone(s.backbone, s.image_size, s.patch_size, s.drop_path)
    width = output_width(backbone)
    head = functools.partial(DINOProjectionHead, width, s.head_width, 256, PROTOTYPES, batch_norm=True)
    student = nn.ModuleList([backbone, head(freeze_last_layer=1)]).to(device).train()
    teacher = nn.ModuleList([copy.deepcopy(backbone), head()]).to(device).train().requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    criterion = DINOLoss(PROTOTYPES, warmup_teacher_temp_epochs=1).to(device)
    optimiser = torch.optim.AdamW(parameter_groups(student), lr=0.0, fused=True)

    def project(network: nn.ModuleList, group: Tensor) -> list[Tensor]:
        pixels = group.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return list(network[1](network[0](pixels)).unflatten(0, group.shape[:2]).float())

    def step(views: list[Tensor], images: list[int], number: int) -> None:
        rates = Rates.at(number, s)
        for group, decay in zip(optimiser.param_groups, (rates.weight_decay, 0.0), strict=True):
            group["lr"], group["weight_decay"] = rates.learning_rate, decay
        with torch.autocast(device.type, ACTIVATIONS[s.precision], enabled=s.precision != "fp32"):
            with torch.no_grad():
                targets = project(teacher, views[0])
            outputs = [view for group in views for view in project(student, group)]
        optimiser.zero_grad(set_to_none=True)
        criterion(targets, outputs, teacher_temp=0.04).backward()
        clip_gradients(student, s.clip)
        head_of: Any = student[1]
        head_of.cancel_last_layer_gradients(number * s.batch // max(1, s.steps * s.batch // 100))
        optimiser.step()
        with torch.no_grad():
            for mean, new in zip(teacher.parameters(), student.parameters(), strict=True):
                mean.lerp_(new, 1 - rates.momentum)

    return teacher[0], step


def supervised(s: Settings, device: torch.device, labels: Tensor) -> tuple[nn.Module, Step]:
    """A linear classifier on the backbone, learnt with it from the true labels, int64 `[N]`."""
    torch.manual_seed(seed_of(s.seed, "weights"))
    backbone = build_backbone(s.backbone, s.image_size, s.patch_size, s.drop_path)
    width = output_width(backbone)
    network = nn.Sequential(backbone, nn.Linear(width, int(labels.max()) + 1)).to(device).train()
    optimiser = torch.optim.AdamW(parameter_groups(network), lr=0.0, fused=True)

    def step(views: list[Tensor], images: list[int], number: int) -> None:
        rates = Rates.at(number, s)
        for group, decay in zip(optimiser.param_groups, (rates.weight_decay, 0.0), strict=True):
            group["lr"], group["weight_decay"] = rates.learning_rate, decay
        right = labels[images].to(device)
        with torch.autocast(device.type, ACTIVATIONS[s.precision], enabled=s.precision != "fp32"):
            losses = [
                functional.cross_entropy(network(group.flatten(0, 1)).float(), right.repeat(len(group)))
                * (len(group) / (2 + s.local_views))
                for group in views
            ]
        optimiser.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        clip_gradients(network, s.clip)
        optimiser.step()

    return backbone, step


def one(root: Path, method: str, seed: int, seen: int, preset: str, clone: Path | None) -> dict[str, Any]:
    """One run in this process: trains, judges, and says what it took."""
    split = Split(root, seed)
    device = choose_device()
    images = len(split.bank)
    chosen = {"steps": "1", "seed": str(seed)}
    # On a CPU the step takes all cores, and this process's time tells what a run took; a GPU is not to wait.
    cuda = device.type == "cuda"
    machine: dict[str, Any] = {"workers": usual_workers() if cuda else 0, "augment": "device" if cuda else "loader"}
    batch = plan(preset, images, chosen, precision=fast_precision(device), **machine)[0].batch
    chosen["steps"] = str(seen // batch)
    if method == "paper":
        chosen |= {"head_norm": "false", "projection_norm": "false"}
    s, _ = plan(preset, images, chosen, precision=fast_precision(device), **machine)
    labels = torch.from_numpy(split.labels(split.bank))
    if method == "authors":
        assert clone
        learner.massl_loss = authors_loss(clone, s, device)
    builders: dict[str, Builder] = {"dino": dino, "supervised": functools.partial(supervised, labels=labels)}
    backbone, step = builders.get(method, massl)(s, device)
    keys = EndlessBatches(images, s.batch, s.seed, 0, s.steps)
    views = Views(Files(split.root, split.root, split.bank), s)
    arriving = batches(make_loader(views, keys, plan_loading(s), pinned=cuda), s.batch_timeout, lambda: False)
    started, cpu = time.monotonic(), processor_seconds()
    for number, (batch_views, names) in enumerate(zip(arriving, keys, strict=False)):
        step(on_device(batch_views, device, s), [index for _, index in names], number)
    arriving.close()
    if cuda:
        torch.cuda.synchronize()
    took = {"seconds": time.monotonic() - started, "cpu_seconds": processor_seconds() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    took["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak
    return {"set": root.name, "method": method, "seed": seed, "steps": s.steps, **took, **judge(split, backbone, s)}


def processor_seconds() -> float:
    """Of this process, and of those that it started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def judge(split: Split, backbone: nn.Module, s: Settings) -> dict[str, float]:
    """k-NN, linear and 5-shot accuracy of the backbone's last layer on the half that was not trained on."""
    deployed = Deployed(weights.PretrainedBackbone(copy.deepcopy(backbone).cpu(), s.backbone, s.image_size, {})).eval()
    bank, query = (embed(deployed, half) for half in split.pixels(s.image_size))
    known, asked = split.labels(split.bank), split.labels(split.query)
    linear = logistic_probe(bank, known, query, strengths=np.logspace(-4, 2, 7).tolist())
    return {
        "knn": split.knn(bank, query),
        "linear": float((linear.predicted == asked).mean()),
        "five_shot": split.five_shot(bank, query),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean, lowest and highest over the seeds, a row a method, in Markdown."""
    lines = ["| method | k-NN | linear | 5-shot | processor s | wall s | peak MiB |", "|" + " --- |" * 7]
    for method in METHODS:
        runs = [row for row in rows if row["method"] == method]
        if not runs:
            continue
        cells = [f"{method} ({len(runs)})"]
        for name, form in (("knn", "{:.1%}"), ("linear", "{:.1%}"), ("five_shot", "{:.1%}")):
            values = [run[name] for run in runs]
            cells.append(f"{form} ({form}-{form})".format(float(np.mean(values)), min(values), max(values)))
        cells += [f"{np.mean([run[name] for run in runs]):,.0f}" for name in ("cpu_seconds", "seconds", "peak_mib")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="a folder with one subfolder a class")
    parser.add_argument("--out", type=Path, required=True, help="a .jsonl file; runs that it holds are not run again")
    parser.add_argument("--seen", type=int, default=24_000, help="images that each run sees")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--authors", type=Path, help="a clone of the authors' repository")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SEED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        method, seed = given.one
        print(json.dumps(one(given.set, method, int(seed), given.seen, given.preset, given.authors)))
        return
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(row["method"], row["seed"]) for row in rows}
    for seed in range(given.seeds):
        for method in given.methods:
            if (method, seed) in done or (method == "authors" and not given.authors):
                continue
            command = [sys.executable, __file__, *sys.argv[1:], "--one", method, str(seed)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            rows.append(json.loads(answer))
            with given.out.open("a") as file:
                file.write(answer)
            print(f"{method}, seed {seed}: k-NN {rows[-1]['knn']:.1%}", file=sys.stderr)
    print(table(rows))


if __name__ == "__main__":
    main()
