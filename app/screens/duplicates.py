"""The screen "Duplicates": groups side by side, which file to keep, and the plan to take away. Nothing is deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.formatting import readable, size
from app.screens.job_status import running
from app.screens.screen import Action, Screen
from app.screens.tiles import tile
from app.session import Payload, Session, number
from indexer import Collection
from indexer.duplicates import plan as logic
from indexer.duplicates.detection import Duplicate, Duplicates
from indexer.jobs.background import JobReport, JobStatus
from indexer.storage.index_command import apply_command
from indexer.store.filters import modified
from massl.core.errors import MasslError

PLAN = "duplicates.csv"  # what a downloaded plan is called
PAGE = 20  # groups
FILES = 24  # of one group that are drawn
MOST = 1_000  # files of one group that can be kept all by one click
AT_ONCE = 20_000  # images, up to which they are compared as soon as someone looks
PATIENCE = 0.8  # seconds that an answer waits for what is soon done
STEPS = {
    "neighbours": "Comparing each picture with those most like it",
    "unrelated pairs": "Looking at how alike unrelated pictures are",
    "pairs": "Looking at the most promising pairs",
    "hashes": "Comparing perceptual hashes",
    "pairs by hash": "Looking at pairs with similar hashes",
}
KINDS = {"exact": "the same content", "near": "near copies"}
FILTERS = {"open": "To decide", "decided": "Decided", "kept": "Kept all"}

DuplicateGroup = tuple[Duplicate, ...]


@dataclass
class Deciding:
    """What one session looks at, and what it decided."""

    filter: str = "open"
    shown: int = PAGE
    steps: list[list[int]] = field(default_factory=list)  # images of the groups decided on, the latest last
    downloading: bool = False


class DuplicatesScreen(Screen):
    """Exact and near duplicates. What was found is everybody's; what is looked at is each one's own."""

    key = "duplicates"
    title = "Duplicates"

    def __init__(self, collection: Collection, uploads: Path) -> None:
        super().__init__(collection, uploads)
        self._finding = self.job(self._find_all)
        self._settled: tuple[Duplicates, Any, Duplicates] | None = None

    @property
    def actions(self) -> Mapping[str, Action]:
        return {
            "find": self._find,
            "stop": self._stop,
            "look": self._look,
            "choose": self._choose,
            "exact": self._accept_exact,
            "both": self._both,
            "apart": self._apart,
            "forget": self._forget,
            "undo": self._undo,
            "filter": self._filter,
            "more": self._more,
            "csv": self._csv,
        }

    def draw(self, session: Session) -> dict[str, Any]:
        deciding = session.of(Deciding)
        total = len(self.collection)
        status = self._finding.status(self.revision(session).embedded)
        if status.state == "idle" and status.result is None and 1 < total <= AT_ONCE:
            self._find(session, {})
            status = self._finding.status(self.revision(session).embedded)
        found = self._current(session, status)
        downloading, deciding.downloading = deciding.downloading, False
        drawn: dict[str, Any] = {
            "running": running(status, "Preparing the search", STEPS),
            "problem": _problem(status),
            "found": found is not None,
            "stale": found is not None and not status.current,
            "empty": "",
            "summary": [],
            "groups": [],
            "filters": [],
            "exact": 0,
            "more": False,
            "plan": bool(found and found.groups),
            "apply": readable(apply_command(self.collection.root.absolute(), self.collection.folder.absolute(), PLAN)),
            "undo": bool(deciding.steps),
        }
        if found is None:
            if not drawn["running"]:
                drawn["empty"] = (
                    f"{total:,} pictures are to be compared with each other, which may take a few minutes. You can "
                    "go on searching meanwhile."
                    if total > 1
                    else "There are too few pictures in this folder to be duplicates of each other."
                )
            return drawn
        groups = {
            "open": [group for group in found.groups if not logic.is_decided(group)],
            "decided": [group for group in found.groups if logic.is_decided(group)],
            "kept": self._kept_together(),
        }
        chosen = groups[deciding.filter]
        drawn["summary"] = _summary(found)
        drawn["filter"] = deciding.filter
        drawn["filters"] = [{"key": key, "name": name, "count": len(groups[key])} for key, name in FILTERS.items()]
        drawn["groups"] = [self._group(group, deciding.filter) for group in chosen[: deciding.shown]]
        drawn["exact"] = len(_exact_only(groups["open"]))
        drawn["more"] = len(chosen) > deciding.shown
        if not chosen:
            drawn["empty"] = _nothing(found, deciding.filter)
        if downloading:
            drawn["download"] = {"name": PLAN, "type": "text/csv", "text": readable(logic.plan(found))}
        return drawn

    def reset(self, session: Session) -> None:
        session.of(Deciding).shown = PAGE

    # Finding ------------------------------------------------------------------------------------------------------

    def _find_all(self, report: JobReport) -> Duplicates:
        return self.collection.duplicates.find(report=report)

    def _find(self, session: Session, payload: Payload) -> None:
        self._finding.begin(self.revision(session).embedded)
        self._finding.wait(PATIENCE)

    def _stop(self, session: Session, payload: Payload) -> None:
        self._finding.stop()
        self._finding.wait(PATIENCE)

    def _look(self, session: Session, payload: Payload) -> None:
        self._finding.wait(PATIENCE / 2)

    def _current(self, session: Session, status: JobStatus[Duplicates]) -> Duplicates | None:
        """What was found, with the decisions since; kept until someone decides again or the images change."""
        found = status.result
        if found is None:
            return None
        state = self.revision(session).decided
        if self._settled is None or self._settled[0] is not found or self._settled[1] != state:
            self._settled = found, state, self.collection.duplicates.settled(found)
        return self._settled[2]

    # Deciding -----------------------------------------------------------------------------------------------------

    def _group_of(self, session: Session, payload: Payload) -> tuple[int, DuplicateGroup]:
        """The picture that an action is about, and its group."""
        image = number(payload.get("image"))
        found = self._current(session, self._finding.status(self.revision(session).embedded))
        for group in found.groups if found else ():
            if any(item.image == image for item in group):
                return image, group
        raise MasslError("This group has changed since; look at it afresh")

    def _choose(self, session: Session, payload: Payload) -> str:
        image, group = self._group_of(session, payload)
        (item,) = (item for item in group if item.image == image)
        self.collection.decisions.choose(image, [other.image for other in group if other.image != image])
        self._remember(session, group)
        others = [other for other in group if other.image != image]
        looks = sum(logic.needs_look(other) for other in others)
        removed = len(others) - looks
        told = [f"{removed:,} to be removed"] * (removed > 0) + [f"{looks:,} to look at"] * (looks > 0)
        return f"Remembered: keep {readable(item.path)}. The plan has {' and '.join(told)} of the others"

    def _accept_exact(self, session: Session, payload: Payload) -> str:
        found = self._current(session, self._finding.status(self.revision(session).embedded))
        groups = _exact_only([group for group in found.groups if not logic.is_decided(group)] if found else [])
        if not groups:
            raise MasslError("There is no group left in which all files have the same content")
        for keep, *rest in groups:
            self.collection.decisions.choose(keep.image, [item.image for item in rest])
        self._remember(session, tuple(item for group in groups for item in group))
        files = sum(len(group) - 1 for group in groups)
        return (
            f"Accepted in {len(groups):,} group{'s' * (len(groups) != 1)}; {files:,} file{'s' * (files != 1)} "
            "of the same content in the plan to be removed"
        )

    def _both(self, session: Session, payload: Payload) -> str:
        _, group = self._group_of(session, payload)
        if len(group) > MOST:
            raise MasslError(
                f"This group has {len(group):,} files; at most {MOST:,} can be kept all by one click. Choose one of "
                "them, or use massl dupes --keep"
            )
        self.collection.decisions.forget([item.image for item in group])
        self.collection.decisions.keep_both([item.image for item in group])
        self._remember(session, group)
        return f"Remembered: all {len(group):,} are kept, and not proposed again"

    def _apart(self, session: Session, payload: Payload) -> str:
        image, group = self._group_of(session, payload)
        if len(group) > MOST:
            raise MasslError(f"This group has more than {MOST:,} files; use massl dupes --keep")
        for item in group:
            if item.image != image:
                self.collection.decisions.keep_both([image, item.image])
        self._remember(session, group)
        return "Remembered: this file is no copy of the others, and is not proposed with them again"

    def _forget(self, session: Session, payload: Payload) -> str:
        image = number(payload.get("image"))
        groups = [tuple(item.image for item in group) for group in self._kept_together()]
        images = next((group for group in groups if image in group), None)
        if images is None:
            images = tuple(item.image for item in self._group_of(session, payload)[1])
        self.collection.decisions.forget(images)
        return "Forgotten: this group is to be decided again"

    def _undo(self, session: Session, payload: Payload) -> str:
        steps = session.of(Deciding).steps
        if not steps:
            raise MasslError("There is nothing to undo")
        self.collection.decisions.forget(steps.pop())
        return "Undone: the group is to be decided again"

    def _remember(self, session: Session, group: DuplicateGroup) -> None:
        steps = session.of(Deciding).steps
        steps[:] = [*steps[-99:], [item.image for item in group]]

    def _kept_together(self) -> list[DuplicateGroup]:
        return self.collection.duplicates.kept_together()

    # Looking ------------------------------------------------------------------------------------------------------

    def _filter(self, session: Session, payload: Payload) -> None:
        deciding = session.of(Deciding)
        wanted = str(payload.get("filter"))
        deciding.filter = wanted if wanted in FILTERS else "open"
        deciding.shown = PAGE

    def _more(self, session: Session, payload: Payload) -> None:
        session.of(Deciding).shown += PAGE

    def _csv(self, session: Session, payload: Payload) -> None:
        if self._finding.status(self.revision(session).embedded).result is None:
            raise MasslError("Look for duplicates first")
        session.of(Deciding).downloading = True

    def _group(self, group: DuplicateGroup, filter_: str) -> dict[str, Any]:
        kept = filter_ == "kept"
        kinds = {item.kind for item in group[1:]}
        alike = " and ".join(KINDS[kind] for kind in ("exact", "near") if kind in kinds)
        title = f"{len(group):,} files, all kept" if kept else f"{len(group):,} files: {alike}"
        reason = logic.why(group)
        # Which one of a day is the oldest, only its time tells.
        days = Counter(f"{modified(item.mtime_ns):%Y-%m-%d}" for item in group)
        form = "%Y-%m-%d %H:%M:%S" if reason == "oldest" and max(days.values()) > 1 else "%Y-%m-%d"
        files = [
            self._file(item, place, filter_, reason) | {"date": modified(item.mtime_ns).strftime(form)}
            for place, item in enumerate(group[:FILES])
        ]
        return {
            "key": f"{filter_}:{group[0].image}",
            "image": group[0].image,
            "title": title,
            "kind": filter_,
            "files": files,
            "rest": len(group) - len(files),
        }

    def _file(self, item: Duplicate, place: int, filter_: str, reason: str) -> dict[str, Any]:
        tags: list[str] = []
        if filter_ == "kept":
            role, note = "both", ""
        elif place:
            role = "copy"
            note = "Same content" if item.kind == "exact" else f"{100 * item.score:.0f} % of detail agrees"
            if logic.needs_look(item):  # as the plan says
                tags = [*([item.edit[:1].upper() + item.edit[1:]] if item.edit else []), "Please look"]
        else:
            role = "chosen" if filter_ == "decided" else "suggested"
            note = reason[:1].upper() + reason[1:]
            if item.chosen:
                note = "You decided to keep it" if role == "chosen" else "You chose it; copies came since"
        return tile(item.image, item.path, None) | {
            "role": role,
            "note": note,
            "tags": tags,
            "pixels": f"{item.width:,} x {item.height:,}",
            "bytes": size(item.bytes),
            "apart": role == "copy" and item.kind == "near",
        }


def _exact_only(groups: Sequence[DuplicateGroup]) -> list[DuplicateGroup]:
    """Those of which all files have the same content: nothing is lost whichever is kept."""
    return [group for group in groups if all(item.kind == "exact" for item in group[1:])]


def _problem(status: JobStatus[Any]) -> str:
    if status.state == "failed":
        return f"Looking for duplicates ended early: {readable(status.reason)}"
    return "Stopped. Nothing was lost; looking again begins anew." if status.state == "stopped" else ""


def _summary(found: Duplicates) -> list[str]:
    """What was found, as a heading and the sentences below it."""
    stale = []
    if found.stale:
        files = "1 file has" if found.stale == 1 else f"{found.stale:,} files have"
        stale = [f"{files} changed or gone since this folder was indexed, and left out."]
    if not found.groups:
        return [f"No duplicates among {found.images:,} pictures", *stale]
    groups = "1 group" if len(found.groups) == 1 else f"{len(found.groups):,} groups"
    looks = [item for group in found.groups for item in group[1:] if logic.needs_look(item)]
    count, freed = found.removable - len(looks), found.removable_bytes - sum(item.bytes for item in looks)
    removed = f"{count:,} {'file' if count == 1 else 'files'} ({size(freed)}) to be removed"
    return [
        f"{groups} among {found.images:,} pictures",
        f"The plan has {removed}" + (f", and {len(looks):,} to look at." if looks else "."),
        *stale,
    ]


def _nothing(found: Duplicates, filter_: str) -> str:
    if filter_ == "open":
        return "Every group is decided." if found.groups or found.kept_both else "No two pictures here are copies."
    if filter_ == "decided":
        return "Groups in which you chose the file to keep are listed here."
    return "Groups that you keep whole are listed here, and are not proposed again."
