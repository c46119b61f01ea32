"""One training run, to be read from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

import massl
from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError
from massl.core.files.path_notation import as_text
from massl.core.files.run_folder import check_new, describe_run
from massl.data.sources import Source, check_readable, check_same
from massl.encoder import checkpoint
from massl.encoder.inference import whitened_stages
from massl.encoder.weights import Initial
from massl.encoder.whitening import Moments
from massl.evaluation import rankme
from massl.method.augment import normalise
from massl.method.schedules import Rates
from massl.method.views import Batch, EndlessBatches, Views, on_device
from massl.settings import OF_THE_MACHINE, Settings, read_settings, write_toml
from massl.training.batch_normalisation import spread_normalisation
from massl.training.devices import check_compiler, choose_device
from massl.training.distributed import World
from massl.training.learner import ACTIVATIONS, Learner, Step
from massl.training.loading import LoadingFailed, batches, make_loader, plan_loading
from massl.training.metering import Meter, Trace
from massl.training.monitor import Monitor
from massl.training.out_of_memory import held_by, is_out_of_memory, remedy
from massl.training.probe import Probe
from massl.training.tracking import finite_or_none, track

FORMAT = 3  # of checkpoints
EXAMPLES = 256  # images that folded batch normalisations find their statistics on
BAD_STEPS = 5  # non-finite losses in a row after which a run ends
BAD_HALF_STEPS = 25  # with fp16, whose gradient scale is found by overflowing


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever shows it.

    `metrics` is the line just written to `metrics.jsonl`; `warnings` say what goes wrong and what to try.
    """

    step: int
    steps: int
    metrics: dict[str, float]
    warnings: tuple[str, ...] = ()


class Interrupted(MasslError):
    """The run was asked to stop; a checkpoint was written first."""

    exit_code = 130


