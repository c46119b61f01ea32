"""The log of what was done to files by a plan: what is meant to be done is written before it is, so that it can be
undone after a kill too. One JSON object a line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from indexer.store.inheriting import Inherited
from indexer.store.paths import can_name_a_file
from massl.core.disk_errors import cannot_write, reason_of
from massl.core.errors import MasslError
from massl.core.regular_files import read_regular

WAYS = ("trash", "hardlink", "symlink", "move")

_FORMAT = 1
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class FileAct:
    """One file that a plan removes.

    Attributes:
        number: in the log, from 0.
        by: one of `WAYS`.
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
    """Writes a log; what was said is on the disk when a method returns.

    Attributes:
        standing: numbers of the acts that it told of and that were not undone.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.standing: set[int] = set()

    def about_to(self, act: FileAct) -> None:
        """Says what is going to be done."""
        self._say({"act": asdict(act)})
        self.standing.add(act.number)

    def undone(self, act: FileAct) -> None:
        """Says that it wasn't done after all, or isn't any more."""
        self._say({"undone": act.number})
        self.standing.discard(act.number)

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
        MasslError: it is no log, of a later version, or was changed by hand so that an act makes no sense.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        why = reason_of(error, "there is no such file")
        raise MasslError(f"{path} can't be read ({why}); name the log that massl dupes --apply wrote") from None
    objects = [found for line in data.decode("utf-8", "replace").splitlines() if (found := _object(line)) is not None]
    if not objects or objects[0].get("format") != _FORMAT or not isinstance(objects[0].get("root"), str):
        raise MasslError(f"{path} is no log of massl dupes --apply; name the file that it wrote")
    log = ActionLog(objects[0]["root"])
    for found in objects[1:]:
        if _is_whole(found.get("undone")):
            log.undone.add(found["undone"])
        elif isinstance(found.get("act"), dict):
            try:
                act = _act(found["act"])
            except (TypeError, ValueError) as error:
                raise MasslError(
                    f"{path} was not written by this version of massl, or was changed since ({error}); undo it with "
                    "the version that wrote it"
                ) from None
            log.acts.append(act)
    return log


def _act(told: dict[str, Any]) -> FileAct:
    """An act as a line tells it; raises TypeError or ValueError for one of a later version, or that makes no sense."""
    label = told.pop("label", None)  # of logs that told of the label alone, and not when it was given
    inherited = told.pop("inherited", {"label": label})
    _check(told, _OF_ACT, {field.name for field in fields(FileAct)} - {"to", "inherited"})
    if not isinstance(inherited, dict):
        raise TypeError("inherited is no object")
    _check(inherited, _OF_INHERITED, set())
    taken: dict[str, Any] = {}
    for name, value in inherited.items():
        if name == "label":
            taken[name] = None if value is None else tuple(value)
        elif isinstance(value, list):
            taken[name] = tuple(each if isinstance(each, str) else tuple(each) for each in value)
        else:
            taken[name] = value
    return FileAct(**told, inherited=Inherited(**taken))


def _check(told: dict[str, Any], kinds: dict[str, Callable[[Any], bool]], needed: set[str]) -> None:
    """Raises TypeError unless an object has these values, each of its kind, and no others."""
    for name in {*told, *needed} - {*kinds} | needed - {*told}:
        raise TypeError(f"it has {'no' if name in kinds else 'an unknown'} {name[:20]!r}")
    for name, value in told.items():
        if not kinds[name](value):
            raise TypeError(f"its {name} is none")


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number that fits into 63 bits, as files' times, modes and numbers of acts do."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and can_name_a_file(value)


def _is_content(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_text(value: Any) -> bool:
    """Whether a value is text as the catalog stores it, which has no half of a pair of UTF-16."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_text, value))


def _list_of(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(kind, value))


_OF_ACT: dict[str, Callable[[Any], bool]] = {
    "number": _is_whole,
    "by": lambda value: value in WAYS,
    "path": _is_path,
    "keep": _is_path,
    "content": _is_content,
    "kept_content": _is_content,
    "mtime_ns": _is_time,
    "mode": _is_whole,
    "to": _is_path,
}
_OF_INHERITED: dict[str, Callable[[Any], bool]] = {
    "at": _is_text,
    "label": lambda value: value is None or _is_pair(value),
    "tags": _list_of(_is_pair),
    "ended": _list_of(_is_pair),
    "rejected_tags": _list_of(_is_text),
    "rejected_labels": _list_of(_is_text),
    "confirmed_labels": _list_of(_is_text),
    "kept_both": _list_of(
        lambda value: isinstance(value, list) and len(value) == 2 and _is_path(value[0]) and _is_text(value[1])
    ),
}


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
