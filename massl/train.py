"""One training run, to be read from top to bottom (paper, section 3 and algorithm 1)."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

import massl
from massl import checkpoint, schedules
from massl.errors import MasslError
from massl.evaluation import rankme
from massl.images import ImageError, open_image
from massl.loss import massl_loss
from massl.memory import Memory
from massl.network import build_backbone, build_pair, clip_gradients, parameter_groups, update_teacher
from massl.settings import Settings, read_settings, write_toml
from massl.views import EndlessBatches, Views, collate, normalise

PROJECTION = 256  # [D]
BAD_STEPS = 5  # non-finite losses in a row after which a run ends


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever shows it: `metrics` is the line just written to `metrics.jsonl`."""

    step: int
    steps: int
    metrics: dict[str, float]


class Interrupted(MasslError):
    """The run was asked to stop; a checkpoint was written first."""

    exit_code = 130


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fast_precision(device: torch.device) -> str:
    """`bf16` where the device multiplies it faster than float32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"


def train(
    root: Path,
    paths: Sequence[str],
    out: Path,
    settings: Settings,
    *,
    resume: bool = False,
    device: torch.device | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains on the images `paths` below `root` and writes the run to the folder `out`.

    The run's folder holds `config.toml`, `metrics.jsonl`, TensorBoard events, and `checkpoints/`. On the CPU a run
    that is resumed goes on to the same numbers, bit by bit, as one that never stopped.

    Args:
        root: the folder of images.
        paths: image files, relative to `root`.
        out: the run's folder; made if it is not there.
        settings: from `massl.settings.plan`; ignored on resume, where the run's own are read.
        resume: go on from the newest checkpoint in `out`.
        device: where to train; the GPU if there is one.
        report: called at each logged step.
        stop: asked after each step; when true, a checkpoint is written and the run ends.

    Returns:
        A summary: steps, images seen, seconds, files skipped with reasons, the last metrics.

    Raises:
        Interrupted: `stop` said so.
        MasslError: the folder is another run's, losses stay non-finite, or nothing can be written.
    """
    device = device or default_device()
    if resume:
        settings = read_settings(out / "config.toml")
    elif (out / "config.toml").exists():
        raise MasslError(f"{out} already holds a run; go on with it by --resume {out}, or choose another --out")
    s = settings
    torch.manual_seed(s.seed)  # weights and drop-path

    backbone = build_backbone(s.backbone, s.image_size, s.patch_size, s.drop_path)
    student, teacher = (network.to(device).train() for network in build_pair(backbone, s.head_width, s.head_norm))
    draws = torch.Generator().manual_seed(s.seed)  # the memory's first rows, then the permutations
    memory = Memory(s.memory, PROJECTION, draws).to(device)
    optimiser = torch.optim.AdamW(parameter_groups(student), lr=0.0, fused=device.type == "cuda")
    start = images_seen = 0
    earlier_seconds = 0.0
    if resume:
        state = checkpoint.load(checkpoint.latest(out / "checkpoints"))
        if state["images"] != len(paths):
            raise MasslError(
                f"the run was started on {state['images']} images, but {root} now holds {len(paths)}; "
                "bring the folder back to what it was, or start a new run"
            )
        student.load_state_dict(state["student"])
        teacher.load_state_dict(state["teacher"])
        memory.load_state_dict(state["memory"])
        optimiser.load_state_dict(state["optimiser"])
        draws.set_state(state["draws"])
        torch.set_rng_state(state["rng"])
        start, images_seen, earlier_seconds = state["step"], state["images_seen"], state["seconds"]

    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        about = {"massl": massl.__version__, "torch": torch.__version__, "images": len(paths), "root": str(root)}
        write_toml(out / "config.toml", {"run": about, "settings": dataclasses.asdict(s)})
    _cut_metrics(out / "metrics.jsonl", start)
    started = time.monotonic()

    def save(step: int) -> None:
        checkpoint.save(
            out / "checkpoints",
            step,
            {
                "format": 1,
                "settings": dataclasses.asdict(s),
                "student": student.state_dict(),
                "teacher": teacher.state_dict(),
                "memory": memory.state_dict(),
                "optimiser": optimiser.state_dict(),
                "draws": draws.get_state(),
                "rng": torch.get_rng_state(),
                "step": step,
                "images": len(paths),
                "images_seen": images_seen,
                "seconds": earlier_seconds + time.monotonic() - started,
            },
            s.keep_checkpoints,
        )

    loader = DataLoader(
        Views(root, paths, s),
        batch_sampler=EndlessBatches(len(paths), s.batch, s.seed, start, s.steps),
        num_workers=s.workers,
        collate_fn=collate,
        prefetch_factor=4 if s.workers else None,
        # Its own generator: by default it would draw from the global one, once more in a run that is resumed.
        generator=torch.Generator(),
        pin_memory=device.type == "cuda",
        worker_init_fn=_quiet_worker,
    )
    skipped: dict[str, str] = {}
    _check_readable(root, paths)
    metrics: dict[str, float] = {}
    bad = 0
    with ExitStack() as stack:
        log = stack.enter_context((out / "metrics.jsonl").open("a", encoding="utf-8"))
        board = stack.enter_context(SummaryWriter(str(out), purge_step=start or None))
        waited, window_start, window_images, fetch_start = 0.0, time.monotonic(), 0, time.monotonic()
        for step, (large, small, passed_over) in enumerate(loader, start):
            waited += time.monotonic() - fetch_start
            skipped.update(passed_over)
            views = [normalise(large.to(device, non_blocking=True))]
            if small.shape[0]:
                views.append(normalise(small.to(device, non_blocking=True)))
            batch = large.shape[1]

            rate = schedules.cosine(step, s.steps, s.learning_rate * batch / 256, s.learning_rate_end, s.warmup)
            decay = schedules.cosine(step, s.steps, s.weight_decay, s.weight_decay_end)
            momentum = schedules.cosine(step, s.steps, s.momentum, 1.0)
            temperature = schedules.linear(
                step, s.temperature_warmup, s.teacher_temperature_start, s.teacher_temperature
            )
            for group, weight_decay in zip(optimiser.param_groups, (decay, 0.0), strict=True):
                group["lr"], group["weight_decay"] = rate, weight_decay

            with torch.autocast(device.type, torch.bfloat16, enabled=s.precision == "bf16"):
                with torch.no_grad():
                    z_teacher = teacher(views[0])
                z_student = student(*views)
            permutation = torch.randperm(s.memory, generator=draws).to(device)
            # The memory as it stands before this step's update: no image meets its own embedding.
            result = massl_loss(
                z_student, z_teacher, memory.rows, permutation, s.block, s.student_temperature, temperature
            )
            optimiser.zero_grad(set_to_none=True)
            result.loss.backward()
            norm = clip_gradients(student, s.clip)
            # One wait for the device a step: what is not finite must touch neither optimiser, teacher nor memory.
            if not math.isfinite(float(norm + result.loss.detach())):
                bad += 1
                if bad >= BAD_STEPS:
                    raise MasslError(
                        f"the loss was not finite in {bad} steps in a row (step {step}); the last checkpoint is sound: "
                        f"try --set learning_rate={s.learning_rate / 4:g}, or --set precision=fp32"
                    )
                fetch_start = time.monotonic()
                continue
            bad = 0
            optimiser.step()
            update_teacher(student, teacher, momentum)
            memory.push(z_teacher[1])  # the second global view alone

            images_seen += batch
            window_images += batch
            done = step + 1
            if done % s.log_every == 0 or done == s.steps:
                now = time.monotonic()
                metrics = {
                    "step": done,
                    "epoch": done * s.batch / len(paths),
                    "loss": result.loss.item(),
                    "student_entropy": result.student_entropy.item(),
                    "teacher_entropy": result.teacher_entropy.item(),
                    "rank": rankme(z_teacher[0].float().cpu().numpy()),
                    "spread": _spread(z_teacher[0]),
                    "gradient_norm": float(norm),
                    "learning_rate": rate,
                    "weight_decay": decay,
                    "momentum": momentum,
                    "teacher_temperature": temperature,
                    "memory_filled": min(1.0, int(memory.written) / s.memory),
                    "images_per_second": window_images / (now - window_start),
                    "data_wait_share": waited / (now - window_start),
                    "skipped_files": len(skipped),
                    "seconds": earlier_seconds + now - started,
                }
                log.write(json.dumps(metrics) + "\n")
                log.flush()
                for name, value in metrics.items():
                    board.add_scalar(name, value, done)
                report(Progress(done, s.steps, metrics))
                waited, window_start, window_images = 0.0, now, 0
            stopping = stop()
            if stopping or done % s.checkpoint_every == 0 or done == s.steps:
                save(done)
            if stopping and done < s.steps:
                raise Interrupted(f"stopped at step {done}; go on with: massl train {root} --resume {out}")
            fetch_start = time.monotonic()
    return {
        "steps": s.steps,
        "images": len(paths),
        "images_seen": images_seen,
        "seconds": earlier_seconds + time.monotonic() - started,
        "skipped": [{"path": path, "reason": reason} for path, reason in sorted(skipped.items())],
        "metrics": metrics,
    }


def _check_readable(root: Path, paths: Sequence[str]) -> None:
    """Raises a `MasslError` before the first step if there is nothing to train on."""
    for path in paths:
        try:
            open_image(root / path)
            return
        except ImageError as error:
            first = f"{path!r}: {error}"
    raise MasslError(f"not one image below {root} can be read; the last was {first}")


def _spread(z: Tensor) -> float:
    """Mean cosine distance of two images' projections: 0 when all are alike, about 1 when they are spread evenly."""
    z = functional.normalize(z.float(), dim=-1)
    n = z.shape[0]
    return float(1 - (z.sum(0).square().sum() - n) / max(1, n * (n - 1)))


def _cut_metrics(path: Path, step: int) -> None:
    """Drops the lines that a killed run wrote after its last checkpoint, which are about to be written again."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _quiet_worker(worker: int) -> None:
    # One thread each: the pool of workers is the parallelism. Ctrl-C is the main process's to answer.
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
