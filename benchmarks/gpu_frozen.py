"""The checks of `gpu.py` for runs whose encoder is frozen: one that is adapted, and one that teaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_cases import PICTURES, RATES, Bench, Outcome, image_folder
from torch import Tensor

from indexer.encoder.encoder_file import builtin_encoder
from massl.data.sources import Source, find_source
from massl.encoder import checkpoint
from massl.encoder.weights import read_initial
from massl.method.augment import normalise
from massl.planning import plan
from massl.settings import Settings
from massl.training.distributed import World
from massl.training.learner import Learner
from massl.training.loop import fast_precision, train
from massl.training.run_state import RunState
from massl.training.teaching import Teacher, TeacherEmbeddings, Teaching

SAME = 0.999  # cosine of two embeddings of a picture in float32, on whatever device


def _source(bench: Bench) -> Source:
    return find_source(PICTURES / "flag" if bench.toy else image_folder(bench))[0]


def _lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def adapting(bench: Bench) -> Outcome:
    """A run that adapts the built-in encoder, on the CPU and on the device; the number is how far losses are apart."""
    source, initial = find_source(PICTURES / "flag")[0], read_initial(str(builtin_encoder()))
    given = {"steps": "4" if bench.toy else "40", "log_every": "1", "probe_every": "1000", "workers": "0",
             "image_size": "56" if bench.toy else "126"}  # fmt: skip
    losses = {}
    for device in dict.fromkeys((torch.device("cpu"), bench.device)):
        settings, _ = plan("adapt", len(source), given, precision="fp32", begins=initial.begins)
        out = bench.scratch / f"adapted-{device.type}"
        summary = train(source, out, settings, initial=initial, world=World(device))
        losses[device] = np.array([row["loss"] for row in _lines(out)])
        bench.tell({"device": device.type, "losses": losses[device].tolist(), "seconds": summary["seconds"],
                    "kept": summary["kept"]["share"]})  # fmt: skip
    off = float(max(np.abs(each - losses[torch.device("cpu")]).max() for each in losses.values()))
    state, _ = checkpoint.latest_sound(bench.scratch / f"adapted-{bench.device.type}" / "checkpoints")
    change = float(state["teacher"]["adapter.change.weight"].norm())
    whole = all(len(each) == int(given["steps"]) for each in losses.values())
    said = f"losses off by {off:.1g}; the layer changed by {change:.2g}"
    return Outcome(whole and off < 5e-3 and 0 < change < 100, off, said)


def teaching(bench: Bench) -> Outcome:
    """Embeddings of a teacher on the CPU and on the device, of pictures and of views; the number is the least cosine.

    Then a run that it teaches, by views, in the device's precision.
    """
    source, teacher = _source(bench), Teacher("builtin", str(builtin_encoder()))
    few = find_source(PICTURES / "flag")[0]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for device in dict.fromkeys((torch.device("cpu"), bench.device)):
        settings = _taught(bench, len(few), teacher.dim, "fp32")
        out = bench.scratch / f"taught-{device.type}"
        out.mkdir()
        learner = Learner(settings, World(device))
        state = RunState(out, settings, few, learner)
        rows = TeacherEmbeddings(state)
        rows.compute(teacher, device, lambda done, whole: None, lambda: False)
        pixels = torch.randint(0, 256, (2, 4, 3, 64, 64), generator=torch.Generator().manual_seed(0))
        views = Teaching(state, teacher).embed(normalise(pixels.float()).to(device)).cpu()
        found[device.type] = rows.all(), views
        learner.begin_with(rows.all())
        shown = torch.randn(2, settings.batch, 3, settings.image_size, settings.image_size).to(device)
        given = rows.all()[None, : settings.batch].to(device)
        assert learner.step([shown], RATES, 0, embeddings=given).finite, "a taught step was not finite"
    pairs = zip(found["cpu"], found[bench.device.type], strict=True)
    least = float(np.min([float((ours * theirs).sum(-1).min()) for ours, theirs in pairs]))  # no number stays none
    settings = _taught(bench, len(source), teacher.dim, fast_precision(bench.device))
    out = bench.scratch / "taught"
    train(source, out, settings, teacher=teacher, world=World(bench.device))
    last = _lines(out)[-1]
    bench.tell({name: last[name] for name in ("step", "loss", "images_per_second", "data_wait_share", "peak_bytes")})
    said = f"cosine at least {least:.4f}; {last['images_per_second']:,.0f} images/s with the teacher"
    return Outcome(least > SAME and last["loss"] is not None, least, said)


def _taught(bench: Bench, images: int, dim: int, precision: str) -> Settings:
    given = {"steps": "3" if bench.toy else "60", "log_every": "1", "probe_every": "1000", "teacher_crops": "true"}
    if bench.toy:
        given |= {"backbone": "test_resnet", "image_size": "32", "batch": "8", "workers": "0"}
    return plan("cpu", images, given, precision=precision, workers=4, teacher_dim=dim)[0]
