"""`massl dupes`: duplicates in groups, and what to keep of each."""

from __future__ import annotations

import itertools
import os
import shlex
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
        typer.Argument(metavar="[PATH…]", help="With --keep or --forget: the images concerned."),
    ] = None,
    exact_only: Annotated[
        bool, typer.Option("--exact-only", help="Only files with the same content."), Harmless()
    ] = False,
    under: Annotated[
        str | None, typer.Option("--under", metavar="FOLDER", help="Only files below this folder.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0.3,
            max=1.0,
            help="How well pixels must agree, up to 1. Default: estimated from the collection.",
        ),
        Harmless(),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="CSV", help="Write what to keep and what to remove to this file.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep all PATHs: they are not proposed again.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget the decisions about the PATHs, or all decisions without PATHs.")
    ] = False,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="PLAN", help="Do what this plan says; with --by. Deletes nothing.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="WAY",
            help="With --apply: trash, hardlink, symlink, or move:FOLDER for another folder. With --undo: move:FOLDER "
            "again, to take files back from there.",
        ),
    ] = None,
    undo: Annotated[
        Path | None, typer.Option("--undo", metavar="LOG", help="Undo what --apply did, by the log that it wrote.")
    ] = None,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find exact and near duplicates, in groups, and say which to keep. Deletes nothing.

    Examples: massl dupes ./photos · massl dupes ./photos --plan plan.csv · massl dupes ./photos --keep a.jpg b.jpg ·
    massl dupes ./photos --apply plan.csv --by trash
    """
    from cli.terminal import ProgressLine, print_json, say
    from indexer import Collection
    from indexer.storage.index_command import index_command
    from massl.core.files.atomic_writing import check_output

    if apply or by or undo:
        others = {
            "plan": plan,
            "keep": keep,
            "forget": forget,
            "exact_only": exact_only,
            "under": under,
            "paths": paths,
        }
        given = [name for name, value in others.items() if value and on_command_line(context, name)]
        if undo and by and not by.startswith("move:") and not on_command_line(context, "by"):
            by = None  # that of a configuration file gives way
        way = _way(apply, by, undo, given)
        _act(Collection.open(images, index_dir), images, apply, way, undo, as_json, quiet)
        return
    if keep and forget:
        raise typer.BadParameter("--keep and --forget are opposites; give one of them")
    if plan and (keep or forget):
        if on_command_line(context, "plan"):
            raise typer.BadParameter("--plan can't be combined with --keep or --forget, which do not search")
        plan = None  # that of a configuration file gives way
    if exact_only and threshold is not None:
        if on_command_line(context, "exact_only") and on_command_line(context, "threshold"):
            raise typer.BadParameter(
                "--threshold applies to near duplicates, which --exact-only leaves out; give one of them"
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
    try:
        if plan:  # first, as the answer may be piped into a program that ends early
            _write(plan, found)
    finally:
        if as_json:
            print_json(describe(found))
        else:
            _show(found, quiet)
    if found.stale:
        command = index_command(images, collection.folder)
        files = "1 file has" if found.stale == 1 else f"{found.stale:,} files have"
        say(f"{files} changed or gone since the folder was indexed, and left out; run: {command}", quiet)
    if plan:
        say(f"the plan is in {plan}; nothing was deleted", quiet)


def _way(apply: Path | None, by: str | None, undo: Path | None, others: Sequence[str]) -> tuple[str, Path | None]:
    """What is to be done with files, as `trash`, and the folder that they are moved to; checks what goes together."""
    from indexer.duplicates.action_log import WAYS

    if others:
        raise typer.BadParameter(f"--apply and --undo search nothing; leave out {others[0].replace('_', '-')}")
    if undo and apply:
        raise typer.BadParameter("--undo takes back what --apply did; give one of them")
    if undo and not by:
        return "", None
    if not by or not (apply or undo):
        raise typer.BadParameter("--apply PLAN goes with --by trash, hardlink, symlink or move:FOLDER")
    way, _, folder = by.partition(":")
    if undo and way != "move":
        raise typer.BadParameter("with --undo, --by is move:FOLDER, or left out")
    if way not in WAYS or (way == "move") != bool(folder):
        raise typer.BadParameter(f"--by {by} is none of trash, hardlink, symlink and move:FOLDER")
    return way, Path(folder) if folder else None


_DONE = {
    "trash": "moved to the trash",
    "hardlink": "made hard links",
    "symlink": "made symbolic links",
    "move": "moved",
}


def _files(count: int) -> str:
    from app.formatting import plural

    return plural(count, "file", "files")


def _act(
    collection: Collection,
    images: Path,
    apply: Path | None,
    way: tuple[str, Path | None],
    undo: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Does what a plan says, or undoes it; says what was left as it is, and why."""
    from app.formatting import size
    from cli.terminal import ProgressLine, print_json, print_line, say
    from indexer.duplicates.acting import read_plan
    from indexer.storage.index_command import index_command
    from massl.core.errors import MasslError
    from massl.core.printable import visible

    log = undo
    kind, folder = way
    if undo:
        with collection.storage.held():
            outcome = collection.duplicates.undo(undo, folder)
        done = f"{_files(len(outcome.done))} given back"
        done += f"; {_files(len(outcome.in_place))} in place already" if outcome.in_place else ""
        if not (outcome.done or outcome.left or outcome.in_place):
            done += "; what this log says was undone before"
    else:
        assert apply is not None  # as `_way` made sure
        plan = read_plan(apply)
        if not plan.removals:
            raise MasslError(f"{apply} removes nothing that is the same content or was decided; nothing was done")
        with collection.storage.held(), ProgressLine("removing", "files", quiet) as line:
            log = _free_log(collection.folder)
            try:
                outcome = collection.duplicates.apply(
                    plan, kind, folder, log, lambda done, total: line.update(done, total, "")
                )
            except BaseException:  # Ctrl-C among them
                if log.exists():
                    say(_to_undo(images, log, way), quiet)
                raise
        done = f"{_files(len(outcome.done))} ({size(outcome.bytes)}) {_DONE[kind]}"
    if as_json:
        left = [{"path": path, "reason": reason} for path, reason in outcome.left]
        values = {"done": outcome.done, "left": left, "labels": outcome.labels, "tags": outcome.tags}
        values |= {"undecided": outcome.undecided, "in_place": outcome.in_place}
        print_json(values | {"log": str(log) if undo or outcome.done else None})
    else:
        for path in outcome.done:
            print_line(visible(path))
    for path, reason in outcome.left:
        say(f"left as it is: {visible(path)}: {reason}", quiet)
    if outcome.undecided:
        say(
            f"{_files(outcome.undecided)} left, merely alike; to have a file removed, write remove as its action and "
            "yes as decided",
            quiet,
        )
    for what, count in (("labels", outcome.labels), ("tags", outcome.tags)):
        done += f"; {what} {'taken back' if undo else 'carried over'}: {count:,}" if count else ""
    say(done, quiet)
    if outcome.left and not outcome.done and not outcome.in_place:
        raise MasslError(
            "nothing was done, as nothing of the plan is as it says" if apply else "nothing was given back"
        )
    if not undo:
        assert log is not None
        say(_to_undo(images, log, way), quiet)
    say(f"now run: {index_command(images, collection.folder)}", quiet)


