"""Runs the MaSSL authors' own code and writes what it did to `authors.json`, which `test_golden.py` holds ours to.

    git clone https://github.com/sthalles/MaSSL /tmp/theirs
    python -m tests.massl.method.golden.make /tmp/theirs

No test runs this: their code carries no licence, so none of it is here. It is run as it stands, `train_massl` with its
loop, criterion, memory, random partition, head, transformer, parameter groups, schedules, clipping, moving average and
checkpoint. What it asks of a machine or draws by chance is replaced from outside: CUDA by the CPU in float32, NCCL by
one gloo process, and ImageNet, first weights, first memory and permutations by those of `inputs.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from torch import Tensor, distributed, nn

from tests.massl.method.golden import inputs
from tests.massl.method.golden.inputs import CASES, Case

OUT = Path(__file__).with_name("authors.json")
SUMMARISED = (1, 10, 20)  # steps done
# Options of theirs that concern the machine, or that nothing reads.
UNTOLD = {
    "data_path", "resume_from_dir", "saveckp_freq", "print_freq", "num_workers", "dist_url", "world_size", "local_rank",
    "seed", "norm_last_layer", "entropy_loss_weight",
}  # fmt: skip


class Sequence(torch.utils.data.Dataset):
    """In place of their image folder: the given views in the given order, whatever index is asked for."""

    def __init__(self, case: Case) -> None:
        self.length = case.batch * case.epoch_steps
        self.items = self._items(case)

    @staticmethod
    def _items(case: Case) -> Iterator[tuple[list[Tensor], int]]:
        for step in range(case.steps):
            groups = [torch.from_numpy(group) for group in inputs.views(case, step)]
            for image in range(case.batch):
                yield [view[image] for group in groups for view in group], 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        return next(self.items)


def given_weights(module: nn.Module) -> nn.Module:
    """Overwrites every parameter with the one of its name."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(inputs.parameter(name, *parameter.shape)))
    return module


def flags(case: Case) -> list[str]:
    """The run on their command line."""
    told = {
        "arch": "vit_tiny", "patch_size": case.patch, "out_dim": case.memory, "partition_size": case.block,
        "use_bn_in_head": case.head_norm, "use_mean_pooling": case.mean_pooled, "drop_path_rate": 0.0,
        "optimizer": "adamw", "lr": case.learning_rate, "min_lr": case.learning_rate_end, "epochs": case.epochs,
        "warmup_epochs": case.warmup, "weight_decay": case.weight_decay, "weight_decay_end": case.weight_decay_end,
        "momentum_teacher": case.momentum, "warmup_teacher_temp": case.temperature_start,
        "teacher_temp": case.temperature, "warmup_teacher_temp_epochs": case.temperature_warmup, "clip_grad": 3.0,
        "batch_size_per_gpu": case.batch, "local_crops_number": case.small_views, "num_workers": 0, "print_freq": 5,
    }  # fmt: skip
    return [part for name, value in told.items() for part in (f"--{name}", str(value))]


