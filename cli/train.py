"""`massl train`."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.interrupts import interrupt
from cli.options import Json, Quiet, Verbose, on_command_line, or_builtin

if TYPE_CHECKING:
    from massl.settings import Choice, Settings


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
        typer.Option("--preset", envvar="MASSL_PRESET", help="cpu, gpu, vit-s16-paper or vit-b16-paper."),
        Harmless(),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run's folder; a new one below ./runs if left out."),
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Go on with this run.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="FOLDER", help="Measure on it while training: images with a subfolder a class."
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
            help="Begin with them: builtin, a run, a checkpoint, a .pth or .safetensors of weights, timm:NAME, "
            "encoder.onnx.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the images."), Harmless()] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Override one setting; may be given again."),
        Harmless(lambda pair: _sets_a_number(str(pair))),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps; auto is a GPU if there is one."),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="GPUs, or processes on a CPU.")] = 1,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that load images; 0: none."), Harmless()
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything that is drawn."), Harmless()] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="bf16, fp16 or fp32."), Harmless()] = None,
    accumulate: Annotated[
        int | None,
        typer.Option("--accumulate", min=1, help="Cut each batch into as many parts: less memory."),
        Harmless(),
    ] = None,
    checkpoint_activations: Annotated[
        bool, typer.Option("--checkpoint-activations", help="Recompute activations: less memory, slower."), Harmless()
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the networks: a slow start, faster steps.")
    ] = False,
    profile: Annotated[
        int,
        typer.Option("--profile", min=0, metavar="STEPS", help="Trace so many steps to a file in the run's folder."),
    ] = 0,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Print every setting and what the run will take, and do nothing else.")
    ] = False,
    tracker: Annotated[str, typer.Option("--track", help="wandb or mlflow, besides TensorBoard.")] = "",
    name: Annotated[str | None, typer.Option("--name", help="What the encoder calls itself.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Learn an encoder from unlabelled images.

    Examples: massl train ./photos · massl train ./photos --epochs 100 --set learning_rate=1e-3 · massl train ./photos
    --init builtin --labels ./sorted · massl train ./photos --resume runs/photos · massl train
    'shards/images-{000..123}.tar'
    """
    from cli.terminal import ProgressLine, print_json, say
    from massl.core.errors import MasslError

    if "OMP_WAIT_POLICY" not in os.environ:
        # How long torch's threads spin while they wait for each other, read as torch is loaded. At its default of some
        # 300,000 turns two threads train at two fifths of their speed where something else wants one of their cores.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        from massl.training import distributed
        from massl.training.loop import Interrupted, fast_precision, train
    except ImportError as error:
        raise MasslError(f"training needs more packages ({error.name}); run: pip install 'massl[train]'") from None
    if devices > 1 and "WORLD_SIZE" not in os.environ and not plan_only:
        raise typer.Exit(distributed.launch(sys.argv[1:], devices))

    from massl.core.files.run_folder import check_new
    from massl.core.files.scan import left_out_line
    from massl.data.sources import doubts, find_source
    from massl.encoder.export import export_run
    from massl.settings import OF_THE_MACHINE, Choice, Settings, concerns, differing, plan, read_settings
    from massl.training.accumulation import parts_note
    from massl.training.devices import choose_device, unused_gpus
    from massl.training.loading import plan_loading, usual_workers
    from massl.training.probe import find_classes

    overrides = dict(_pair(text) for text in settings or ())
    flags = {"backbone": backbone, "precision": precision, "accumulate": accumulate}
    flags |= {"device": device, "workers": workers, "seed": seed}
    flags |= {"checkpoint_activations": checkpoint_activations or None, "compile": compiled or None}
    overrides |= {key: str(value) for key, value in flags.items() if value is not None}
    source, skipped = find_source(images)
    if labels:
        find_classes(labels)  # before anything is shown
    initial = _weights(init, overrides.get("backbone")) if init and not resume else None
    if initial and "backbone" in overrides:
        overrides["backbone"] = initial.architecture  # the same network, with or without a tag
    stored = None
    if resume:
        fixed = flags.keys() - set(OF_THE_MACHINE)
        if on_command_line(context, "preset", "out", "epochs", "settings", "init", "compiled", *fixed):
            raise typer.BadParameter("--resume goes on with the run's own settings; leave the other flags out")
        anew: dict[str, Any] = {name: flags[name] for name in OF_THE_MACHINE if on_command_line(context, name)}
        stored = replace(read_settings(resume / "config.toml"), **anew)
    named = stored.device if stored else overrides.get("device", Settings.device)
    world = distributed.World.join(choose_device(named))
    quiet = quiet or world.rank > 0
    ranks, ranks_here = (devices, devices) if plan_only and world.size == 1 else (world.size, world.size_here)
    if resume and stored:
        folder, chosen, preset = resume, stored, ""
        table = [Choice(name, value, "of the run") for name, value in asdict(stored).items()]
        say(f"Going on with {folder} on {world.device}", quiet or plan_only)
    else:
        folder = Path(world.share(str(out or _new_folder(images))))
        if world.share((folder / "config.toml").exists()):  # one rank looks: another may have begun
            check_new(folder)
        preset = preset or ("cpu" if world.device.type == "cpu" else "gpu")
        usual = usual_workers(ranks_here)
        begins = initial and initial.begins
        augment = "device" if world.device.type == "cuda" else "loader"
        chosen, table = plan(
            preset, len(source), overrides, epochs, fast_precision(world.device), usual, begins, augment
        )
        if not quiet and not plan_only:
            _show(table if verbose else differing(table, preset), len(source), world.device, ranks, preset)
            say("  all else as the preset has it; -v or --plan shows it", quiet=verbose)
    notes: list[str] = []
    if plan_only or not quiet:
        shortage = plan_loading(chosen, ranks, ranks_here).note
        idle = unused_gpus(world.device, ranks_here) if named in ("auto", "cuda") else ""
        parts = parts_note(chosen, ranks)
        found = [*concerns(chosen, len(source)), *doubts(source, chosen.image_size), shortage, idle, parts]
        notes = [note for note in found if note]
    if plan_only:
        _plan(table, chosen, len(source), world.device, ranks, preset or "", folder, notes, as_json)
        return
    for note in notes:
        say(f"  note: {note}", quiet)
    for item in skipped[:SHOWN]:
        say(f"  skipped {item.path!r}: {item.reason}", quiet)
    if len(skipped) > SHOWN:
        say(f"  and {len(skipped) - SHOWN:,} more", quiet)
    if left_out := left_out_line(source.left_out):
        say(f"  left out: {left_out}", quiet)
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: _on_signal(interrupted, number))
    signal.signal(signal.SIGTERM, lambda number, frame: _on_signal(interrupted, number))
    try:
        with ProgressLine("Training", "steps", quiet) as line:

            def report(progress: Any) -> None:
                now = progress.metrics
                note = (
                    f"loss {now['loss']:.3f}, rank {now['rank']:.0f}, {now['images_per_second']:.0f} images/s, "
                    f"{1000 * now['step_seconds']:,.0f} ms a step, {now['data_wait_share']:.0%} of it waiting for "
                    f"images, peak memory {_size(now['peak_bytes'])}"
                )
                if "knn_top1" in now:
                    say(f"  step {progress.step:,}: k-NN {now['knn_top1']:.1%}, rank {now['rankme']:.0f}", quiet)
                for warning in progress.warnings:
                    say(f"  warning: {warning}", quiet)
                line.update(progress.step, progress.steps, note)

            summary = train(
                source, folder, chosen, resume=bool(resume), labelled=labels, tracker=tracker, profile=profile,
                initial=initial, world=world, report=report, stop=lambda: bool(interrupted),
            )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, interrupt)
        world.leave()
    if world.rank > 0:
        return
    try:
        encoder = export_run(folder, name or folder.name, source)
    except KeyboardInterrupt:
        again = f"massl export {folder} --out {folder / 'encoder.onnx'}"
        raise Interrupted(f"interrupted; what was learnt is kept, its encoder is still to be made: {again}") from None
    if as_json:
        print_json({"run": str(folder), "encoder": str(encoder), **summary, "left_out": dict(source.left_out)})
    say(f"Trained in {summary['seconds']:.0f} s: {encoder}", quiet)
    if summary["trace"]:
        say(f"  trace of {profile} steps, for https://ui.perfetto.dev: {summary['trace']}", quiet)
    for item in summary["skipped"][:5]:
        say(f"  skipped {item['path']!r}: {item['reason']}", quiet)
    best, last = summary["best"], summary["metrics"]
    if best.get("metric") == "knn_top1" and "knn_top1" in last:
        say(f"  k-NN top-1 on {labels or 'the labelled images'}: {last['knn_top1']:.1%}", quiet)
        if best["step"] < chosen.steps and best["value"] > last["knn_top1"] + 0.01:
            as_here = f" --stages --whiten {images}" if "knn_last" in last else ""
            say(
                f"  it was better at step {best['step']:,} ({best['value']:.1%}); to use that one: "
                f"massl export {folder / 'checkpoints' / 'best.pt'}{as_here} --out {encoder}",
                quiet,
            )
    say(f"Use it: massl index {images if images.is_dir() else 'IMAGES'} --encoder {encoder} --rebuild", quiet)


