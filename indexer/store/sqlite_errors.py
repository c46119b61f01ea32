"""What to say of errors of SQLite's: a full or read-only disk, a busy or a damaged file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from pathlib import Path

from indexer.store import damage
from indexer.store.damage import CatalogDamaged
from massl.core import disk_errors
from massl.core.errors import MasslError
from massl.core.files.scan import CATALOG

_UNWRITABLE = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip
# The last two are of the 32 KiB that its processes share, which it couldn't make room for: a full disk, or a quota.
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE)
_NEARLY_FULL = 1 << 20  # bytes free, below which a failed write is put down to a full disk


def explained(path: Path, error: sqlite3.Error, connection: sqlite3.Connection | None) -> MasslError | None:
    """What to say of an error of SQLite's; None if neither the file nor the disk is to blame.

    Args:
        path: the catalog's.
        error: what SQLite says.
        connection: the one that said it, if it was open.
    """
    code = _code(error)
    if damage.is_damage(error, connection):
        return CatalogDamaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return MasslError(f"{path} is being written by another process; try again in a moment")
    if code == sqlite3.SQLITE_PROTOCOL:
        return MasslError(
            f"{path.parent} is on a disk where files can't be locked ({error}), as on some network drives; "
            "choose a local one with --index-dir"
        )
    if code == sqlite3.SQLITE_CANTOPEN and path.exists() and not os.access(path, os.R_OK):
        return MasslError(f"{path} can't be read (permission denied); whoever made the index can allow it")
    if code in _UNWRITABLE:
        return cannot_write(path.parent, error)
    return None


def cannot_write(folder: Path, error: OSError | sqlite3.Error) -> MasslError:
    """What to say where a collection's folder can't be written."""
    if isinstance(error, sqlite3.Error):
        error = _as_system_error(folder, error)
    return disk_errors.cannot_write(folder, error, "choose another place with --index-dir")


def refusal(folder: Path) -> OSError:
    """Why a folder, or the catalog in it, may not be written."""
    read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    if not read_only and os.access(folder, os.W_OK) and os.access(folder / CATALOG, os.W_OK):
        return OSError("something else refuses it")
    number = errno.EROFS if read_only else errno.EACCES
    return OSError(number, os.strerror(number))


def may_be_full(error: sqlite3.Error) -> bool:
    """Whether a full disk, or a used up quota, can be the cause of an error."""
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def _as_system_error(folder: Path, error: sqlite3.Error) -> OSError:
    """SQLite says that reading or writing failed, but not why: a disk that is full and one that breaks say the same."""
    code, number = _code(error), None
    with contextlib.suppress(OSError):
        full = getattr(error, "sqlite_errorcode", None) in _NO_ROOM
        if full or (may_be_full(error) and shutil.disk_usage(folder).free < _NEARLY_FULL):
            number = errno.ENOSPC
        elif code == sqlite3.SQLITE_IOERR:
            number = errno.EIO
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
            number = refusal(folder).errno
    # Of a full disk SQLite says no more than "disk I/O error", which sounds like a broken one.
    return OSError(number, os.strerror(number) if number == errno.ENOSPC else str(error))


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's own number of an error, less what it adds of the circumstances; None if Python raised it."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
