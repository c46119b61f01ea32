"""`massl train`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.deep_images import ShownChannels, ShownPlane, ShownRange, chosen, shown_as
from cli.interrupts import interrupt
from cli.options import Json, Quiet, Verbose, on_command_line, or_builtin

if TYPE_CHECKING:
    from cli.planned_run import PlannedRun
    from massl.core.files.scan import Skipped
    from massl.core.images.rendering_facts import ShownAs
    from massl.encoder.weights import Initial
    from massl.evaluation.datasets import LabelledFiles
    from massl.training.teaching import Teacher


SHOWN = 20  # files passed over that are named before a run begins


def command(
    context: typer.Context,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="A folder of images; a list of paths (.txt, .csv); or tar shards: one, a folder of them, or a "
            "pattern in quotes, as 'images-{000..123}.tar'.",
            show_default=False,
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option("--preset", envvar="MASSL_PRESET", help="adapt, cpu, gpu, vit-s16-paper or vit-b16-paper."),
        Harmless(),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run's folder. Default: a new one below ./runs."),
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Continue this run.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FOLDER",
            help="Measure accuracy during training on this folder, with one subfolder per class. Default: the labels "
            "of IMAGES' own index, if there are enough; none: no labels.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="Any ViT, Swin or ResNet of timm, as resnet18; of --init, where it doesn't tell.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            metavar="WEIGHTS",
            help="Initial weights: builtin (default), none, a run, a checkpoint, a .pth or .safetensors of weights, "
            "timm:NAME, encoder.onnx.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="ENCODER",
            help="Learn from this encoder: builtin, encoder.onnx, or weights as of --init. It stays as it is.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Number of passes over the images."), Harmless()
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Read settings from a TOML file, such as a run's config.toml. Flags win."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Override one setting; may be repeated."),
        Harmless(lambda pair: _sets_a_number(str(pair))),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps. auto takes a GPU if there is one."
        ),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="Number of GPUs, or of processes on a CPU.")] = 1,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Number of processes that load images; 0 loads in the main process."),
        Harmless(),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Random seed."), Harmless()] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="bf16, fp16 or fp32."), Harmless()] = None,
    accumulate: Annotated[
        int | None,
        typer.Option("--accumulate", min=1, help="Split each batch into this many parts to use less memory."),
        Harmless(),
    ] = None,
    checkpoint_activations: Annotated[
        bool,
        typer.Option("--checkpoint-activations", help="Recompute activations: uses less memory, but is slower."),
        Harmless(),
    ] = False,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the networks: slower start, faster steps. Default: on for long runs on a GPU.",
        ),
    ] = None,
    profile: Annotated[
        int,
        typer.Option("--profile", min=0, metavar="STEPS", help="Trace this many steps to a file in the run's folder."),
    ] = 0,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Print every setting and the run's expected cost, then exit.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Also write an HTML page at the end: figures by step, and nearest neighbours before and after.",
        ),
    ] = None,
    tracker: Annotated[str, typer.Option("--track", help="Also log to wandb or mlflow, besides TensorBoard.")] = "",
    range_: ShownRange = None,
    channels: ShownChannels = None,
    plane: ShownPlane = None,
    name: Annotated[str | None, typer.Option("--name", help="The encoder's name.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Learn an encoder from unlabelled images.

    By default the built-in encoder is adapted to them. --init none trains a network from random weights, --teacher a
    small network that learns from another encoder, and --preset cpu or gpu trains all of a network.

    Examples: massl train ./photos · massl train ./photos --labels ./sorted · massl train ./photos --init none --epochs
    100 · massl train ./photos --resume runs/photos · massl train 'shards/images-{000..123}.tar'
    """
    from cli.judging_labels import choose_labels
    from cli.terminal import print_json, say
    from cli.training_lines import outcome
    from massl.core.errors import MasslError
    from massl.core.files.run_folder import describe_run

    choice = chosen(range_, channels, plane)
    _prepare(report)
    try:
        from cli.planned_run import PlannedRun
        from massl.training import distributed
    except ImportError as error:
        raise MasslError(f"training needs more packages ({error.name}); run: pip install 'massl[train]'") from None
    if devices > 1 and "WORLD_SIZE" not in os.environ and not plan_only:
        raise typer.Exit(distributed.launch(sys.argv[1:], devices))

    from massl.data.sources import check_same, find_source
    from massl.settings import read_overrides

    flags = {"backbone": backbone, "precision": precision, "accumulate": accumulate}
    flags |= {"device": device, "workers": workers, "seed": seed}
    flags |= {"checkpoint_activations": checkpoint_activations or None, "compile": compile}
    overrides = read_overrides(config) if config and not resume else {}
    overrides |= dict(_pair(text) for text in settings or ())
    overrides |= {key: str(value) for key, value in flags.items() if value is not None}
    shown = _of_run(resume, context, flags, settings or ()) if resume else shown_as(images, choice)
    source, skipped = find_source(images, shown)
    judges, judging = choose_labels(images, labels, resume)  # before anything is shown
    to_start = devices if plan_only else None
    if resume:
        if started_on := describe_run(resume).get("images"):
            check_same(source, started_on, None)
        changed = _changed(context, flags, settings or (), epochs, resume, len(source))
        run = PlannedRun.going_on(resume, source, changed, to_start)
        say(f"Going on with {run.folder} on {run.world.device}", quiet or plan_only or run.world.rank > 0)
    else:
        preset, init = _begins(preset, init, overrides, bool(teacher))
        initial = _weights(init, overrides) if init else None
        learns_from = _teacher(teacher) if teacher else None
        run = PlannedRun.new(images, out, source, preset, overrides, epochs, initial, learns_from, to_start, shown)
    if plan_only:
        run.print_plan(as_json)
        return
    quiet = quiet or run.world.rank > 0
    _announce(run, verbose, skipped, judging, quiet)
    summary = _train(run, judges, tracker, profile, quiet)
    if run.world.rank > 0:
        return
    encoder = _export(run, name, quiet)
    _write_report(run, report)
    if as_json:
        print_json({"run": str(run.folder), "encoder": str(encoder), **summary, "left_out": dict(source.left_out)})
    for line in outcome(run, summary, images, labels, profile, encoder, report):
        say(line, quiet)


