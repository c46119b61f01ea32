"""`massl export`."""

from __future__ import annotations

import importlib.resources
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.configuration import Harmless
from cli.options import Json, Quiet, Verbose, or_builtin
from massl.core.encoder_contract import LARGEST_SIDE, MOST_SIZES

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
        typer.Option("--precision", help="Of the weights; an encoder file's own, else fp32, if left out."),
        Harmless(),
    ] = None,
    image_sizes: Annotated[
        str,
        typer.Option(
            "--image-size",
            metavar="PIXELS",
            help="Side of the input; of a vision transformer several, as 112,168,224, the usual one first. That of "
            "training if left out.",
        ),
        Harmless(),
    ] = "",
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", metavar="NAME", help="The network that weights are of, where they don't tell."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the encoder calls itself.")] = None,
    stages: Annotated[
        bool,
        typer.Option("--stages", help="Embed by all stages of a convolutional network, as runs do unasked."),
        Harmless(),
    ] = False,
    whiten: Annotated[
        Path | None, typer.Option("--whiten", metavar="IMAGES", help="Whiten the embeddings by these images.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="IMAGES",
            help="For int8 of a transformer: images like yours, which show how large its values get. A run's own, else "
            "the demo's, if left out.",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            "--whiten-strength",
            min=0,
            max=1,
            help="1 whitens in full, which few labels suffer from; if left out 0.75 where the run began with an "
            "encoder, else 0.5.",
        ),
        Harmless(),
    ] = None,
    own: Annotated[
        float,
        typer.Option(
            "--whiten-own", min=0, max=1, help="Share of IMAGES in it, if the run began with an encoder; else 1."
        ),
        Harmless(),
    ] = 0.15,
    evaluation: Annotated[
        Path | None, typer.Option("--evaluation", help="JSON of figures by data set, to keep in the file.")
    ] = None,
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
        from massl.data.sources import find_source
        from massl.encoder.export import export
    except ImportError as error:
        raise MasslError(f"exporting needs more packages ({error.name}); run: pip install 'massl[train]'") from None
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
            whiten=find_source(whiten)[0] if whiten else None,
            calibrate=find_source(calibrate)[0] if calibrate else None,
            default_images=pictures,
            strength=strength,
            own=own,
            evaluation=_figures(evaluation),
            tell=lambda step: say(f"{step} …", quiet),
        )
    if as_json:
        print_json(written)
    say(
        f"{out}: {written['bytes'] / 1e6:.1f} MB, {written['dim']}-d, {', '.join(map(str, written['image_sizes']))} px",
        quiet,
    )


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
    if path is None:
        return None
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(figures, dict):
        raise typer.BadParameter(f"{path} must hold one JSON object")
    return figures
