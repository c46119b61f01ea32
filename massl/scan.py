"""What counts as an image file, and how a folder is walked.

Training and indexing both walk by this module, so that they see the same files.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from massl.errors import MasslError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"}
    | {".heic", ".heif"}
    | {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef", ".srw"}
    | {".3fr", ".erf", ".iiq", ".kdc", ".mrw", ".rwl", ".x3f"}
)

# What says that a folder is an index's own (`--index-dir` may put one among the images), and what of it isn't images.
CATALOG = "catalog.sqlite"
THUMBNAILS = "thumbnails"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that looks like an image by its name. `path` is relative to the root, with forward slashes."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int = -1


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was passed over, and why."""

    path: str
    reason: str


def walk(root: Path, exclude: Sequence[str] = ()) -> Iterator[ImageFile | Skipped]:
    """Yields every image file below `root`, in a stable order, and what had to be passed over.

    Hidden files and folders (a leading dot) are left out without a word. Real folders come first; symbolic links
    are followed afterwards, each file and folder once, so that a loop ends and a link to something inside `root` adds
    nothing.

    Args:
        root: the folder.
        exclude: patterns of files and folders to leave out, as a shell writes them. One without a slash means a name
            anywhere (`cache`, `*.gif`), one with a slash a path from the root (`2019/drafts`, `*/drafts`).

    Raises:
        MasslError: `root` is missing, is no folder, or can't be listed.
    """
    check_folder(root)
    excluded = _excluder(exclude)
    real_root = os.path.realpath(root)
    seen_folders: set[tuple[int, int]] = set()
    seen_linked_files: set[tuple[int, int]] = set()
    links: list[str] = []
    pending = [""]
    while pending or links:
        if not pending:
            relative = links.pop(0)
            target = os.path.realpath(os.path.join(root, relative))
            try:
                info = os.stat(os.path.join(root, relative))
                around = _identity(os.path.dirname(target))
            except OSError as error:
                if _looks_like_image(relative):
                    yield Skipped(relative, reason_of(error, "broken link"))
                continue
            if target == real_root or target.startswith(real_root.rstrip(os.sep) + os.sep):
                continue
            if stat.S_ISDIR(info.st_mode):
                pending.append(relative)
            elif _looks_like_image(relative) and (info.st_dev, info.st_ino) not in seen_linked_files:
                seen_linked_files.add((info.st_dev, info.st_ino))
                if around not in seen_folders:
                    yield _judge(relative, info)
            continue

        folder = pending.pop()
        try:
            here = _identity(os.path.join(root, folder))
            if here in seen_folders:
                continue
            seen_folders.add(here)
            with os.scandir(os.path.join(root, folder)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(folder, reason_of(error, "the folder vanished"))
            continue
        of_an_index = any(entry.name == CATALOG for entry in entries)
        folders = []
        for entry in entries:
            if entry.name.startswith(".") or (of_an_index and entry.name == THUMBNAILS):
                continue
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if excluded and excluded(relative):
                continue
            try:
                if entry.is_symlink():
                    links.append(relative)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(relative)
                elif _looks_like_image(entry.name):
                    info = entry.stat(follow_symlinks=False)
                    if not seen_linked_files or (info.st_dev, info.st_ino) not in seen_linked_files:
                        yield _judge(relative, info)
            except OSError as error:
                yield Skipped(relative, reason_of(error, "vanished while reading"))
        pending.extend(reversed(folders))


def check_folder(root: Path) -> None:
    """Raises a `MasslError` that says what to do unless `root` is a folder that can be listed."""
    try:
        info = os.stat(root)
    except FileNotFoundError:
        raise MasslError(f"{root}: there is no such folder; check the spelling") from None
    except OSError as error:
        raise MasslError(f"{root}: {reason_of(error, 'there is no such folder')}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise MasslError(f"{root} is a file; give the folder that holds the images")
    if not os.access(root, os.R_OK | os.X_OK):
        raise MasslError(f"{root}: no permission to read this folder")


def find_images(root: Path) -> tuple[list[str], list[Skipped]]:
    """All image files below `root`, as paths relative to it, and what was passed over.

    Raises:
        MasslError: no folder, or no image file in it.
    """
    found, skipped = [], []
    for item in walk(root):
        if isinstance(item, ImageFile):
            found.append(item.path)
        else:
            skipped.append(item)
    if not found:
        raise _no_images(root)
    return found, skipped


def check_holds_images(root: Path) -> None:
    """Raises a `MasslError` unless there is an image file somewhere below `root`; looks no further than the first."""
    if not any(isinstance(item, ImageFile) for item in walk(root)):
        raise _no_images(root)


def _no_images(root: Path) -> MasslError:
    return MasslError(f"{root} holds no image files; massl reads JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC and RAW")


def _excluder(patterns: Sequence[str]) -> Callable[[str], object] | None:
    """Whether a path relative to the root is left out; None where nothing is."""
    plain = [pattern.removeprefix("./").strip("/") for pattern in patterns]
    anywhere = [fnmatch.translate(pattern) for pattern in plain if pattern and "/" not in pattern]
    from_root = [fnmatch.translate(pattern) for pattern in plain if "/" in pattern]
    if not anywhere and not from_root:
        return None
    names = re.compile("|".join(anywhere) or r"(?!)")
    paths = re.compile("|".join(from_root) or r"(?!)")
    return lambda path: names.match(path.rpartition("/")[2]) or paths.match(path)


def _identity(folder: str) -> tuple[int, int]:
    """What a folder is, under whichever name."""
    info = os.stat(folder)
    return info.st_dev, info.st_ino


def _looks_like_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _judge(path: str, info: os.stat_result) -> ImageFile | Skipped:
    if not stat.S_ISREG(info.st_mode):
        return Skipped(path, "not a regular file")
    return ImageFile(path, info.st_size, storable(info.st_mtime_ns), storable(info.st_ctime_ns))


def storable(time_ns: int) -> int:
    """A file's time, nanoseconds since 1970, or the nearest that 64 bits hold: those end in the year 2262."""
    return max(-(2**63), min(time_ns, 2**63 - 1))


def reason_of(error: OSError, missing: str) -> str:
    """Why a file can't be read, in a few words; `missing` is what to say where it is not there."""
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return missing
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    return (error.strerror or str(error)).lower()
