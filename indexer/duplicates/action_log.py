"""The log of what was done to files by a plan: what is meant to be done is written before it is, so that it can be
undone after a kill too. One JSON object a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from indexer.store.inheriting import Inherited
from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError

_FORMAT = 1


@dataclass(frozen=True)
class FileAct:
    """One file that a plan removes.

    Attributes:
        number: in the log, from 0.
        by: `trash`, `hardlink`, `symlink` or `move`.
        path, keep: of the file, and of the one that is kept; relative to the root.
        content, kept_content: SHA-256 of both, in hexadecimal.
        mtime_ns, mode: the file's own, to be given back.
        to: where it was moved, else nothing.
        inherited: what the kept file takes over of what people said of it.
    """

    number: int
    by: str
    path: str
    keep: str
    content: str
    kept_content: str
    mtime_ns: int
    mode: int
    to: str = ""
    inherited: Inherited = field(default_factory=Inherited)


@dataclass
class ActionLog:
    """Acts as a log tells of them.

    Attributes:
        root: the folder that they are about, as it was called then.
        acts: in their order.
        undone: numbers of those that never happened or were undone.
    """

    root: str
    acts: list[FileAct] = field(default_factory=list)
    undone: set[int] = field(default_factory=set)


class LogWriter:
    """Writes a log; what was said is on the disk when a method returns."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def about_to(self, act: FileAct) -> None:
        """Says what is going to be done."""
        self._say({"act": asdict(act)})

    def undone(self, act: FileAct) -> None:
        """Says that it wasn't done after all, or isn't any more."""
        self._say({"undone": act.number})

    def _say(self, what: dict[str, Any]) -> None:
        # Names are the bytes that they are; JSON has an escape for those that are no text.
        try:
            os.write(self._descriptor, json.dumps(what).encode("ascii") + b"\n")
            os.fsync(self._descriptor)
        except OSError as error:
            raise cannot_write(self._path, error) from None


@contextmanager
def begun(path: Path, root: Path) -> Iterator[LogWriter]:
    """A new log.

    Raises:
        MasslError: there is a file of this name, or it can't be written.
    """
    with _opened(path, os.O_CREAT | os.O_EXCL) as writer:
        writer._say({"format": _FORMAT, "root": os.path.realpath(root)})
        yield writer


@contextmanager
def continued(path: Path) -> Iterator[LogWriter]:
    """A log that is there, to be added to.

    Raises:
        MasslError: it can't be written.
    """
    with _opened(path, 0) as writer:
        os.write(writer._descriptor, b"\n")  # after a kill the last line may be half a line
        yield writer


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[LogWriter]:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | flags, 0o600)
    except FileExistsError:
        raise MasslError(f"{path} is there already; name another file for the log") from None
    except OSError as error:
        raise cannot_write(path, error, "name another file for the log") from None
    try:
        yield LogWriter(path, descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> ActionLog:
    """Reads a log. A line that was cut off by a kill is left out: it was not followed by an act.

    Raises:
        MasslError: it is no log, or of a later version.
    """
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise MasslError(
            f"{path} can't be read ({error.strerror}); name the log that massl dupes --apply wrote"
        ) from None
    objects = [found for line in lines if (found := _object(line)) is not None]
    if not objects or objects[0].get("format") != _FORMAT or not isinstance(objects[0].get("root"), str):
        raise MasslError(f"{path} is no log of massl dupes --apply; name the file that it wrote")
    log = ActionLog(objects[0]["root"])
    for found in objects[1:]:
        if isinstance(found.get("undone"), int):
            log.undone.add(found["undone"])
        elif isinstance(found.get("act"), dict):
            try:
                act = _act(found["act"])
            except (TypeError, ValueError):
                raise MasslError(f"{path} was not written by this version of massl; undo it with that one") from None
            log.acts.append(act)
    return log


def _act(told: dict[str, Any]) -> FileAct:
    """An act as a line tells it; raises TypeError or ValueError for one of a later version."""
    label = told.pop("label", None)  # of logs that told of the label alone, and not when it was given
    inherited = told.pop("inherited", {"label": label})
    taken: dict[str, Any] = {}
    for name, value in inherited.items():
        if name == "label":
            taken[name] = None if value is None else _pair(value)
        elif isinstance(value, list):
            taken[name] = tuple(each if isinstance(each, str) else _pair(each) for each in value)
        else:
            taken[name] = value
    return FileAct(**told, inherited=Inherited(**taken))


def _pair(value: Any) -> tuple[str, str]:
    one, other = value
    return str(one), str(other)


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
