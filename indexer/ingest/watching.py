"""Noticing that something below a folder changed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import watchfiles

from massl.core.files.scan import kind_of_file
from massl.core.images.formats import OTHER

EVERY = 300.0  # seconds between full scans: linked folders and some network drives report no changes
WITHOUT_NOTICE = 30.0  # the same where the system can't tell of any
AT_MOST = 0.05  # of the time, that full scans of a large folder take
_TICK = 1000  # milliseconds


def watch(
    root: Path,
    index: Path,
    complain: Callable[[str], None] = lambda reason: None,
    ending: threading.Event | None = None,
) -> Iterator[None]:
    """Yields whenever something below `root` may have changed, and every five minutes in any case.

    Where the caller needs long for one look, less often. Ends by the caller's leaving, once `ending` is set, or with
    the KeyboardInterrupt of a Ctrl-C.

    Args:
        root: the folder.
        index: the index's own folder, in which changes don't count.
        complain: told why changes are only looked for every half minute, where that is so.
        ending: noticed within a second.
    """
    ending = ending or threading.Event()
    top, own = os.path.realpath(root), os.path.realpath(index)

    def matters(change: watchfiles.Change, path: str) -> bool:
        if path == own or path.startswith(own + os.sep):
            return False
        if any(part.startswith(".") for part in os.path.relpath(path, top).split(os.sep) if part != ".."):
            return False
        return not os.path.isfile(path) or kind_of_file(Path(path)) != OTHER

    looked, pause = time.monotonic(), 0.0  # once right away: things may have changed before the watch stood
    try:
        for found in watchfiles.watch(
            top,
            watch_filter=matters,
            step=500,
            rust_timeout=_TICK,
            yield_on_timeout=True,
            ignore_permission_denied=True,
            stop_event=ending,
        ):
            if found or time.monotonic() - looked >= pause:
                began = time.monotonic()
                yield
                looked = time.monotonic()
                pause = max(EVERY, (looked - began) / AT_MOST)
    except (OSError, RuntimeError, UnicodeEncodeError) as error:  # the others of watchfiles, where a name is not UTF-8
        reason = "its name is not UTF-8" if isinstance(error, UnicodeEncodeError) else error
        complain(f"the system can't watch {root} ({reason}); checking every {WITHOUT_NOTICE:.0f} seconds")
        pause = 0.0  # something has changed
        while not ending.wait(pause):
            began = time.monotonic()
            yield
            pause = max(WITHOUT_NOTICE, (time.monotonic() - began) / AT_MOST)
