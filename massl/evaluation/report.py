"""The page that `massl eval --report` writes: one file, pictures included, that asks nothing of the network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from massl.core.disk_errors import cannot_write
from massl.core.files.atomic_writing import write
from massl.core.images.decoding import ImageError, open_image, within_memory
from massl.evaluation.accuracy import confusion
from massl.evaluation.figure_table import Figure, best, rows
from massl.evaluation.knn import nearest
from massl.evaluation.results import EvaluationResult

SIDE = 96  # pixels of a picture
QUERIES = 12  # right ones shown, and wrong ones
NEIGHBOURS = 6
LOOKED_AT = 2_000  # queries among which those shown are chosen
FULL_TABLE = 25  # classes above which the confusions are a list


def write_report(path: Path, task: str, results: Sequence[EvaluationResult], told: Sequence[list[Figure]]) -> None:
    """Writes the page, replacing the file only once all of it is there.

    Raises:
        MasslError: it can't be written.
    """
    text = "".join(_page(task, results, told))
    try:
        write(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise cannot_write(path, error, "name another file") from None


def _page(task: str, results: Sequence[EvaluationResult], told: Sequence[list[Figure]]) -> Iterator[str]:
    yield _HEAD.format(title=_safe(f"massl eval {task}"))
    yield _figures(task, results, told)
    for result in results:
        yield f"<h2>{_safe(result.data)} <small>{_safe(result.encoder.name)}</small></h2>"
        yield f"<p>{result.image_count:,} images"
        yield f", {result.class_count:,} classes" if result.class_count else ""
        yield f"; {_safe(result.measured.protocol)}.</p>"
        if len(result.measured.rows):
            yield from _confusions(result)
        if result.embedded and result.root is not None:
            yield from _neighbours(result)
        elif result.embedded:
            yield "<p>No pictures: the embeddings came from a table.</p>"
        if result.sought:
            yield from _sought(result)
        yield from _skipped(result)
    yield "</main></html>\n"


def _figures(task: str, results: Sequence[EvaluationResult], told: Sequence[list[Figure]]) -> str:
    columns, lines = rows(task, results, told)
    head = "".join(f"<th scope=col>{_safe(name)}</th>" for name in ("set", "figure", *columns))
    body = []
    for data, name, line in lines:
        top = best(line)
        cells = "".join(
            f"<td class=number>{'-' if not cell else f'<b>{cell.text}</b>' if cell is top else cell.text}</td>"
            for cell in line
        )
        body.append(f"<tr><td>{_safe(data)}</td><td>{_safe(name)}</td>{cells}</tr>")
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def _confusions(result: EvaluationResult) -> Iterator[str]:
    assert result.embedded
    classes = result.embedded.classes
    labels = result.embedded.labels[result.measured.rows]
    counts = confusion(labels, result.measured.predicted, len(classes))
    totals = counts.sum(1)
    if len(classes) > FULL_TABLE:
        wrong = counts - np.diag(np.diag(counts))
        pairs = [divmod(int(place), len(classes)) for place in np.argsort(-wrong, axis=None, kind="stable")[:40]]
        yield "<h3>What is most often taken for what</h3><div class=wide><table><thead><tr><th>is</th>"
        yield "<th>was taken for</th><th>images</th><th>of</th></tr></thead><tbody>"
        for row, column in pairs:
            if wrong[row, column]:
                yield f"<tr><td>{_safe(classes[row])}</td><td>{_safe(classes[column])}</td>"
                yield f"<td class=number>{wrong[row, column]}</td><td class=number>{totals[row]}</td></tr>"
        yield "</tbody></table></div>"
        return
    yield "<h3>What was taken for what</h3><p>A row a class, a column what its images were taken for.</p>"
    yield "<div class=wide><table class=confusion><thead><tr><th></th>"
    yield "".join(f"<th scope=col>{_safe(name)}</th>" for name in classes)
    yield "<th>right</th></tr></thead><tbody>"
    for row, name in enumerate(classes):
        yield f"<tr><th scope=row>{_safe(name)}</th>"
        for column, count in enumerate(counts[row]):
            share = count / max(1, totals[row])
            colour = "34, 139, 34" if column == row else "205, 60, 60"
            yield f'<td class=number style="background: rgba({colour}, {0.75 * share:.2f})">{count or ""}</td>'
        yield f"<td class=number>{counts[row, row] / totals[row]:.0%}</td></tr>" if totals[row] else "<td>-</td></tr>"
    yield "</tbody></table></div>"


def _neighbours(result: EvaluationResult) -> Iterator[str]:
    """Some images with their nearest ones: first those whose nearest is of another class."""
    found = result.embedded
    assert found
    assert result.root is not None
    train = found.train
    gallery = np.arange(len(found.labels)) if train is None else np.flatnonzero(train)
    queries = np.arange(len(found.labels)) if train is None else np.flatnonzero(~train)
    draw = np.random.default_rng(0)
    queries = np.sort(draw.permutation(queries)[:LOOKED_AT])
    near = gallery[nearest(found.vectors[queries], found.vectors[gallery], NEIGHBOURS + 1)[0]]
    # An image among its own neighbours goes out; where it is not (its copy came first), the last one does.
    near = np.stack([row[row != query][:NEIGHBOURS] for query, row in zip(queries, near, strict=True)])
    right = found.labels[near[:, 0]] == found.labels[queries]
    share = f"{right.mean():.0%} of {len(queries):,} images have one of their own class as the nearest."
    yield f"<h3>Nearest neighbours</h3><p>{share} The others come first, at most {QUERIES} of each.</p>"
    for which, title in (
        (~right, "Wrong: the nearest is of another class"),
        (right, "Right: the nearest is of its class"),
    ):
        chosen = np.sort(draw.permutation(np.flatnonzero(which))[:QUERIES])
        if len(chosen):
            yield f"<h4>{title}</h4>"
        for row in chosen:
            yield "<div class=sheet>" + _picture(result, queries[row], None)
            yield "".join(_picture(result, other, queries[row]) for other in near[row]) + "</div>"


def _sought(result: EvaluationResult) -> Iterator[str]:
    """Some edited pictures with their original, and what was taken for it: the missed ones first."""
    root = result.root
    assert root is not None
    draw = np.random.default_rng(0)
    yield "<h3>Edited pictures</h3><p>Each with its original, and beside it what is more similar, if anything is: "
    yield f"at most {QUERIES} of those that missed their original and of those that found it.</p>"
    for which, title in (
        ([each for each in result.sought if not each.is_found], "Missed: another image is more similar"),
        ([each for each in result.sought if each.is_found], "Found"),
    ):
        if which:
            yield f"<h4>{title}</h4>"
        for place in np.sort(draw.permutation(len(which))[:QUERIES]):
            each = which[place]
            yield "<div class=sheet>" + _figure("query", each.edited, each.original, each.edit)
            yield _figure("same", partial(open_image, root / each.original, SIDE), each.original, f"✓ {each.score:.3f}")
            if not each.is_found:
                yield _figure("other", partial(open_image, root / each.found, SIDE), each.found, f"✗ {each.best:.3f}")
            yield "</div>"


def _picture(result: EvaluationResult, row: Any, query: Any) -> str:
    """A picture with its class; beside a query, with a frame and a sign for whether it is of the query's class."""
    found = result.embedded
    assert found
    assert result.root is not None
    path, name = found.paths[row], found.classes[found.labels[row]]
    opened = partial(open_image, result.root / path, SIDE)
    if query is None:
        return _figure("query", opened, path, name)
    same = found.labels[row] == found.labels[query]
    return _figure("same", opened, path, f"✓ {name}") if same else _figure("other", opened, path, f"✗ {name}")


