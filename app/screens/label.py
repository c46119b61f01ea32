"""The screen "Label": label a few pictures, check proposals for the rest, export the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.formatting import count, readable
from app.screens.classification_advice import DOUBT, advise, estimate, methods, percent, proposal, shares, summary
from app.screens.job_status import asked, running
from app.screens.label_actions import AUTHOR, LabelActions
from app.screens.label_downloads import EXPORTS, export
from app.screens.label_queues import QUEUES, next_page, note
from app.screens.picture_details import details, proposed_tags, where_unusual
from app.screens.screen import Action, Aside, Screen
from app.screens.tiles import MOST, Tile, section, tile, with_ratios, with_worst_tiles
from app.session import Payload, Session, Step, images, number
from indexer import Collection
from indexer.fewshot.classification import Classification
from indexer.fewshot.label_errors import Suspect
from indexer.jobs.background import JobStatus
from indexer.store.labels import ACCEPTED, DRAWN
from massl.core.errors import MasslError

SECTION = 12  # tiles of a class at first
SUSPECTS = 12  # labels to check at a time
# While the accuracy is known less well than to ten points either way, a label that the others contradict is as likely
# right as wrong: nobody is sent to look at it.
CLOSE = 0.2
MANY = 2_000  # labels up to which they are checked without being asked: more of them take long
VIEWS = {
    "groups": "Groups",
    "different": "Diverse",
    "unusual": "Unusual",
    "unsure": "Uncertain",
    "strange": "Unfamiliar",
    "sure": "Confident",
    "drawn": "Random sample",
    "class": "By class",
    "check": "Label errors",
    "curve": "Learning curve",
}
SORTED = ("unsure", "strange", "sure", "drawn", "class", "check", "curve")  # views that need two classes
_MOST_OPENED = 1_000  # sections that a session remembers how far it opened
_MOST_ANSWERED = 100  # steps whose page comes back when they are undone
PATIENCE = 0.5  # seconds: what is done by then looks as if it were done at once


@dataclass
class LabelView:
    """The view of one session.

    Attributes:
        view: one of `VIEWS`, None until somebody chose one: the one to go on with.
        page: the pictures of a queue, which stay in place until each is answered.
        passed: pictures of the queue that were left for later, or rejected.
        sure: the least probability of a class, in percent.
        only: the one class whose proposals are listed; empty: all of them.
        opened: section to number of tiles, where not the first few.
        answered: steps that can be undone, each with the view and page that it answered, and what was passed then.
        complete: whether somebody said that every kind there is has a name.
    """

    view: str | None = None
    page: list[int] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)
    sure: int = 50
    only: str = ""
    opened: dict[str, int] = field(default_factory=dict)
    answered: list[tuple[Step, str, list[int], set[int]]] = field(default_factory=list)
    download: dict[str, str] | None = None
    complete: bool = False


class LabelScreen(Screen):
    """Labels by hand, proposals for the rest, and how good these are."""

    key = "label"
    title = "Label"

    def __init__(self, collection: Collection, uploads: Path) -> None:
        super().__init__(collection, uploads)
        self._labelling = LabelActions(collection)
        self._sorting = self.job(lambda report: self.collection.fewshot.classify())
        self._grouping = self.job(lambda report: self.collection.fewshot.groups())
        self._checking = self.job(lambda report: self.collection.fewshot.suspects())
        self._measuring = self.job(lambda report: self.collection.fewshot.learning_curve(partial(report, "measuring")))
        self._comparing = self.job(lambda report: self.collection.anomalies.by_image(partial(report, "comparing")))
        self._views = {
            "unusual": self._draw_unusual,
            "groups": self._draw_groups,
            "class": self._draw_class,
            "check": self._draw_check,
            "curve": self._draw_curve,
        }

    @property
    def actions(self) -> Mapping[str, Action]:
        return {
            "view": self._view,
            "sure": self._sure,
            "only": self._only,
            "more": self._more,
            "next": self._next,
            "accept": partial(self._answer, self._accept),
            "reject": partial(self._answer, self._reject),
            "kinds": self._kinds,
            "keep": self._keep,
            "regroup": self._regroup,
            "export": self._export,
            **self._labelling.actions,
            "label": partial(self._answer, self._label),
            "undo": self._undo,
        }

    @property
    def asides(self) -> Mapping[str, Aside]:
        return {
            "details": self._details,
            "why": self._why,
            "proposed tags": partial(proposed_tags, self.collection),
        }

    def _details(self, session: Session, payload: Payload) -> dict[str, Any]:
        answer = details(self.collection, self.collection.images.facts(number(payload.get("image"))))
        return answer | {"why": session.of(LabelView).view == "unusual"}

    def _why(self, session: Session, payload: Payload) -> dict[str, Any]:
        return where_unusual(self.collection, number(payload.get("image")))

    def draw(self, session: Session) -> dict[str, Any]:
        work = session.of(LabelView)
        shown = self._labelling.shown(session)
        named = [*shown["classes"], *([shown["none"]] if shown["none"]["count"] else [])]
        classes = {entry["name"]: int(entry["count"]) for entry in named}
        total = len(self.collection)
        sorting = JobStatus[Classification]()
        if len(classes) >= 2:
            sorting = asked(self._sorting, self.revision(session).classified, 2 * PATIENCE)
        result = sorting.result
        checking = self._checked(session, result, PATIENCE if work.view == "check" else 0, work.view == "check")
        doubtful = len(self._suspects(checking)) if result and result.labels_known_within(CLOSE) else 0
        advice = advise(total, classes, result, doubtful, work.complete)
        view = work.view or advice["view"]
        if view in SORTED and len(classes) < 2:
            view = "groups" if not classes else "different"
        elif classes:
            work.only = work.only if work.only in classes else ""
            work.view = view  # what is best next may change with every label; what somebody works at stays
        drawn = {
            **shown,
            "view": view,
            "views": [
                {"key": key, "name": name, "ready": bool(total) and (key not in SORTED or len(classes) >= 2)}
                for key, name in VIEWS.items()
            ],
            "advice": {**advice, "name": VIEWS[advice["view"]], "here": advice["view"] == view},
            "estimate": estimate(result, max(1, work.sure) / 100) if result else None,
            "shares": shares(result, max(1, work.sure) / 100) if result else [],
            "summary": summary(result, max(1, work.sure) / 100) if result else [],
            "methods": methods(result) if result else "",
            "sure": work.sure,
            "only": work.only,
            "sorted": result is not None,
            "exports": [
                {"key": key, "name": name, "ready": len(classes) >= 2 or key not in ("csv+", "onnx")}
                for key, (_, _, name) in EXPORTS.items()
            ]
            if classes
            else [],
            "sections": [],
            "suspects": [],
            "curve": None,
            "running": None,
            "waiting": checking.state == "running",  # not told, but looked at again
            "problem": "",
            "empty": "" if total else "There are no pictures in this folder yet. Add some and run massl index.",
        }
        _tell("Classifying the pictures", sorting, drawn)
        if total:
            self._views.get(view, self._draw_queue)(session, result, drawn)
        drawn["download"], work.download = work.download, None
        return drawn

    def reset(self, session: Session) -> None:
        work = session.of(LabelView)
        work.page, work.view = [], None
        self._grouping.forget()
        self._checking.forget()

    def _checked(
        self, session: Session, result: Classification | None, patience: float, wanted: bool
    ) -> JobStatus[list[Suspect]]:
        """The check of the labels, begun once they tell enough, or when wanted. It takes as long as the sorting."""
        if result is None or sum(result.counts.values()) > MANY or not (wanted or result.labels_known_within(CLOSE)):
            return JobStatus()
        return asked(self._checking, self.revision(session).labelled, patience)

    def _suspects(self, checking: JobStatus[list[Suspect]]) -> list[Suspect]:
        """The labels that look wrong and wait for somebody to look at them, as far as that is known by now."""
        # What was answered since the check was made waits for no further answer.
        found, kept = checking.result or [], self.collection.confirmations.every()
        try:
            now = self.collection.labels.of([suspect.image for suspect in found])
        except MasslError:  # one of them has left the collection since
            return []
        return [
            suspect
            for suspect in found
            if _label(now[suspect.image]) == suspect.given and (suspect.image, suspect.given) not in kept
        ]

    # Views ------------------------------------------------------------------------------------------------------------

    def _draw_groups(self, session: Session, result: Classification | None, drawn: dict[str, Any]) -> None:
        grouping = asked(self._grouping, self.revision(session).embedded, PATIENCE)
        _tell("Finding groups of similar pictures", grouping, drawn)
        found = grouping.result or []
        for place, group in enumerate(found):
            known = self.collection.images.described(group.typical)  # but what has gone
            tiles = [tile(*described) for described in known]
            if 2 * sum(entry["label"] is None for entry in tiles) > len(tiles):
                note = f"{len(tiles)} of {group.size:,} similar pictures"
                drawn["sections"].append(section(f"group:{place}", f"Group {place + 1}", note, tiles, False))
        if not drawn["sections"] and not drawn["running"]:
            drawn["empty"] = (
                "Every group has a name. Find new groups among the other pictures, or follow the suggestion above."
                if found
                else "There are too few unlabelled pictures to form groups."
            )
        drawn["regroup"] = bool(found) and grouping.state != "running"

    def _draw_queue(self, session: Session, result: Classification | None, drawn: dict[str, Any]) -> None:
        work, view = session.of(LabelView), drawn["view"]
        labels = self._present(work)
        if all(labels[image] is not None for image in work.page):
            work.page = next_page(
                view, self.collection, result, work.passed, work.sure / 100, self.revision(session), work.only
            )
            labels = self._present(work)
        tiles = self._tiles(work.page, labels, result)
        if view == "unusual":
            tiles = with_ratios(self.collection, with_worst_tiles(self.collection, tiles))
        left = (
            int((~result.labelled).sum())
            if result
            else len(self.collection) - sum(entry["count"] for entry in [*drawn["classes"], drawn["none"]])
        )
        if tiles:
            drawn["sections"] = [section(view, VIEWS[view], note(view, work.only), tiles, False)]
            drawn["paging"] = {"accept": any("guess" in entry and not entry["label"] for entry in tiles), "left": left}
        elif not drawn["running"]:
            of_class = f" of “{work.only}”" if work.only else ""
            drawn["empty"] = (
                f"No proposal{of_class} reaches {work.sure} %. Label some uncertain pictures, or lower the minimum."
                if left and view == "sure" and not work.passed
                else "Every picture is like a labelled one."
                if left and view == "strange" and not work.passed
                else "This list is finished. Choose another list above, or open this one again."
                if left
                else "Every picture is labelled. Use Export to save the labels."
            )

    def _draw_unusual(self, session: Session, result: Classification | None, drawn: dict[str, Any]) -> None:
        comparing = asked(self._comparing, self.revision(session).embedded, PATIENCE)
        _tell("Comparing all pictures", comparing, drawn)
        if comparing.result is not None:
            self._draw_queue(session, result, drawn)

    def _present(self, work: LabelView) -> dict[int, str | None]:
        """The labels of the page's pictures; those that are no longer in the collection leave it."""
        try:
            found = self.collection.labels.of(work.page)
        except MasslError:
            work.page = []
            return {}
        return {image: _label(item) for image, item in found.items()}

    def _tiles(self, ids: Sequence[int], labels: Mapping[int, str | None], result: Classification | None) -> list[Tile]:
        rows = _rows(result, ids)
        drawn = []
        for image, path in zip(ids, self.collection.images.paths_of(ids), strict=True):
            entry = tile(image, path, labels[image])
            row = rows.get(image)
            if result is not None and row is not None and not entry["label"]:
                entry |= proposal(result, row)
            drawn.append(entry)
        return drawn

    def _draw_class(self, session: Session, result: Classification | None, drawn: dict[str, Any]) -> None:
        if result is None:
            return
        work = session.of(LabelView)
        has = result.sure(max(1, work.sure) / 100)
        groups: list[tuple[str, str, np.ndarray]] = []
        for index, name in enumerate(result.classes):
            rows = np.flatnonzero((result.predicted == index) & has)
            # The predictions first, surest first; the examples they came from at the end.
            groups.append((f"class:{name}", name, rows[np.lexsort((-result.probability[rows], result.labelled[rows]))]))
        rows = np.flatnonzero(~has)
        if len(rows):
            groups.append(("none:", DOUBT.capitalize(), rows[np.argsort(-result.probability[rows], kind="stable")]))
        for key, name, rows in groups:
            limit = work.opened.get(key, SECTION)
            ids = [int(image) for image in result.images[rows[:limit]]]
            found = self.collection.labels.of(ids)
            tiles = self._tiles(ids, {image: _label(item) for image, item in found.items()}, result)
            by_hand = int(result.labelled[rows].sum())
            note = f"{len(rows) - by_hand:,} proposed, {by_hand:,} labelled" if key != "none:" else f"{len(rows):,}"
            drawn["sections"].append(section(key, name, note, tiles, limit < min(len(rows), MOST)))

    def _draw_check(self, session: Session, result: Classification | None, drawn: dict[str, Any]) -> None:
        checking = asked(self._checking, self.revision(session).labelled, PATIENCE)
        _tell("Checking the labels", checking, drawn)
        waiting = self._suspects(checking)
        ids = [image for suspect in waiting for image in (suspect.image, *(near for near, _ in suspect.neighbours))]
        paths = {image: path for image, path, _ in self.collection.images.described(ids)}
        drawn["suspects"] = [
            {
                "tile": tile(suspect.image, paths[suspect.image], suspect.given),
                "given": suspect.given,
                "proposed": suspect.proposed,
                "probability": percent(suspect.probability),
                "proposed_probability": percent(suspect.proposed_probability),
                "neighbours": [
                    {**tile(near, paths[near], suspect.proposed), "score": f"{score:z.2f}"}
                    for near, score in suspect.neighbours
                    if near in paths
                ],
            }
            for suspect in waiting[:SUSPECTS]
            if suspect.image in paths
        ]
        if not waiting and not drawn["running"]:
            drawn["empty"] = "No label looks clearly wrong."

    def _draw_curve(self, session: Session, result: Classification | None, drawn: dict[str, Any]) -> None:
        measuring = asked(self._measuring, self.revision(session).labelled, PATIENCE)
        _tell("Measuring the learning curve", measuring, drawn)
        if measuring.result is not None:
            drawn["curve"] = asdict(measuring.result)

    # Actions ----------------------------------------------------------------------------------------------------------

    def _view(self, session: Session, payload: Payload) -> None:
        work = session.of(LabelView)
        view = str(payload.get("view"))
        work.view = view if view in VIEWS else None
        work.page, work.passed, work.opened = [], set(), {}

    def _sure(self, session: Session, payload: Payload) -> None:
        work = session.of(LabelView)
        work.sure = min(99, number(payload.get("sure")))
        if session.of(LabelView).view == "sure":
            work.page = []

    def _only(self, session: Session, payload: Payload) -> None:
        """Which class the views "sure" and "unsure" list."""
        work = session.of(LabelView)
        work.only = str(payload.get("only") or "")
        self._view(session, {"view": "unsure" if work.view == "unsure" else "sure"})

    def _more(self, session: Session, payload: Payload) -> None:
        work = session.of(LabelView)
        key = str(payload.get("section"))[:200]
        if len(work.opened) >= _MOST_OPENED:
            work.opened = {}
        work.opened[key] = min(work.opened.get(key, SECTION) + 4 * SECTION, MOST)

    def _next(self, session: Session, payload: Payload) -> None:
        work = session.of(LabelView)
        work.passed = work.passed | set(work.page)  # anew: steps that can be undone share the one before
        work.page = []

    def _answer(self, action: Action, session: Session, payload: Payload) -> str | None:
        """An action on the page of a queue, which is to come back when the action is undone."""
        work = session.of(LabelView)
        view, page, passed = work.view, list(work.page), work.passed
        said = action(session, payload)
        if view in QUEUES:
            work.answered = [*work.answered[-_MOST_ANSWERED:], (session.steps[-1], view, page, passed)]
        return said

    def _undo(self, session: Session, payload: Payload) -> str | None:
        work = session.of(LabelView)
        last = session.steps[-1] if session.steps else None
        said = self._labelling.actions["undo"](session, payload)
        for step, view, page, passed in work.answered:
            if step is last:
                work.view, work.page, work.passed = view, page, passed
        # Other screens undo steps as well, and the oldest can't be undone any more.
        work.answered = [entry for entry in work.answered if any(entry[0] is step for step in session.steps)]
        return said

    def _label(self, session: Session, payload: Payload) -> str:
        work = session.of(LabelView)
        chosen = images(payload)
        by_chance = work.view == "drawn" and set(chosen) <= set(work.page)
        return self._labelling.label(session, payload, DRAWN if by_chance else AUTHOR)

    def _accept(self, session: Session, payload: Payload) -> str:
        seen = _seen(payload)
        # Somebody's label stands, also one that was given since the page was drawn.
        labels = self.collection.labels.of(list(seen))
        wanted = {image: label for image, label in seen.items() if labels[image] is None}
        if not wanted:
            raise MasslError("These pictures are already labelled")
        known = self.collection.labels.counts()
        if not set(wanted.values()) <= set(known):
            raise MasslError("The classes have changed; check the proposals again")
        author = DRAWN if session.of(LabelView).view == "drawn" else ACCEPTED
        return self._labelling.give(session, wanted, f"accepted {count(wanted)}", author)

    def _reject(self, session: Session, payload: Payload) -> str:
        seen = _seen(payload)
        labels = self.collection.labels.of(list(seen))
        wanted = {image: label for image, label in seen.items() if labels[image] is None}
        if not wanted:
            raise MasslError("Only proposals can be rejected; these pictures are already labelled")
        work = session.of(LabelView)
        if work.view == "drawn":
            raise MasslError(
                "Label these pictures, or use “none of these”. Without them the measured accuracy would be too high"
            )
        work.passed = work.passed | set(wanted)
        work.page = [image for image in work.page if image not in wanted]
        return self._labelling.reject(session, wanted, f"rejected {count(wanted)}")

    def _kinds(self, session: Session, payload: Payload) -> str | None:
        """The answer to whether every kind there is has a name."""
        work = session.of(LabelView)
        work.complete = payload.get("all") is True
        self._view(session, {"view": "drawn" if work.complete else "different"})
        return None if work.complete else "Name the missing kinds. Key 0 is for pictures that fit no class."

    def _keep(self, session: Session, payload: Payload) -> str:
        return self._labelling.confirm(session, images(payload))

    def _regroup(self, session: Session, payload: Payload) -> None:
        self._grouping.forget()

    def _export(self, session: Session, payload: Payload) -> str:
        work = session.of(LabelView)
        kind, sure = str(payload.get("format")), max(1, work.sure) / 100
        work.download, said = export(self.collection, self.uploads, kind, sure)
        return said


