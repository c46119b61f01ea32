"""`massl export`."""

from __future__ import annotations

import importlib.resources
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.configuration import Harmless
from cli.deep_images import ShownChannels, ShownPlane, ShownRange, chosen, shown_as
from cli.options import Json, Quiet, Verbose, or_builtin
from massl.core.encoder_contract import LARGEST_SIDE, MOST_SIZES

if TYPE_CHECKING:
    from massl.core.images.rendering import RenderingChoice
    from massl.data.sources import Source

SMALLEST = 16  # pixels


class ExportPrecision(StrEnum):
    """Of the weights in the exported file."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A run, a checkpoint, weights (.pth, .safetensors: DINO's, DINOv2's, timm's), an encoder.onnx, "
            "builtin, or timm:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("encoder.onnx"),
    precision: Annotated[
        ExportPrecision | None,
        typer.Option("--precision", help="Precision of the weights. Default: that of an encoder file, else fp32."),
        Harmless(),
    ] = None,
    image_sizes: Annotated[
        str,
        typer.Option(
            "--image-size",
            metavar="PIXELS",
            help="Side of the input in pixels. A vision transformer takes several, such as 112,168,224, the default "
            "first. Default: the size of training.",
        ),
        Harmless(),
    ] = "",
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", metavar="NAME", help="The network that weights are of, where they don't tell."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The encoder's name.")] = None,
    stages: Annotated[
        bool,
        typer.Option("--stages", help="Embed with all stages of a convolutional network, as runs do by default."),
        Harmless(),
    ] = False,
    projection: Annotated[
        bool | None,
        typer.Option(
            "--projection/--no-projection",
            help="Embed by the projection head of a run, too, or not. Default: with it if the run had a --teacher.",
            show_default=False,
        ),
        Harmless(),
    ] = None,
    whiten: Annotated[
        Path | None, typer.Option("--whiten", metavar="IMAGES", help="Whiten the embeddings by these images.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="IMAGES",
            help="Images to calibrate the int8 of a transformer on. Default: the run's images, else the demo's.",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            "--whiten-strength",
            min=0,
            max=1,
            help="Strength of the whitening, up to 1, which harms results with few labels. Default: 0.75 if the run "
            "began with an encoder, else 0.5.",
        ),
        Harmless(),
    ] = None,
    own: Annotated[
        float,
        typer.Option(
            "--whiten-own",
            min=0,
            max=1,
            help="Share of IMAGES in the whitening, if the run began with an encoder; else 1.",
        ),
        Harmless(),
    ] = 0.15,
    evaluation: Annotated[
        Path | None,
        typer.Option("--evaluation", help="JSON file with figures by data set, stored in the encoder file."),
    ] = None,
    range_: ShownRange = None,
    channels: ShownChannels = None,
    plane: ShownPlane = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write an encoder as one self-describing ONNX file.

    Examples: massl export runs/photos --precision int8 · massl export builtin --whiten ./photos -o photos.onnx ·
    massl export timm:vit_small_patch16_224.dino --precision int8 · massl export dinov2_vits14_pretrain.pth --image-size
    224 · massl export resnet50.pth --backbone resnet50
    """
    from cli.terminal import print_json, say
    from massl.core.errors import MasslError

    try:
        from massl.core.files.atomic_writing import check_output
        from massl.encoder.export import export
    except ImportError as error:
        raise MasslError(f"exporting needs more packages ({error.name}); run: pip install 'massl[train]'") from None
    choice = chosen(range_, channels, plane)
    if out.parent.is_dir():  # else it is made
        check_output(out)
    with importlib.resources.as_file(importlib.resources.files("cli") / "pictures") as pictures:
        written = export(
            or_builtin(source),
            out,
            precision=precision and precision.value,
            image_sizes=_sizes(image_sizes),
            backbone=backbone,
            name=name,
            stages=stages,
            whiten=_shown(whiten, choice) if whiten else None,
            calibrate=_shown(calibrate, choice) if calibrate else None,
            default_images=pictures,
            strength=strength,
            own=own,
            evaluation=_figures(evaluation),
            projection=projection,
            tell=lambda step: say(f"{step} …", quiet),
        )
    if as_json:
        print_json(written)
    say(
        f"{out}: {written['bytes'] / 1e6:.1f} MB, {written['dim']}-d, {', '.join(map(str, written['image_sizes']))} px",
        quiet,
    )


def _shown(images: Path, choice: RenderingChoice) -> Source:
    """Images to learn from, shown as is chosen, else as their index shows them."""
    from massl.data.source_rendering import measured
    from massl.data.sources import find_source

    source, _ = find_source(images, shown_as(images, choice))
    source.shown_as = measured(source, source.shown_as)
    return source


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(f"--image-size takes pixels, as 224 or 112,168,224, not {text!r}") from None
    if any(size < SMALLEST for size in sizes):
        raise typer.BadParameter(f"--image-size must be at least {SMALLEST} pixels")
    if any(size > LARGEST_SIDE for size in sizes):
        raise typer.BadParameter(f"--image-size must be at most {LARGEST_SIDE:,} pixels")
    if len(set(sizes)) > MOST_SIZES:
        raise typer.BadParameter(f"--image-size takes at most {MOST_SIZES} sizes, not {len(set(sizes))}")
    return sizes


def _figures(path: Path | None) -> dict[str, object] | None:
    from massl.core.disk_errors import reason_of
    from massl.core.regular_files import read_regular

    if path is None:
        return None
    try:
        figures = json.loads(read_regular(path))
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be read: {reason_of(error, 'there is no such file')}") from None
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(figures, dict):
        raise typer.BadParameter(f"{path} must hold one JSON object")
    return figures