def _weights(source: str, backbone: str | None) -> Any:
    from massl.encoder.weights import read_initial

    return read_initial(or_builtin(source), backbone)


def _on_signal(seen: list[int], number: int) -> None:
    """The first signal asks for a checkpoint and an end; a second one ends at once."""
    if seen:
        raise KeyboardInterrupt
    seen.append(number)


def _new_folder(images: Path) -> Path:
    # Of a list or a shard the name alone, of a pattern what stands before it.
    name = images.resolve().name if images.is_dir() else re.split(r"[{*?\[]", images.stem)[0].strip("-_. ")
    base = Path("runs") / (name or "images")
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


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


def _show(
    table: list[Choice], images: int, device: Any, ranks: int, preset: str, on_standard_output: bool = False
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from massl.core.printable import visible

    where = f"{ranks} times {device.type}" if ranks > 1 else str(device)
    title = f"{images:,} images, on {where}" + (f", preset {preset}" if preset else "")
    view = Table("setting", "value", "why", title=title, box=None)
    for choice in table:
        view.add_row(choice.name, Text(visible(str(choice.value))), choice.why)
    Console(stderr=not on_standard_output).print(view)


def _plan(
    table: list[Choice], chosen: Settings, images: int, device: Any, ranks: int, preset: str, folder: Path,
    notes: list[str], as_json: bool,
) -> None:  # fmt: skip
    """Prints what `massl train` would do and what it would take."""
    from cli.terminal import print_json, print_line
    from massl.core.errors import MasslError
    from massl.training.accumulation import check_parts
    from massl.training.cost import cost_of, free_space

    if chosen.batch % ranks:
        raise MasslError(f"batch ({chosen.batch}) must be a multiple of the {ranks} devices that share it")
    check_parts(chosen, ranks, ranks > 1 and device.type == "cuda")
    cost, free = cost_of(chosen, ranks, device.type), free_space(folder)
    if cost.disk > free:
        notes = [*notes, f"{folder} needs {_size(cost.disk)}, and {_size(free)} are free there"]
    if as_json:
        # JSON has no infinity, which `clip` may be.
        settings = {
            choice.name: {"value": None if choice.value == math.inf else choice.value, "why": choice.why}
            for choice in table
        }
        about = {"images": images, "device": str(device), "devices": ranks, "preset": preset or None}
        print_json({**about, "run": str(folder), "settings": settings, "cost": asdict(cost), "notes": notes})
        return
    _show(table, images, device, ranks, preset, on_standard_output=True)
    each = f" on each of {ranks} devices" if ranks > 1 else ""
    memory = f"memory: {_size(cost.fixed)}{each}, and what a step keeps of its images, which isn't known beforehand"
    if cost.image is not None and cost.device is not None:
        memory = (
            f"memory: {_size(cost.device)}{each}, and temporaries on top: {_size(cost.fixed)} whatever the batch, and "
            f"{_size(cost.image)} for each of {cost.part:,} images at a time"
        )
    rows = {
        "steps": f"{chosen.steps:,} of {chosen.batch:,} images",
        "images": f"{cost.images_seen:,} seen, each about {cost.images_seen / images:,.0f} times",
        "parameters": f"{cost.parameters / 1e6:,.1f} million, the head included",
        "device": memory,
        "checkpoint": f"{_size(cost.checkpoint)}, one every {chosen.checkpoint_every:,} steps, the last "
        f"{chosen.keep_checkpoints:,} and the best are kept",
        "disk": f"up to {_size(cost.disk)} in {folder}, where {_size(free)} are free",
        "time": "not known before it runs; its first lines tell",
    }
    print_line("")
    for name, value in rows.items():
        print_line(f"  {name:<12} {value}")
    for note in notes:
        print_line(f"  note: {note}")


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
