"""Work that takes its time: done once in a thread of its own, for everybody who asks, with progress, and stoppable."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from massl.core.errors import MasslError

Result = TypeVar("Result")
Report = Callable[[str, int, int], None]


class Stopped(Exception):
    """The work was stopped; raised out of its reports."""


@dataclass(frozen=True)
class Standing(Generic[Result]):
    """How far the work is.

    Attributes:
        state: `idle` until it is begun; `running`; `done`; `stopped` by someone; `failed`.
        step, done, total: what was reported last.
        result: of what was done; while work goes on for another key, that of the last one.
        current: whether `result` is for the key that was asked for.
        reason: why it failed, in a sentence.
    """

    state: Literal["idle", "running", "done", "stopped", "failed"] = "idle"
    step: str = ""
    done: int = 0
    total: int = 0
    result: Result | None = None
    current: bool = False
    reason: str = ""


class Work(Generic[Result]):
    """One piece of work at a time. Its result is kept for as long as the key stays the same.

    Args:
        do: does it; calls the report that it is given often enough to be stopped in time.
    """

    def __init__(self, do: Callable[[Report], Result]) -> None:
        self._do = do
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._key: object = None
        self._standing: Standing[Result] = Standing()

    def standing(self, key: object) -> Standing[Result]:
        """How far it is for this key."""
        with self._lock:
            standing = self._standing
            if standing.state == "idle" or key == self._key or standing.state == "running":
                return standing
            return Standing(result=standing.result)

    def begin(self, key: object, anew: bool = False) -> None:
        """Does the work for this key, unless it is done (and not wanted `anew`), or other work goes on."""
        with self._lock:
            done = self._standing.state == "done" and self._key == key
            if self._standing.state == "running" or (done and not anew):
                return
            self._key = key
            self._stop = threading.Event()
            self._standing = Standing("running", result=self._standing.result)
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name="work", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends work that goes on at its next report."""
        self._stop.set()

    def forget(self) -> None:
        """Has it done anew when it is next begun; what was found stays to be shown until then."""
        with self._lock:
            if self._standing.state != "running":
                self._standing = Standing(result=self._standing.result)

    def wait(self, seconds: float) -> None:
        """Waits for what goes on, but no longer than this: what is done at once need not be asked for again."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self, stop: threading.Event) -> None:
        def report(step: str, done: int, total: int) -> None:
            if stop.is_set():
                raise Stopped
            with self._lock:
                self._standing = Standing("running", step, done, total, self._standing.result)

        ended: Standing[Result]
        before = self._standing.result
        try:
            ended = Standing("done", result=self._do(report), current=True)
        except Stopped:
            ended = Standing("stopped", result=before)
        except MasslError as error:
            ended = Standing("failed", result=before, reason=str(error))
        except Exception:  # the edge of this thread: nobody else would hear of it
            logging.getLogger(__name__).exception("work in the background failed")
            ended = Standing("failed", result=before, reason="something went wrong; the details are where massl runs")
        with self._lock:
            self._standing = ended