def run(main: Any, case: Case) -> dict[str, Any]:
    """One run of theirs from its first line to its last: what was seen, and what it saved."""
    losses: list[float] = []
    rates: list[float] = []
    decays: list[float] = []
    schedules: list[list[float]] = []
    summaries: dict[str, Any] = {}
    pairs: list[nn.Module] = []
    banks: list[nn.Module] = []
    permutations = iter(range(case.steps))

    def pair(network: nn.Module, *arguments: Any) -> None:
        begin(network, *arguments)
        pairs.append(given_weights(network))

    def bank(*arguments: Any) -> nn.Module:
        banks.append(memory(*arguments))
        banks[-1].queue.copy_(torch.from_numpy(inputs.memory(case).T))
        return banks[-1]

    def schedule(*arguments: Any, **named: Any) -> np.ndarray:
        values = cosine(*arguments, **named)
        schedules.append([float(value) for value in values])
        return values

    def draw(weights: Tensor, count: int, replacement: bool) -> Tensor:
        assert len(weights) == count == case.memory
        assert not replacement
        return torch.from_numpy(inputs.permutation(case, next(permutations)))

    class Criterion(main.Criterion):
        def forward(self, *outputs: Any) -> Tensor:
            loss = super().forward(*outputs)
            losses.append(loss.item())
            return loss

    class AdamW(torch.optim.AdamW):
        def step(self, closure: Any = None) -> None:
            rates.append(float(self.param_groups[0]["lr"]))
            decays.append(float(self.param_groups[0]["weight_decay"]))
            assert self.param_groups[1]["lr"] == self.param_groups[0]["lr"]
            assert self.param_groups[1]["weight_decay"] == 0
            super().step(closure)

    class Meter(main.AverageMeter):
        def update(self, *arguments: Any) -> None:
            super().update(*arguments)
            if self.name == "Loss" and len(losses) in SUMMARISED:  # it is told the loss when the step is over
                states = [{name: value.detach().numpy() for name, value in net.named_parameters()} for net in pairs]
                summaries[str(len(losses))] = {
                    "student": inputs.summary(states[0]),
                    "teacher": inputs.summary(states[1]),
                    "memory": inputs.summary({"rows": banks[0].queue.numpy().T}),
                }

    def one_process(args: argparse.Namespace) -> None:
        args.rank, args.local_rank, args.world_size = 0, 0, 1
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)

    begin, memory, cosine = main.utils.MultiCropWrapper.__init__, main.MemoryBank, main.utils.cosine_scheduler
    data_parallel = nn.parallel.DistributedDataParallel
    replaced = [
        mock.patch.object(torch.Tensor, "cuda", lambda tensor, **options: tensor),
        mock.patch.object(nn.Module, "cuda", lambda module: module),
        mock.patch.object(torch.cuda.amp, "autocast", return_value=contextlib.nullcontext()),
        # On, as they always have it: it scales by powers of two, which float32 does not notice.
        mock.patch.object(torch.cuda.amp, "GradScaler", return_value=torch.amp.GradScaler("cpu")),
        mock.patch.object(nn.parallel, "DistributedDataParallel", lambda net, device_ids: data_parallel(net)),
        mock.patch.object(nn.SyncBatchNorm, "convert_sync_batchnorm", lambda net: net),  # one process
        mock.patch.object(torch, "multinomial", draw),
        mock.patch.object(torch.optim, "AdamW", AdamW),
        mock.patch.object(main.utils, "init_distributed_mode", one_process),
        mock.patch.object(main.utils.MultiCropWrapper, "__init__", pair),
        mock.patch.object(main.utils, "cosine_scheduler", schedule),
        mock.patch.object(main.datasets, "ImageFolder", return_value=Sequence(case)),
        mock.patch.object(main, "MemoryBank", bank),
        mock.patch.object(main, "Criterion", Criterion),
        mock.patch.object(main, "AverageMeter", Meter),
    ]
    args = argparse.ArgumentParser(parents=[main.get_args_parser()]).parse_args(flags(case))
    with contextlib.ExitStack() as stack:
        for patch in replaced:
            stack.enter_context(patch)
        try:
            main.train_massl(args)
        except AttributeError as error:  # after its last checkpoint it asks the wrong thing for the time that it took
            if "timedelta" not in str(error):
                raise
        finally:
            distributed.destroy_process_group()
    assert len(losses) == case.steps == 20
    (saved,) = Path("runs").glob("*/checkpoint.pth")
    checkpoint = torch.load(saved, weights_only=False)
    shutil.rmtree("runs")
    assert schedules[:2] == [rates, decays]
    return {
        "losses": losses,
        "learning_rate": rates,
        "weight_decay": decays,
        "teacher_temperature": schedules[2],
        "momentum": schedules[4],
        "after": summaries,
        "position": int(checkpoint["memory_bank"]["queue_ptr"]),
        "checkpoint": shape_of_checkpoint(checkpoint),
    }


def starred(name: str) -> str:
    """A parameter's name with its block's number as a star."""
    return re.sub(r"blocks\.\d+\.", "blocks.*.", name)


def kind(value: object) -> str:
    """What a checkpoint's leaf is, without its value."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")


def shape_of_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Every key of a checkpoint of theirs, with what it holds; names of blocks once, by a star."""
    student, teacher = checkpoint["student"], checkpoint["teacher"]
    prefix = "module." if next(iter(teacher)).startswith("module.") else ""
    bare = {name.removeprefix(prefix): value for name, value in teacher.items()}
    assert [f"module.{name}" for name in bare] == list(student)
    optimiser = checkpoint["optimizer"]
    return {
        "keys": list(checkpoint),
        "student_prefix": "module.",
        "teacher_prefix": prefix,
        "depth": 1 + max(int(found[1]) for name in bare if (found := re.search(r"blocks\.(\d+)\.", name))),
        "tensors": {starred(name): kind(value) for name, value in bare.items()},
        "optimiser_state": {name: kind(value) for name, value in optimiser["state"][0].items()},
        "optimiser_groups": [
            {name: len(value) if name == "params" else kind(value) for name, value in group.items()}
            for group in optimiser["param_groups"]
        ],
        "memory_bank": {name: kind(value) for name, value in checkpoint["memory_bank"].items()},
        "epoch": checkpoint["epoch"],
        "args": {name: kind(value) for name, value in sorted(vars(checkpoint["args"]).items())},
        "fp16_scaler": checkpoint["fp16_scaler"],
    }


