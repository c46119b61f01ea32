"""The figures of `massl eval` as a table: a row a figure, a column an encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from massl.evaluation.results import EvaluationResult


@dataclass(frozen=True)
class Figure:
    """One figure: what it is called, its value (for comparing), and how it is written."""

    name: str
    value: float
    text: str


def figures(task: str, metrics: dict[str, Any]) -> list[Figure]:
    """The figures of one result that people compare, best known first."""
    if "setups" in metrics:
        return [
            _share(f"{setup} {name}", told[key])
            for setup, told in metrics["setups"].items()
            for name, key in (("mAP", "map"), ("mP@1", "precision_at_1"), ("mP@10", "precision_at_10"))
        ]
    return list(_FIGURES[task](metrics))


def rows(
    task: str, results: Sequence[EvaluationResult], told: Sequence[list[Figure]]
) -> tuple[list[str], list[tuple[str, str, list[Figure | None]]]]:
    """The columns' names, and for each row the set, the figure's name, and the figure in each column.

    Sets of images are measured by every encoder; a table of embeddings is its own encoder, and has its own column only
    where it stands beside none: all tables share a single column.
    """
    tables = len({result.encoder.name for result in results if result.root is None and result.embedded})
    alone = tables == len({result.encoder.name for result in results})
    columns = ["score"] if alone else list(dict.fromkeys(result.encoder.name for result in results))
    cells: dict[tuple[str, str], list[Figure | None]] = {}
    for result, found in zip(results, told, strict=True):
        for figure in found:
            row = cells.setdefault((result.data, figure.name), [None] * len(columns))
            row[0 if alone else columns.index(result.encoder.name)] = figure
    names = list(dict.fromkeys(result.data for result in results))
    if task == "transfer" and len(names) > 1:
        for name in dict.fromkeys(figure for _, figure in cells):
            lines = [cells.get((data, name)) for data in names]
            if all(line is not None and all(line) for line in lines):
                cells["mean", name] = [
                    _share(name, sum(cell.value for cell in column if cell) / len(column))
                    for column in zip(*[line for line in lines if line], strict=True)
                ]
    return columns, [(data, name, line) for (data, name), line in cells.items()]


def best(line: Iterable[Figure | None]) -> Figure | None:
    """The highest of a row's figures; None where there is nothing to compare."""
    found = [figure for figure in line if figure]
    return max(found, key=lambda figure: figure.value) if len(found) > 1 else None


def as_text(task: str, results: Sequence[EvaluationResult], told: Sequence[list[Figure]]) -> str:
    """For a terminal: columns padded with blanks."""
    columns, lines = rows(task, results, told)
    several = len({data for data, _, _ in lines}) > 1
    table = [["set"] * several + [task, *columns]]
    table += [[data] * several + [name, *(cell.text if cell else "-" for cell in line)] for data, name, line in lines]
    table = [[_plain(cell) for cell in row] for row in table]
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    left = 1 + several
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def as_markdown(task: str, results: Sequence[EvaluationResult], told: Sequence[list[Figure]]) -> str:
    """A table in Markdown, the best of a row in bold."""
    columns, lines = rows(task, results, told)

    def write(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    text = [write(_escape(name) for name in ("set", task, *columns)), write(["---", "---"] + ["---:"] * len(columns))]
    for data, name, line in lines:
        top = best(line)
        cells = ("-" if not cell else f"**{cell.text}**" if cell is top else cell.text for cell in line)
        text.append(write([_escape(data), _escape(name), *cells]))
    return "\n".join(text)


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter >= "\ud800" else "?" for letter in text)


def _escape(text: str) -> str:
    return "".join(f"\\{letter}" if letter in r"\|<>[]*_`" else letter for letter in _plain(text))


def _share(name: str, value: float) -> Figure:
    return Figure(name, value, f"{value:.1%}")


def _draws(name: str, told: dict[str, float]) -> Figure:
    return Figure(name, told["mean"], f"{told['mean']:.1%} ± {100 * told['ci95']:.1f}")


def _knn(metrics: dict[str, Any]) -> Iterable[Figure]:
    for k, top1 in metrics.get("top1_by_k", {str(metrics["k"]): metrics["top1"]}).items():
        yield _share(f"top-1, k = {k}", top1)
    yield _share(f"mean per class, k = {metrics['k']}", metrics["mean_per_class"])


def _linear(metrics: dict[str, Any]) -> Iterable[Figure]:
    yield _share(f"top-1 ({metrics['protocol']})", metrics["top1"])
    yield _share("mean per class", metrics["mean_per_class"])


def _fewshot(metrics: dict[str, Any]) -> Iterable[Figure]:
    for count, told in metrics["shots"].items():
        yield _draws(f"{count}-shot", told)


def _low_shot(metrics: dict[str, Any]) -> Iterable[Figure]:
    # Of few images two shares are the same ones, one of each class: these are one row.
    shares: dict[int, list[str]] = {}
    for share, told in metrics["shares"].items():
        shares.setdefault(told["images"], []).append(share)
    for images, same in shares.items():
        named = " or ".join(f"{float(share):.4g}" for share in same)
        yield _draws(f"{named} of the labels ({images:,})", metrics["shares"][same[0]])


def _retrieval(metrics: dict[str, Any]) -> Iterable[Figure]:
    yield _share("mAP", metrics["map"])
    yield _share("precision at 1", metrics["precision_at_1"])
    yield _share("precision at 10", metrics["precision_at_10"])


def _clustering(metrics: dict[str, Any]) -> Iterable[Figure]:
    yield _share("accuracy", metrics["accuracy"])
    yield Figure("NMI", metrics["nmi"], f"{metrics['nmi']:.3f}")
    yield Figure("ARI", metrics["ari"], f"{metrics['ari']:.3f}")


def _copies(metrics: dict[str, Any]) -> Iterable[Figure]:
    yield _share("µAP", metrics["micro_ap"])
    yield _share("recall at 90 % precision", metrics["recall_at_precision_90"])
    if "roc_auc" in metrics:
        yield _share("ROC AUC", metrics["roc_auc"])
        return
    yield _share("recall at 1", metrics["recall_at_1"])
    for name, told in metrics["edits"].items():
        yield _share(f"µAP, {name}", told["micro_ap"])


def _transfer(metrics: dict[str, Any]) -> Iterable[Figure]:
    yield _share(f"{metrics['k']}-NN top-1", metrics["knn_top1"])
    yield _share(f"linear top-1 ({metrics['linear_protocol']})", metrics["linear_top1"])
    yield from _fewshot(metrics)
    yield _share("retrieval mAP", metrics["retrieval_map"])
    yield _share("retrieval precision at 1", metrics["retrieval_precision_at_1"])


_FIGURES = {
    "knn": _knn, "linear": _linear, "fewshot": _fewshot, "low-shot": _low_shot, "retrieval": _retrieval,
    "clustering": _clustering, "copies": _copies, "transfer": _transfer,
}  # fmt: skip
