"""What a person sees: data on standard output, everything else on standard error, plain when that is no terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from massl.core.printable import visible

PLAIN_EVERY = 5.0  # seconds between progress lines where there is no terminal


def print_json(value: dict[str, Any]) -> None:
    """One JSON object, with its schema's number first, on standard output."""
    print(json.dumps({"schema": 1, **value}), flush=True)


def print_line(text: str, end: str = "\n") -> None:
    """A line of data. File names go out as the bytes that they are, also where those are not UTF-8.

    To a terminal, nothing goes out that it would obey.
    """
    if sys.stdout.isatty():
        text = visible(text, keep="\t\n")
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text + end))
    sys.stdout.buffer.flush()


def at(box: Sequence[int] | None) -> str:
    """Where in a picture something was found, as `massl search --crop` takes it; nothing for the picture as a whole."""
    return f"  at {','.join(map(str, box))}" if box else ""


def say(text: str, quiet: bool = False) -> None:
    """A line for a person, on standard error; see `massl.core.printable.visible`."""
    if not quiet:
        print(visible(text), file=sys.stderr)


class ProgressLine:
    """How far, how fast, how long still: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, what: str, unit: str, quiet: bool) -> None:
        self.what = what
        self.unit = unit
        self.quiet = quiet
        self._started = self._last = time.monotonic()
        self._first: int | None = None
        self._note = ""
        self._bar: Progress | None = None
        self._task: Any = None

    def begin(self, what: str, unit: str = "") -> None:
        """Another stage of the same work, with a rate of its own, perhaps of another unit."""
        self.what = what
        self.unit = unit or self.unit
        self._started = self._last = time.monotonic()
        self._first = None
        if self._bar:
            self._bar.reset(self._task, description=what, rate="")

    def __enter__(self) -> ProgressLine:
        """Starts the bar if standard error is a terminal."""
        console = Console(stderr=True)
        if not self.quiet and console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(self.what, total=None, rate="")
            self._bar.start()
        return self

    def update(self, done: int, total: int, note: str = "") -> None:
        """Shows `done` of `total`; `note` says what is done and stands in for the rate, which begins anew with it."""
        now = time.monotonic()
        if self._first is None or note != self._note:
            self._first, self._note, self._started = done, note, now
        rate = (done - self._first) / (now - self._started) if now > self._started else 0.0
        if rate and not note:  # nothing is said of the first of all, which may also be the last
            note = f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.1f} {self.unit}/s"
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, rate=note)
        elif not self.quiet and (now - self._last >= PLAIN_EVERY or done == total):
            self._last = now
            left = f", {(total - done) / rate:,.0f} s left" if rate and done < total else ""
            say(f"{self.what} {done:,} of {total:,}" + (f", {note}" if note else "") + left)

    def __exit__(self, *error: object) -> None:
        """Takes the bar away."""
        if self._bar:
            self._bar.stop()
