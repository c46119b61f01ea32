"""Doing what a plan says: files go to the trash, to another folder, or become links to the one that is kept.

Nothing is ever deleted. Only files with the content of the kept one, and others of which somebody decided it, are acted
on. Each file and the kept one are read once more right before, so that a plan of yesterday does no harm.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from indexer.duplicates.action_log import FileAct, LogWriter
from indexer.store.inheriting import Inherited
from indexer.store.paths import below, checked, leads_out
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import temporary
from massl.core.files.csv_tables import read_csv
from massl.core.files.scan import INDEX
from massl.core.images import plane_files

_COLUMNS = ("group", "path", "action", "kind", "decided", "sha256")
_PIECE = 1 << 20  # bytes that are read at once


class NotDone(Exception):
    """Why a file was left as it is, in a few words."""


@dataclass(frozen=True)
class PlannedFile:
    """A file of a plan that is to be removed, and the one of its group that is kept."""

    path: str
    content: str
    keep: str
    kept_content: str


@dataclass
class Plan:
    """What a plan says.

    Attributes:
        removals: what may be acted on.
        undecided: files that it proposes or asks to look at, of which nobody decided it.
    """

    removals: list[PlannedFile] = field(default_factory=list)
    undecided: int = 0


class Heritage(Protocol):
    """What people said of files that go, which others take over."""

    def of(self, item: PlannedFile) -> Inherited:
        """What the kept file is to take over; raises `NotDone` where it can't."""

    def give(self, act: FileAct) -> None:
        """Gives the kept file what the act says."""

    def take_back(self, act: FileAct) -> tuple[int, int]:
        """Takes it back, as far as nobody changed it since; returns how many labels and tags."""


@dataclass
class Outcome:
    """What became of a plan, or of undoing one.

    Attributes:
        done: paths, relative to the root.
        in_place: paths that were to be given back and were there already, as they should be: after a kill.
        bytes: their size.
        left: paths that stay as they are, each with the reason.
        labels, tags: how many were carried over to files that are kept, or taken back from them.
        undecided: see `Plan`.
    """

    done: list[str] = field(default_factory=list)
    in_place: list[str] = field(default_factory=list)
    bytes: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    labels: int = 0
    tags: int = 0
    undecided: int = 0


