"""`massl embed`."""

from __future__ import annotations

import re
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.configuration import Harmless
from cli.deep_images import ShownChannels, ShownPlane, ShownRange, chosen, shown_as
from cli.index import ImageSize, MaxMegapixels
from cli.options import EncoderFile, Json, Quiet, RuntimeName, RuntimeOption, Verbose


class EmbedEngine(StrEnum):
    """What embeds: this process, or the workers of a Ray cluster."""

    local = "local"
    ray = "ray"


def command(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES",
            help="A folder, a list of paths (.txt, .csv), a .tar, a folder of them, a pattern as '{000..123}.tar', or "
            "the address of such in an object store, as s3://bucket/photos.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PARQUET", help="The file to write.")],
    encoder: EncoderFile = None,
    image_size: ImageSize = None,
    range_: ShownRange = None,
    channels: ShownChannels = None,
    plane: ShownPlane = None,
    part: Annotated[
        str,
        typer.Option(
            "--part",
            metavar="K/N",
            help="Embed only the K-th of N parts, for one of N workers. Parts are whole blocks of 4,096 images.",
        ),
    ] = "1/1",
    engine: Annotated[
        EmbedEngine,
        typer.Option("--engine", help="ray embeds with the workers of a Ray cluster: RAY_ADDRESS, or of this machine."),
    ] = EmbedEngine.local,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Workers of --engine ray. Default: one for four cores.")
    ] = None,
    max_megapixels: MaxMegapixels = None,
    runtime: RuntimeOption = RuntimeName.auto,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a file was skipped."), Harmless()] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Embed images to a Parquet file, without a collection; run it again to go on after an interruption.

    Examples: massl embed ./photos -o photos.parquet · massl embed 's3://bucket/{000..099}.tar' -o 3.parquet --part 3/16
    """
    from cli.terminal import ProgressLine, print_json, say
    from indexer import Encoder
    from indexer.ingest.bulk_embedding import BlockWork, embed_source
    from indexer.ingest.embedding_table import check_installed
    from indexer.ingest.ray_engine import RayEngine
    from massl.core.files.atomic_writing import check_output
    from massl.core.images.decoding import MAX_PIXELS
    from massl.data.objects import READERS, find_objects, is_address, lists_addresses
    from massl.data.sources import find_source

    wanted = _part(part)
    choice = chosen(range_, channels, plane)
    if workers is not None and engine is EmbedEngine.local:
        raise typer.BadParameter("--workers is for --engine ray; this process embeds on all its cores")
    check_installed()
    if is_address(str(out).replace(":/", "://", 1)):
        raise typer.BadParameter(f"--out takes a file of this machine, not {str(out)[:60]!r}")
    check_output(out)
    started = time.monotonic()
    remote = is_address(images) or lists_addresses(Path(images))
    shown = shown_as(None if remote else Path(images), choice)
    source, passed_over = find_objects(images) if remote else find_source(_for_workers(Path(images), engine), shown)
    own = Encoder.load(encoder, image_size=image_size)
    max_pixels = MAX_PIXELS if max_megapixels is None else round(max_megapixels * 1e6)
    work = BlockWork.shown(source, shown, max_pixels, READERS if remote else None)
    ray = RayEngine(own, runtime.value, workers) if engine is EmbedEngine.ray else None
    with ProgressLine("Embedding", "images", quiet) as line:
        many = own if ray else own.for_many(len(source), runtime.value)
        report = embed_source(work, many, out, line.update, wanted, ray)
    skipped = [*passed_over, *report.skipped] if wanted[0] == 1 else report.skipped
    seconds = time.monotonic() - started
    if as_json:
        print_json(
            {
                "out": str(out),
                "images": report.images,
                "embedded": report.embedded,
                "skipped": [{"path": item.path, "reason": item.reason} for item in skipped],
                "shown_as": work.shown_as.facts(),
                "encoder": {"name": own.name, "sha256": own.sha256, "dim": own.dim, "image_size": own.image_size},
                "runtime": ("+".join(sorted(ray.runtimes)) if ray else many.runtime) if report.embedded else None,
                "seconds": round(seconds, 3),
                "images_per_second": round(report.embedded / seconds, 1),
            }
        )
    left = f"; {len(skipped):,} skipped" if skipped else ""
    say(f"{report.images:,} images in {out}, {report.embedded:,} embedded now, in {seconds:.1f} s{left}", quiet)
    for item in skipped[: None if verbose else 5]:
        say(f"  skipped {item.path!r}: {item.reason}", quiet)
    if strict and skipped:
        raise typer.Exit(1)


def _for_workers(images: Path, engine: EmbedEngine) -> Path:
    """A path that means the same in the processes that read it: those of a cluster begin in other folders."""
    return images.absolute() if engine is EmbedEngine.ray else images


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise typer.BadParameter(f"--part takes K/N, as 3/16: the third of sixteen parts; not {text[:20]!r}")
    return int(found[1]), int(found[2])
