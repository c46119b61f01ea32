"""What a person can do about a disk error, by its errno."""

from __future__ import annotations

import errno
from pathlib import Path

from massl.core.errors import MasslError

_FULL = "free some space"
_GONE = "connect the drive again"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "free some space: your disk quota is used up",
    errno.EFBIG: "choose a disk that supports larger files",
    errno.EROFS: "mount the disk for writing",
    errno.EACCES: "ask its owner for permission to write",
    errno.EPERM: "ask its owner for permission to write",
    errno.EIO: "check the disk and its connection, and back up its files",
    errno.EMFILE: "close some programs, or raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close some programs, as the system has too many files open",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ESTALE: _GONE,
    errno.ENOTCONN: _GONE,
    errno.ENODEV: _GONE,
    errno.ENXIO: _GONE,
    errno.ETIMEDOUT: _GONE,
    errno.EHOSTDOWN: _GONE,
}
_ELSEWHERE_WONT_HELP = (errno.EMFILE, errno.ENFILE)
IS_FULL = (errno.ENOSPC, errno.EDQUOT)


def remedy(error: OSError, instead: str = "") -> str:
    """What to do about an error in writing: by its number, or `instead`, as another place.

    Args:
        error: of which `errno` may be None.
        instead: an imperative, as `choose another --out`; empty where there is no other way.
    """
    known = _REMEDIES.get(error.errno or 0, "")
    other = "" if error.errno in _ELSEWHERE_WONT_HELP else instead
    return ", or ".join(filter(None, (known, other))) or "try again"


def reason(error: OSError) -> str:
    """What the system says of it, in small letters."""
    return (error.strerror or str(error)).lower()


def cannot_write(path: Path | str, error: OSError, instead: str = "") -> MasslError:
    """What to say where something can't be written; for `instead` see `remedy`."""
    return MasslError(f"{path} can't be written ({reason(error)}); {remedy(error, instead)}")


def reason_of(error: OSError, missing: str) -> str:
    """Why a file can't be read, in a few words; `missing` is what to say where it is not there."""
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return missing
    if error.errno == errno.ELOOP:
        return "a link that points to itself"
    return (error.strerror or str(error)).lower()
