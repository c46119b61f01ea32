"""What one person sees: the state of a browser session, and the two screens drawn from it as plain values.

`grid.js` draws these values. It sets every text as text, so nothing here needs escaping.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from indexer import Collection, Query
from indexer.classify import Classification

PAGE_SIZES = (24, 48, 96, 192)
SECTION = 12  # tiles of a class at first
MOST = 5_000  # tiles of one screen; a browser gets slow beyond
BANDS = {"same": "Same", "alike": "Alike", "weak": "Weak"}
ORDERS = {"class": "By class", "sure": "Most sure", "unsure": "Least sure"}

Tile = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A labelling step that can be taken back: image to (label, author) before, None for no label, and after."""

    text: str
    before: dict[int, tuple[str, str] | None]
    after: dict[int, str | None]


@dataclass
class View:
    """The state of one browser session; every session has its own."""

    query: Query | None = None
    asked: dict[str, str] | None = None  # what the query looks like: `name` and `src`
    page: int = PAGE_SIZES[0]
    shown: int = PAGE_SIZES[0]
    steps: list[Step] = field(default_factory=list)
    sorted: Classification | None = None
    quick: bool = False  # sorting takes so little that it can follow every label
    behind: bool = False  # labels changed since it was sorted
    order: str = "class"
    opened: dict[str, int] = field(default_factory=dict)  # section to number of tiles, where not the first few
    turn: int = 0


def readable(path: str) -> str:
    """A path as text: file names that are not UTF-8 come with bytes that no JSON can carry."""
    return path.encode("utf-8", "backslashreplace").decode()


def find_screen(collection: Collection, view: View) -> dict[str, Any]:
    """The screen "Search and label": all pictures, or those most like the query."""
    total = len(collection)
    if view.query is None:
        labels = {item.path: item.label for item in collection.labels()}
        tiles = [_tile(image, path, labels.get(path)) for image, path in collection.images(view.shown)]
        title, note = "All pictures", f"{len(tiles):,} of {total:,}"
    else:
        tiles = []
        for found in collection.search([view.query], view.shown):
            tile = _tile(found.image, found.path, found.label)
            tile |= {"score": f"{found.score:.2f}", "band": found.match, "bandName": BANDS[found.match]}
            tile["hint"] = _chance(found.false_matches)
            tiles.append(tile)
        title, note = "Most alike first", f"{len(tiles):,} of {total:,}"
    return {
        **_common(collection, view, "find"),
        "asked": view.asked,
        "page": view.page,
        "pages": PAGE_SIZES,
        "sections": [_section("all", title, note, tiles, len(tiles) < min(total, MOST) and len(tiles) >= view.shown)],
        "empty": "" if total else "There are no pictures in this folder yet. Add some and run massl index.",
    }


def sort_screen(collection: Collection, view: View) -> dict[str, Any]:
    """The screen "Sort into classes": every picture with its predicted class, or what is missing for that."""
    common = _common(collection, view, "sort")
    result = view.sorted
    if result is None:
        classes = len(common["classes"])
        ready = classes >= 2
        return common | {
            "ready": ready,
            "sections": [],
            "summary": [],
            "empty": f"{len(collection):,} pictures and {classes} classes: press the button to sort them all."
            if ready
            else "Label a few pictures of at least two classes first, on the page “Search and label”. "
            "Three to five of each are a good start.",
        }
    return common | {
        "ready": len(common["classes"]) >= 2,
        "order": view.order,
        "orders": [{"key": key, "name": name} for key, name in ORDERS.items()],
        "behind": view.behind,
        "summary": _summary(result),
        "sections": _sorted_sections(collection, view, result),
        "empty": "",
    }


def _common(collection: Collection, view: View, screen: str) -> dict[str, Any]:
    view.turn += 1
    return {
        "screen": screen,
        "turn": view.turn,
        "classes": [{"name": name, "count": count} for name, count in collection.label_counts().items()],
        "undo": view.steps[-1].text if view.steps else None,
        "message": None,
    }


