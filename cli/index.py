"""`massl index`."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.deep_images import chosen
from cli.interrupts import interrupt
from cli.options import (
    EncoderFile,
    ImagesArgument,
    IndexDir,
    Json,
    Quiet,
    RuntimeName,
    RuntimeOption,
    Verbose,
    on_command_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from indexer import Collection, Encoder, IndexReport
    from indexer.ingest.embedding_table import EmbeddingTables
    from indexer.ingest.indexing import IndexProgress
    from indexer.store.tiling import Tiling

Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Leave out files and folders with this name (cache, '*.gif') or path (2019/drafts). May be repeated. "
        "Remembered until it is given again; '' forgets it.",
        show_default=False,
    ),
    Harmless(),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="PATTERN",
        help="Index what is left out by default: hidden files and folders ('.*', .drafts) and system folders "
        "(@eaDir, '#recycle'). Remembered like --exclude.",
        show_default=False,
    ),
]
MaxMegapixels = Annotated[
    float | None,
    typer.Option(
        "--max-megapixels",
        envvar="MASSL_MAX_MEGAPIXELS",
        min=0.0,
        max=1_000_000.0,
        help="The largest image to read. Default: 179. Remembered. Images that don't fit into the free memory are "
        "skipped in any case.",
        show_default=False,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        metavar="PIXELS",
        min=1,
        help="Input size of the encoder in pixels, one that its file lists (massl info ENCODER). Larger sizes show "
        "more detail and take more work. Remembered; a change needs --rebuild.",
        show_default=False,
    ),
]
DisplayRange = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="RANGE",
        help="What becomes black and white in images of more than 8 bits: collection (the same for all, measured on "
        "the first ones), file, LOW:HIGH, or bits=12. Default: collection. Remembered; a change needs --rebuild.",
        show_default=False,
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="NAMES",
        help="Channels of stacks to read, up to three, by name or number from 1 (DAPI,GFP): they become red, green "
        "and blue. Default: the first. Remembered; a change needs --rebuild. Needs the extra sci.",
        show_default=False,
    ),
]
Plane = Annotated[
    str | None,
    typer.Option(
        "--plane",
        metavar="PLANE",
        help="Plane of stacks to read: max (the brightest value of all planes), middle, a number from 1, or each: a "
        "picture of its own, as stack.tif#12. Default: the first. Remembered; a change needs --rebuild. Needs "
        "the extra sci.",
        show_default=False,
    ),
]
Tiles = Annotated[
    str | None,
    typer.Option(
        "--tiles",
        metavar="SIZE[:OVERLAP]",
        help="Also cut pictures into square tiles of so many pixels, so that a small thing in a large scan is found. "
        "Remembered; a change needs --rebuild; none goes back.",
        show_default=False,
    ),
]
SkippedFile = Annotated[
    Path | None,
    typer.Option(
        "--skipped", metavar="CSV", help="Write the skipped files and the reasons to this file.", show_default=False
    ),
]


def _engine_names() -> list[str]:
    from indexer.search.engines import engine_choice

    return engine_choice.names()


EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        autocompletion=_engine_names,
        help="Search engine: faiss (files beside the catalog) or milvus (a server). Remembered.",
        show_default=False,
    ),
]
EngineAddress = Annotated[
    str | None,
    typer.Option(
        "--engine-uri",
        envvar="MASSL_ENGINE_URI",
        metavar="URI",
        help="Address of the engine: http://HOST:19530. The embeddings are sent there. A password goes into "
        "MASSL_ENGINE_TOKEN, as USER:PASSWORD.",
        show_default=False,
    ),
]


FAISS = "faiss"
SHOWN = 5  # skipped files that are named where nobody asked for all


def command(
    context: typer.Context,
    images: ImagesArgument,
    encoder: EncoderFile = None,
    image_size: ImageSize = None,
    range_: DisplayRange = None,
    channels: Channels = None,
    plane: Plane = None,
    tiles: Tiles = None,
    index_dir: IndexDir = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Embed everything again; labels stay.")] = False,
    exclude: Exclude = None,
    include: Include = None,
    max_megapixels: MaxMegapixels = None,
    skipped: SkippedFile = None,
    runtime: RuntimeOption = RuntimeName.auto,
    engine: EngineOption = None,
    engine_uri: EngineAddress = None,
    embeddings: Annotated[
        list[Path] | None,
        typer.Option(
            "--embeddings",
            metavar="PARQUET",
            help="Take embeddings from this file of massl embed, without decoding their images. May be repeated.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep the index current until Ctrl-C. --json prints one object per change.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a file was skipped."), Harmless()] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Build the index of a folder of images, or bring it up to date.

    Examples: massl index ./photos · massl index ./photos --watch · massl index ./photos --exclude cache
    """
    from cli.terminal import print_json, say
    from indexer import Collection
    from massl.core.files.atomic_writing import check_output

    if skipped:
        check_output(skipped)
    shown = chosen(range_, channels, plane)
    tiling = _tiling(tiles)
    address = _check_engine(context, engine, engine_uri)
    given = Collection.choose_encoder(images, encoder, image_size, index_dir)
    if given:
        _compare(images, index_dir, given, quiet)
    collection = Collection.create(
        images, given, index_dir, rebuild, include=include or (), runtime=runtime.value, shown=shown, tiling=tiling,
        exclude=exclude,
    )  # fmt: skip
    if engine:
        collection.searcher.use_engine(engine, address)
    max_pixels = None if max_megapixels is None else round(max_megapixels * 1e6)

    def tell(report: IndexReport) -> None:
        if as_json:
            print_json(describe(collection, report))
        _tell(report, images, None if verbose else SHOWN, quiet)
        if skipped:
            _write_skipped(skipped, report)

    report = update(collection, quiet, exclude, max_pixels, include, _tables(embeddings, collection))
    tell(report)
    if not (encoder or quiet) and (advice := collection.encoders.tell_of_builtin()):
        say(advice)
    if not quiet:
        _tell_of_masks(collection, report)
        _tell_of_planes(collection, report)
    if not quiet and (advice := collection.health.tell_of_square()):
        say(advice)
    if not quiet and (advice := collection.health.tell_of_tiles()):
        say(advice)
    if watch:
        report = _watch(collection, report, tell, quiet)
    if strict and report.skipped:
        raise typer.Exit(1)


