"""Bringing a collection up to date in a thread of its own, and keeping it so, while it is searched and looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from indexer.ingest.indexing import IndexProgress, IndexReport
from indexer.ingest.watching import watch
from indexer.jobs.background import BackgroundJob, JobReport, JobStatus
from indexer.storage.collection_storage import CollectionBusy
from massl.core.errors import MasslError

if TYPE_CHECKING:
    from indexer.collection import Collection

AGAIN = 3.0  # seconds until it is tried again while another process indexes
_PACE = 2.0  # seconds of a stage, before which no rate is told

Stage = Literal[
    "looking", "comparing", "indexing", "reading", "measuring", "preparing", "busy", "done", "failed", "stopped"
]


@dataclass(frozen=True)
class Update:
    """How far it is.

    Attributes:
        stage: `looking` through the folder, `comparing` touched files with the catalog, `indexing` (embedding) what is
            new or changed, `reading` dates and words and `measuring` pixels of pictures where that was never done,
            `preparing` the search; `busy` while another process does that; then `done`, `failed` or
            `stopped`.
        done, total: files of this stage; 0 where that isn't known.
        seconds: since the stage began.
        begun_at: `done` when it began.
        report: what was done, once it is.
        listed: the part of the collection's revision when it was; another one since means that the report is no longer
            how things are.
        message: why it failed, or who is at it, as a sentence.
    """

    stage: Stage = "looking"
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    begun_at: int = 0
    report: IndexReport | None = None
    listed: Hashable = None
    message: str = ""

    @property
    def running(self) -> bool:
        """Whether more is to come."""
        return self.stage not in ("done", "failed", "stopped")

    @property
    def per_second(self) -> float | None:
        """Files a second in this stage; None while that can't be told."""
        return (self.done - self.begun_at) / self.seconds if self.seconds >= _PACE else None

    @property
    def seconds_left(self) -> float | None:
        """About how long this stage takes still; None while that can't be told."""
        return (self.total - self.done) / self.per_second if self.per_second and self.total else None


class BackgroundUpdate:
    """`Collection.update` in the background. What it commits can be searched at once; stopped, it loses a batch.

    Args:
        collection: what is brought up to date.
        tell: called in the background thread with every `Update`.
        follow: whether it goes on until it is stopped, and indexes what comes into the folder meanwhile. What it finds
            unchanged it tells nobody.
    """

    def __init__(
        self,
        collection: Collection,
        tell: Callable[[Update], None] = lambda update: None,
        follow: bool = False,
    ) -> None:
        self._collection = collection
        self._tell = tell
        self._follow = follow
        self._following = False
        self._ending = threading.Event()
        self._began = time.monotonic()
        self._state = Update()
        self._job = BackgroundJob(self._update, self._end, "the index could not be updated", "update")

    def start(self) -> None:
        """Begins; once."""
        self._job.begin()

    def state(self) -> Update:
        """How far it is now."""
        return self._state

    def stop(self) -> None:
        """Stops it after the batch in work, and waits for that."""
        self._ending.set()
        self._job.stop()
        self._job.wait()

    def wait(self, seconds: float) -> bool:
        """Waits until it has finished; False if it takes longer."""
        return self._job.wait(seconds)

    def _update(self, report: JobReport) -> Update:
        if not self._follow:
            return self._once(report)
        latest = self._once_or_why_not(report)
        self._say(latest)
        self._following = True
        for _ in watch(self._collection.root, self._collection.folder, ending=self._ending):
            report.check()
            found = self._once_or_why_not(report)
            if found.message != latest.message or (found.report and _is_news(found.report)):
                latest = found
            if self._state is not latest:
                self._say(latest)
        report.check()
        return latest

    def _once_or_why_not(self, report: JobReport) -> Update:
        """As `_once`. What fails now may go well later: an empty folder is filled, a drive comes back."""
        try:
            return self._once(report)
        except MasslError as error:
            return Update("failed", message=str(error))

    def _once(self, report: JobReport) -> Update:
        def at(stage: Stage, done: int, total: int) -> None:
            report(stage, done, total)
            if not self._following or stage not in ("looking", "comparing"):
                self._at(stage, done, total)

        def embedded(progress: IndexProgress) -> None:
            stages: dict[str, Stage] = {
                "look": "looking",
                "compare": "comparing",
                "embed": "indexing",
                "read": "reading",
                "measure": "measuring",
            }
            at(stages[progress.stage], progress.done, progress.total)

        def preparing(step: str, done: int, total: int) -> None:
            at("preparing", done, total)

        while True:
            try:
                found = self._collection.update(embedded, preparing)
                return Update("done", report=found, listed=self._collection.revision().listed)
            except CollectionBusy as error:
                if not self._following:
                    self._say(Update("busy", message=str(error)))
                report.pause(AGAIN)

    def _end(self, status: JobStatus[Update]) -> None:
        if status.state == "done" and status.result is not None:
            self._say(status.result)
        else:
            self._say(Update("stopped" if status.state == "stopped" else "failed", message=status.reason))
        self._collection.close()

    def _at(self, stage: Stage, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._state.stage:
            self._began = now
            self._state = Update(stage, done, total, begun_at=done)
        self._say(replace(self._state, done=done, total=total, seconds=now - self._began))

    def _say(self, state: Update) -> None:
        self._state = state
        self._tell(state)


def _is_news(report: IndexReport) -> bool:
    return bool(report.added or report.changed or report.moved or report.removed)
