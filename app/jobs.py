"""Work that takes longer than a click may: done once, in a thread, for everybody who looks at the page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from massl.errors import MasslError

Report = Callable[[int, int], None]  # told how much is done, and of how much


@dataclass
class Job:
    """A piece of work.

    Attributes:
        state: what it was done on; another state makes it outdated.
        done, total: how far it is; `total` is 0 while that isn't known.
        running: whether it is still being done.
        result: what came of it.
        error: what to say of it if it failed.
    """

    state: Any
    done: int = 0
    total: int = 0
    running: bool = True
    result: Any = None
    error: str | None = None


class Jobs:
    """The jobs of one page, each kind once at a time. Safe to share by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Job] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._finished: dict[str, Job] = {}

    def get(
        self, kind: str, state: Any, work: Callable[[Report], Any], patience: float = 0.5
    ) -> tuple[Job, Job | None]:
        """The job of a kind, begun if it wasn't yet, and the last finished one, which may be of an earlier state.

        Args:
            kind: the name of the work.
            state: what it is to be done on; anything that can be compared.
            work: does it.
            patience: seconds to wait for it, so that what is quick looks as if it were done at once.
        """
        with self._lock:
            finished = self._finished.get(kind)
            if finished is not None and finished.state == state:
                return finished, finished
            job = self._running.get(kind)
            if job is None:
                job = self._running[kind] = Job(state)
                thread = threading.Thread(target=self._do, args=(kind, job, work), name=f"massl-{kind}", daemon=True)
                self._threads[kind] = thread
                thread.start()
            thread = self._threads[kind]
        thread.join(patience)
        with self._lock:
            return job, self._finished.get(kind)

    def forget(self, kind: str) -> None:
        """Has it done anew when it is next asked for."""
        with self._lock:
            self._finished.pop(kind, None)

    def _do(self, kind: str, job: Job, work: Callable[[Report], Any]) -> None:
        def report(done: int, total: int) -> None:
            job.done, job.total = done, total

        try:
            job.result = work(report)
        except MasslError as error:
            job.error = str(error)
        except Exception:  # the edge of the thread: the details are for whoever runs the server
            logging.getLogger(__name__).exception("%s failed", kind)
            job.error = "Something went wrong; the details are where massl runs"
        with self._lock:
            job.running = False
            self._finished[kind] = self._running.pop(kind)