def _tell(report: IndexReport, images: Path, most: int | None, quiet: bool) -> None:
    """Says what a run did, with at most so many of the skipped files; all for None."""
    from cli.terminal import say
    from massl.core.files.scan import left_out_line

    say(summary(report), quiet)
    for item in report.skipped[:most]:
        say(f"  skipped {item.path!r}: {item.reason}", quiet)
    if most is not None and len(report.skipped) > most:
        say(f"  … and {len(report.skipped) - most:,} more: massl info {images}", quiet)
    if report.kept_folders:
        kept = ", ".join(report.kept_folders)
        say(f"  looked into {kept}, as images there are labelled; --include '' leaves such folders out", quiet)
    if left_out := left_out_line(report.left_out):
        say(f"  left out: {left_out}", quiet)


def _tell_of_masks(collection: Collection, report: IndexReport) -> None:
    """Says it where deep files that were embedded now look like no pictures."""
    from app.formatting import MASKS
    from cli.terminal import say

    for kind, known in collection.meta.kind_ranges.items():
        if report.embedded and known.are_masks:
            say(f"{kind}: {MASKS}")


def _tell_of_planes(collection: Collection, report: IndexReport) -> None:
    """Says that of some files not all is seen, where files were embedded now and nobody chose what to see."""
    from cli.terminal import say

    several = sum(collection.images.several_planes().values())
    if several and report.embedded and not collection.meta.rendering.picks:
        files = "1 file holds" if several == 1 else f"{several:,} files hold"
        say(f"{files} several pictures, of which the first is read; for stacks, see --plane and --channels")


def _watch(
    collection: Collection, report: IndexReport, tell: Callable[[IndexReport], None], quiet: bool
) -> IndexReport:
    """Keeps the index current until Ctrl-C, and tells of each change; returns the last report."""
    from cli.terminal import say
    from indexer import CollectionBusy
    from indexer.ingest.watching import watch as changes

    # Whoever stops a service sends SIGTERM: end as on Ctrl-C.
    signal.signal(signal.SIGTERM, interrupt)
    say(f"Watching {collection.root}. Ctrl-C ends it.", quiet)
    updating = False
    try:
        for _ in changes(collection.root, collection.folder, lambda reason: say(reason, quiet)):
            updating = True
            try:
                latest = update(collection, quiet=True)
            except CollectionBusy as error:
                updating = False
                say(str(error), quiet)
                continue
            updating = False
            changed = latest.added or latest.changed or latest.moved or latest.removed
            if changed or latest.skipped != report.skipped or latest.left_out != report.left_out:
                report = latest
                tell(report)
    except KeyboardInterrupt:
        if updating:
            raise
        say("Closed.", quiet)  # it is how a watch ends
    return report


def _tiling(text: str | None) -> Tiling | None:
    from indexer.store.tiling import Tiling
    from massl.core.errors import MasslError

    try:
        return None if text is None else Tiling.of(text)
    except MasslError as error:
        raise typer.BadParameter(str(error), param_hint="--tiles") from None


def _check_engine(context: typer.Context, engine: str | None, uri: str | None) -> str:
    """The address of the engine that is asked for, which can be reached; before anything is embedded.

    Raises:
        MasslError: it can't be reached, or the address is none.
    """
    if engine is None:
        if uri and on_command_line(context, "engine_uri"):
            raise typer.BadParameter(
                "--engine-uri is the address of an engine; name the engine too, as in --engine milvus"
            )
        return ""
    from indexer.search.engines import engine_choice

    if engine not in engine_choice.names():
        raise typer.BadParameter(
            f"there is no search engine {engine[:40]!r}; choose one of {', '.join(engine_choice.names())}",
            param_hint="--engine",
        )
    address = uri or ""
    if engine == FAISS and not on_command_line(context, "engine_uri"):
        address = ""  # a variable is meant for the other one
    if address and "://" not in address:
        address = os.path.abspath(address)
    engine_choice.named(engine, address).check()
    return address


