"""One training run, to be read from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from massl.core.errors import MasslError
from massl.core.files.run_folder import check_new, describe_run, run_shown_as
from massl.data.sources import Source, check_readable
from massl.encoder.adapted import find_start
from massl.encoder.inference import whitened_stages
from massl.encoder.weights import Initial
from massl.evaluation import rankme
from massl.evaluation.datasets import LabelledFiles
from massl.method.augment import normalise
from massl.method.device_cutting import DeviceCutting, check_decoder
from massl.method.schedules import Rates
from massl.method.views import Batch, EndlessBatches, Views, on_device
from massl.settings import CHANGEABLE, Settings, read_settings
from massl.training.accumulation import check_ranks
from massl.training.adaptation import Adaptation, keep_beginning, origin_of
from massl.training.batch_normalisation import spread_normalisation
from massl.training.cpu_convolution import compute_in_parts
from massl.training.devices import check_compiler, choose_device, choose_kernels
from massl.training.distributed import World
from massl.training.grids import ROWS, views_grid
from massl.training.learner import ACTIVATIONS, Learner, StepResult
from massl.training.loading import LoadingFailed, batches, make_loader, plan_loading
from massl.training.measuring import Measuring, starts_of
from massl.training.metering import Meter, Trace
from massl.training.monitor import Monitor
from massl.training.out_of_memory import held_by, is_out_of_memory, remedy
from massl.training.probe import OF_A_COLLECTION, Probe
from massl.training.run_configuration import make_folder, write_configuration
from massl.training.run_state import RunState
from massl.training.teaching import Teacher, Teaching, begin_teaching
from massl.training.tracking import RunLog, finite_or_none, track
from massl.training.utilisation import Utilisation

EXAMPLES = 256  # images that folded batch normalisations find their statistics on
BAD_STEPS = 5  # non-finite losses in a row after which a run ends
BAD_HALF_STEPS = 25  # with fp16, whose gradient scale is found by overflowing


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run, to be shown.

    `metrics` is the line just written to `metrics.jsonl`; it is empty while views are embedded, when `step` counts
    views, and holds the figures of the start alone (`knn_start` and others, no `step`) once these are measured.
    `warnings` say what goes wrong and what to try.
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
    labelled: Path | LabelledFiles | None = None,
    tracker: str = "",
    profile: int = 0,
    initial: Initial | None = None,
    teacher: Teacher | None = None,
    world: World | None = None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains on the images of `source` and writes the run to the folder `out`.

    The run's folder holds `config.toml`, `metrics.jsonl`, TensorBoard events, and `checkpoints/`. On the CPU a run
    that is resumed goes on to the same numbers, bit by bit, as one that never stopped.

    Args:
        source: the images, from `massl.data.sources.find_source`. On resume they are shown as they were.
        out: the run's folder; made if it is not there.
        settings: from `massl.planning.plan`; on resume the run's own are read, but for the `CHANGEABLE` ones.
        resume: go on from the newest checkpoint in `out`.
        labelled: a folder with a subfolder a class, or files with their labels, to measure k-NN on while training;
            never trained with labels.
        tracker: `wandb` or `mlflow`, besides TensorBoard.
        profile: so many steps are traced to a file in the run's folder, see `massl.training.metering.Trace`.
        initial: weights to begin with, from `massl.encoder.weights.read_initial`.
        teacher: what the network learns from, of the setting `teacher_dim`; on resume the one that it began with.
        world: the ranks that train together, and this one's device; this process alone if left out.
        report: called at each logged step, on rank 0.
        stop: asked after each step, on a GPU after each logged one; when true on any rank, a checkpoint is written and
            the run ends.

    Returns:
        A summary: steps, images seen, seconds, files skipped with reasons, the last metrics, the best measurement, the
        trace's path or None; with an adapter also what was kept of its change, and why.

    Raises:
        Interrupted: `stop` said so.
        LoadingFailed: no batch will come; what was learnt is kept.
        MasslError: the folder is another run's, losses stay non-finite, a step takes more memory than there is, or
            nothing can be written.
    """
    earlier: dict[str, Any] = {}
    began, judged_anew = settings, False
    if resume:
        changed = {name: getattr(settings, name) for name in CHANGEABLE}
        began = read_settings(out / "config.toml")
        settings = dataclasses.replace(began, **changed)
    world = world or World.join(choose_device(settings.device))
    if resume:
        earlier, source.shown_as = describe_run(out), run_shown_as(out)
        judged_anew = isinstance(labelled, Path)  # by other images than the run's own
        if not labelled and earlier.get("labels", "") not in ("", OF_A_COLLECTION):
            labelled = Path(earlier["labels"])
        tracker = tracker or earlier.get("tracker", "")
        find_start(out)  # which says it where it is missing or damaged
    elif world.share((out / "config.toml").exists()):
        check_new(out)
    _check_tools(settings, world.device)
    choose_kernels(world.device, settings.precision)
    check_ranks(settings, world.size)

    with held_by(world.device, "the networks and the memory", "give a smaller --backbone or --set memory"):
        learner = Learner(settings, world, initial)
    state = RunState(out, settings, source, learner)
    if initial:
        state.moments, state.origin = initial.moments, origin_of(initial, settings)
    damaged = state.load(earlier.get("massl")) if resume else []
    if state.done > settings.steps:
        raise MasslError(f"the run has done {state.done:,} steps; give at least as many, or leave them out")
    check_readable(source)
    probe = Probe.prepare(source, settings.encoder_size, labelled, _exported_stages(state), state.moments)
    if initial and initial.folded:
        _spread_normalisations(learner, probe.pixels[-EXAMPLES:].to(world.device), settings.image_size)
    if world.rank == 0 and not resume:
        make_folder(out)
        # Before there is a run to go on with, so that one that is there can always go on.
        start = keep_beginning(state, initial) if settings.adapter or settings.teacher_dim else ""
        write_configuration(state, settings, world, labelled, tracker, teacher, start)
    elif world.rank == 0 and settings.steps != began.steps:  # a longer run stays as long when it is resumed again
        longer, start = dataclasses.replace(began, steps=settings.steps), earlier.get("start", "")
        write_configuration(state, longer, world, labelled, tracker, teacher, start)

    adaptation = Adaptation(state, probe) if settings.adapter else None
    teaching = begin_teaching(state, teacher)
    run = _Run(state, probe, world, resume, damaged, report, stop, adaptation, teaching)
    run.prepare(starts_of(earlier.get("last") or {}, judged_anew))
    if state.done >= settings.steps:  # it had ended: nothing is left to learn, and it is reported as it was
        run.metrics = {name: value for name, value in (earlier["last"] or {}).items() if value is not None}
    trace = Trace(out, world.device, state.start, settings.steps, profile if world.rank == 0 else 0)
    with run.ending_with_the_others():
        run.learn(trace, tracker)
    return {
        "steps": settings.steps,
        "images": len(source),
        "images_seen": state.images_seen,
        "seconds": state.seconds,
        "skipped": [{"path": path, "reason": reason} for path, reason in sorted(run.skipped.items())],
        "metrics": finite_or_none(run.metrics),
        "best": state.best,
        "trace": trace.path and str(trace.path),
        **run.measuring.end(),
        **(teaching.end() if teaching else {}),
    }


