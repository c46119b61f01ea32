"""Bringing a collection up to date in a thread of its own, while it is searched and looked at."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from indexer.ingest.indexing import IndexReport, Progress
from indexer.storage import CollectionBusy
from massl.core.errors import MasslError

if TYPE_CHECKING:
    from indexer.collection import Collection

AGAIN = 3.0  # seconds until it is tried again while another process indexes
_PACE = 2.0  # seconds of a stage, before which no rate is told

Stage = Literal["looking", "comparing", "indexing", "preparing", "busy", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Update:
    """How far it is.

    Attributes:
        stage: `looking` through the folder, `comparing` touched files with the catalog, `indexing` (embedding) what is
            new or changed, `preparing` the search; `busy` while another process does that; then `done`, `failed` or
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


class _Stopped(Exception):
    pass


class BackgroundUpdate:
    """`Collection.update` in the background. What it commits can be searched at once; stopped, it loses a batch.

    Args:
        collection: what is brought up to date.
        tell: called in the background thread with every `Update`.
    """

    def __init__(self, collection: Collection, tell: Callable[[Update], None] = lambda update: None) -> None:
        self._collection = collection
        self._tell = tell
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._state = Update()
        self._thread = threading.Thread(target=self._work, name="update", daemon=True)

    def start(self) -> None:
        """Begins; once."""
        self._thread.start()

    def state(self) -> Update:
        """How far it is now."""
        return self._state

    def stop(self) -> None:
        """Stops it after the batch in work, and waits for that."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait(self, seconds: float) -> bool:
        """Waits until it has finished; False if it takes longer."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while True:
                try:
                    report = self._collection.update(self._embedded, self._preparing)
                    return self._say(Update("done", report=report, listed=self._collection.revision().listed))
                except CollectionBusy as error:
                    self._say(Update("busy", message=str(error)))
                    if self._stop.wait(AGAIN):
                        raise _Stopped from None
        except _Stopped:
            self._say(Update("stopped"))
        except MasslError as error:
            self._say(Update("failed", message=str(error)))
        except Exception:  # the edge of this thread: the page goes on, and whoever runs it sees the details
            logging.getLogger(__name__).exception("the index could not be brought up to date")
            self._say(
                Update("failed", message="the index could not be brought up to date; details are where massl runs")
            )
        finally:
            self._collection.close()

    def _embedded(self, progress: Progress) -> None:
        stages: dict[str, Stage] = {"look": "looking", "compare": "comparing", "embed": "indexing"}
        self._at(stages[progress.stage], progress.done, progress.total)

    def _preparing(self, step: str, done: int, total: int) -> None:
        self._at("preparing", done, total)

    def _at(self, stage: Stage, done: int, total: int) -> None:
        if self._stop.is_set():
            raise _Stopped
        now = time.monotonic()
        if stage != self._state.stage:
            self._began = now
            self._state = Update(stage, done, total, begun_at=done)
        self._say(replace(self._state, done=done, total=total, seconds=now - self._began))

    def _say(self, state: Update) -> None:
        self._state = state
        self._tell(state)
