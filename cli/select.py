"""`massl select`: a subset to take away."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.filter_options import (
    AnyTag,
    Camera,
    Named,
    OnlyLabels,
    Orientation,
    Quality,
    Rating,
    Since,
    TakenSince,
    TakenUntil,
    Under,
    Until,
    WithoutTag,
    WithTag,
    compare_if_needed,
    filters_of,
)
from cli.options import (
    ImagesArgument,
    IndexDir,
    Json,
    NulPaths,
    OnlyPaths,
    Quiet,
    Verbose,
    open_embedded,
)

if TYPE_CHECKING:
    from indexer import Collection
    from indexer.subsets.collection_subsets import Split, Subset

DEFAULT = 100  # images, where no number is given
_SHOWN = 10  # files that were left out


class By(StrEnum):
    """How images are chosen, see `indexer.subsets.selection`."""

    diverse = "diverse"
    typical = "typical"
    balanced = "balanced"


class Over(StrEnum):
    """What a balanced subset is balanced over."""

    labels = "labels"
    folders = "folders"


def command(
    context: typer.Context,
    images: ImagesArgument,
    n: Annotated[
        int | None,
        typer.Option("-n", min=1, help=f"Number of images. Default: {DEFAULT}; with --split, all.", show_default=False),
        Harmless(),
    ] = None,
    by: Annotated[
        By,
        typer.Option(
            "--by",
            help="diverse: far from each other. typical: from the middle of each group. balanced: equally many of "
            "each label or folder.",
        ),
        Harmless(),
    ] = By.diverse,
    over: Annotated[
        Over, typer.Option("--over", help="What --by balanced is balanced over."), Harmless()
    ] = Over.labels,
    like: Annotated[
        list[Path] | None,
        typer.Option(
            "--like",
            metavar="IMAGE",
            help="Choose among the images alike to this one (ten times -n at most). May be repeated.",
            show_default=False,
        ),
    ] = None,
    unlike: Annotated[
        list[Path] | None,
        typer.Option(
            "--unlike",
            metavar="IMAGE",
            help="Leave out the images alike to this one. May be repeated.",
            show_default=False,
        ),
    ] = None,
    label: OnlyLabels = None,
    under: Under = None,
    named: Named = None,
    since: Since = None,
    until: Until = None,
    taken_since: TakenSince = None,
    taken_until: TakenUntil = None,
    camera: Camera = None,
    rating: Rating = None,
    orientation: Orientation = None,
    quality: Quality = None,
    tag: WithTag = None,
    any_tag: AnyTag = None,
    without_tag: WithoutTag = None,
    curve: Annotated[
        bool,
        typer.Option("--curve", help="Also print how much of the collection the first 1, 2, 5, … images cover."),
        Harmless(),
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME=SHARE,…",
            help="Divide them, as train=0.8,val=0.1,test=0.1. Near copies stay in one part.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of --split."), Harmless()] = 0,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="CSV", help="Write them as a table.")] = None,
    link_to: Annotated[
        Path | None, typer.Option("--link-to", metavar="FOLDER", help="Make this folder with links to the images.")
    ] = None,
    copy_to: Annotated[
        Path | None, typer.Option("--copy-to", metavar="FOLDER", help="Make this folder with copies of the images.")
    ] = None,
    paths: OnlyPaths = False,
    nul: NulPaths = False,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Choose a subset of a collection, without near copies.

    Examples: massl select ./photos -n 500 · massl select ./photos -n 200 --by typical --curve --copy-to ./sample ·
    massl select ./photos --split train=0.8,val=0.1,test=0.1 --link-to ./dataset
    """
    from cli.terminal import ProgressLine, print_json, say
    from indexer.subsets.splits import parse_shares
    from massl.core.errors import MasslError
    from massl.core.files.atomic_writing import check_output

    if link_to and copy_to:
        raise typer.BadParameter("--link-to and --copy-to exclude each other")
    try:
        shares = parse_shares(split) if split is not None else None
    except MasslError as error:
        raise typer.BadParameter(str(error)) from None
    filters = filters_of(context, images)
    if csv:
        check_output(csv)
    collection = open_embedded(images, index_dir, quiet)
    folder = link_to or copy_to
    if folder:
        collection.subsets.check_target(folder)
    compare_if_needed(collection, filters, quiet)
    wanted = collection.images.filter(**filters)
    with ProgressLine("choosing", "images", quiet) as line:
        if shares and n is None and not (like or unlike):
            subset = collection.subsets.everything(wanted)
        else:
            examples = [_example(path, images) for path in like or ()]
            others = [_example(path, images) for path in unlike or ()]
            subset = collection.subsets.choose(
                n or DEFAULT, by.value, wanted=wanted, like=examples, unlike=others, over=over.value, curve=curve,
                report=line.update,
            )  # fmt: skip
        divided = collection.subsets.split(subset, shares, seed) if shares else None
    if as_json:
        print_json(_describe(subset, divided))
    elif paths or nul or not (csv or folder):  # else the answer is there, and no list of thousands on the screen
        _show(subset, divided, paths or nul, "\0" if nul else "\n")
    if not as_json:
        _tell_curve(subset)
    if n and len(subset.images) < n:
        left = subset.among - len(subset.images)
        rest = f": the other {left:,} of {subset.among:,} are near copies of these" if left and not like else ""
        rest = rest if by is not By.balanced else ""
        say(f"{len(subset.images):,} images, fewer than the {n:,} asked for{rest}", quiet)
    elif not as_json:
        # Of a split, what has a class: the rest is in no part, and is told below.
        say(f"{len(divided.images if divided else subset.images):,} of {subset.among:,} images", quiet)
    if divided and shares:
        _tell_split(divided, list(shares), quiet)
    if csv:
        _write(csv, subset, divided)
        say(f"the table is in {csv}", quiet)
    if folder:
        _place(collection, folder, divided or subset, link_to is not None, quiet)


