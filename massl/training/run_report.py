"""The page of a run: how its figures went, and what ten of its images are near, before it and now. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from massl.core.errors import MasslError
from massl.core.files.run_folder import describe_run, read_metrics, run_shown_as
from massl.core.images.image_errors import ImageError
from massl.data.sources import Source, decoded, find_source
from massl.evaluation.report_page import SIDE, ReportPicture, shown, write_page
from massl.training.neighbour_record import BEFORE, NEIGHBOURS, NOW, QUERIES, STARTS, read_record

WIDTH, HEIGHT = 640, 160  # of a chart, in its own units
POINTS = 300  # of a line at most: of more, means of a few
# Of a chart: its title, and the figures in it with the names of their lines.
CHARTS: Sequence[tuple[str, Mapping[str, str]]] = (
    ("Loss", {"loss": "loss"}),
    ("Effective dimensions", {"rankme": "of the embeddings", "rank": "of a batch of projections"}),
    (
        "Accuracy on labels",
        {"knn_top1": "k-NN", "knn_last": "k-NN by the last layer", "knn_student": "k-NN of the student"},
    ),
    ("Agreement of views on what is near", {"agreement": "agreement"}),
)
SHARES = ("knn_top1", "knn_last", "knn_student", "map", "linear_top1", "agreement")  # shown in per cent
# What a table shows of before and now.
FIGURES = {
    "knn_top1": "k-NN accuracy",
    "knn_last": "k-NN accuracy by the last layer",
    "map": "mean average precision",
    "linear_top1": "accuracy of a linear probe",
    "agreement": "share of the nearest images that two views of an image have in common",
    "rankme": "effective dimensions",
    "spread": "mean cosine distance of two images",
}


@dataclass(frozen=True)
class ChartLine:
    """A line of a chart: SVG points, and what is written beside it."""

    name: str
    points: str
    last: str


@dataclass(frozen=True)
class Chart:
    """Figures over steps."""

    title: str
    lines: list[ChartLine]
    lowest: str
    highest: str
    steps: int


@dataclass(frozen=True)
class ReportNeighbours:
    """An image, and its nearest ones before and now."""

    query: ReportPicture
    before: list[ReportPicture]
    now: list[ReportPicture]


def write_run_report(path: Path, run: Path, source: Source | None = None) -> None:
    """Writes the page about a run, which may still go on.

    Args:
        path: of the page.
        run: the run's folder.
        source: its images, where they are open already; looked for where the run found them if left out.

    Raises:
        MasslError: `run` is none, or the page can't be written.
    """
    about = describe_run(run)
    rows = read_metrics(run)
    told, lost = read_record(run), ""
    if source is None:
        try:
            source = find_source(Path(str(about.get("root", ""))), run_shown_as(run))[0]
        except MasslError as error:
            lost = str(error)
    before, now = (_of_time(told, when) for when in (BEFORE, NOW))
    write_page(
        path,
        "massl.training",
        "run_report.html.jinja",
        run=run.resolve().name,
        about=about,
        charts=[chart for title, figures in CHARTS if (chart := _chart(title, figures, rows))],
        width=WIDTH,
        height=HEIGHT,
        figures=_figures(before, now),
        before=before,
        now=now,
        lost=lost,
        sheets=_sheets(before, now, source) if source else [],
    )


def _of_time(told: Mapping[str, Any], when: str) -> dict[str, Any]:
    """What was noted before or now, checked; nothing where it was not, or the file holds something else.

    No more than a run notes: each image is a picture on the page, and the file may be somebody else's.
    """
    try:
        noted = told[when]
        rows = [
            (str(asked), [(str(name), float(cosine)) for name, cosine in near[:NEIGHBOURS]])
            for asked, near in noted["rows"][:QUERIES]
        ]
        figures = {str(name): float(value) for name, value in noted["figures"].items()}
        return {"step": int(noted["step"]), "figures": figures, "rows": rows, "why": str(noted["why"])}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return {}


def _figures(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table: the name, before, now."""
    told = [time.get("figures", {}) for time in (before, now)]

    def cell(name: str, figures: Mapping[str, float]) -> str:
        return _number(name, figures[name]) if name in figures else "-"

    return [
        (said, cell(name, told[0]), cell(name, told[1]))
        for name, said in FIGURES.items()
        if name in told[0] or name in told[1]
    ]


def _number(name: str, value: float) -> str:
    if name in SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _chart(title: str, figures: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The chart of those figures that were measured at least twice; None where none was."""
    series = {}
    for name in figures:
        points = [(row["step"], float(row[name])) for row in rows if isinstance(row.get(name), (int, float))]
        if points and isinstance(started := rows[-1].get(STARTS.get(name, "")), (int, float)):
            points.insert(0, (0, float(started)))
        if len(points) > 1:
            series[name] = _thinned(points)
    if not series:
        return None
    whole = np.concatenate(list(series.values()))
    steps, low, high = whole[:, 0].max(), whole[:, 1].min(), whole[:, 1].max()
    height = (high - low) or 1.0
    lines = []
    for name, thinned in series.items():
        places = (f"{WIDTH * step / steps:.1f},{HEIGHT * (high - value) / height:.1f}" for step, value in thinned)
        lines.append(ChartLine(figures[name], " ".join(places), _number(name, thinned[-1][1])))
    first = next(iter(series))
    return Chart(title, lines, _number(first, low), _number(first, high), int(steps))


def _thinned(points: Sequence[tuple[int, float]]) -> np.ndarray:
    """The same `[N, 2]`, or means of neighbours where they are many."""
    parts = np.array_split(np.array(points, np.float64), min(POINTS, len(points)))
    return np.stack([part.mean(0) for part in parts])


def _sheets(before: Mapping[str, Any], now: Mapping[str, Any], source: Source) -> list[ReportNeighbours]:
    """The images with their neighbours; those of now that were none before have a frame."""
    rows = [*before.get("rows", []), *now.get("rows", [])]
    wanted = {asked for asked, _ in rows} | {name for _, near in rows for name, _ in near}
    places = {name: index for index in range(len(source)) if (name := source.name(index)) in wanted}
    pictures = {name: shown("", partial(_open, source, places.get(name)), name, "") for name in sorted(wanted)}

    def picture(kind: str, name: str, caption: str) -> ReportPicture:
        return replace(pictures[name], kind=kind, caption=caption)

    def sheet(near: Sequence[tuple[str, float]], known: set[str]) -> list[ReportPicture]:
        return [
            picture("plain", name, f"{cosine:.2f}")
            if name in known or not known
            else picture("same", name, f"new, {cosine:.2f}")
            for name, cosine in near
        ]

    earlier, later = dict(before.get("rows", [])), dict(now.get("rows", []))
    sheets = []
    for asked in later or earlier:
        had = earlier.get(asked, [])
        known = {name for name, _ in had}
        sheets.append(
            ReportNeighbours(picture("query", asked, asked), sheet(had, known), sheet(later.get(asked, []), known))
        )
    return sheets


def _open(source: Source, index: int | None) -> Image.Image:
    if index is None:
        raise ImageError("no longer there")
    return decoded(source, index, SIDE)
