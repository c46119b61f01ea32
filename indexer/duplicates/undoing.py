"""Undoing what was done by a plan, from its log."""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

import platformdirs

from indexer.duplicates.acting import Heritage, NotDone, Outcome, checked_in_plan, content_of, move
from indexer.duplicates.action_log import ActionLog, FileAct, LogWriter
from indexer.store.paths import below
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import temporary


def undo(root: Path, log: ActionLog, writer: LogWriter, said: Heritage) -> Outcome:
    """Gives back the files of a log, the last one first; what can't be given back is told and left as it is.

    Args:
        root: the collection's folder.
        log: what was done, and what of it was undone before.
        writer: is told of each that is undone.
        said: takes back what kept files took over.

    Raises:
        MasslError: the log is about another folder.
    """
    if log.root != os.path.realpath(root):
        raise MasslError(f"this log is about {log.root}, not about {root}; name that folder")
    outcome = Outcome()
    for act in reversed(log.acts):
        if act.number in log.undone:
            continue
        try:
            for path in (act.path, act.keep):
                checked_in_plan(path, "the log")
            _give_back(below(root, act.path), below(root, act.keep), act)
            labels, tags = said.take_back(act)
        except NotDone as reason:
            outcome.left.append((act.path, str(reason)))
        except OSError as error:
            outcome.left.append((act.path, f"can't be given back ({error.strerror or error})"))
        else:
            writer.undone(act)
            outcome.labels, outcome.tags = outcome.labels + labels, outcome.tags + tags
            outcome.done.append(act.path)
    return outcome


def _give_back(path: Path, keep: Path, act: FileAct) -> None:
    same = act.content == act.kept_content
    if os.path.lexists(path):
        linked = path.is_symlink() or (keep.exists() and os.path.samefile(path, keep))
        if not linked:
            if content_of(path) != act.content:
                raise NotDone("another file is there now")
            return  # it was never done, by a kill
        if act.by not in ("hardlink", "symlink"):
            raise NotDone("a link is there now")
        _copy(keep, path, act)
    elif act.to and os.path.lexists(act.to):
        if content_of(Path(act.to)) != act.content:
            raise NotDone(f"{act.to} has changed since it was moved")
        path.parent.mkdir(parents=True, exist_ok=True)
        move(Path(act.to), path, act.content)
        _remove_empty(Path(act.to), act.path)
    elif act.by == "trash" and (trashed := _in_trash(path, act.content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        move(trashed, path, act.content)
        (trashed.parent.parent / "info" / f"{trashed.name}.trashinfo").unlink(missing_ok=True)
    elif same and keep.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy(keep, path, act)
    else:
        raise NotDone("is not where it was put; restore it from the trash by hand")


def _remove_empty(moved: Path, path: str) -> None:
    """Removes the folders that were made for a moved file below the one that was named, unless more lies in them."""
    with contextlib.suppress(OSError):
        for folder in list(moved.parents)[: path.count("/")]:
            folder.rmdir()


def _copy(keep: Path, path: Path, act: FileAct) -> None:
    """A copy of the kept file under the former name, with the former dates."""
    with temporary(path.parent) as copy:
        shutil.copyfile(keep, copy)
        if content_of(copy) != act.content:
            raise NotDone("the kept file has changed, from which it would be copied")
        with copy.open("r+b") as file:
            os.fsync(file.fileno())
        os.utime(copy, ns=(act.mtime_ns, act.mtime_ns))
        os.chmod(copy, act.mode)
        os.replace(copy, path)


def _in_trash(path: Path, content: str) -> Path | None:
    """A file in the trash that lay at `path`, by the freedesktop.org specification; None where there is none."""
    if sys.platform in ("darwin", "win32"):
        return None
    real = Path(os.path.realpath(path.parent)) / path.name
    tops = [(Path(platformdirs.user_data_dir()) / "Trash", Path("/"))]
    for above in real.parents:
        tops += [(above / f".Trash-{os.getuid()}", above), (above / ".Trash" / str(os.getuid()), above)]
    for trash, above in tops:
        for info in (trash / "info").glob("*.trashinfo"):
            told = configparser.ConfigParser(interpolation=None)
            try:
                told.read_string(info.read_text("utf-8"))
                lay = above / unquote(told["Trash Info"]["Path"], errors="surrogateescape")
            except (OSError, ValueError, KeyError, configparser.Error):
                continue
            file = trash / "files" / info.name.removesuffix(".trashinfo")
            if lay == real and file.is_file() and content_of(file) == content:
                return file
    return None
