"""`massl odd`: the least usual pictures first."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.filter_options import Under
from cli.options import (
    ImagesArgument,
    IndexDir,
    Json,
    NulPaths,
    OnlyPaths,
    Quiet,
    Verbose,
    folder_of,
    open_embedded,
)

if TYPE_CHECKING:
    from indexer import Collection
    from indexer.anomalies.collection_anomalies import Anomalies
    from indexer.anomalies.unusual_parts import UnusualParts


def _rate(text: str | None) -> float | None:
    """A share from `1%` or `0.01`."""
    if text is None:
        return None
    try:
        share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise typer.BadParameter(f"{text!r} is not a share; write 1% or 0.01")
    return share


def command(
    images: ImagesArgument,
    good: Annotated[
        str | None,
        typer.Option("--good", metavar="LABEL", help="Compare only with images of this label, and list the others."),
    ] = None,
    false_alarms: Annotated[
        str | None,
        typer.Option(
            "--false-alarms",
            metavar="SHARE",
            help="With --good: list only pictures that are more unusual than all but this share of good ones, as 1%.",
        ),
        Harmless(),
    ] = None,
    patches: Annotated[
        bool,
        typer.Option(
            "--patches",
            help="Score each picture by its most unusual patch. Finds smaller faults; reads every picture again.",
        ),
        Harmless(),
    ] = False,
    maps: Annotated[
        Path | None,
        typer.Option(
            "--maps",
            metavar="FOLDER",
            help="Also write each listed picture to this folder, dark where it is usual. The folder must be new or "
            "empty, and outside of IMAGES.",
            show_default=False,
        ),
    ] = None,
    under: Under = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1_000_000, help="How many results, at most."), Harmless()] = 50,
    paths: OnlyPaths = False,
    nul: NulPaths = False,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the most unusual pictures first: those far from all others, or from the good ones.

    Examples: massl odd ./photos · massl odd ./parts --good ok -k 100 · massl odd ./parts --good ok --false-alarms 1%
    --paths
    """
    from cli.terminal import ProgressLine, print_json
    from indexer.store.filters import Filter

    rate = _rate(false_alarms)
    if rate is not None and good is None:
        raise typer.BadParameter("--false-alarms needs --good LABEL: pictures that are known to be good")
    if maps:
        check_folder_for_maps(maps, images)
    collection = open_embedded(images, index_dir, quiet)
    wanted = Filter(folders=tuple(folder_of(text, images) for text in under or ()))
    with ProgressLine("comparing", "images", quiet) as line:
        found = collection.anomalies.find(
            k, good=good, wanted=wanted, false_alarms=rate, patches=patches, report=line.update
        )
    drawn = _draw_maps(collection, found, good, maps, quiet) if maps else {}
    if as_json:
        print_json(describe(found, rate, drawn))
    else:
        _show(found, rate, paths or nul, "\0" if nul else "\n", quiet)


def check_folder_for_maps(folder: Path, images: Path) -> None:
    """Raises a `MasslError` unless maps can be written there and won't be taken for pictures of the collection."""
    from massl.core.errors import MasslError

    place, root = Path(os.path.realpath(folder)), Path(os.path.realpath(images))
    if place == root or root in place.parents:
        raise MasslError(f"{folder} lies in {images}, where maps would be indexed as pictures; name another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MasslError(f"{folder} is there already, and not an empty folder; name a new one for the maps")


def _draw_maps(
    collection: Collection, found: Anomalies, good: str | None, folder: Path, quiet: bool
) -> dict[int, tuple[Path, UnusualParts]]:
    """Writes a map of each picture; where one can't be drawn, says why. Returns them by image."""
    from cli.terminal import ProgressLine, say
    from massl.core.disk_errors import cannot_write
    from massl.core.errors import MasslError
    from massl.core.files.atomic_writing import whole

    drawn = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ProgressLine("drawing", "maps", quiet) as line:
            for done, item in enumerate(found.images, 1):
                try:
                    parts = collection.anomalies.parts_of(item.image, item.box, good)
                    picture = collection.anomalies.draw_map(item.image, parts)
                except MasslError as error:
                    say(f"no map of {item.path!r}: {error}", quiet)
                    continue
                # Of the name no more than any file system takes: it may hold any bytes, and be as long as a path.
                name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(item.path).stem).strip("-")[:60]
                place = folder / f"{item.rank:04}-{name}.png".replace("-.", ".")
                with whole(place) as written:
                    picture.save(written, "PNG")
                drawn[item.image] = place, parts
                line.update(done, len(found.images))
    except OSError as error:
        raise cannot_write(folder, error, "name another folder for the maps") from None
    return drawn


def describe(
    found: Anomalies, rate: float | None, drawn: Mapping[int, tuple[Path, UnusualParts]] = MappingProxyType({})
) -> dict[str, Any]:
    """The JSON of what was found, with the maps that were drawn."""
    results: list[dict[str, Any]] = []
    for item in found.images:
        row: dict[str, Any] = {
            "rank": item.rank, "path": item.path, "score": round(item.score, 4), "label": item.label,
        }  # fmt: skip
        if item.box is not None:
            row["box"] = list(item.box)
        if item.image in drawn:
            place, parts = drawn[item.image]
            row |= {"map": str(place), "peak": list(parts.peak)}
        results.append(row if item.p_value is None else row | {"p_value": float(f"{item.p_value:.3g}")})
    told: dict[str, Any] = {"results": results, "among": found.among, "reference": found.reference}
    if rate is not None and found.threshold is not None:
        told |= {
            "false_alarms": rate,
            "held_out": found.held_out,
            "threshold": round(found.threshold, 6),
            "unusual": found.unusual,
        }
    return told


def _show(found: Anomalies, rate: float | None, plain: bool, end: str, quiet: bool) -> None:
    from cli.terminal import at, print_line, say
    from massl.core.printable import visible

    for item in found.images:
        if plain:
            print_line(item.path, end)
            continue
        tag = f"  [{visible(item.label)}]" if item.label else ""
        chance = "" if item.p_value is None else f"  p {item.p_value:.4f}"
        print_line(f"{item.rank:>4}  {item.score:6.3f}{chance}  {visible(item.path)}{tag}{at(item.box)}")
    if rate is None:
        say(f"{len(found.images):,} of {found.among:,} images, compared with {found.reference:,} different ones", quiet)
        return
    shown = f", {len(found.images):,} of them listed" if len(found.images) != found.unusual else ""
    say(
        f"{found.unusual:,} of {found.among:,} images are unusual{shown}; if all were good, about "
        f"{rate * found.among:,.0f} would be. {found.held_out:,} good pictures were held out to measure this",
        quiet,
    )