def _tile(image: int, path: str, label: str | None) -> Tile:
    text = readable(path)
    return {
        "id": image,
        "src": f"thumbnail/{image}",
        "name": PurePosixPath(text).name,
        "path": text,
        "label": label,
    }


def _section(key: str, title: str, note: str, tiles: Sequence[Tile], more: bool) -> dict[str, Any]:
    return {"key": key, "title": title, "note": note, "tiles": tiles, "more": more}


def _chance(false_matches: float) -> str:
    """What a score means, in words."""
    if false_matches < 0.1:
        return "Hardly a coincidence: an unrelated picture would almost never look this alike"
    return f"About {max(1, round(false_matches)):,} unrelated pictures of this folder would look this alike by chance"


def _summary(result: Classification) -> list[str]:
    labelled = sum(result.counts.values())
    lines = []
    if result.estimated_accuracy is None:
        single = [name for name, count in sorted(result.counts.items()) if count < 2]
        lines.append(
            "How good is it? That can't be said yet: give every class at least two labelled pictures "
            f"(so far only one: {', '.join(single)})."
        )
    else:
        right = round(result.estimated_accuracy * labelled)
        rough = " With so few examples this is a rough figure." if labelled < 30 else ""
        lines.append(
            f"Expect about {100 * result.estimated_accuracy:.0f} % to be right: of your {labelled:,} labelled "
            f"pictures, {right:,} were named correctly when they were hidden and guessed from the others.{rough}"
        )
    predicted = len(result.images) - labelled
    lines.append(f"{labelled:,} labelled by hand, {predicted:,} predicted, {len(result.classes)} classes.")
    return lines


def _sorted_sections(collection: Collection, view: View, result: Classification) -> list[dict[str, Any]]:
    labels = {item.path: item.label for item in collection.labels()}
    # Someone's label is certain: its probability is exactly 1 and it waits for no decision.
    given = result.probability >= 1.0
    groups: list[tuple[str, str, np.ndarray, int]] = []
    if view.order == "class":
        for index, name in enumerate(result.classes):
            rows = np.flatnonzero(result.predicted == index)
            # The predictions first, surest first; the examples they came from at the end.
            rows = rows[np.lexsort((-result.probability[rows], given[rows]))]
            groups.append((f"class:{name}", name, rows, SECTION))
    else:
        rows = np.flatnonzero(~given)
        rows = rows[np.argsort(result.probability[rows] * (1 if view.order == "unsure" else -1), kind="stable")]
        groups.append((view.order, ORDERS[view.order], rows, PAGE_SIZES[0]))
    shown = [(key, name, rows, view.opened.get(key, first)) for key, name, rows, first in groups]
    paths = iter(_paths(collection, result, [rows[:limit] for _, _, rows, limit in shown]))
    sections = []
    for key, name, rows, limit in shown:
        tiles = []
        for row in rows[:limit]:
            path = next(paths)
            guess = result.classes[int(result.predicted[row])]
            tile = _tile(int(result.images[row]), path, labels.get(path))
            if not given[row]:
                tile |= {"guess": guess, "score": f"{_percent(float(result.probability[row]))} %"}
            tiles.append(tile)
        by_hand = int(given[rows].sum())
        note = f"{len(rows) - by_hand:,} predicted" + (f", {by_hand:,} labelled" if view.order == "class" else "")
        sections.append(_section(key, name, note, tiles, limit < min(len(rows), MOST)))
    return sections


def _percent(probability: float) -> int:
    """Whole percent; never 100 for what is only likely."""
    return min(99, round(100 * probability))


def _paths(collection: Collection, result: Classification, rows: Iterable[np.ndarray]) -> list[str]:
    wanted = [int(result.images[row]) for group in rows for row in group]
    return collection.paths_of(wanted)
