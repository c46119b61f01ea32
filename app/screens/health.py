"""The screen "Health": what the collection is made of, what was passed over, how far to trust it, what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.formatting import at_size, cost, moment, readable
from app.progress import duration
from app.screens.health_cards import encoder, fact, familiar, numbers, pictures, quality, search, told
from app.screens.job_status import running
from app.screens.screen import Action, Screen
from app.screens.tiles import tile
from app.session import Payload, Session, number
from indexer import Collection
from indexer.jobs.background import BackgroundJob, JobReport, JobStatus
from indexer.monitoring import trained_encoders as runs
from indexer.monitoring.drift import Drift
from indexer.monitoring.encoder_comparison import EXAMPLES, FEWEST_SEEN, NEIGHBOURS, Beside, Change, Comparison
from indexer.monitoring.health import Health
from indexer.monitoring.trained_encoders import Trained
from indexer.storage.index_command import index_command
from indexer.store.labels import NONE_OF_THESE
from massl.core.errors import MasslError
from massl.core.files.csv_tables import csv_text

SKIPPED = 100  # files that are listed at first, and more at a time
MOST = 10_000  # that are listed; the table that can be taken away has all
PATIENCE = 1.0  # seconds that an answer waits for what is soon done
STEPS = {
    "catalog": "Verifying the catalog's checksums",
    "drift": "Comparing the pictures",
    "folder": "Scanning the folder",
    "comparing": "Looking for unusual pictures",
    "disk": "Measuring disk use",
    "trained": "Finding encoders that you trained",
}
COMPARING = {
    "encoder": "Loading the encoder",
    "labels": "Embedding labelled pictures",
    "pictures": "Embedding other pictures",
}
CHANCE = 0.05  # how often chance alone may bring a difference that is called one


@dataclass(frozen=True)
class Other:
    """What could take the place of the collection's encoder.

    Attributes:
        key: what a browser names it by.
        title, facts: what is shown of it.
        present, name: what a comparison calls the encoder in use, and this one.
        command: that switches to it.
        beside: what `OtherEncoders.beside` takes.
    """

    key: str
    title: str
    facts: list[dict[str, str]]
    present: str
    name: str
    command: str
    beside: Trained | int


@dataclass
class HealthView:
    """The view of one session."""

    shown: int = SKIPPED
    downloading: bool = False


class HealthScreen(Screen):
    """Facts about the collection. What takes a moment is found out in the background, for everybody."""

    key = "health"
    title = "Health"

    def __init__(self, collection: Collection, uploads: Path) -> None:
        super().__init__(collection, uploads)
        self._here = Path.cwd()  # where `massl serve` was started, and probably `massl train` too
        self._examining = self.job(self._examine)
        self._comparing: dict[str, BackgroundJob[Beside]] = {}  # by the other's key

    @property
    def actions(self) -> Mapping[str, Action]:
        return {
            "start": self._start,
            "again": self._again,
            "look": self._look,
            "more": self._more,
            "csv": self._csv,
            "compare": self._compare,
            "stop": self._stop,
        }

    def draw(self, session: Session) -> dict[str, Any]:
        looking = session.of(HealthView)
        status = self._examining.status(self._state(session))
        meta = self.collection.meta
        skipped = self.collection.images.skipped()
        found = status.result
        total, labels = len(self.collection), self.collection.labels.counts()
        reasons = Counter(item.reason for item in skipped)
        downloading, looking.downloading = looking.downloading, False
        drawn: dict[str, Any] = {
            "running": running(status, "Checking", STEPS),
            "waiting": any(work.status(None).state == "running" for work in self._comparing.values()),
            "problem": f"A check failed: {readable(status.reason)}" if status.reason else "",
            "numbers": numbers(total, len(skipped), labels, found),
            "classes": [
                {"name": name, "count": labels[name]}
                for name in self.collection.labels.classes()
                if name in labels and name != NONE_OF_THESE
            ],
            "cards": [  # in an order in which columns of a wide window are about as long as each other
                *([quality(found.quality)] if found and found.quality else []),
                encoder(meta, found),
                search(self.collection, total),
                pictures(self.collection.images, meta),
            ],
            "drift": [*familiar(found.drift), *self._newest(found.drift)] if found else [],
            "advice": [
                {"why": advice.why, "commands": [readable(command) for command in advice.commands]}
                for advice in (found.advice if found else ())
            ],
            "others": [self._drawn(session, place, other) for place, other in enumerate(self._others(session))],
            "skipped": [
                {"path": readable(item.path), "reason": readable(item.reason)} for item in skipped[: looking.shown]
            ],
            "reasons": [{"reason": readable(reason), "count": number} for reason, number in reasons.most_common()],
            "more": len(skipped) > looking.shown and looking.shown < MOST,
        }
        if downloading:
            text = csv_text(["path", "reason"], [(item.path, item.reason) for item in skipped])
            drawn["download"] = {"name": "skipped.csv", "type": "text/csv", "text": readable(text)}
        return drawn

    def reset(self, session: Session) -> None:
        session.of(HealthView).shown = SKIPPED

    def _examine(self, report: JobReport) -> Health:
        return self.collection.health.check(report, self._here)

    def _state(self, session: Session) -> tuple[object, ...]:
        """What its findings are about: the images, the last look at the folder, and the runs that there are."""
        now = self.revision(session)
        return now.embedded, now.checked, runs.state(runs.places(self._here, self.collection.root))

    def _start(self, session: Session, payload: Payload) -> None:
        # Only when someone opens the screen: while a folder is being indexed, its state changes all the time.
        self._examining.begin(self._state(session))
        self._examining.wait(PATIENCE)

    def _again(self, session: Session, payload: Payload) -> None:
        self._examining.begin(self._state(session), anew=True)
        self._examining.wait(PATIENCE)

    def _look(self, session: Session, payload: Payload) -> None:
        self._examining.wait(PATIENCE / 2)

    def _more(self, session: Session, payload: Payload) -> None:
        looking = session.of(HealthView)
        looking.shown = min(looking.shown + 10 * SKIPPED, MOST)

    def _csv(self, session: Session, payload: Payload) -> None:
        session.of(HealthView).downloading = True

    # Other encoders ------------------------------------------------------------------------------------------------

    def _others(self, session: Session) -> list[Other]:
        """Encoders that somebody trained, then the other sizes of the one in use."""
        found = self._examining.status(self._state(session)).result
        if found is None:
            return []
        meta, root, folder = self.collection.meta, self.collection.root, self.collection.folder
        present = meta.encoder_name
        others = []
        for run in found.trained:
            file = run.path.relative_to(self._here) if run.path.is_relative_to(self._here) else run.path
            title = f"Your trained encoder: {run.name}"
            command = index_command(root, folder, file)
            others.append(Other(run.sha256, title, _trained(run), present, run.name, command, run))
        for side in found.image_sizes:
            if found.image_size is None or side == found.image_size:
                continue
            own, name = at_size(present, found.image_size), at_size(present, side)
            facts = [
                fact("Cost", f"{cost(side, found.image_size)} of {found.image_size} px", "Approximate, per picture")
            ]
            title = f"Current encoder at {side} x {side} pixels"
            command = index_command(root, folder, image_size=side)
            others.append(Other(f"{meta.encoder_sha256} {side}", title, facts, own, name, command, side))
        return others

    def _work(self, other: Other) -> BackgroundJob[Beside]:
        compare = self.job(lambda report: self.collection.encoders.beside(other.beside, report))
        return self._comparing.setdefault(other.key, compare)

    def _compare(self, session: Session, payload: Payload) -> None:
        place, found = number(payload.get("place")), self._others(session)
        # The browser names a place in the list, never a file, and the encoder that it saw there.
        if place >= len(found) or found[place].key != payload.get("encoder"):
            raise MasslError("The list of encoders has changed; refresh this screen")
        known = {other.key for other in found}
        for gone in [key for key in self._comparing if key not in known]:
            self._comparing.pop(gone).stop()
        if any(work.status(None).state == "running" for work in self._comparing.values()):
            raise MasslError("Another comparison is running; wait for it or stop it")
        work = self._work(found[place])
        work.begin(self.revision(session).labelled, anew=True)
        work.wait(PATIENCE)

    def _stop(self, session: Session, payload: Payload) -> None:
        for work in list(self._comparing.values()):
            work.stop()
            work.wait(PATIENCE)

    def _drawn(self, session: Session, place: int, other: Other) -> dict[str, Any]:
        """What could take the encoder's place, beside it."""
        work = self._comparing.get(other.key)
        status: JobStatus[Beside] = work.status(self.revision(session).labelled) if work else JobStatus()
        result = status.result
        lines: list[str] = []
        if result:
            if not status.current and status.state != "running":
                lines.append("Measured before the labels or pictures changed. Compare again.")
            lines += _said(result, other.present, other.name)
        if status.reason:
            lines.insert(0, f"The comparison failed: {readable(status.reason)}.")
        return {
            "place": place,
            "encoder": other.key,
            "name": readable(other.name),
            "title": readable(other.title),
            "trained": isinstance(other.beside, Trained),
            "facts": other.facts,
            "running": running(status, "Comparing", COMPARING),
            "compared": result is not None,
            "lines": [readable(line) for line in lines],
            "bars": _bars(result.comparison, other.present, other.name) if result and result.comparison else [],
            "sights": self._sights(result.change) if result and result.change else [],
            "command": readable(other.command),
        }

    def _sights(self, change: Change) -> list[dict[str, Any]]:
        """Pictures with those that are most like them, to either encoder; none where one has gone since."""
        drawn = []
        for sight in change.examples:
            ids = dict.fromkeys([sight.image, *sight.present, *sight.other])
            tiles = {row[0]: tile(*row) for row in self.collection.images.described([*ids])}
            if len(tiles) == len(ids):
                present, other = ([tiles[image] for image in images] for images in (sight.present, sight.other))
                drawn.append({"picture": tiles[sight.image], "present": present, "other": other})
        return drawn

    def _newest(self, drift: Drift) -> list[dict[str, Any]]:
        if drift.newest is None:
            return []
        notable = drift.newest.at_least > 0
        try:
            paths = self.collection.images.paths_of(drift.newest.examples)
        except MasslError:  # one of them has gone since
            paths = []
        examples = [tile(image, path, None) for image, path in zip(drift.newest.examples, paths, strict=False)]
        lines = told(drift.newest)
        return [{"title": "Newest pictures", "lines": lines, "examples": examples, "notable": notable}]