def _tables(paths: list[Path] | None, collection: Collection) -> EmbeddingTables | None:
    from indexer.ingest.embedding_table import EmbeddingTables

    return EmbeddingTables(paths, collection.encoder) if paths else None


def _compare(images: Path, index_dir: Path | None, given: Encoder, quiet: bool) -> None:
    """Says what another encoder or size would change, on the images that are labelled; nothing where it can't."""
    from app.formatting import at_size
    from cli.terminal import ProgressLine, say
    from indexer import Collection
    from massl.core.errors import MasslError

    try:
        collection = Collection.open(images, index_dir)
        if collection.storage.made_by(given):
            return
        meta = collection.meta
        present, other = meta.encoder_name, given.name
        if meta.encoder_sha256 == given.sha256:
            used = collection.storage.image_size or given.image_sizes[0]
            present, other = at_size(present, used), at_size(other, given.image_size)
    except MasslError:
        return  # no collection yet
    try:
        with ProgressLine("Comparing both on the labelled images", "images", quiet) as line:
            found = collection.encoders.compare(given, line.update)
    except MasslError as error:
        if collection.labels.counts():
            say(f"not compared with the present one: {error}", quiet)
        return
    say(
        f"{found.images:,} labelled images, named by their nearest others: {found.present:.1%} right with the present "
        f"{present}, {found.other:.1%} with {other}: "
        + (
            "no significant difference"
            if found.chance > 0.05
            else f"a difference this large occurs by chance in {found.chance:.2g} of all cases"
        ),
        quiet,
    )


def _write_skipped(file: Path, report: IndexReport) -> None:
    from massl.core.disk_errors import cannot_write
    from massl.core.errors import MasslError
    from massl.core.files.atomic_writing import write
    from massl.core.files.csv_tables import csv_text

    text = csv_text(["path", "reason"], [(item.path, item.reason) for item in report.skipped])
    try:
        # File names go out as the bytes that they are, also where those are not UTF-8.
        write(file, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise MasslError(f"{cannot_write(file, error, 'name another file')}; the index is complete") from None


def update(
    collection: Collection,
    quiet: bool,
    exclude: Sequence[str] | None = None,
    max_pixels: int | None = None,
    include: Sequence[str] | None = None,
    embeddings: EmbeddingTables | None = None,
) -> IndexReport:
    """Brings a collection up to date under a progress line."""
    from cli.terminal import ProgressLine

    stages = {
        "compare": "Comparing",
        "embed": "Indexing",
        "read": "Reading dates and keywords",
        "measure": "Measuring pixels",
    }
    with ProgressLine("Indexing", "images", quiet) as line:

        def show(progress: IndexProgress) -> None:
            if progress.stage == "look":
                return
            if line.what != stages[progress.stage]:
                line.begin(stages[progress.stage])
            line.update(progress.done, progress.total)

        def preparing(step: str, done: int, total: int) -> None:
            if line.what != "Preparing the search":
                line.begin("Preparing the search")
            line.update(done, total, step)

        return collection.update(
            show, preparing, exclude=exclude, max_pixels=max_pixels, include=include, embeddings=embeddings
        )


def describe(collection: Collection, report: IndexReport) -> dict[str, Any]:
    """The JSON of a run of the indexer."""
    return {
        "indexed": report.indexed,
        "added": report.added,
        "changed": report.changed,
        "moved": report.moved,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "skipped": [{"path": item.path, "reason": item.reason} for item in report.skipped],
        "left_out": dict(report.left_out),
        "encoder": collection.storage.encoder_facts(),
        "runtime": report.runtime,
        "search": asdict(measured) if (measured := collection.searcher.measured()) else None,
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 1),
    }


def summary(report: IndexReport) -> str:
    """One line about a run of the indexer."""
    parts = [
        f"{count:,} {name}"
        for name in ("added", "changed", "moved", "removed", "unchanged")
        if (count := getattr(report, name))
    ]
    again = report.embedded - report.added - report.changed
    if report.unchanged and again > 0:
        parts[-1] += f", {again:,} of them embedded anew"
    taken = f"; {report.taken:,} embeddings taken from files" if report.taken else ""
    rate = report.images_per_second
    speed = f", {rate:,.{0 if rate >= 10 else 1}f} images/s" if report.embedded else ""
    skipped = f"; {len(report.skipped):,} skipped" if report.skipped else ""
    what = f" ({', '.join(parts)})" if parts else ""
    return f"{report.indexed:,} images indexed{what} in {report.seconds:.1f} s{speed}{taken}{skipped}"