def fast_precision(device: torch.device) -> str:
    """`bf16` where the device multiplies it faster than float32, `fp16` on a GPU that has no better."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"


def train(
    source: Source,
    out: Path,
    settings: Settings,
    *,
    resume: bool = False,
    labelled: Path | None = None,
    tracker: str = "",
    profile: int = 0,
    initial: Initial | None = None,
    world: World | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains on the images of `source` and writes the run to the folder `out`.

    The run's folder holds `config.toml`, `metrics.jsonl`, TensorBoard events, and `checkpoints/`. On the CPU a run
    that is resumed goes on to the same numbers, bit by bit, as one that never stopped.

    Args:
        source: the images, from `massl.data.sources.find_source`.
        out: the run's folder; made if it is not there.
        settings: from `massl.settings.plan`; on resume the run's own are read, but for those `OF_THE_MACHINE`.
        resume: go on from the newest checkpoint in `out`.
        labelled: a folder with a subfolder a class, to measure k-NN on while training; never trained with labels.
        tracker: `wandb` or `mlflow`, besides TensorBoard.
        profile: so many steps are traced to a file in the run's folder, see `massl.training.metering.Trace`.
        initial: weights to begin with, from `massl.encoder.weights.read_initial`.
        world: the ranks that train together, and this one's device; this process alone if left out.
        report: called at each logged step, on rank 0.
        stop: asked after each step, on a GPU after each logged one; when true on any rank, a checkpoint is written and
            the run ends.

    Returns:
        A summary: steps, images seen, seconds, files skipped with reasons, the last metrics, the best measurement, the
        trace's path or None.

    Raises:
        Interrupted: `stop` said so.
        LoadingFailed: no batch will come; what was learnt is kept.
        MasslError: the folder is another run's, losses stay non-finite, a step takes more memory than there is, or
            nothing can be written.
    """
    if resume:
        machine = {name: getattr(settings, name) for name in OF_THE_MACHINE}
        settings = dataclasses.replace(read_settings(out / "config.toml"), **machine)
    world = world or World.join(choose_device(settings.device))
    device, leads = world.device, world.rank == 0
    if resume:
        earlier = describe_run(out)
        labelled = labelled or (Path(earlier["labels"]) if earlier.get("labels") else None)
        tracker = tracker or earlier.get("tracker", "")
    elif world.share((out / "config.toml").exists()):
        check_new(out)
    s = settings
    if s.compile:
        check_compiler(device)
    if s.batch % world.size:
        raise MasslError(f"batch ({s.batch}) must be a multiple of the {world.size} devices that share it")

    with held_by(device, "the networks and the memory", "give a smaller --backbone or --set memory"):
        learner = Learner(s, world, initial)
    start = images_seen = 0
    earlier_seconds = 0.0
    best: dict[str, Any] = {}
    moments = initial.moments if initial else None
    origin = dict(initial.origin) if initial else {}
    warnings: list[str] = []
    if resume:
        state, damaged = checkpoint.latest_sound(out / "checkpoints")
        warnings += [f"{line}; going on from the checkpoint before it" for line in damaged]
        check_same(source, state["images"], state.get("source"))
        if state.get("format") != FORMAT:
            raise MasslError(f"{out} is a run of another version of massl ({earlier.get('massl')}); start a new one")
        learner.load_state_dict(state)
        start, images_seen, earlier_seconds = state["step"], state["images_seen"], state["seconds"]
        best = state["best"]
        moments = Moments(*state["moments"]) if state.get("moments") else None
        origin = state.get("origin", {})
    check_readable(source)
    exported = whitened_stages(learner.teacher.backbone, len(source), moments)
    probe = Probe.prepare(source, s.encoder_size, labelled, exported, moments)
    if initial and initial.folded:
        examples = normalise(probe.pixels[-EXAMPLES:].to(device))
        shown = interpolate(examples, s.image_size, mode="bilinear", antialias=True)
        for network in (learner.student, learner.teacher):
            spread_normalisation(network.backbone, shown)

    if leads and not resume:
        _make(out)
        about = {"massl": massl.__version__, "torch": torch.__version__, "images": len(source)}
        about |= {"root": as_text(os.path.abspath(source.where))}
        about["labels"] = as_text(os.path.abspath(labelled)) if labelled else ""
        about |= {"tracker": tracker, "devices": world.size}
        write_toml(out / "config.toml", {"run": about, "settings": dataclasses.asdict(s)})
    started = time.monotonic()

    def save(step: int, improved: bool) -> None:
        state = {
            "format": FORMAT,
            "settings": dataclasses.asdict(s),
            **learner.state_dict(),
            "step": step,
            "images": len(source),
            "source": source.identity,
            "images_seen": images_seen,
            "seconds": earlier_seconds + time.monotonic() - started,
            "best": best,
            "moments": moments and tuple(moments),
            "origin": origin,
        }
        checkpoint.save(out / "checkpoints", step, state, s.keep_checkpoints, improved)

    def step_of(loaded: Batch, rates: Rates, number: int) -> Step:
        try:
            return learner.step(on_device(loaded, device, s), rates, number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            error.__traceback__ = None  # which holds on to what the step had made
        line, flag = remedy(s, world, sum(parameter.numel() for parameter in learner.student.parameters()))
        if _kept(save, start, done, leads):
            raise MasslError(f"{line}; go on with: {again} {flag}".rstrip())
        if leads and not resume:
            (out / "config.toml").unlink(missing_ok=True)  # nothing was learnt: the folder is free for another try
        raise MasslError(f"{line}; nothing was learnt yet, begin again")

    keys = EndlessBatches(len(source), s.batch, s.seed, start, s.steps, world.rank, world.size)
    loading = plan_loading(s, world.size, world.size_here)
    loader = make_loader(Views(source, s), keys, loading, world.size_here, pinned=device.type == "cuda")
    skipped: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    if start >= s.steps:  # a run that had ended: nothing is left to learn, and it is reported as it was
        metrics = {name: value for name, value in (earlier["last"] or {}).items() if value is not None}
    monitor = Monitor(s)
    bad = torch.zeros((), dtype=torch.int64, device=device)  # steps in a row that were not finite
    done = start
    again = f"massl train {shlex.quote(source.where)} --resume {out}"
    arriving = batches(loader, s.batch_timeout, stop)
    trace = Trace(out, device, start, s.steps, profile if leads else 0)
    with (
        contextlib.closing(arriving),
        contextlib.closing(trace),
        track(out, s, start, tracker, silent=not leads) as write,
    ):
        meter = Meter(device, s.batch, start)
        step = start
        while True:
            try:
                with meter.waiting():
                    loaded = next(arriving, None)
            except LoadingFailed as error:
                kept = _kept(save, start, done, leads)
                raise LoadingFailed(f"{error}; {f'go on with: {again}' if kept else 'no step was done'}") from error
            if loaded is None:  # the last one, or told to stop during a wait
                break
            skipped.update(loaded.skipped)
            rates = Rates.at(step, s)
            trace.step_begins(step)
            result = step_of(loaded, rates, step)
            trace.step_ends(step)
            bad = torch.where(result.finite, 0, bad + 1)
            images_seen += s.batch
            done = step + 1
            ends = done == s.steps
            logs, probes, saves = (
                ends or done % every == 0 for every in (s.log_every, s.probe_every, s.checkpoint_every)
            )
            # Where it would make the host wait for the device, only when that is due anyway.
            looks = logs or probes or saves or device.type == "cpu"
            if looks:
                _check_finite(int(bad), step, s, out)
            improved = False
            if logs or probes:
                filled = min(int(learner.memory.written), s.memory)
                metrics = {
                    "step": done,
                    "epoch": done * s.batch / len(source),
                    "loss": result.loss.item(),
                    "student_entropy": result.student_entropy.item(),
                    "teacher_entropy": result.teacher_entropy.item(),
                    "rank": rankme(result.teacher[0].float().cpu().numpy()),
                    "gradient_norm": result.gradient_norm.item(),
                    **dataclasses.asdict(rates),
                    "memory_filled": filled / s.memory,
                    "memory_used": learner.memory_use(result.teacher[0], rates, step),
                    "memory_age": filled / 2 / s.batch,  # steps since a row was written, on average
                    **meter.figures(done, s.steps),
                    "skipped_files": len(skipped),
                    "seconds": earlier_seconds + time.monotonic() - started,
                }
                with meter.aside():
                    if probes and leads:
                        with held_by(device, "the images that are measured", "give a smaller --set export_size"):
                            metrics |= probe.measure(
                                learner.teacher.backbone, device, ACTIVATIONS[s.precision], learner.teacher.positions
                            )
                        improved = _improves(best, metrics, s)
                    write(done, metrics)
                    warnings += monitor.look(metrics)
                    if leads:
                        report(Progress(done, s.steps, metrics, tuple(warnings)))
                    warnings.clear()
            with meter.aside():
                stopping = looks and world.any(stop())
                if leads and (stopping or saves or improved):
                    save(done, improved)
            if stopping and not ends:
                raise _interrupted(done, again, out)
            step += 1
        if done < s.steps:
            if not _kept(save, start, done, leads):
                raise Interrupted("stopped before the first step was done; there is nothing to keep")
            raise _interrupted(done, again, out)
    return {
        "steps": s.steps,
        "images": len(source),
        "images_seen": images_seen,
        "seconds": earlier_seconds + time.monotonic() - started,
        "skipped": [{"path": path, "reason": reason} for path, reason in sorted(skipped.items())],
        "metrics": finite_or_none(metrics),
        "best": best,
        "trace": trace.path and str(trace.path),
    }


def _kept(save: Callable[[int, bool], None], start: int, done: int, leads: bool) -> bool:
    """Whether there is a checkpoint to go on from once no batch comes any more; writes one of what was learnt."""
    if leads and done > start:
        save(done, False)
    return done > 0


def _interrupted(done: int, again: str, out: Path) -> Interrupted:
    return Interrupted(f"stopped at step {done}; go on with: {again}; or use it as it is: massl export {out}")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error, "choose another --out") from None


def _check_finite(bad: int, step: int, s: Settings, out: Path) -> None:
    if bad >= (BAD_HALF_STEPS if s.precision == "fp16" else BAD_STEPS):
        sound = "; the last checkpoint is sound" if any(out.glob("checkpoints/*.pt")) else ""
        raise MasslError(
            f"the loss was not finite in {bad} steps in a row (step {step}){sound}: try a new run with "
            f"--set learning_rate={min(s.learning_rate / 4, 1e-3):g}, or with --precision fp32"
        )


def _improves(best: dict[str, Any], metrics: dict[str, Any], s: Settings) -> bool:
    """Notes in `best` a measurement that beats it: k-NN where there are labels, else RankMe after the warm-up."""
    name = "knn_top1" if "knn_top1" in metrics else "rankme"
    if name == "rankme" and metrics["step"] <= max(s.warmup, s.temperature_warmup):
        return False  # an untrained network's rank is high, and says nothing
    if not metrics[name] > best.get("value", -math.inf):  # nor what is no number
        return False
    best.update(metric=name, value=metrics[name], step=metrics["step"])
    return True