def statistics(values: Tensor) -> list[float]:
    """Mean, standard deviation, least and largest."""
    flat = values.detach().double().flatten()
    return [float(f"{float(value):.4g}") for value in (flat.mean(), flat.std(), flat.min(), flat.max())]


def first_state(main: Any) -> dict[str, Any]:
    """What theirs draws to begin with, and what it lets decay."""
    torch.manual_seed(0)
    backbone = main.models.vit_small(patch_size=16, drop_path_rate=0.1)
    network = main.utils.MultiCropWrapper(backbone, main.ProjectionHead(in_dim=384, use_bn=False))
    drawn: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        drawn.setdefault(starred(name), []).append(parameter.flatten())
    names = {id(parameter): starred(name) for name, parameter in network.named_parameters()}
    groups = main.utils.get_params_groups(network)
    memory = main.MemoryBank(12, 4096, 256).queue
    return {
        "network": {name: statistics(torch.cat(parts)) for name, parts in drawn.items()},
        "decaying": sorted({names[id(parameter)] for parameter in groups[0]["params"]}),
        "plain": sorted({names[id(parameter)] for parameter in groups[1]["params"]}),
        "drop_path": [getattr(block.drop_path, "drop_prob", 0.0) for block in backbone.blocks],
        "head": [f"{type(layer).__name__}{list(getattr(layer, 'weight', torch.empty(0)).shape)}"
                 for layer in network.head.mlp],
        "memory": {"entries": statistics(memory), "lengths": statistics(memory.norm(dim=0))},
    }  # fmt: skip


def recipes(main: Any, readme: str) -> dict[str, Any]:
    """Their two commands, read by their own parser; it does not know the one option that is taken out first."""
    parser = argparse.ArgumentParser(parents=[main.get_args_parser()])
    found = {}
    for line in readme.splitlines():
        if line.startswith("torchrun"):
            words = shlex.split(line.replace("<path/to/imagenet/train>", "train"))
            at = words.index("--gradient_accumulation")
            del words[at : at + 2]
            given = vars(parser.parse_args(words[words.index("main_massl.py") + 1 :]))
            given["gpus"] = int(words[1].removeprefix("--nproc-per-node="))
            found[given["arch"]] = {name: value for name, value in sorted(given.items()) if name not in UNTOLD}
    return found


def augmentation(main: Any) -> dict[str, list[str]]:
    """What each of their views is put through, in order."""

    def describe(step: Any) -> list[str]:
        if isinstance(step, main.transforms.Compose):
            return [inner for part in step.transforms for inner in describe(part)]
        told = " ".join(
            f"{name}={value}"
            for name, value in sorted(vars(step).items())
            if not name.startswith("_") and name not in ("training", "transforms")
        )
        inner = "; ".join(part for one in getattr(step, "transforms", []) for part in describe(one))
        return [f"{type(step).__name__} {told} {inner}".strip()]

    made = main.DataAugmentationMaSSL((0.32, 1.0), (0.05, 0.32), 10)
    return {name: describe(getattr(made, name)) for name in ("global_transfo1", "global_transfo2", "local_transfo")}


def make(clone: Path) -> dict[str, Any]:
    """Everything that the golden file holds, from a clone of theirs."""
    commit = subprocess.run(
        ["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it writes beside itself
        shutil.copytree(clone, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
        sys.path.insert(0, folder)
        main = importlib.import_module("main_massl")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        return {
            "source": "https://github.com/sthalles/MaSSL",
            "commit": commit,
            "versions": {"torch": torch.__version__, "timm": timm.__version__, "numpy": np.__version__},
            "recipes": recipes(main, Path("README.md").read_text(encoding="utf-8")),
            "augmentation": augmentation(main),
            "first": first_state(main),
            "runs": {case.name: run(main, case) for case in CASES},
        }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.massl.method.golden.make CLONE")
    torch.set_num_threads(1)
    text = json.dumps(make(Path(sys.argv[1]).resolve()), indent=1)
    # Short lists and tables on one line each: the file is read by people too.
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: " ".join(found[0].split()), text)
    OUT.write_text(text + "\n", encoding="utf-8")
