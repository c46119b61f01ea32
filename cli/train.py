"""`massl train`."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Images, Json, Quiet, Verbose

if TYPE_CHECKING:
    from massl.settings import Choice


COLLAPSED = 4  # effective rank of a batch of projections (RankMe) below which a run has come to nothing


def command(
    images: Images,
    preset: Annotated[
        str | None,
        typer.Option("--preset", envvar="MASSL_PRESET", help="cpu, gpu, vit-s16-paper or vit-b16-paper."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run's folder; a new one below ./runs if left out."),
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Go on with this run.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the images.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Override one setting; may be given again."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the encoder calls itself.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Learn an encoder from a folder of unlabelled images.

    Examples: massl train ./photos · massl train ./photos --epochs 100 --set learning_rate=1e-3 · massl train ./photos
    --resume runs/photos
    """
    from cli.terminal import ProgressLine, print_json, say
    from massl.errors import MasslError

    try:
        from massl.images import find_images
        from massl.train import default_device, fast_precision, train
    except ImportError as error:
        raise MasslError(f"training needs more packages ({error.name}); run: pip install 'massl[train]'") from None
    import os

    from massl.export import export_run
    from massl.settings import plan, read_settings

    overrides = dict(_pair(text) for text in settings or ())
    paths, skipped = find_images(images)
    device = default_device()
    if resume:
        if preset or out or epochs or overrides:
            raise typer.BadParameter("--resume goes on with the run's own settings; leave the other flags out")
        folder, chosen = resume, read_settings(resume / "config.toml")
        say(f"Going on with {folder} on {device}", quiet)
    else:
        folder = out or _new_folder(images)
        preset = preset or ("cpu" if device.type == "cpu" else "gpu")
        chosen, table = plan(
            preset, len(paths), overrides, epochs, fast_precision(device), workers=min(8, os.cpu_count() or 1)
        )
        if not quiet:
            _show(table, len(paths), device, preset)
    for item in skipped:
        say(f"  skipped {item.path!r}: {item.reason}", quiet)
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: _on_signal(interrupted, number))
    signal.signal(signal.SIGTERM, lambda number, frame: _on_signal(interrupted, number))
    started = time.monotonic()
    try:
        with ProgressLine("Training", "steps", quiet) as line:

            def report(progress: Any) -> None:
                now = progress.metrics
                note = f"loss {now['loss']:.3f}, rank {now['rank']:.0f}, {now['images_per_second']:.0f} images/s"
                line.update(progress.step, progress.steps, note)

            summary = train(
                images, paths, folder, chosen, resume=bool(resume), report=report, stop=lambda: bool(interrupted)
            )
    finally:
        signal.signal(signal.SIGINT, before)
    encoder = export_run(folder, name=name or folder.name)
    if as_json:
        print_json({"run": str(folder), "encoder": str(encoder), **summary})
    say(f"Trained in {time.monotonic() - started:.0f} s: {encoder}", quiet)
    for item in summary["skipped"][:5]:
        say(f"  skipped {item['path']!r}: {item['reason']}", quiet)
    if summary["metrics"].get("rank", 99) < COLLAPSED:
        say(
            "The encoder has collapsed: it sees all images alike, and will not find anything. Try more images or "
            "epochs, a lower rate (--set learning_rate=5e-4), or --set backbone=resnet18, which learns faster.",
            quiet,
        )
    say(f"Use it: massl index {images} --encoder {encoder}", quiet)


def _on_signal(seen: list[int], number: int) -> None:
    """The first signal asks for a checkpoint and an end; a second one ends at once."""
    if seen:
        raise KeyboardInterrupt
    seen.append(number)


def _new_folder(images: Path) -> Path:
    base = Path("runs") / (images.resolve().name or "images")
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set takes name=value, not {text!r}")
    return name.strip().replace("-", "_"), value.strip()


def _show(table: list[Choice], images: int, device: object, preset: str) -> None:
    from rich.console import Console
    from rich.table import Table

    view = Table("setting", "value", "why", title=f"{images:,} images, on {device}, preset {preset}", box=None)
    for choice in table:
        view.add_row(choice.name, str(choice.value), choice.why)
    Console(stderr=True).print(view)
