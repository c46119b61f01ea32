"""Work that takes its time: done once in a thread of its own, for everybody who asks, with progress, and stoppable."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from massl.core.errors import MasslError

Outcome = TypeVar("Outcome")


class Stopped(Exception):
    """The job was stopped; raised out of its reports."""


class JobReport:
    """What a job is done with: it tells how far it is, and ends it by `Stopped` once somebody stopped it.

    `report(step, done, total)` tells the step, and how much of it is done, of how much.
    """

    def __init__(self, tell: Callable[[str, float, float], None], stop: threading.Event) -> None:
        self._tell = tell
        self._stop = stop

    def __call__(self, step: str, done: float, total: float) -> None:
        self.check()
        self._tell(step, done, total)

    def check(self) -> None:
        """Raises `Stopped` if somebody stopped the job."""
        if self._stop.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Waits; raises `Stopped` as soon as somebody stops the job."""
        if self._stop.wait(seconds):
            raise Stopped


@dataclass(frozen=True)
class JobStatus(Generic[Outcome]):
    """How far a job is.

    Attributes:
        state: `idle` until it is begun; `running`; `done`; `stopped` by someone; `failed`.
        step: what was reported last, and so the next two.
        done: how much of the step is done.
        total: of how much.
        began: when it was begun, by `time.monotonic`.
        result: of what was done; while a job goes on for another key, that of the last one.
        current: whether `result` is for the key that was asked for.
        reason: why it failed, in a sentence.
    """

    state: Literal["idle", "running", "done", "stopped", "failed"] = "idle"
    step: str = ""
    done: float = 0
    total: float = 0
    began: float = 0.0
    result: Outcome | None = None
    current: bool = False
    reason: str = ""


class BackgroundJob(Generic[Outcome]):
    """One job, done in one thread at a time. Its result is kept for as long as the key stays the same.

    Args:
        do: does it; calls the report that it is given often enough to be stopped in time.
        ended: called in the job's thread with how it ended; may close that thread's connection, say.
        failure: what is said of a failure that nobody foresaw.
        name: of the thread.
    """

    def __init__(
        self,
        do: Callable[[JobReport], Outcome],
        ended: Callable[[JobStatus[Outcome]], None] = lambda status: None,
        failure: str = "something went wrong",
        name: str = "job",
    ) -> None:
        self._do = do
        self._ended = ended
        self._failure = failure
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._key: object = None
        self._status: JobStatus[Outcome] = JobStatus()

    def status(self, key: object = None) -> JobStatus[Outcome]:
        """How far it is for this key."""
        with self._lock:
            status = self._status
            if status.state == "idle" or key == self._key or status.state == "running":
                return status
            return JobStatus(result=status.result)

    def begin(self, key: object = None, anew: bool = False) -> None:
        """Does the job for this key, unless it is done (and not wanted `anew`), or goes on for another."""
        with self._lock:
            done = self._status.state == "done" and self._key == key
            if self._status.state == "running" or (done and not anew):
                return
            self._key = key
            self._stop = threading.Event()
            self._status = JobStatus("running", began=time.monotonic(), result=self._status.result)
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends a job that goes on at its next report."""
        self._stop.set()

    def forget(self) -> None:
        """Has it done anew when it is next begun; what was found stays to be shown until then."""
        with self._lock:
            if self._status.state != "running":
                self._status = JobStatus(result=self._status.result)

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for what goes on, but no longer than this: what is done at once need not be asked for again.

        Returns:
            Whether nothing goes on.
        """
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def _run(self, stop: threading.Event) -> None:
        with self._lock:
            began, before = self._status.began, self._status.result

        def tell(step: str, done: float, total: float) -> None:
            with self._lock:
                self._status = JobStatus("running", step, done, total, began, before)

        ended: JobStatus[Outcome]
        try:
            ended = JobStatus("done", result=self._do(JobReport(tell, stop)), current=True)
        except Stopped:
            ended = JobStatus("stopped", result=before)
        except MasslError as error:
            ended = JobStatus("failed", result=before, reason=str(error))
        except Exception:  # the edge of this thread: nobody else would hear of it
            logging.getLogger(__name__).exception("a job in the background failed")
            ended = JobStatus("failed", result=before, reason=f"{self._failure}; the details are where massl runs")
        with self._lock:
            self._status = ended
        self._ended(ended)
