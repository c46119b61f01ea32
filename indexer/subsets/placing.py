"""A folder of links to chosen images, or of copies of them: made whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from indexer.store.paths import below
from massl.core.disk_errors import cannot_write, reason, reason_of
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import temporary
from massl.core.files.scan import CATALOG
from massl.core.images import plane_files
from massl.core.images.decoding import within_memory
from massl.core.images.file_reading import read_bytes
from massl.core.images.image_errors import ImageError
from massl.core.printable import visible
from massl.core.regular_files import open_regular

_ANOTHER = "name another folder"
_GONE = "it is gone since the folder was indexed"


def check_target(root: Path, folder: Path) -> None:
    """Says before the work where a folder can't be made.

    Raises:
        MasslError: it is there and not empty, is a file, lies in no folder, among the images or in an index.
    """
    if os.path.ismount(folder.resolve()):
        raise MasslError(f"{folder} is the top of a disk, which can't be made anew; name a folder in it")
    try:
        filled = folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise MasslError(f"{folder} can't be read ({reason(error)}); {_ANOTHER}") from None
    if filled:
        raise MasslError(f"{folder} is not empty; {_ANOTHER}, or empty it first")
    if os.path.lexists(folder) and not folder.is_dir():
        raise MasslError(f"{folder} is no folder; {_ANOTHER}")
    above = folder.resolve().parent
    if not above.is_dir():
        raise MasslError(f"{folder} can't be made: there is no folder {folder.parent}")
    if not os.access(above, os.W_OK):
        raise MasslError(f"{folder} can't be made: permission denied; {_ANOTHER}")
    if folder.resolve().is_relative_to(root.resolve()):
        raise MasslError(f"{folder} lies among the images, and would be indexed with them; name a folder elsewhere")
    if (above / CATALOG).exists():
        raise MasslError(f"{folder} lies in an index, which it could damage; name a folder elsewhere")


def place(
    root: Path,
    folder: Path,
    files: Sequence[tuple[str, str]],
    link: bool,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[str, str]]:
    """Makes a folder of images; what fails leaves nothing behind.

    Args:
        root: of the collection.
        folder: see `check_target`.
        files: path of each image, relative to the root, and its place in the folder, of names that a disk takes.
        link: links in place of copies. A copy keeps the file's time. A plane of a stack becomes a TIFF; there is no
            link to one.
        report: told how many are placed, of how many.

    Returns:
        Paths of those that are not there any more or can't be read, and are left out, each with the reason.

    Raises:
        MasslError: something can't be written, or nothing could be read.
    """
    check_target(root, folder)
    folder = folder.resolve()  # where a link to an empty folder is named, it leads to the new one
    left: list[tuple[str, str]] = []
    try:
        with temporary(folder.parent) as made:
            made.mkdir()
            try:
                for done, (path, target) in enumerate(files, 1):
                    source = Path(os.path.abspath(below(root, path)))
                    there = made / target
                    if plane_files.split(source):
                        why = (
                            "a plane of a stack can't be linked to; use --copy-to"
                            if link
                            else _write_plane(source, there)
                        )
                    elif not (why := _unreadable(source, link)):
                        there.parent.mkdir(parents=True, exist_ok=True)
                        _place(source, there, link)
                    if why:
                        left.append((path, why))
                        continue
                    report(done, len(files))
                if len(left) == len(files) and left:
                    raise MasslError(f"no image could be taken; the first is {visible(left[0][0])}: {left[0][1]}")
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()  # it is empty
                made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        instead = "use --copy-to, or name another folder" if link else _ANOTHER
        raise cannot_write(folder, error, instead) from None
    return left


def _unreadable(source: Path, link: bool) -> str:
    """Why a file can't be taken; empty where it can. A link may lead to a file that only somebody else may read."""
    try:
        if not link:
            open_regular(source).close()
        elif not source.is_file():
            return _GONE
    except OSError as error:
        return reason_of(error, _GONE)
    return ""


def target_of(root: Path, path: str, target: str) -> str:
    """The place of an image in the folder: that of a plane, which becomes a file, ends as a TIFF's does."""
    return f"{target}.tif" if plane_files.split(below(root, path)) else target


def _write_plane(plane: Path, there: Path) -> str:
    """Writes a plane of a stack as a file of its own; returns why it can't be read, empty where it can."""
    try:
        with within_memory():
            data = read_bytes(plane)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(data)
    except ImageError as error:
        return str(error)
    return ""


def _place(source: Path, there: Path, link: bool) -> None:
    if link:
        there.symlink_to(source)
    else:
        shutil.copy2(source, there)
