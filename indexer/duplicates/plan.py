"""The plan: what to keep and what to remove of each group, as a table which a person reads before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from indexer.duplicates.detection import Duplicate, Duplicates
from massl.core.files.csv_tables import csv_text

PLAN = ("group", "path", "action", "kind", "score", "expected_false_matches", "bytes", "decided", "reason")
LOOK = 0.85  # agreement under which the plan asks to look before a near duplicate is removed


def plan(found: Duplicates) -> str:
    """What to keep and what to remove, as CSV with the columns `PLAN`, a line a file.

    `decided` says of each group whether somebody chose what to keep, `yes`, or it is merely suggested, `no`; `reason`,
    by what that file is the one to keep, and of the others whether their content is the same.
    """
    rows: list[tuple[object, ...]] = []
    for number, group in enumerate(found.groups, 1):
        decided, reason = "yes" if group[0].chosen else "no", why(group)
        for item in group:
            if item.kind == "exact":
                reason = "same content"
            elif item.kind == "near":
                reason = "near copy" if item.score >= LOOK else "near copy, please look"
            false_matches = "" if item.false_matches is None else f"{item.false_matches:.3g}"
            action = ("keep", "") if item.kind == "keep" else ("remove", item.kind)
            rows.append((number, item.path, *action, f"{item.score:.4f}", false_matches, item.bytes, decided, reason))
    return csv_text(PLAN, rows)


def why(group: Sequence[Duplicate]) -> str:
    """By what the first of a group is the one to keep, as `most pixels`."""
    keep, *rest = group
    if keep.chosen:
        return "chosen"
    ways: tuple[tuple[str, Callable[[Duplicate], int]], ...] = (
        ("most pixels", lambda item: item.width * item.height),
        ("largest file", lambda item: item.bytes),
        ("oldest", lambda item: item.mtime_ns),
    )
    for name, value in ways:
        rest = [item for item in rest if value(item) == value(keep)]
        if not rest:
            return name
    return "shortest path"
