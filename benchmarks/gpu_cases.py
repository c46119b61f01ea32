"""What the checks of `gpu.py` share: where they run, what they answer, and the runs that they are made on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from massl.method.schedules import Rates
from massl.planning import plan
from massl.settings import Settings
from massl.training.distributed import World
from massl.training.learner import Learner
from massl.training.loop import fast_precision
from tests.massl import shallow  # noqa: F401 - whose networks timm knows then

PICTURES = Path(__file__).resolve().parents[1] / "cli" / "pictures"
IMAGES = 2000  # of the folder that `command` and `loader` read
RATES = Rates(1e-4, 0.04, 0.99, 0.05)
PRECISIONS = ("fp32", "bf16", "fp16")

TOY = {
    "backbone": "vit_shallow_patch16", "image_size": "32", "local_size": "16", "local_views": "2", "memory": "64",
    "block": "16", "head_width": "32", "batch": "8", "steps": "100", "workers": "1",
}  # fmt: skip


class Skipped(Exception):
    """A check that can't run here; the reason is what it says."""


class Outcome(NamedTuple):
    """What a check found: whether it is right, its number, and both in words."""

    passed: bool
    value: float
    said: str


class Bench(NamedTuple):
    """Where and on what checks run.

    Attributes:
        device: that is checked.
        toy: whether sizes are to be those of a test on a CPU.
        data: the folder that `gather` made, if it did.
        scratch: a folder to write to.
        tell: keeps a row of figures, whatever becomes of the check.
    """

    device: torch.device
    toy: bool
    data: Path | None
    scratch: Path
    tell: Callable[[dict[str, Any]], None] = lambda row: None


def run_settings(bench: Bench, **overrides: str) -> Settings:
    """Of the preset `gpu`, or of a toy run."""
    given = (TOY if bench.toy else {}) | {"precision": fast_precision(bench.device)} | overrides
    return plan("gpu", IMAGES, given, precision="bf16")[0]


def make_learner(bench: Bench, **overrides: str) -> Learner:
    """A student and all that belongs to it, on the device."""
    return Learner(run_settings(bench, **overrides), World(bench.device))


def random_views(settings: Settings, device: torch.device, seed: int = 0) -> list[Tensor]:
    """A batch of views without a picture in them, the same on every device."""
    draws = torch.Generator().manual_seed(seed)
    shapes = ((2, settings.image_size), (settings.local_views, settings.local_size))
    return [
        torch.randn(count, settings.batch, 3, side, side, generator=draws).to(device) for count, side in shapes if count
    ]


def step_until_finite(learner: Learner, views: list[Tensor], number: int, **more: Any) -> Any:
    """A step that counts: fp16 finds its gradients' scale by steps that overflow and change nothing."""
    for _ in range(30):
        result = learner.step(views, more.get("rates", RATES), number, more.get("permutation"))
        if result.finite:
            return result
    raise AssertionError("no step in thirty was finite")


def image_folder(bench: Bench) -> Path:
    """A folder of JPEGs: the gathered ones, each as often as it takes, by hard links; of a toy, the bundled ones."""
    gathered = bench.data / "images" if bench.data else PICTURES / "flag"
    if bench.toy:
        return gathered
    found = sorted(path for path in gathered.rglob("*") if path.is_file())
    folder = bench.scratch / "images"
    if not folder.exists():
        folder.mkdir()
        for number in range(IMAGES):
            source = found[number % len(found)]
            place = folder / f"{number:05d}{source.suffix}"
            try:
                place.hardlink_to(source)
            except OSError:  # on another file system
                shutil.copyfile(source, place)
    return folder