def _to_undo(images: Path, log: Path, way: tuple[str, Path | None]) -> str:
    command = f"to undo: massl dupes {shlex.quote(str(images))} --undo {shlex.quote(str(log))}"
    kind, folder = way
    return f"{command} --by {shlex.quote(f'{kind}:{folder}')}" if folder else command


def _free_log(folder: Path) -> Path:
    """A name for a log by the time of day; two runs may begin within one second."""
    from indexer.store.catalog import now

    name = f"dupes-{now().replace(':', '')[:17]}"
    names = itertools.chain([f"{name}.jsonl"], (f"{name}-{number}.jsonl" for number in itertools.count(2)))
    return next(folder / free for free in names if not (folder / free).exists())


def _decide(collection: Collection, paths: Sequence[str], keep: bool, as_json: bool, quiet: bool) -> None:
    """Remembers that images are to be kept both, or forgets what was decided of them."""
    from cli.label import find_image
    from cli.terminal import print_json, say

    chosen = [find_image(collection, path) for path in paths]
    count = collection.decisions.keep_both(chosen) if keep else collection.decisions.forget(chosen)
    if as_json:
        print_json({"remembered" if keep else "forgotten": count})
    what = ("pair{} will be kept" if keep else "decision{} forgotten").format("s" * (count != 1))
    say(f"{count} {what}", quiet)


def describe(found: Duplicates) -> dict[str, Any]:
    """The JSON of what was found."""
    from indexer.duplicates.plan import action

    return {
        "groups": [
            [
                {
                    "path": item.path,
                    "action": action(item),
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
    from app.formatting import plural, size
    from cli.terminal import print_line, say
    from indexer.duplicates.plan import action
    from massl.core.printable import visible

    for number, group in enumerate(found.groups, 1):
        for item in group:
            score = f"{item.score:.3f}" if item.kind == "near" else ""
            side = f"{item.width} x {item.height}"
            kind = "" if item.kind == "keep" else item.kind
            facts = f"{kind:<5}  {score:<5}  {side:>13}  {item.bytes:>12,}"
            print_line(f"{number:>4}  {action(item):<6}  {facts}  {visible(item.path)}")
    if not found.groups:
        say(f"no duplicates among {found.images:,} images", quiet)
        return
    to_look = sum(action(item) == "look" for group in found.groups for item in group)
    say(
        f"{plural(len(found.groups), 'group', 'groups')} with {plural(found.removable, 'duplicate', 'duplicates')} "
        f"({size(found.removable_bytes)}) among {plural(found.images, 'image', 'images')}"
        + (f"; {to_look:,} to look at first" if to_look else "")
        + (f"; {plural(found.kept_both, 'pair is', 'pairs are')} kept both" if found.kept_both else ""),
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
