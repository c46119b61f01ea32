"""Files written whole or not at all, and the older ones that they take the place of."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from massl.core.errors import MasslError
from massl.core.files.scan import CATALOG, THUMBNAILS, kind_of_file
from massl.core.images.formats import OTHER, UNOPENED

_STREAMS = (Path("/dev/stdout"), Path("/dev/stderr"))
FORGOTTEN = 3600  # seconds without a change after which a temporary file is a killed process's


@contextmanager
def whole(path: Path, flush: bool = True) -> Iterator[Path]:
    """A name to write to; what lies there at the end takes the name `path`, in place of what had it.

    Whatever happens within, an exception, a kill or a full disk, `path` is what it was before.

    Args:
        path: the file to write, or a link to it; its folder is there.
        flush: see `put`.

    Raises:
        OSError: it can't be written, or is a folder or a device: the rights of an administrator would replace that.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "no ordinary file", str(path))
    with temporary(path.parent) as written:
        yield written
        with contextlib.suppress(OSError):  # there was none, or its disk knows no modes
            written.chmod(stat.S_IMODE(path.stat().st_mode))
        put(written, path, flush)


def check_output(path: Path) -> None:
    """Says before a command's work, not after it, where its result can't be written or would take what is dear.

    Raises:
        MasslError: a folder, in none, or `-`; a picture that is there, or what may not be written; or in an index.
    """
    if path.is_dir():
        raise MasslError(f"{path} is a folder; name a file to write")
    if path == Path("-"):
        raise MasslError("- is not a file name here; name a file, or /dev/stdout to print it")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise MasslError(f"{path} can't be written: there is no folder {path.parent}")
    if path.is_file() and kind_of_file(path) not in (OTHER, UNOPENED):
        raise MasslError(f"{path} is a picture and is not overwritten; name another file")
    if path.exists() and not os.access(path, os.W_OK):  # a new file in its place would ask the folder's rights alone
        raise MasslError(f"{path} can't be written: permission denied")
    if (folder / CATALOG).exists() or (folder.name == THUMBNAILS and (folder.parent / CATALOG).exists()):
        raise MasslError(f"{path} is inside an index; name a file elsewhere")


def write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, and straight to what is no file: a pipe, a terminal, a device.

    Args:
        path: as `whole` takes it, or what is no file.
        data: all of it.

    Raises:
        OSError: it can't be written.
    """
    if path in _STREAMS:  # sent to a file they look like it, but what it holds, and what follows, is to stay
        stream = sys.stdout if path == _STREAMS[0] else sys.stderr
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
        return
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    with whole(path) as written:
        written.write_bytes(data)


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A name in a folder that nobody else has, to write to and to `put` in its place; else the file goes at the end."""
    path = folder / f".massl-{secrets.token_hex(8)}.tmp"
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def put(written: Path, path: Path, flush: bool = True) -> None:
    """Gives a file that is written the name `path`, in place of what had it.

    Args:
        written: lies in the same folder.
        path: its name from now on.
        flush: wait until the disk has it, so that a power cut leaves no half of it either.

    Raises:
        OSError: it can't be.
    """
    if flush:
        with written.open("r+b") as file:  # Windows flushes only what may be written to
            os.fsync(file.fileno())
    written.replace(path)


def remove_older(path: Path, pattern: str, also: Collection[str] = ()) -> None:
    """Removes the files beside `path` of that pattern, but for itself and those of the names `also`.

    One that can't be removed stays until the next time: Windows keeps those that somebody reads.
    """
    for old in path.parent.glob(pattern):
        if old != path and old.name not in also:
            with contextlib.suppress(OSError):
                old.unlink()


def remove_forgotten(folder: Path) -> None:
    """Removes temporary files of processes that were killed."""
    for left in folder.glob(".massl-*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > FORGOTTEN:
                left.unlink()
