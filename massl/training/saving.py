"""Checkpoints written while training goes on: copied to the CPU at once, and to the disk by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import Tensor


class Saving:
    """Writes one thing at a time, in the background.

    As a context manager it ends once all is written. What could not be written is raised by the next call, or there.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, write: Callable[[], object]) -> None:
        """Calls `write` in a thread, once what was begun before is done.

        Raises:
            MasslError: what was begun before could not be written.
        """
        self.finish()
        # No daemon: a process that ends by itself waits for it.
        self._thread = threading.Thread(target=self._run, args=(write,), name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raises what writing has met so far, without a wait."""
        if self._thread is not None and not self._thread.is_alive():
            self.finish()

    def finish(self) -> None:
        """Waits until all is written.

        Raises:
            MasslError: it could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, write: Callable[[], object]) -> None:
        try:
            write()
        except BaseException as error:  # it is raised where somebody waits for it
            self._error = error

    def __enter__(self) -> Saving:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.finish()
        except Exception:
            if error is None:  # else the first reason is the one to hear of
                raise


def copied(value: Any) -> Any:
    """The same with every tensor copied to the CPU, so that what goes on changing is not what is written."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: copied(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copied(part) for part in value)
    return value