def read_plan(path: Path) -> Plan:
    """Reads a plan, the table that `indexer.duplicates.plan.plan` makes and a person may have edited.

    Raises:
        MasslError: it is none, or says two things of one file; nothing was done then.
    """
    rows = read_csv(path, _COLUMNS)
    kept: dict[str, dict[str, str]] = {}
    seen: dict[str, int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        name = checked_in_plan(row["path"], where)
        if row["action"] not in ("keep", "remove", "look"):
            raise MasslError(f"{where}: the action {row['action']!r} is none of keep, remove and look")
        if row["decided"] not in ("yes", "no"):
            raise MasslError(f"{where}: decided is {row['decided']!r}, and must be yes or no")
        if len(row["sha256"]) != 64:
            raise MasslError(f"{where}: sha256 is missing or cut off; make the plan anew with massl dupes --plan")
        if name in seen:
            raise MasslError(f"{where} names {name}, as line {seen[name]} does; a file stands in a plan once")
        seen[name] = line
        if row["action"] == "keep":
            kept.setdefault(row["group"], row)
    plan = Plan()
    for line, row in rows:
        if row["action"] == "keep":
            continue
        keep = kept.get(row["group"])
        if keep is None:
            raise MasslError(f"{path}, line {line}: group {row['group']} keeps no file; one of it must say keep")
        # By the contents, not by what the column `kind` says: that one may have been edited.
        exact = row["sha256"] == keep["sha256"]
        if row["action"] == "remove" and (exact or row["decided"] == "yes"):
            plan.removals.append(PlannedFile(row["path"], row["sha256"], keep["path"], keep["sha256"]))
        else:
            plan.undecided += 1
    return plan


def checked_in_plan(path: str, where: str) -> str:
    """The same path, if it can be one of a collection; `where` begins a sentence, as `plan.csv, line 3`.

    Raises:
        MasslError: it leads out of the folder, or into an index.
    """
    try:
        name = checked(path) if path else _refuse(where, path)
    except MasslError:
        return _refuse(where, path)
    if INDEX in name.split("/"):
        raise MasslError(f"{where} names {path!r}, which belongs to an index and is no picture; nothing was done")
    return name


def _refuse(where: str, path: str) -> str:
    raise MasslError(f"{where} names {path!r}, which is not below the collection's folder; nothing was done")


def act(
    root: Path,
    removals: Sequence[PlannedFile],
    by: str,
    folder: Path | None,
    log: LogWriter,
    said: Heritage,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Does what a plan says, file by file; what can't be done is told and left as it is.

    Args:
        root: the collection's folder.
        removals: of the plan.
        by: one of `indexer.duplicates.action_log.WAYS`.
        folder: where files are moved to, for `move`.
        log: is told of each before it is done.
        said: what people said of the files.
        report: is told how many are done, of how many.
    """
    outcome = Outcome()
    for number, item in enumerate(removals):
        try:
            state = _check(root, item, by)
            to = _target(folder, item.path) if folder else None
            inherited = said.of(item)
            entry = FileAct(
                number, by, item.path, item.keep, item.content, item.kept_content, state.st_mtime_ns,
                stat.S_IMODE(state.st_mode), "" if to is None else str(to), inherited,
            )  # fmt: skip
            log.about_to(entry)
            try:
                said.give(entry)
                _remove(below(root, item.path), below(root, item.keep), by, to, item.content)
            except (NotDone, OSError) as error:
                if os.path.lexists(below(root, item.path)):
                    said.take_back(entry)
                    log.undone(entry)
                raise error
        except NotDone as reason:
            outcome.left.append((item.path, str(reason)))
        except OSError as error:
            outcome.left.append((item.path, f"can't be changed ({error.strerror or error})"))
        else:
            outcome.done.append(item.path)
            outcome.bytes += state.st_size
            outcome.labels += inherited.label is not None
            outcome.tags += len(inherited.tags)
        report(number + 1, len(removals))
    return outcome


def _check(root: Path, item: PlannedFile, by: str) -> os.stat_result:
    """The state of a file that may be removed now; raises `NotDone` for one that may not."""
    path, keep = inside(root, item.path), inside(root, item.keep)
    if plane_files.split(path) or plane_files.split(keep):
        raise NotDone("is a plane of a stack, or a copy of one; only whole files are changed")
    if not os.path.lexists(path):
        raise NotDone("has gone already")
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode):
        raise NotDone("is a link, or no file")
    if not keep.is_file():
        raise NotDone("the file to keep has gone")
    if os.path.samefile(path, keep):
        raise NotDone("is the file to keep, by another name")
    if content_of(keep) != item.kept_content:
        raise NotDone("the file to keep has changed since the plan was made")
    if content_of(path) != item.content:
        raise NotDone("has changed since the plan was made")
    if by in ("hardlink", "symlink") and item.content != item.kept_content:
        raise NotDone("is not the same content, which a link would lose; use trash or move")
    if by == "hardlink" and os.stat(keep).st_dev != state.st_dev:
        raise NotDone("lies on another disk than the file to keep; use symlink, trash or move")
    return state


def inside(root: Path, path: str) -> Path:
    """Where a file lies that may be changed; raises `NotDone` for one behind a link that leads out of the folder."""
    if leads_out(root, path):
        raise NotDone("lies outside of the folder, behind a link")
    file = below(root, path)
    if INDEX in Path(os.path.realpath(file.parent)).relative_to(os.path.realpath(root)).parts:
        raise NotDone("lies in an index, behind a link")
    return file


def _target(folder: Path, path: str) -> Path:
    to = folder / path
    if os.path.lexists(to):
        raise NotDone(f"{to} is there already")
    return to


def _remove(path: Path, keep: Path, by: str, to: Path | None, content: str) -> None:
    """Takes a file away; raises `OSError` or `NotDone` where it can't be, and the file stays."""
    if by == "trash":
        _to_trash(path)
    elif to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        move(path, to, content)
    else:
        with temporary(path.parent) as link:
            if by == "hardlink":
                os.link(os.path.realpath(keep), link)
            else:
                link.symlink_to(os.path.relpath(os.path.realpath(keep), os.path.realpath(path.parent)))
            os.replace(link, path)


def _to_trash(path: Path) -> None:
    from send2trash import TrashPermissionError, send2trash

    try:
        send2trash(path)
    except TrashPermissionError as error:
        raise NotDone("there is no trash for this disk; use move") from error


def move(path: Path, to: Path, content: str) -> None:
    """Moves a file to a name that is free; to another disk as a copy, which is read once more before the file goes.

    Raises:
        OSError: it can't be moved, and stays.
        NotDone: the copy differs.
    """
    if os.stat(path).st_dev == os.stat(to.parent).st_dev:
        os.rename(path, to)
        return
    with temporary(to.parent) as copy:
        shutil.copy2(path, copy)
        with copy.open("r+b") as file:
            os.fsync(file.fileno())
        if content_of(copy) != content:
            raise NotDone("could not be copied whole")
        if os.path.lexists(to):
            raise NotDone(f"{to} is there already")
        os.replace(copy, to)
    try:
        path.unlink()
    except OSError:
        if os.path.lexists(path):  # else it would be the last one
            to.unlink()
        raise


def content_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
