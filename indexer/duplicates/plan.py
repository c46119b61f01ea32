"""The plan: what to keep and what to remove of each group, as a table which a person reads before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from indexer.duplicates.detection import Duplicate, Duplicates
from indexer.duplicates.origin import REASONS
from massl.core.files.csv_tables import csv_text

PLAN = ("group", "path", "action", "kind", "score", "expected_false_matches", "bytes", "decided", "reason", "sha256")
# Agreement under which the plan asks to look before a near duplicate is removed. Drawings and forms that differ in a
# letter reach 0.91; copies that were only saved again or made smaller agree by 0.96 and more.
LOOK = 0.92


def plan(found: Duplicates) -> str:
    """What to keep and what to remove, as CSV with the columns `PLAN`, a line a file.

    `action` is `keep`, `remove`, or `look` where a person should compare first: near copies that agree less well, or
    one of which was edited. `decided` is `yes` where somebody chose what to keep in place of the file, or to keep it,
    which decides nothing about files to look at; else `no`. `reason` says why a file is the one to keep, or how it is
    like that one. `sha256` is of what each file held when the plan was made.
    """
    rows: list[tuple[object, ...]] = []
    for number, group in enumerate(found.groups, 1):
        for item in group:
            does = action(item)
            decided = "yes" if item.decided and does != "look" else "no"
            false_matches = "" if item.false_matches is None else f"{item.false_matches:.3g}"
            kind = "" if item.kind == "keep" else item.kind
            values = (f"{item.score:.4f}", false_matches, item.bytes, decided, note(item, group), item.content)
            rows.append((number, item.path, does, kind, *values))
    return csv_text(PLAN, rows)


def action(item: Duplicate) -> str:
    """What the plan proposes for a file of a group: `keep`, `remove`, or `look` where nothing is proposed yet."""
    if item.kind == "keep":
        return "keep"
    return "look" if needs_look(item) else "remove"


def is_decided(group: Sequence[Duplicate]) -> bool:
    """Whether somebody decided about a group as it is: what joined it later is to be decided again."""
    return all(item.decided for item in group)


def needs_look(item: Duplicate) -> bool:
    """Whether a person should compare a file before it is removed: it was edited, or is not so much like the other."""
    return item.kind == "near" and (bool(item.edit) or item.score < LOOK)


def note(item: Duplicate, group: Sequence[Duplicate]) -> str:
    """Why a file is kept, or how it is like the one that is."""
    if item.kind == "keep":
        return why(group)
    if item.kind == "exact":
        return "same content"
    return ", ".join(
        ["near copy", *([item.edit] if item.edit else []), *(["please look"] if action(item) == "look" else [])]
    )


def why(group: Sequence[Duplicate]) -> str:
    """By what the first of a group is the one to keep, as `most pixels`."""
    keep, *rest = group
    if keep.chosen:
        return "chosen"
    ways: dict[str, Callable[[Duplicate], object]] = {
        REASONS["bordered"]: lambda item: item.rank.bordered,
        "most pixels": lambda item: item.width * item.height,
    }
    ways |= {REASONS[part]: partial(lambda part, item: getattr(item.rank, part), part) for part in REASONS}
    ways |= {"oldest": lambda item: item.mtime_ns, "largest file": lambda item: item.bytes}
    for name, value in ways.items():
        rest = [item for item in rest if value(item) == value(keep)]
        if not rest:
            return name
    return "shortest path"
