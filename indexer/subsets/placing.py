"""A folder of links to chosen images, or of copies of them: made whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from indexer.store.paths import below
from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import temporary
from massl.core.files.scan import CATALOG

_ANOTHER = "name another folder"


def check_target(root: Path, folder: Path) -> None:
    """Says before the work where a folder can't be made.

    Raises:
        MasslError: it is there and not empty, is a file, lies in no folder, among the images or in an index.
    """
    if folder.is_dir() and any(folder.iterdir()):
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
) -> list[str]:
    """Makes a folder of images; what fails leaves nothing behind.

    Args:
        root: of the collection.
        folder: see `check_target`.
        files: path of each image, relative to the root, and its place in the folder.
        link: links in place of copies. A copy keeps the file's time.
        report: told how many are placed, of how many.

    Returns:
        Paths of those that are not there any more, and are left out.

    Raises:
        MasslError: something can't be read or written.
    """
    check_target(root, folder)
    gone: list[str] = []
    try:
        with temporary(folder.resolve().parent) as made:
            made.mkdir()
            try:
                for done, (path, target) in enumerate(files, 1):
                    source = Path(os.path.abspath(below(root, path)))
                    if not source.is_file():
                        gone.append(path)
                        continue
                    there = made / target
                    there.parent.mkdir(parents=True, exist_ok=True)
                    _place(source, there, link)
                    report(done, len(files))
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()  # it is empty
                made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        instead = "use --copy-to, or name another folder" if link else _ANOTHER
        raise cannot_write(folder, error, instead) from None
    return gone


def _place(source: Path, there: Path, link: bool) -> None:
    if link:
        there.symlink_to(source)
    else:
        shutil.copy2(source, there)
