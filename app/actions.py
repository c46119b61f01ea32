"""What each click does: one function an action, from a session's state and what the browser sent to a new screen."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.uploads import take
from app.view import MOST, ORDERS, PAGE_SIZES, SECTION, Step, View, find_screen, readable, sort_screen
from indexer import Collection, Query
from massl.errors import MasslError

AUTHOR = "page"
_QUICK = 1.0  # seconds; sorting that takes less follows every label by itself
_MOST_STEPS = 100  # that can be undone
_MOST_IMAGES = 100_000  # of one labelling step

Payload = dict[str, Any]


class Actions:
    """The actions of both screens on one collection. Holds no state of any session: that is the `View` passed in.

    Args:
        collection: what is looked at and labelled.
        uploads: the folder that uploads arrive in.
    """

    def __init__(self, collection: Collection, uploads: Path) -> None:
        self.collection = collection
        self.uploads = uploads
        self._find: dict[str, Callable[[View, Payload], str | None]] = {
            "start": lambda view, payload: None,
            "upload": self._upload,
            "similar": self._similar,
            "browse": self._browse,
            "size": self._size,
            "more": self._more,
        }
        self._sort: dict[str, Callable[[View, Payload], str | None]] = {
            "start": lambda view, payload: None,
            "classify": self._classify,
            "order": self._order,
            "more": self._more_of_section,
            "accept": self._accept,
        }
        both: dict[str, Callable[[View, Payload], str | None]] = {
            "label": self._label,
            "unlabel": self._unlabel,
            "undo": self._undo,
        }
        self._find |= both
        self._sort |= both

    def find(self, view: View, payload: Payload) -> dict[str, Any]:
        """Does an action of the screen "Search and label"; an error comes back as the screen's message."""
        return self._do(self._find, find_screen, view, payload)

    def sort(self, view: View, payload: Payload) -> dict[str, Any]:
        """Does an action of the screen "Sort into classes"; an error comes back as the screen's message."""
        if payload.get("do") == "csv":
            return self._do({"csv": self._check_sorted}, self._with_csv, view, payload)
        return self._do(self._sort, self._sorted_anew, view, payload)

    def _sorted_anew(self, collection: Collection, view: View) -> dict[str, Any]:
        """The screen after labels have changed, here or by anyone else: sorted again if that is quick."""
        if view.sorted is not None:
            view.behind |= collection.label_counts() != view.sorted.counts
            if view.behind and view.quick:
                try:
                    self._classify(view, {})
                except MasslError:  # one class is left: nothing to sort by
                    view.sorted, view.behind = None, False
        return sort_screen(collection, view)

    def _do(
        self,
        actions: dict[str, Callable[[View, Payload], str | None]],
        screen: Callable[[Collection, View], dict[str, Any]],
        view: View,
        payload: Payload,
    ) -> dict[str, Any]:
        try:
            action = actions.get(str(payload.get("do")))
            if action is None:
                raise MasslError("The page is older than the program; reload it")
            said = action(view, payload)
            message = {"kind": "done", "text": said} if said else None
        except MasslError as error:
            message = {"kind": "error", "text": _sentence(str(error))}
        except Exception:  # the edge: whoever runs the server sees the details, the browser a sentence
            logging.getLogger(__name__).exception("an action of the page failed")
            message = {"kind": "error", "text": "Something went wrong; the details are where massl runs. Try again."}
        try:
            return screen(self.collection, view) | {"message": message}
        except MasslError as error:
            # The query itself has gone (its image was removed): start again from all pictures, and say why.
            view.query, view.asked, view.sorted = None, None, None
            return screen(self.collection, view) | {"message": {"kind": "error", "text": _sentence(str(error))}}

    # Searching ----------------------------------------------------------------------------------------------------

    def _upload(self, view: View, payload: Payload) -> None:
        upload = take(payload.get("path"), self.uploads, self.collection.encoder.resize)
        name = str(payload.get("name") or "your picture")[:200]
        view.query, view.asked, view.shown = upload.query, {"name": name, "src": upload.preview}, view.page

    def _similar(self, view: View, payload: Payload) -> None:
        image = _number(payload.get("image"))
        (path,) = self.collection.paths_of([image])
        view.query = Query(image=image)
        view.asked = {"name": readable(path), "src": f"thumbnail/{image}"}
        view.shown = view.page

    def _browse(self, view: View, payload: Payload) -> None:
        view.query, view.asked, view.shown = None, None, view.page

    def _size(self, view: View, payload: Payload) -> None:
        size = _number(payload.get("size"))
        view.page = view.shown = size if size in PAGE_SIZES else PAGE_SIZES[0]

    def _more(self, view: View, payload: Payload) -> None:
        view.shown = min(view.shown + view.page, MOST)

    # Labelling ----------------------------------------------------------------------------------------------------

    def _label(self, view: View, payload: Payload) -> str:
        name = str(payload.get("label") or "").strip()
        images = _images(payload)
        return self._give(view, dict.fromkeys(images, name), f"labelled {_count(images)} “{name}”")

    def _accept(self, view: View, payload: Payload) -> str:
        result = self._result(view)
        chosen = set(_images(payload))
        guesses = {
            int(image): result.classes[int(label)]
            for image, label, share in zip(result.images, result.predicted, result.probability, strict=True)
            if int(image) in chosen and share < 1  # a label that someone gave is left alone
        }
        if not guesses:
            raise MasslError("These pictures are labelled already")
        return self._give(view, guesses, f"accepted {_count(guesses)}")

    def _unlabel(self, view: View, payload: Payload) -> str:
        images = _images(payload)
        before = self._labels_of(images)
        had = {image: label for image, label in before.items() if label is not None}
        if not had:
            raise MasslError("None of these pictures has a label")
        self.collection.remove_labels(had)
        return self._remember(view, Step(f"unlabelled {_count(had)}", dict(had.items()), dict.fromkeys(had)))

    def _give(self, view: View, wanted: dict[int, str], text: str) -> str:
        before = self._labels_of(list(wanted))
        for name, images in _grouped(wanted).items():
            self.collection.add_labels(name, images, AUTHOR)
        return self._remember(view, Step(text, before, dict(wanted)))

    def _undo(self, view: View, payload: Payload) -> str:
        if not view.steps:
            raise MasslError("There is nothing to undo")
        step = view.steps.pop()
        now = self._labels_of(list(step.before))
        # Only what still is as this step left it: somebody else may have labelled the same pictures since.
        own = [image for image, label in now.items() if (label[0] if label else None) == step.after[image]]
        self.collection.remove_labels([image for image in own if step.before[image] is None])
        for (name, author), images in _grouped({image: step.before[image] for image in own}).items():
            self.collection.add_labels(name, images, author)
        self._after_labels(view)
        kept = len(step.before) - len(own)
        return f"Undone: {step.text}" + (f" ({kept} changed by others since, left as they are)" if kept else "")

    def _remember(self, view: View, step: Step) -> str:
        view.steps = [*view.steps[-_MOST_STEPS + 1 :], step]
        self._after_labels(view)
        return step.text[0].upper() + step.text[1:]

    def _after_labels(self, view: View) -> None:
        view.behind = view.sorted is not None

    def _labels_of(self, images: list[int]) -> dict[int, tuple[str, str] | None]:
        found = self.collection.labels_of(images)
        return {image: (item.label, item.author) if item else None for image, item in found.items()}

    # Sorting into classes -----------------------------------------------------------------------------------------

    def _classify(self, view: View, payload: Payload) -> None:
        started = time.monotonic()
        view.sorted = self.collection.classify()
        view.quick = time.monotonic() - started < _QUICK
        view.behind = False

    def _order(self, view: View, payload: Payload) -> None:
        order = str(payload.get("order"))
        view.order = order if order in ORDERS else "class"
        view.opened = {}

    def _more_of_section(self, view: View, payload: Payload) -> None:
        key = str(payload.get("section"))[:200]
        first = SECTION if key.startswith("class:") else PAGE_SIZES[0]
        view.opened[key] = min(view.opened.get(key, first) + 4 * SECTION, MOST)

    def _check_sorted(self, view: View, payload: Payload) -> None:
        self._result(view)

    def _with_csv(self, collection: Collection, view: View) -> dict[str, Any]:
        # As text, made into a file by the browser: nothing is written here that would have to be cleared away.
        download = {"name": "predictions.csv", "text": self.csv(view)} if view.sorted else None
        return sort_screen(collection, view) | {"download": download}

    def csv(self, view: View) -> str:
        """The predictions of a session: `path,label,probability`, in the collection's order."""
        result = self._result(view)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "label", "probability"])
        paths = self.collection.paths_of(result.images.tolist())
        for path, label, probability in zip(paths, result.predicted, result.probability, strict=True):
            writer.writerow([readable(path), result.classes[int(label)], f"{probability:.4f}"])
        return text.getvalue()

    def _result(self, view: View) -> Any:
        if view.sorted is None:
            raise MasslError("Sort the pictures into classes first")
        return view.sorted


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise MasslError("The page sent something unexpected; reload it")
    return value


def _images(payload: Payload) -> list[int]:
    images = payload.get("images")
    if not isinstance(images, list) or len(images) > _MOST_IMAGES:
        raise MasslError("The page sent something unexpected; reload it")
    if not images:
        raise MasslError("Select some pictures first")
    return [_number(image) for image in dict.fromkeys(images)]


def _grouped(labels: dict[int, Any]) -> dict[Any, list[int]]:
    """Label to images, without those that have none."""
    groups: dict[Any, list[int]] = {}
    for image, label in labels.items():
        if label is not None:
            groups.setdefault(label, []).append(image)
    return groups


def _count(images: Any) -> str:
    return "1 picture" if len(images) == 1 else f"{len(images):,} pictures"


def _sentence(text: str) -> str:
    text = readable(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