def _example(path: Path, root: Path) -> Any:
    from indexer import Query
    from massl.core.images.plane_files import is_there

    # Results are printed relative to the root: they may be used as examples as they stand.
    return Query.of_file(root / path if not is_there(path) and is_there(root / path) else path)


def _describe(subset: Subset, divided: Split | None) -> dict[str, Any]:
    parts = {item.path: item for item in divided.images} if divided else {}
    results: list[dict[str, Any]] = []
    for item in subset.images:
        row: dict[str, Any] = {"rank": item.rank, "path": item.path, "label": item.label}
        if divided:
            placed = parts.get(item.path)
            row |= {"part": placed.part if placed else None, "target": placed.target if placed else None}
        results.append(row)
    told: dict[str, Any] = {"results": results, "among": subset.among}
    if subset.curve:
        told["curve"] = [
            {
                "images": covered.images,
                "covered": None if covered.share is None else round(covered.share, 4),
                "mean_similarity": round(covered.mean, 4),
            }
            for covered in subset.curve
        ]
    if divided:
        told["split"] = {
            "parts": _counts(divided),
            "without_class": divided.without_class,
            "near_copies": divided.pairs,
            "cut_by_chance": round(divided.cut_by_chance, 1),
            "largest_group": divided.largest,
        }
    return told


def _counts(divided: Split) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in divided.images:
        counts[item.part] = counts.get(item.part, 0) + 1
    return counts


def _show(subset: Subset, divided: Split | None, plain: bool, end: str) -> None:
    from cli.terminal import print_line
    from massl.core.printable import visible

    if plain:
        for path in [item.path for item in (divided or subset).images]:
            print_line(path, end)
    elif divided:
        width = max((len(item.part) for item in divided.images), default=0)
        for item in divided.images:
            print_line(f"{item.part:<{width}}  {visible(item.path)}  [{visible(item.label)}]")
    else:
        for chosen in subset.images:
            tag = f"  [{visible(chosen.label)}]" if chosen.label else ""
            print_line(f"{chosen.rank:>5}  {visible(chosen.path)}{tag}")


def _tell_curve(subset: Subset) -> None:
    from cli.terminal import say

    for covered in subset.curve:
        share = "" if covered.share is None else f"{100 * covered.share:.1f} % have one that is alike; "
        say(f"the first {covered.images:,}: {share}mean similarity to the nearest {covered.mean:z.3f}")


def _tell_split(divided: Split, parts: Sequence[str], quiet: bool) -> None:
    from cli.terminal import say

    counts = _counts(divided)
    say(", ".join(f"{name}: {counts.get(name, 0):,}" for name in parts), quiet)
    if divided.pairs:
        say(
            f"near copies: {divided.pairs:,} pairs, none of them divided; a random split would have divided "
            f"about {divided.cut_by_chance:,.0f}. The largest group has {divided.largest:,} images",
            quiet,
        )
    if divided.without_class:
        say(f"{divided.without_class:,} images have no class (not labelled, or none of these) and are left out", quiet)
    if empty := [name for name in parts if not counts.get(name)]:
        say(f"nothing was left for {', '.join(empty)}: there are too few images, or too many near copies", quiet)


def _write(path: Path, subset: Subset, divided: Split | None) -> None:
    from massl.core.disk_errors import cannot_write
    from massl.core.files.atomic_writing import write
    from massl.core.files.csv_tables import csv_text

    if divided:
        rows: list[tuple[object, ...]] = [(item.path, item.label, item.part, item.target) for item in divided.images]
        text = csv_text(["path", "label", "part", "target"], rows)
    else:
        text = csv_text(["rank", "path", "label"], [(item.rank, item.path, item.label or "") for item in subset.images])
    try:
        write(path, os.fsencode(text))
    except OSError as error:
        raise cannot_write(path, error, "name another file") from None


def _place(collection: Collection, folder: Path, chosen: Subset | Split, link: bool, quiet: bool) -> None:
    from app.formatting import plural
    from cli.terminal import ProgressLine, say
    from massl.core.printable import visible

    with ProgressLine("linking" if link else "copying", "images", quiet) as line:
        left = collection.subsets.place(folder, chosen, link, line.update)
    count = len(chosen.images) - len(left)
    say(f"{plural(count, 'image is', 'images are')} in {folder}", quiet)
    for path, reason in left[:_SHOWN]:
        say(f"left out: {visible(path)}: {reason}", quiet)
    if len(left) > _SHOWN:
        say(f"left out: {len(left) - _SHOWN:,} more", quiet)
