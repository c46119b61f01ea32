"""`massl dupes`: duplicates in groups, and what to keep of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.options import ImagesArgument, IndexDir, Json, Quiet, Verbose, folder_of, on_command_line, open_embedded

if TYPE_CHECKING:
    from indexer import Collection
    from indexer.duplicates.detection import Duplicates


def command(
    context: typer.Context,
    images: ImagesArgument,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH…]", help="With --keep or --forget: the images that it is about."),
    ] = None,
    exact_only: Annotated[
        bool, typer.Option("--exact-only", help="Only files with the same content."), Harmless()
    ] = False,
    under: Annotated[str | None, typer.Option("--under", metavar="FOLDER", help="Only below this folder.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0.3,
            max=1.0,
            help="How well pixels must agree, up to 1; found from the collection if left out.",
        ),
        Harmless(),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="CSV", help="Write what to keep and what to remove to this file.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Remember that the PATHs are all to be kept.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget what was decided about the PATHs, or all of it if none is named.")
    ] = False,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find exact and near duplicates, in groups, and say which to keep. Deletes nothing.

    Examples: massl dupes ./photos · massl dupes ./photos --plan plan.csv · massl dupes ./photos --keep a.jpg b.jpg
    """
    from cli.terminal import ProgressLine, print_json, say
    from indexer import Collection
    from indexer.index_command import index_command
    from massl.core.files.atomic_writing import check_output

    if keep and forget:
        raise typer.BadParameter("--keep and --forget are opposites; give one of them")
    if plan and (keep or forget):
        if on_command_line(context, "plan"):
            raise typer.BadParameter("--plan goes without --keep and --forget, which search nothing")
        plan = None  # that of a configuration file gives way
    if exact_only and threshold is not None:
        if on_command_line(context, "exact_only") and on_command_line(context, "threshold"):
            raise typer.BadParameter(
                "--threshold is of near duplicates, which --exact-only leaves out; give one of them"
            )
        exact_only = not on_command_line(context, "threshold")  # that of a configuration file gives way
    if paths and not (keep or forget):
        raise typer.BadParameter("PATHs go with --keep or --forget; to search a part of IMAGES use --under")
    if plan:
        check_output(plan)
    if keep or forget:
        _decide(Collection.open(images, index_dir), paths or (), keep, as_json, quiet)
        return
    collection = Collection.open(images, index_dir) if exact_only else open_embedded(images, index_dir, quiet)
    with ProgressLine("comparing", "images", quiet) as line:
        found = collection.duplicates.find(
            exact_only=exact_only,
            under=None if under is None else folder_of(under, images),
            threshold=threshold,
            report=lambda step, done, total: line.update(done, total, step),
        )
    if as_json:
        print_json(describe(found))
    else:
        _show(found, quiet)
    if found.stale:
        command = index_command(images, collection.folder)
        files = "1 file has" if found.stale == 1 else f"{found.stale:,} files have"
        say(f"{files} changed or gone since the folder was indexed, and left out; run: {command}", quiet)
    if plan:
        _write(plan, found)
        say(f"the plan is in {plan}; nothing was deleted", quiet)


def _decide(collection: Collection, paths: Sequence[str], keep: bool, as_json: bool, quiet: bool) -> None:
    """Remembers that images are to be kept both, or forgets what was decided of them."""
    from cli.label import find_image
    from cli.terminal import print_json, say

    chosen = [find_image(collection, path) for path in paths]
    count = collection.decisions.keep_both(chosen) if keep else collection.decisions.forget(chosen)
    if as_json:
        print_json({"remembered" if keep else "forgotten": count})
    what = ("pair{} remembered as to be kept both" if keep else "decision{} forgotten").format("s" * (count != 1))
    say(f"{count} {what}", quiet)


def describe(found: Duplicates) -> dict[str, Any]:
    """The JSON of what was found."""
    return {
        "groups": [
            [
                {
                    "path": item.path,
                    "kind": item.kind,
                    "score": round(item.score, 4),
                    "false_matches": _rounded(item.false_matches),
                    "bytes": item.bytes,
                    "width": item.width,
                    "height": item.height,
                    "edit": item.edit,
                }
                for item in group
            ]
            for group in found.groups
        ],
        "images": found.images,
        "duplicates": found.removable,
        "bytes": found.removable_bytes,
        "threshold": None if found.threshold is None else round(found.threshold, 4),
        "compared": found.compared,
        "kept_both": found.kept_both,
        "stale": found.stale,
    }


def _show(found: Duplicates, quiet: bool) -> None:
    from app.formatting import size
    from cli.terminal import print_line, say
    from massl.core.printable import visible

    for number, group in enumerate(found.groups, 1):
        for item in group:
            score = f"{item.score:.3f}" if item.kind == "near" else ""
            side = f"{item.width} x {item.height}"
            print_line(f"{number:>4}  {item.kind:<5}  {score:<5}  {side:>13}  {item.bytes:>12,}  {visible(item.path)}")
    if not found.groups:
        say(f"no duplicates among {found.images:,} images", quiet)
        return
    say(
        f"{len(found.groups):,} groups with {found.removable:,} duplicates ({size(found.removable_bytes)}) "
        f"among {found.images:,} images" + (f"; {found.kept_both:,} pairs are kept both" if found.kept_both else ""),
        quiet,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _write(plan: Path, found: Duplicates) -> None:
    """The plan as CSV, names as the bytes that they are; a file that is there is replaced whole or not at all."""
    from indexer.duplicates.plan import plan as plan_of
    from massl.core.disk_errors import cannot_write
    from massl.core.files.atomic_writing import write

    try:
        write(plan, os.fsencode(plan_of(found)))
    except OSError as error:
        raise cannot_write(plan, error, "name another file") from None
