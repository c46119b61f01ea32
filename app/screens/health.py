"""The screen "Health": what the collection is made of, what was passed over, how far to trust it, what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.formatting import at_size, cost, moment, other_sizes, readable, size
from app.progress import duration
from app.screens.job_status import running
from app.screens.screen import Action, Screen
from app.screens.tiles import tile
from app.session import Payload, Session, number
from indexer import Collection
from indexer.index_command import index_command
from indexer.jobs.background import BackgroundJob, JobReport, JobStatus
from indexer.monitoring import trained_encoders as runs
from indexer.monitoring.drift import Drift, Newest
from indexer.monitoring.encoder_comparison import EXAMPLES, FEWEST_SEEN, NEIGHBOURS, Beside, Change, Comparison
from indexer.monitoring.health import Health
from indexer.monitoring.trained_encoders import Trained
from indexer.search.calibration import IDENTICAL
from indexer.store.meta import Meta
from massl.core.errors import MasslError
from massl.core.files.csv_tables import csv_text
from massl.core.files.scan import left_out_line

SKIPPED = 100  # files that are listed at first, and more at a time
MOST = 10_000  # that are listed; the table that can be taken away has all
PATIENCE = 1.0  # seconds that an answer waits for what is soon done
STEPS = {
    "catalog": "Comparing the catalog with its checksums",
    "drift": "Comparing the pictures",
    "folder": "Looking through the folder",
    "disk": "Measuring the disk",
    "trained": "Looking for encoders that you trained",
}
COMPARING = {
    "encoder": "Opening the encoder",
    "labels": "Looking at labelled pictures with it",
    "pictures": "Looking at other pictures with it",
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
    """What one session looks at."""

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
        total = len(self.collection)
        reasons = Counter(item.reason for item in skipped)
        downloading, looking.downloading = looking.downloading, False
        drawn: dict[str, Any] = {
            "running": running(status, "Looking", STEPS),
            "waiting": any(work.status(None).state == "running" for work in self._comparing.values()),
            "problem": f"Something could not be found out: {readable(status.reason)}" if status.reason else "",
            "cards": [
                _pictures(
                    total, len(skipped), self.collection.images.left_out(), self.collection.labels.counts(), meta, found
                ),
                _encoder(meta, found),
                _search(self.collection, total),
            ],
            "drift": [*_familiar(found.drift), *self._newest(found.drift)] if found else [],
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
            title = f"An encoder that you trained: {run.name}"
            command = index_command(root, folder, file)
            others.append(Other(run.sha256, title, _trained(run), present, run.name, command, run))
        for side in found.image_sizes:
            if found.image_size is None or side == found.image_size:
                continue
            own, name = at_size(present, found.image_size), at_size(present, side)
            facts = [
                _fact("Costs", f"{cost(side, found.image_size)} of {found.image_size} px", "About, for each picture")
            ]
            title = f"The encoder in use, at another size: {side} x {side} pixels"
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
            raise MasslError("The list of encoders has changed since; look at it afresh")
        known = {other.key for other in found}
        for gone in [key for key in self._comparing if key not in known]:
            self._comparing.pop(gone).stop()
        if any(work.status(None).state == "running" for work in self._comparing.values()):
            raise MasslError("An encoder is being compared already; wait for it, or stop it")
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
                lines.append("Measured before the labels or the pictures changed; compare again.")
            lines += _said(result, other.present, other.name)
        if status.reason:
            lines.insert(0, f"They could not be compared: {readable(status.reason)}.")
        return {
            "place": place,
            "encoder": other.key,
            "name": readable(other.name),
            "title": readable(other.title),
            "trained": isinstance(other.beside, Trained),
            "facts": other.facts,
            "running": running(status, "Looking", COMPARING),
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
        lines = _told(drift.newest)
        return [{"title": "Your newest pictures", "lines": lines, "examples": examples, "notable": notable}]


def _trained(other: Trained) -> list[dict[str, str]]:
    """What the run and its file say, without having looked at anything."""
    images = f"{other.training.images:,} pictures" if other.training.images else "pictures"
    on = "this folder" if other.on_these else other.folder or "a folder that it doesn't name"
    facts = [_fact("Trained", moment(other.written), f"{other.path}, SHA-256 {other.sha256}")]
    facts.append(_fact("On", f"{images} of {on}"))
    if other.epochs is not None and other.seconds is not None:
        facts.append(_fact("For", f"{other.epochs:,.0f} passes over them, {duration(other.seconds)}"))
    if other.training.architecture:
        facts.append(_fact("Network", other.training.architecture))
    if other.right is not None:
        facts.append(
            _fact("While training", f"{100 * other.right:.1f} % right on {other.labels}", "By nearest labelled")
        )
    return facts


def _bars(found: Comparison, present: str, other: str) -> list[dict[str, Any]]:
    shares = ((f"{present}, in use", found.present), (other, found.other))
    return [{"name": readable(name), "share": share, "text": f"{100 * share:.1f} %"} for name, share in shares]


def _said(found: Beside, present: str, other: str) -> list[str]:
    """What a comparison comes to, in sentences; the first is the answer."""
    comparison, change = found.comparison, found.change
    lines = []
    if comparison is None:
        lines.append(
            "Which one is better can't be said without labels: label two pictures or more of each of two classes on "
            "the screen Label (some dozens say more), and compare again."
        )
    else:
        on = f"{comparison.images:,} labelled pictures in {comparison.classes:,} classes"
        if comparison.chance >= CHANCE:
            lines.append(f"No difference between the two can be told by {on}.")
        else:
            winner = other if comparison.other > comparison.present else present
            lines.append(f"{winner} tells your classes apart better, by {on}.")
        lines.append(
            "The share of them whose label is found by the nearest others. "
            f"{other} alone found it {comparison.only_other:,} times, {present} alone {comparison.only_present:,} "
            f"times; were both equally good, chance would bring a difference like this in "
            f"{_percent(comparison.chance)} of all cases."
        )
    if change is None:
        lines.append(f"There are too few pictures (fewer than {FEWEST_SEEN}) to show what a search would find.")
    else:
        lines.append(
            f"A search would change: of the {NEIGHBOURS} pictures most like one, {100 * change.same:.0f} % stay, among "
            f"{change.images:,} of yours drawn by chance. Look at {EXAMPLES} of them:"
        )
    return lines


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _fact(name: str, value: str, hint: str = "") -> dict[str, str]:
    return {"name": name, "value": readable(value), "hint": hint}


def _pictures(
    total: int,
    skipped: int,
    left_out: dict[str, int],
    labels: dict[str, int],
    meta: Meta,
    found: Health | None,
) -> dict[str, Any]:
    facts = [
        _fact("Pictures", f"{total:,}"),
        _fact("Passed over", f"{skipped:,} files" if skipped != 1 else "1 file", "Listed below, with the reasons"),
        *([_fact("Left out", line)] if (line := left_out_line(left_out)) else []),
        _fact("Labelled", f"{sum(labels.values()):,} in {len(labels):,} classes"),
        _fact("Last brought up to date", moment(meta.checked or meta.updated)),
    ]
    if found:
        since = found.behind
        if since is None:
            folder = "The folder can't be reached"
        elif since:
            folder = f"{since.new:,} new, {since.changed:,} changed, {since.gone:,} gone"
        else:
            folder = "Nothing"
        facts.append(_fact("Changed in the folder since", folder, "Files, by their sizes and times"))
        facts.append(_fact("Disk", size(found.bytes), "The index and the thumbnails; your pictures are not counted"))
    return {"title": "Collection", "facts": facts, "figures": []}


def _encoder(meta: Meta, found: Health | None) -> dict[str, Any]:
    facts = [_fact("Name", meta.encoder_name, f"SHA-256 {meta.encoder_sha256}")]
    if found and found.image_size:
        facts.append(_fact("Looks at", f"{found.image_size} x {found.image_size} pixels", "Of each picture"))
        if others := other_sizes(found.image_sizes, found.image_size):
            facts.append(_fact("Or at", others, "They can be compared at the end of this screen"))
    training = found.training if found else None
    if training is None:
        return {"title": "Encoder", "facts": facts, "figures": []}
    if training.architecture:
        millions = f", {training.parameters / 1e6:,.1f} million parameters" if training.parameters else ""
        facts.append(_fact("Network", training.architecture + millions))
    if training.source:
        facts.append(_fact("Made of", training.source, "Whose weights they were, and their licence"))
    images = f" on {training.images:,} images" if training.images else ""
    if training.method or images or not training.source:
        facts.append(
            _fact("Trained", f"{training.method}{images}" if training.method else images or "not said in its file")
        )
    facts.append(_fact("Vector", f"{meta.dim} numbers a picture"))
    sizes = found.image_sizes if found else ()
    at = f", at {sizes[0]} px" if len(sizes) > 1 else ""
    figures = [{"name": name, "value": f"{100 * share:.1f} %"} for name, share in sorted(training.figures.items())]
    return {
        "title": "Encoder",
        "facts": facts,
        "figures": figures,
        "about": f"Right by the nearest labelled neighbours, on {len(figures)} public sets{at}",
    }


def _search(collection: Collection, total: int) -> dict[str, Any]:
    measured = collection.searcher.measured()
    facts = []
    if how := collection.searcher.how():
        facts.append(_fact("How", how))
    if measured:
        if measured.queries:
            found = f"{100 * measured.recall:.1f} % of the ten nearest, by {measured.queries:,} of your own pictures"
            facts.append(_fact("Finds", found, "Measured against comparing with every picture"))
        else:
            facts.append(_fact("Finds", "all of the nearest, always"))
    bounds = collection.searcher.calibration().bounds(total)
    if bounds:
        same = (
            "only what is practically identical"
            if bounds["same"] >= IDENTICAL
            else f"from a score of {bounds['same']:z.2f}"
        )
        facts.append(_fact("Called the same", same))
        facts.append(_fact("Called alike", f"from a score of {bounds['alike']:z.2f}", "Where chance would bring one"))
    else:
        facts.append(_fact("Scores", "too few pictures to say what they mean"))
    return {"title": "Search", "facts": facts, "figures": []}


def _familiar(drift: Drift) -> list[dict[str, Any]]:
    title = "Your pictures and the encoder's training images"
    if drift.mean_score is None:
        lines = ["There are too few pictures to say how unlike they are."]
        return [{"title": title, "lines": lines, "examples": []}]
    if drift.familiar is None:
        lines = ["This can't be told: the encoder's file holds no summary of the images that it was trained on."]
        return [{"title": title, "lines": lines, "examples": []}]
    said = {
        "known": "Your pictures are about as varied to the encoder as those it was trained on.",
        "narrow": "Your pictures are more alike to the encoder than those it was trained on.",
        "foreign": "Your pictures are far from what the encoder was trained on, or all of one kind: "
        "most of what it can tell apart does not occur in them.",
    }
    low, high = drift.bounds
    lines = [
        said[drift.familiar],
        f"Seen from the middle of its training images, two of yours score {drift.mean_score:z.2f} on average, two of "
        f"those 0. Up to "
        f"{low:z.2f} counts as alike, from {high:z.2f} on as far.",
    ]
    meter = {"value": min(1.0, max(0.0, drift.mean_score)), "low": low, "high": high}
    return [{"title": title, "lines": lines, "examples": [], "meter": meter}]


def _told(newest: Newest) -> list[str]:
    came = f"{newest.images:,} pictures came on {moment(newest.since)} or later, after {newest.older:,} others."
    if not newest.at_least:
        return [f"{came} They look like the rest, as far as can be told from so many."]
    return [
        f"{newest.unlike:,} new pictures look unlike the rest.",
        f"{came} At least {newest.at_least:,} of them are unlike; pictures of one occasion also count as such.",
    ]
