"""Temporary folders that don't outlive their process for long, however it ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

import filelock

_PREFIX = "massl-"
_LOCK = "in-use.lock"
_FRESH = 60.0  # seconds for which a folder may not be locked yet


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder, readable by its owner alone, with a lock in it for as long as its process lives.

    Also removes such folders of processes that were killed: the system gives their locks back. It leaves alone what
    somebody else owns, what is a link, and what has no lock.

    Args:
        what: names the folder, as `uploads`.
    """

    def __init__(self, what: str) -> None:
        super().__init__(prefix=f"{_PREFIX}{what}-", ignore_cleanup_errors=True)
        # A thread may let go of it that is not the one which made it.
        self._lock = filelock.FileLock(Path(self.name, _LOCK), timeout=0, thread_local=False)
        with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks
            self._lock.acquire()
        _remove_abandoned(Path(self.name).parent)

    def cleanup(self) -> None:
        """Removes the folder."""
        self._lock.release()
        super().cleanup()


def _remove_abandoned(top: Path) -> None:
    for folder in top.glob(f"{_PREFIX}*"):
        lock = folder / _LOCK
        if not _may_be_ours(folder, lock):
            continue
        with contextlib.suppress(OSError, NotImplementedError, filelock.Timeout), filelock.FileLock(lock, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def _may_be_ours(folder: Path, lock: Path) -> bool:
    try:
        found, locked = os.lstat(folder), os.lstat(lock)
    except OSError:
        return False
    if not (stat.S_ISDIR(found.st_mode) and stat.S_ISREG(locked.st_mode)):
        return False
    if hasattr(os, "getuid") and not found.st_uid == locked.st_uid == os.getuid():
        return False
    return time.time() - locked.st_mtime > _FRESH
