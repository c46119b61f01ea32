"""Undoing what was done by a plan, from its log."""

from __future__ import annotations

import configparser
import contextlib
import os
import shlex
import shutil
import stat
import sys
from pathlib import Path
from urllib.parse import unquote

import platformdirs

from indexer.duplicates.acting import Heritage, NotDone, Outcome, checked_in_plan, content_of, inside, move
from indexer.duplicates.action_log import ActionLog, FileAct, LogWriter
from indexer.store.paths import leads_out
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import temporary
from massl.core.printable import visible


def undo(root: Path, log: ActionLog, folder: Path | None, writer: LogWriter, said: Heritage) -> Outcome:
    """Gives back the files of a log, the last one first; what can't be given back is told and left as it is.

    A log may come from somebody else. So nothing outside of the collection's folder is written to, and files come only
    from the trash, where they say that they lay at their path, and from `folder`.

    Args:
        root: the collection's folder.
        log: what was done, and what of it was undone before.
        folder: where files were moved to; None where none were.
        writer: is told of each that is undone.
        said: takes back what kept files took over.

    Raises:
        MasslError: the log is about another folder, names a path outside of it, or tells of files that were moved
            elsewhere than to `folder`.
    """
    if log.root != os.path.realpath(root):
        raise MasslError(f"this log is about {visible(log.root)}, not about {root}; name that folder")
    acts = [act for act in reversed(log.acts) if act.number not in log.undone]
    for act in acts:
        for path in (act.path, act.keep):
            checked_in_plan(path, "this log")
        _check_moved(act, folder)
    outcome = Outcome()
    for act in acts:
        try:
            given_back = _give_back(inside(root, act.path), inside(root, act.keep), act, folder)
            labels, tags = said.take_back(act)
        except NotDone as reason:
            outcome.left.append((act.path, str(reason)))
        except OSError as error:
            outcome.left.append((act.path, f"can't be given back ({error.strerror or error})"))
        else:
            writer.undone(act)
            outcome.labels, outcome.tags = outcome.labels + labels, outcome.tags + tags
            (outcome.done if given_back else outcome.in_place).append(act.path)
    return outcome


def _check_moved(act: FileAct, folder: Path | None) -> None:
    """Raises a MasslError for a file that was moved, unless it went to this folder."""
    if act.by != "move":
        if act.to:
            raise MasslError(f"this log says that {visible(act.path)} was moved, by {act.by}; nothing was done")
    elif folder is None or os.path.abspath(act.to) != os.path.abspath(folder / act.path):
        place = Path(act.to.removesuffix(f"/{act.path}"))
        raise MasslError(
            f"this log says that files were moved to {visible(str(place))}. If that is right, add --by "
            f"{visible(shlex.quote(f'move:{place}'))}; nothing was done"
        )


def _give_back(path: Path, keep: Path, act: FileAct, folder: Path | None) -> bool:
    """Whether a file was given back; it wasn't where it was there still, or again: after a kill."""
    if os.path.lexists(path):
        if not os.path.exists(path) or not keep.exists() or not os.path.samefile(path, keep):
            if _content_of(path) != act.content:
                raise NotDone("another file is there now")
            return False
        if act.by not in ("hardlink", "symlink"):
            raise NotDone("a link is there now")
        _copy(keep, path, act)
    elif folder is not None and act.by == "move" and os.path.lexists(moved := folder / act.path):
        if leads_out(folder, act.path) or _content_of(moved) != act.content:
            raise NotDone(f"{moved} has changed since it was moved")
        path.parent.mkdir(parents=True, exist_ok=True)
        move(moved, path, act.content)
        _remove_empty(moved, act.path)
    elif act.by == "trash" and (trashed := _in_trash(path, act.content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        move(trashed, path, act.content)
        (trashed.parent.parent / "info" / f"{trashed.name}.trashinfo").unlink(missing_ok=True)
    elif act.content == act.kept_content and keep.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy(keep, path, act)
    else:
        raise NotDone("is not where it was put; restore it from the trash by hand")
    return True


def _content_of(path: Path) -> str | None:
    """SHA-256 of a regular file; None for a link, a pipe and the like."""
    return content_of(path) if stat.S_ISREG(os.lstat(path).st_mode) else None


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
        os.chmod(copy, act.mode & 0o777)  # no picture runs as somebody else
        os.replace(copy, path)


def _in_trash(path: Path, content: str) -> Path | None:
    """A file in the trash that lay at `path`, by the freedesktop.org specification; None where there is none."""
    if sys.platform in ("darwin", "win32"):
        return None
    real = Path(os.path.realpath(path.parent)) / path.name
    tops = [(Path(platformdirs.user_data_dir()) / "Trash", Path("/"))]
    for above in filter(os.path.ismount, real.parents):
        tops += [(above / f".Trash-{os.getuid()}", above), (above / ".Trash" / str(os.getuid()), above)]
    for trash, above in tops:
        if above != Path("/") and any(
            part.is_symlink() for part in (trash.parent, trash, trash / "files", trash / "info")
        ):
            continue  # a folder from somebody else may bring a trash that leads elsewhere
        for info in (trash / "info").glob("*.trashinfo"):
            told = configparser.ConfigParser(interpolation=None)
            try:
                told.read_string(info.read_text("utf-8"))
                lay = above / unquote(told["Trash Info"]["Path"], errors="surrogateescape")
            except (OSError, ValueError, KeyError, configparser.Error):
                continue
            file = trash / "files" / info.name.removesuffix(".trashinfo")
            if lay == real and os.path.lexists(file) and _content_of(file) == content:
                return file
    return None