def _seen(payload: Payload) -> dict[int, str]:
    """The proposals that somebody looked at, image to label: what they answer, whatever has been proposed since."""
    seen = payload.get("seen")
    if not isinstance(seen, list) or len(seen) > MOST:
        raise MasslError("The page sent something unexpected; reload it")
    if not seen:
        raise MasslError(
            "There are no proposals here; name at least two classes first, or select pictures and label them"
        )
    found: dict[int, str] = {}
    for entry in seen:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)):
            raise MasslError("The page sent something unexpected; reload it")
        found[number(entry[0])] = entry[1]
    return found


def _rows(result: Classification | None, ids: Sequence[int]) -> dict[int, int]:
    """The row of each image in the result; ids rise in it."""
    if result is None or not len(result.images):
        return {}
    places = np.searchsorted(result.images, ids).clip(0, len(result.images) - 1)
    return {image: int(row) for image, row in zip(ids, places, strict=True) if result.images[row] == image}


def _label(item: Any) -> str | None:
    return item.label if item else None


def _tell(what: str, status: JobStatus[Any], drawn: dict[str, Any]) -> None:
    """Shows the progress of work on the screen, or why it failed."""
    drawn["running"] = running(status, what) or drawn["running"]
    if status.state == "failed":
        drawn["problem"] = f"{what} failed: {readable(status.reason)}"
