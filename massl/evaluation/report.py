"""The page that `massl eval --report` writes: one file, pictures included, that asks nothing of the network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from massl.core.images.decoding import open_image
from massl.core.similarities import nearest
from massl.evaluation.accuracy import confusion
from massl.evaluation.figure_table import Figure, best, rows
from massl.evaluation.report_page import SIDE, ReportPicture, shown, write_page
from massl.evaluation.results import EvaluationResult

QUERIES = 12  # right ones shown, and wrong ones
NEIGHBOURS = 6
LOOKED_AT = 2_000  # queries among which those shown are chosen
FULL_TABLE = 25  # classes above which the confusions are a list
LISTED = 40  # confusions in that list


def write_report(path: Path, task: str, results: Sequence[EvaluationResult], told: Sequence[list[Figure]]) -> None:
    """Writes the page, replacing the file only once all of it is there.

    Raises:
        MasslError: it can't be written.
    """
    columns, lines = rows(task, results, told)
    write_page(
        path,
        "massl.evaluation",
        "report.html.jinja",
        task=task,
        columns=columns,
        lines=lines,
        best=best,
        queries=QUERIES,
        parts=[(result, _confusions(result), _neighbours(result), _edited(result)) for result in results],
    )


def _confusions(result: EvaluationResult) -> dict[str, Any] | None:
    """A table of all classes, or a list of what is confused most where they are many."""
    if not len(result.measured.rows):
        return None
    assert result.embedded
    classes = result.embedded.classes
    labels = result.embedded.labels[result.measured.rows]
    counts = confusion(labels, result.measured.predicted, len(classes))
    if len(classes) <= FULL_TABLE:
        return {"classes": classes, "full": list(zip(classes, counts.tolist(), strict=True))}
    totals = counts.sum(1)
    wrong = counts - np.diag(np.diag(counts))
    pairs = [divmod(int(place), len(classes)) for place in np.argsort(-wrong, axis=None, kind="stable")[:LISTED]]
    told = [
        {"of": classes[row], "taken_for": classes[column], "images": wrong[row, column], "total": totals[row]}
        for row, column in pairs
        if wrong[row, column]
    ]
    return {"full": None, "pairs": told}


def _neighbours(result: EvaluationResult) -> dict[str, Any] | None:
    """Some images with their nearest ones: first those whose nearest is of another class."""
    found = result.embedded
    if not found or result.root is None:
        return None
    train = found.train
    gallery = np.arange(len(found.labels)) if train is None else np.flatnonzero(train)
    queries = np.arange(len(found.labels)) if train is None else np.flatnonzero(~train)
    draw = np.random.default_rng(0)
    queries = np.sort(draw.permutation(queries)[:LOOKED_AT])
    near = gallery[nearest(found.vectors[queries], found.vectors[gallery], NEIGHBOURS + 1)[0]]
    # An image among its own neighbours goes out; where it is not (its copy came first), the last one does.
    near = np.stack([row[row != query][:NEIGHBOURS] for query, row in zip(queries, near, strict=True)])
    right = found.labels[near[:, 0]] == found.labels[queries]

    def sheets(which: np.ndarray) -> list[list[ReportPicture]]:
        chosen = np.sort(draw.permutation(np.flatnonzero(which))[:QUERIES])
        return [
            [_picture(result, queries[row]), *(_picture(result, other, queries[row]) for other in near[row])]
            for row in chosen
        ]

    return {"share": right.mean(), "looked_at": len(queries), "wrong": sheets(~right), "right": sheets(right)}


def _edited(result: EvaluationResult) -> dict[str, Any] | None:
    """Some edited pictures with their original, and what was taken for it: the missed ones first."""
    root = result.root
    if not result.sought or root is None:
        return None
    draw = np.random.default_rng(0)

    def sheets(is_found: bool) -> list[list[ReportPicture]]:
        which = [each for each in result.sought if each.is_found == is_found]
        sheets = []
        for place in np.sort(draw.permutation(len(which))[:QUERIES]):
            each = which[place]
            original = partial(open_image, root / each.original, SIDE, rendering=result.encoder.rendering)
            sheet = [
                shown("query", each.edited, each.original, each.edit),
                shown("same", original, each.original, f"✓ {each.score:.3f}"),
            ]
            if not is_found:
                taken = partial(open_image, root / each.found, SIDE, rendering=result.encoder.rendering)
                sheet.append(shown("other", taken, each.found, f"✗ {each.best:.3f}"))
            sheets.append(sheet)
        return sheets

    return {"missed": sheets(False), "found": sheets(True)}


def _picture(result: EvaluationResult, row: Any, query: Any = None) -> ReportPicture:
    """A picture with its class; beside a query, with a frame and a sign for whether it is of the query's class."""
    found = result.embedded
    assert found
    assert result.root is not None
    path, name = found.paths[row], found.classes[found.labels[row]]
    opened = partial(open_image, result.root / path, SIDE, rendering=result.encoder.rendering)
    if query is None:
        return shown("query", opened, path, name)
    same = found.labels[row] == found.labels[query]
    return shown("same", opened, path, f"✓ {name}") if same else shown("other", opened, path, f"✗ {name}")