def _figure(kind: str, opened: Callable[[], Image.Image], path: str, caption: str) -> str:
    """A picture, `path` when pointed at, with a line below; `kind` says how it is framed."""
    try:
        with within_memory():
            picture = opened()
            picture.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        shown = f'<img src="{source}" alt="" title="{_safe(path)}">'
    except ImageError as error:
        shown = f"<span>{_safe(str(error))}</span>"
    return f"<figure class={kind}>{shown}<figcaption>{_safe(caption)}</figcaption></figure>"


def _skipped(result: EvaluationResult) -> Iterator[str]:
    files = result.skipped_files
    if files:
        yield f"<details><summary>Skipped files: {len(files):,}</summary><ul>"
        yield "".join(f"<li>{_safe(item.path)}: {_safe(item.reason)}</li>" for item in files[:1000])
        yield "</ul></details>"


def _safe(text: str) -> str:
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


# The policy lets the page load nothing at all: pictures are in it, and there is no script.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 0; }}
main {{ max-width: 72rem; margin: 0 auto; padding: 1rem; }}
h2 {{ margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; overflow-wrap: anywhere; }}
h2 small {{ font-weight: normal; opacity: 0.7; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: left; }}
th {{ max-width: 12rem; overflow-wrap: anywhere; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
.sheet {{ display: flex; flex-wrap: wrap; gap: 0.4rem; margin: 0.6rem 0; align-items: flex-start; }}
figure {{ margin: 0; width: 104px; text-align: center; }}
figure img {{ width: 96px; height: 96px; object-fit: contain; border: 4px solid transparent; background: #8882; }}
figure.query {{ margin-right: 0.8rem; }}
figure.same img {{ border-color: #228b22; }}
figure.other img {{ border-color: #cd3c3c; border-style: dashed; }}
figcaption {{ font-size: 12px; overflow-wrap: anywhere; line-height: 1.2; }}
</style>
</head>
<main>
<h1>{title}</h1>
"""