class _Due(NamedTuple):
    """What is due after a step."""

    logs: bool
    probes: bool
    saves: bool

    @classmethod
    def after(cls, done: int, s: Settings) -> _Due:
        each = (s.log_every, s.probe_every, s.checkpoint_every)
        return cls(*(done == s.steps or (every > 0 and done % every == 0) for every in each))


class _Run:
    """A run in progress, with its parts that load, measure, monitor and record."""

    def __init__(
        self,
        state: RunState,
        probe: Probe,
        world: World,
        resumed: bool,
        warnings: list[str],
        report: Callable[[TrainingProgress], None],
        stop: Callable[[], bool],
        adaptation: Adaptation | None = None,
        teaching: Teaching | None = None,
    ) -> None:
        self.state, self.probe, self.world, self.resumed = state, probe, world, resumed
        self.adaptation, self.teaching = adaptation, teaching
        self.settings, self.learner, self.device = state.settings, state.learner, world.device
        self.leads = world.rank == 0
        self.warnings, self.report, self.stop = warnings, report, stop
        self.monitor = Monitor(state.settings)
        self.utilisation = Utilisation(state.settings, world.device, world.size, teaching.teacher if teaching else None)
        self.metrics: dict[str, Any] = {}
        self.measuring = Measuring(state, probe, world.device, resumed, adaptation)
        cuts = self.settings.decode == "device"
        self.cutting = DeviceCutting(state.source, self.settings, self.device) if cuts else None
        self.skipped: dict[str, str] = {}
        self.again = f"massl train {shlex.quote(state.source.where)} --resume {state.out}"
        state.begin_to_count()

    def prepare(self, started: dict[str, float]) -> None:
        """Embeds what a frozen network has to say before the first step, where there is one; measures the start.

        Raises as `train`. `started` are the figures of the start, where the run measured it before.
        """

        def told(done: int, whole: int) -> None:
            self.report(TrainingProgress(done, whole, {}))

        if self.adaptation:
            self.skipped |= self.adaptation.prepare(told, self.stop)
            if not self.adaptation.views.complete:
                raise Interrupted(f"stopped while views were embedded; go on with: {self.again}")
        if self.teaching:
            self.skipped |= self.teaching.prepare(told, self.stop)
            if not self.teaching.embeddings.complete:
                raise Interrupted(f"stopped while the teacher's images were embedded; go on with: {self.again}")
        if self.leads:
            self.measuring.start(started)
            if self.measuring.started:
                self.report(TrainingProgress(self.state.done, self.settings.steps, self.measuring.started))

    def learn(self, trace: Trace, tracker: str) -> None:
        """All steps that are left. Raises what `train` says."""
        s, state, world, device = self.settings, self.state, self.world, self.device
        arriving = self.adaptation.batches() if self.adaptation else self._load()
        bad = torch.zeros((), dtype=torch.int64, device=device)  # steps in a row that were not finite
        with (
            contextlib.closing(arriving),
            contextlib.closing(trace),
            state.saving,
            track(state.out, s, state.start, tracker, silent=not self.leads) as log,
        ):
            meter = Meter(device, s.batch, state.start)
            while (batch := self._next(arriving, meter)) is not None:
                self.skipped.update(batch.skipped)
                step = state.done
                rates = Rates.at(step, s)
                trace.step_begins(step)
                result = self._step(batch, rates)
                if step == state.start and self.leads and not self.adaptation:
                    with meter.aside():
                        log.show("views", self._views(batch), step)
                trace.step_ends(step)
                bad = torch.where(result.finite, 0, bad + 1)
                state.done, state.images_seen = step + 1, state.images_seen + s.batch

                due = _Due.after(state.done, s)
                # Where it would make the host wait for the device, only when that is due anyway.
                looks = any(due) or device.type == "cpu"
                if looks:
                    _check_finite(int(bad), step, s, state.out)
                improved = False
                if due.logs or due.probes:
                    self.metrics = self._figures(step, rates, result, meter)
                    with meter.aside():
                        improved = due.probes and self.leads and self._measure(log)
                        log.write(state.done, self.metrics)
                        self._tell()
                with meter.aside():
                    stopping = looks and world.any(self.stop())
                    if self.leads and (stopping or due.saves or improved or (looks and state.is_due)):
                        state.save(improved)
                state.saving.check()
                if stopping and state.done < s.steps:
                    raise self._interrupted()
            if state.done < s.steps:  # told to stop during a wait
                if not state.keep(self.leads):
                    raise Interrupted("stopped before the first step; there is nothing to keep")
                raise self._interrupted()

    @contextlib.contextmanager
    def ending_with_the_others(self) -> Iterator[None]:
        """Has a rank that ended, as one killed or cut off, end this one with a checkpoint and one line."""
        try:
            yield
        except RuntimeError as error:
            if not self.world.lost_another(error):
                raise
            kept = self.state.keep(self.leads)
            how = f"go on with: {self.again}" if kept else "no step was done"
            raise MasslError(f"another process of this run has ended, or can't be reached; {how}") from None

    def _load(self) -> Generator[Batch, None, None]:
        s, world, source = self.settings, self.world, self.state.source
        keys = EndlessBatches(len(source), s.batch, s.seed, self.state.start, s.steps, world.rank, world.size)
        loading = plan_loading(s, world.size, world.size_here)
        loader = make_loader(Views(source, s), keys, loading, world.size_here, pinned=self.device.type == "cuda")
        arriving = batches(loader, s.batch_timeout, self.stop)
        if self.cutting:
            arriving = self.cutting.batches(arriving)
        return self.teaching.batches(arriving, keys) if self.teaching else arriving

    def _next(self, arriving: Iterator[Batch], meter: Meter) -> Batch | None:
        """The next batch, or None after the last one, or when told to stop during a wait."""
        try:
            with meter.waiting():
                return next(arriving, None)
        except LoadingFailed as error:
            kept = self.state.keep(self.leads)
            raise LoadingFailed(f"{error}; {f'go on with: {self.again}' if kept else 'no step was done'}") from error

    def _step(self, batch: Batch, rates: Rates) -> StepResult:
        try:
            if self.adaptation:
                views = [batch.large.to(self.device)]
            else:
                # Networks round them to the run's precision at once; but a teacher that sees them has its own.
                dtype = torch.float32 if self.teaching else ACTIVATIONS[self.settings.precision]
                views = on_device(batch, self.device, self.settings, dtype)
            taught = None if batch.embeddings is None else batch.embeddings.to(self.device)[None]
            if self.teaching and taught is None:
                taught = self.teaching.embed(views[0])
            return self.learner.step(views, rates, self.state.done, embeddings=taught)
        except Exception as error:
            full = is_out_of_memory(error)
            lost = isinstance(error, RuntimeError) and self.world.lost_another(error)
            if lost or not (full or self.learner.compiled):
                raise
            why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            error.__traceback__ = None  # which holds on to what the step had made
        if not full:  # an error that compiling is not to blame for comes again without it
            self.learner.drop_compiling()
            self.warnings.append(f"compiling failed, so the run goes on without it ({why})")
            return self._step(batch, rates)
        parameters = sum(parameter.numel() for parameter in self.learner.student.parameters())
        line, flag = remedy(self.settings, self.world, parameters)
        if self.state.keep(self.leads):
            raise MasslError(f"{line}; go on with: {self.again} {flag}".rstrip())
        if self.leads and not self.resumed:
            # Nothing was learnt: the folder is free for another try.
            (self.state.out / "config.toml").unlink(missing_ok=True)
        raise MasslError(f"{line}; nothing was learnt yet, start again")

    def _figures(self, step: int, rates: Rates, result: StepResult, meter: Meter) -> dict[str, Any]:
        """What `metrics.jsonl` has of a step that is done."""
        s, state = self.settings, self.state
        filled = min(int(self.learner.memory.written), s.memory)
        speed = meter.figures(state.done, s.steps)
        with meter.aside():
            counts = self.leads and not self.adaptation  # whose steps are next to no arithmetic
            used = self.utilisation.share(speed["images_per_second"], state.seconds) if counts else None
        return {
            "step": state.done,
            "epoch": state.done * s.batch / len(state.source),
            "loss": result.loss.item(),
            "student_entropy": result.student_entropy.item(),
            "teacher_entropy": result.teacher_entropy.item(),
            "rank": rankme(result.teacher[0].float().cpu().numpy()),
            "gradient_norm": result.gradient_norm.item(),
            **dataclasses.asdict(rates),
            "memory_filled": filled / s.memory,
            "memory_used": self.learner.memory_use(result.teacher[0], rates, step),
            "memory_age": filled / 2 / s.batch,  # steps since a row was written, on average
            **speed,
            **({} if used is None else {"utilisation": used}),
            **self.measuring.started,
            "skipped_files": len(self.skipped),
            "seconds": state.seconds,
        }

    def _views(self, batch: Batch) -> Tensor:
        """A picture of some of a batch's views."""
        few = batch._replace(large=batch.large[:, :ROWS], small=batch.small[:, :ROWS], draws=batch.draws[:, :ROWS])
        return views_grid(on_device(few, self.device, self.settings))

    def _measure(self, log: RunLog) -> bool:
        """Adds to the metrics what the encoder is worth; whether it was never worth more."""
        self.metrics |= self.measuring.now(log)
        # Of an adapter the end is weighed against the start, not one step against another.
        return not self.adaptation and self.state.improves(self.metrics)

    def _tell(self) -> None:
        self.warnings += [*self.monitor.look(self.metrics), *(self.cutting.notes() if self.cutting else ())]
        if self.monitor.crowded:
            compute_in_parts(self.learner.student)
        if self.leads:
            self.report(TrainingProgress(self.state.done, self.settings.steps, self.metrics, tuple(self.warnings)))
        self.warnings.clear()

    def _interrupted(self) -> Interrupted:
        out = self.state.out
        return Interrupted(
            f"stopped at step {self.state.done}; go on with: {self.again}; or export it as it is: massl export {out}"
        )