def _trained(other: Trained) -> list[dict[str, str]]:
    """Facts from the run and its file."""
    images = f"{other.training.images:,} pictures" if other.training.images else "pictures"
    on = "this folder" if other.on_these else other.folder or "an unnamed folder"
    facts = [fact("Trained", moment(other.written), f"{other.path}, SHA-256 {other.sha256}")]
    facts.append(fact("Training data", f"{images} from {on}"))
    if other.epochs is not None and other.seconds is not None:
        facts.append(fact("Duration", f"{other.epochs:,.0f} epochs, {duration(other.seconds)}"))
    if other.training.architecture:
        facts.append(fact("Network", other.training.architecture))
    if other.right is not None:
        facts.append(fact("k-NN accuracy", f"{100 * other.right:.1f} % on {other.labels}", "Measured during training"))
    return facts


def _bars(found: Comparison, present: str, other: str) -> list[dict[str, Any]]:
    shares = ((f"{present} (current)", found.present), (other, found.other))
    return [{"name": readable(name), "share": share, "text": f"{100 * share:.1f} %"} for name, share in shares]


def _said(found: Beside, present: str, other: str) -> list[str]:
    """The result of a comparison in sentences; the first is the answer."""
    comparison, change = found.comparison, found.change
    lines = []
    if comparison is None:
        lines.append(
            "To see which one is better, label at least two pictures in each of two classes on the Label screen, then "
            "compare again. A few dozen labels give a clearer answer."
        )
    else:
        on = f"{comparison.images:,} labelled pictures in {comparison.classes:,} classes"
        if comparison.chance >= CHANCE:
            lines.append(f"No clear difference on {on}.")
        else:
            winner = other if comparison.other > comparison.present else present
            lines.append(f"{winner} separates your classes better, on {on}.")
        lines.append(
            "The bars show k-NN accuracy: how often the nearest other pictures predict the right label. "
            f"Only {other} was right {comparison.only_other:,} times, only {present} {comparison.only_present:,} "
            "times. If both were equally good, a difference this large would occur in "
            f"{_percent(comparison.chance)} of cases."
        )
    if change is None:
        lines.append(f"A comparison of search results needs at least {FEWEST_SEEN} pictures.")
    else:
        lines.append(
            f"Of the {NEIGHBOURS} most similar pictures, {100 * change.same:.0f} % stay the same. This was measured on "
            f"{change.images:,} random pictures. {EXAMPLES} examples:"
        )
    return lines


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