def _prepare(report: Path | None) -> None:
    from massl.core.files.atomic_writing import check_output

    if report:
        check_output(report)
    _let_threads_sleep()


def _let_threads_sleep() -> None:
    """Bounds how long torch's threads spin while they wait for each other, which is read as torch is loaded.

    At its default of some 300,000 turns two threads train at two fifths of their speed where something else wants one
    of their cores.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _check_changes(context: typer.Context, flags: Mapping[str, object], pairs: Sequence[str]) -> dict[str, str]:
    """The settings that are given to a run that goes on.

    Raises:
        BadParameter: one may not change.
    """
    from massl.settings import CHANGEABLE

    given = dict(_pair(text) for text in pairs) if on_command_line(context, "settings") else {}
    fixed = {"preset", "out", "init", "teacher", "config", "range_", "channels", "plane", *flags} - set(CHANGEABLE)
    if on_command_line(context, *fixed) or not given.keys() <= set(CHANGEABLE):
        raise typer.BadParameter(
            f"--resume goes on with the run's own settings; what may change is {', '.join(CHANGEABLE)}, and --epochs; "
            "leave the rest out"
        )
    return given


def _changed(
    context: typer.Context,
    flags: Mapping[str, object],
    pairs: Sequence[str],
    epochs: int | None,
    run: Path,
    images: int,
) -> dict[str, object]:
    """What a run that goes on has otherwise than it began; raises what `_check_changes` says."""
    from massl.settings import CHANGEABLE, parse_setting, read_settings

    given = _check_changes(context, flags, pairs)
    changed = {name: parse_setting(name, text) for name, text in given.items()}
    if on_command_line(context, "epochs") and epochs:
        changed["steps"] = epochs * (images // read_settings(run / "config.toml").batch)
    return changed | {name: flags[name] for name in CHANGEABLE if on_command_line(context, name)}


def _of_run(run: Path, context: typer.Context, flags: Mapping[str, object], pairs: Sequence[str]) -> ShownAs:
    """How a run that is to go on shows its images.

    Raises:
        BadParameter: something is given that may not change.
        MasslError: there is no such run.
    """
    from massl.core.files.run_folder import run_shown_as
    from massl.settings import read_settings

    _check_changes(context, flags, pairs)
    read_settings(run / "config.toml")  # which says it where there is no run
    return run_shown_as(run)


def _begins(
    preset: str | None, init: str | None, overrides: Mapping[str, str], taught: bool = False
) -> tuple[str | None, str | None]:
    """The preset and the weights of a new run: it adapts the built-in encoder unless another network is asked for.

    Raises:
        BadParameter: weights are given to a network that a teacher teaches.
    """
    if taught and (init or "none") != "none":
        raise typer.BadParameter("a network that learns from --teacher begins with random weights; leave --init out")
    if init == "none" or taught:
        return preset, None
    if preset is None and "backbone" not in overrides:
        preset = "adapt"
    return preset, init or ("builtin" if preset == "adapt" else None)


def _weights(source: str, overrides: dict[str, str]) -> Initial:
    """The weights to begin with; the network that is asked for is called as they call it, with or without a tag."""
    from massl.encoder.weights import read_initial

    initial = read_initial(or_builtin(source), overrides.get("backbone"))
    if "backbone" in overrides:
        overrides["backbone"] = initial.architecture
    return initial


def _teacher(named: str) -> Teacher:
    """The encoder to learn from, by a name that holds in whatever folder the run is taken up again."""
    from massl.training.teaching import Teacher

    return Teacher(
        named if named == "builtin" or named.startswith("timm:") else os.path.abspath(named), or_builtin(named)
    )


def _announce(run: PlannedRun, verbose: bool, skipped: Sequence[Skipped], judging: str, quiet: bool) -> None:
    from cli.terminal import say
    from massl.core.files.scan import left_out_line

    if quiet:
        return
    if not run.resumed:
        run.show_table(whole=verbose)
        say("  -v or --plan prints all settings", quiet=verbose)
    for line in run.shown_lines():
        say(f"  {line}")
    if judging:
        say(f"  {judging}")
    for note in run.notes():
        say(f"  note: {note}")
    for item in skipped[:SHOWN]:
        say(f"  skipped {item.path!r}: {item.reason}")
    if len(skipped) > SHOWN:
        say(f"  and {len(skipped) - SHOWN:,} more")
    if left_out := left_out_line(run.source.left_out):
        say(f"  left out: {left_out}")


def _train(
    run: PlannedRun, judges: Path | LabelledFiles | None, tracker: str, profile: int, quiet: bool
) -> dict[str, Any]:
    """Trains with its progress shown; a signal asks for a checkpoint and an end."""
    from cli.terminal import ProgressLine, say
    from cli.training_lines import accuracy, agreement, step_figures
    from massl.training.loop import TrainingProgress, train

    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: _on_signal(interrupted, number))
    signal.signal(signal.SIGTERM, lambda number, frame: _on_signal(interrupted, number))
    try:
        with ProgressLine("Training", "steps", quiet) as line:
            embeds = run.settings.adapter
            if embeds:
                line.begin("Embedding views", "views")
            elif run.settings.teacher_dim:
                embeds = True
                line.begin("The teacher embeds", "images")

            def report(progress: TrainingProgress) -> None:
                nonlocal embeds
                now = progress.metrics
                if now and "step" not in now:
                    if "knn_start" in now:
                        say(f"  before training: k-NN accuracy {now['knn_start']:.1%}", quiet)
                    return
                if not now:
                    line.update(progress.step, progress.steps)
                    return
                if embeds:
                    embeds = False
                    line.begin("Training", "steps")
                if "knn_top1" in now:
                    say(f"  step {progress.step:,}: {accuracy(now)}", quiet)
                elif "agreement" in now:
                    say(f"  step {progress.step:,}: {agreement(now)}", quiet)
                for warning in progress.warnings:
                    say(f"  warning: {warning}", quiet)
                line.update(progress.step, progress.steps, step_figures(now, run.settings.adapter))

            return train(
                run.source, run.folder, run.settings, resume=run.resumed, labelled=judges, tracker=tracker,
                profile=profile, initial=run.initial, teacher=run.teacher,
                world=run.world, report=report, stop=lambda: bool(interrupted),
            )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, interrupt)
        run.world.leave()


def _export(run: PlannedRun, name: str | None, quiet: bool) -> Path:
    from cli.terminal import say
    from massl.encoder.export import export_run
    from massl.training.loop import Interrupted

    say("Writing the encoder, and comparing it with the network", quiet)
    try:
        return export_run(run.folder, name or run.folder.name, run.source)
    except KeyboardInterrupt:
        again = f"massl export {run.folder} --out {run.folder / 'encoder.onnx'}"
        raise Interrupted(f"interrupted; the checkpoint is kept. To export its encoder, run: {again}") from None


def _write_report(run: PlannedRun, report: Path | None) -> None:
    if report:
        from massl.training.run_report import write_run_report

        write_run_report(report, run.folder, run.source)


def _on_signal(seen: list[int], number: int) -> None:
    """The first signal asks for a checkpoint and an end; a second one ends at once."""
    if seen:
        raise KeyboardInterrupt
    seen.append(number)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set takes name=value, not {text!r}")
    return name.strip().replace("-", "_"), value.strip()


def _sets_a_number(pair: str) -> bool:
    """Whether a setting is a number, which can name no network to be fetched, as a name can."""
    from massl.settings import Settings

    default = getattr(Settings, pair.partition("=")[0].strip().replace("-", "_"), None)
    return isinstance(default, (int, float)) and not isinstance(default, bool)