def _check_tools(settings: Settings, device: torch.device) -> None:
    """Raises a `MasslError` where what the settings ask for needs something that is not here."""
    if settings.compile:
        check_compiler(device)
    if settings.decode == "device":
        check_decoder(device)


def _exported_stages(state: RunState) -> int:
    """As of `whitened_stages`; 0 also where the encoder embeds by its head."""
    if state.settings.export_projection:
        return 0
    return whitened_stages(state.learner.teacher.backbone, len(state.source), state.moments)


def _spread_normalisations(learner: Learner, pixels: Tensor, size: int) -> None:
    """Finds the statistics of folded batch normalisations on a few of the images, `[N, 3, S, S]` from 0 to 255."""
    shown = interpolate(normalise(pixels), size, mode="bilinear", antialias=True)
    for network in (learner.student, learner.teacher):
        spread_normalisation(network.backbone, shown)


def _check_finite(bad: int, step: int, s: Settings, out: Path) -> None:
    if bad >= (BAD_HALF_STEPS if s.precision == "fp16" else BAD_STEPS):
        sound = "; the last checkpoint is sound" if any(out.glob("checkpoints/*.pt")) else ""
        raise MasslError(
            f"the loss was not finite in {bad} steps in a row (step {step}){sound}: try a new run with "
            f"--set learning_rate={min(s.learning_rate / 4, 1e-3):g}, or with --precision fp32"
        )
