"""The screen "Sort into classes": every picture with its predicted class, or what is missing for that."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.labelling import Labelling
from app.screens.screen import Action, Screen
from app.session import Payload, Session, images
from app.tiles import MOST, PAGE_SIZES, section, tile
from app.words import count, readable
from indexer import Collection
from indexer.classify import Classification
from massl.errors import MasslError

SECTION = 12  # tiles of a class at first
ORDERS = {"class": "By class", "sure": "Most sure", "unsure": "Least sure"}
_QUICK = 1.0  # seconds; sorting that takes less follows every label by itself


@dataclass
class Sorting:
    """What one session has sorted."""

    result: Classification | None = None
    quick: bool = False  # sorting takes so little that it can follow every label
    labelled: int = 0  # the session's count of labelling steps when it was sorted
    order: str = "class"
    opened: dict[str, int] = field(default_factory=dict)  # section to number of tiles, where not the first few
    downloading: bool = False


class Sort(Screen):
    """Few-shot classification of all pictures from the labels so far."""

    key = "sort"
    title = "Sort into classes"
    scripts = ("elements", "board", "tiles", "labels")

    def __init__(self, collection: Collection, uploads: Path) -> None:
        super().__init__(collection, uploads)
        self._labelling = Labelling(collection)

    @property
    def actions(self) -> Mapping[str, Action]:
        return {
            "classify": self._classify,
            "order": self._order,
            "more": self._more,
            "accept": self._accept,
            "csv": self._csv,
            **self._labelling.actions,
        }

    def draw(self, session: Session) -> dict[str, Any]:
        sorting = session.of(Sorting)
        behind = False
        if sorting.result is not None:
            # Labels have changed, here or by anyone else: sorted again if that is quick.
            changed = sorting.labelled != session.labelled
            behind = changed or self.collection.label_counts() != sorting.result.counts
            if behind and sorting.quick:
                try:
                    self._classify(session, {})
                except MasslError:  # one class is left: nothing to sort by
                    sorting.result = None
                behind = False
        downloading, sorting.downloading = sorting.downloading, False
        common = self._labelling.shown(session)
        classes = len(common["classes"])
        common["ready"] = classes >= 2
        if sorting.result is None:
            return common | {
                "sections": [],
                "summary": [],
                "empty": f"{len(self.collection):,} pictures and {classes} classes: press the button to sort them all."
                if common["ready"]
                else "Label a few pictures of at least two classes first, on the page “Search and label”. "
                "Three to five of each are a good start.",
            }
        drawn = common | {
            "order": sorting.order,
            "orders": [{"key": key, "name": name} for key, name in ORDERS.items()],
            "behind": behind,
            "summary": _summary(sorting.result),
            "sections": _sections(self.collection, sorting, sorting.result),
            "empty": "",
        }
        if downloading:
            # As text, made into a file by the browser: nothing is written here that would have to be cleared away.
            drawn["download"] = {
                "name": "predictions.csv",
                "type": "text/csv",
                "text": _table(self.collection, sorting.result),
            }
        return drawn

    def reset(self, session: Session) -> None:
        session.of(Sorting).result = None

    def _classify(self, session: Session, payload: Payload) -> None:
        sorting = session.of(Sorting)
        started = time.monotonic()
        sorting.result = self.collection.classify()
        sorting.quick = time.monotonic() - started < _QUICK
        sorting.labelled = session.labelled

    def _order(self, session: Session, payload: Payload) -> None:
        sorting = session.of(Sorting)
        order = str(payload.get("order"))
        sorting.order = order if order in ORDERS else "class"
        sorting.opened = {}

    def _more(self, session: Session, payload: Payload) -> None:
        sorting = session.of(Sorting)
        key = str(payload.get("section"))[:200]
        first = SECTION if key.startswith("class:") else PAGE_SIZES[0]
        sorting.opened[key] = min(sorting.opened.get(key, first) + 4 * SECTION, MOST)

    def _accept(self, session: Session, payload: Payload) -> str:
        result = self._result(session)
        chosen = set(images(payload))
        guesses = {
            int(image): result.classes[int(label)]
            for image, label, share in zip(result.images, result.predicted, result.probability, strict=True)
            if int(image) in chosen and share < 1  # a label that someone gave is left alone
        }
        if not guesses:
            raise MasslError("These pictures are labelled already")
        return self._labelling.give(session, guesses, f"accepted {count(guesses)}")

    def _csv(self, session: Session, payload: Payload) -> None:
        self._result(session)
        session.of(Sorting).downloading = True

    def _result(self, session: Session) -> Classification:
        result = session.of(Sorting).result
        if result is None:
            raise MasslError("Sort the pictures into classes first")
        return result


def _table(collection: Collection, result: Classification) -> str:
    """The predictions as CSV: `path,label,probability`, in the collection's order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "probability"])
    paths = collection.paths_of(result.images.tolist())
    for path, label, probability in zip(paths, result.predicted, result.probability, strict=True):
        writer.writerow([readable(path), result.classes[int(label)], f"{probability:.4f}"])
    return text.getvalue()


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


def _sections(collection: Collection, sorting: Sorting, result: Classification) -> list[dict[str, Any]]:
    labels = {item.path: item.label for item in collection.labels()}
    # Someone's label is certain: its probability is exactly 1 and it waits for no decision.
    given = result.probability >= 1.0
    groups: list[tuple[str, str, np.ndarray, int]] = []
    if sorting.order == "class":
        for index, name in enumerate(result.classes):
            rows = np.flatnonzero(result.predicted == index)
            # The predictions first, surest first; the examples they came from at the end.
            rows = rows[np.lexsort((-result.probability[rows], given[rows]))]
            groups.append((f"class:{name}", name, rows, SECTION))
    else:
        rows = np.flatnonzero(~given)
        rows = rows[np.argsort(result.probability[rows] * (1 if sorting.order == "unsure" else -1), kind="stable")]
        groups.append((sorting.order, ORDERS[sorting.order], rows, PAGE_SIZES[0]))
    shown = [(key, name, rows, sorting.opened.get(key, first)) for key, name, rows, first in groups]
    paths = iter(_paths(collection, result, [rows[:limit] for _, _, rows, limit in shown]))
    sections = []
    for key, name, rows, limit in shown:
        tiles = []
        for row in rows[:limit]:
            path = next(paths)
            guess = result.classes[int(result.predicted[row])]
            drawn = tile(int(result.images[row]), path, labels.get(path))
            if not given[row]:
                drawn |= {"guess": guess, "score": f"{_percent(float(result.probability[row]))} %"}
            tiles.append(drawn)
        by_hand = int(given[rows].sum())
        note = f"{len(rows) - by_hand:,} predicted" + (f", {by_hand:,} labelled" if sorting.order == "class" else "")
        sections.append(section(key, name, note, tiles, limit < min(len(rows), MOST)))
    return sections


def _percent(probability: float) -> int:
    """Whole percent; never 100 for what is only likely."""
    return min(99, round(100 * probability))


def _paths(collection: Collection, result: Classification, rows: Iterable[np.ndarray]) -> list[str]:
    wanted = [int(result.images[row]) for group in rows for row in group]
    return collection.paths_of(wanted)
