"""How a folder is walked: which of its files are images, and what is left out.

Training and indexing both walk by this module, so that they see the same files.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from massl.core.disk_errors import reason_of
from massl.core.errors import MasslError
from massl.core.files.sidecars import Sidecar, beside
from massl.core.images.formats import (
    EXPORTABLE,
    HEAD,
    OTHER,
    PICTURE,
    UNOPENED,
    PlaneCounter,
    kind_of,
    kind_of_name,
    may_hold_several,
    needs_a_look,
)

# What says that a folder is an index's own (`--index-dir` may put one among the images), and what of it isn't images.
CATALOG = "catalog.sqlite"
THUMBNAILS = "thumbnails"
INDEX = ".massl"

# Folders that no person made: thumbnails, deleted files, snapshots of NAS, Windows, macOS and Linux. In small letters.
_SYSTEM_FOLDERS = {
    name.lower(): name
    for name in (
        *("@eaDir", "@tmp", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "@__thumb", ".@__thumb"),
        *("$RECYCLE.BIN", "System Volume Information", "FOUND.000", "lost+found", "__MACOSX", "Network Trash Folder"),
        *(".Trashes", ".Trash", ".AppleDouble", ".thumbnails", ".picasaoriginals", "~snapshot", ".snapshot", ".zfs"),
    )
}
_SYSTEM_BEGINNINGS = {".trash-": ".Trash-*", ".spotlight-": ".Spotlight-*"}
_HIDDEN_FOLDER, _HIDDEN_PICTURE, _APPLE_DOUBLE = "hidden folder", "hidden picture", "AppleDouble file"
_PLANE_TAKEN = "plane that is called like a file beside it"
_PLANES = " planes"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that is an image by its name or first bytes. `path` is relative to the root, with forward slashes.

    `sidecar` is the XMP file that lies beside it, if there is one.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int = -1
    sidecar: Sidecar | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was passed over, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A picture of a format that isn't read, or what is left out unless it is asked for; and its kind."""

    path: str
    kind: str


class Contents:
    """What those files hold whose names don't say it. A file that is as it was is not opened again.

    `now` maps a digest of each file's path, size and times to its kind: what to give as `known` next time.

    Args:
        known: `now` of the last time.
        planes: counts the planes of stacks, each of which is then a file of its own; none are if left out.
    """

    def __init__(self, known: Mapping[bytes, str] | None = None, planes: PlaneCounter | None = None) -> None:
        self._known = known or {}
        self._planes = planes
        self.now: dict[bytes, str] = {}

    @property
    def changed(self) -> bool:
        """Whether `now` says something else than what was known."""
        return self.now != self._known

    def kind(self, root: Path, path: str, info: os.stat_result) -> str:
        """What the file `path` below `root` is, in the terms of `massl.core.images.formats`."""
        key = _state_of(path, info.st_size, storable(info.st_mtime_ns), storable(info.st_ctime_ns))
        kind = self._known.get(key)
        if kind is None:
            kind = kind_of_file(root / path)
            if kind == UNOPENED:
                return kind
        self.now[key] = kind
        return kind

    def planes(self, root: Path, file: ImageFile) -> int:
        """How many planes an image file holds that are to be files of their own; 1 if it is to stay one."""
        if self._planes is None or not may_hold_several(file.path):
            return 1
        key = _state_of(f"{file.path}\0{self._planes.rule}", file.size, file.mtime_ns, file.ctime_ns)
        known = self._known.get(key, "").partition(_PLANES)[0]
        count = int(known) if known.isdecimal() else self._planes.planes_of(root / file.path)
        if count is not None:
            self.now[key] = f"{count}{_PLANES}"
        return count or 1


def _state_of(path: str, *state: int) -> bytes:
    """A digest of a file's path, size and times."""
    told = b"\0%d %d %d" % state
    return hashlib.blake2b(os.fsencode(path) + told, digest_size=8).digest()


def kind_of_file(path: Path) -> str:
    """What a regular file is by its name or, where that doesn't say it, by its first bytes; see
    `massl.core.images.formats`.
    """
    if not needs_a_look(path.name):
        return kind_of_name(path.name) or OTHER
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return kind_of(path.name, file.read(HEAD) or b"")
    except OSError:
        return kind_of_name(path.name) or UNOPENED


def kind_of_member(path: str, head: Callable[[], bytes]) -> str:
    """What a member of an archive is: in the terms of `massl.core.images.formats`, or of `LeftOut` where the walk
    leaves it out.

    Args:
        path: its name, with forward slashes; one that ends in a slash is a folder's.
        head: reads its first bytes; called where its name doesn't say what it is.
    """
    *folders, name = path.split("/")
    kind = kind_of_name(name) if not needs_a_look(name) or not name else kind_of(name, head())
    aside = any(_system_folder(part) or part.startswith(".") for part in folders if part not in (".", ".."))
    if kind == PICTURE and (aside or name.startswith(".")):
        return _APPLE_DOUBLE if name.startswith("._") else _HIDDEN_PICTURE
    return kind or OTHER


def walk(
    root: Path, exclude: Sequence[str] = (), include: Sequence[str] = (), contents: Contents | None = None
) -> Iterator[ImageFile | Skipped | LeftOut]:
    """Every image file below `root`, in a stable order, what had to be passed over, and what is left out.

    Files whose names don't say what they are are opened and told by their first bytes. Hidden files and folders (a
    leading dot) and folders that systems make (`@eaDir`, `$RECYCLE.BIN`) are left out. Real folders come first;
    symbolic links are followed afterwards, each file and folder once, so that a loop ends and a link to something
    inside `root` adds nothing.

    Args:
        root: the folder.
        exclude: patterns of files and folders to leave out, as a shell writes them. One without a slash means a name
            anywhere (`cache`, `*.gif`), one with a slash a path from the root (`2019/drafts`, `*/drafts`). What they
            name is not told of.
        include: patterns alike, of what is hidden or made by a system and is wanted all the same.
        contents: what is known of files whose names don't say it; what was found is added to it.

    Raises:
        MasslError: `root` is missing, is no folder, or can't be listed.
    """
    check_folder(root)
    return _Walk(root, exclude, include, contents or Contents()).items()


class _Walk:
    """A walk under way, as `walk` describes it."""

    def __init__(self, root: Path, exclude: Sequence[str], include: Sequence[str], contents: Contents) -> None:
        self._root, self._contents = root, contents
        self._excluded, self._included = _matcher(exclude), _matcher(include)
        self._seen_folders: set[tuple[int, int]] = set()
        self._seen_linked_files: set[tuple[int, int]] = set()
        self._links: list[str] = []  # relative paths, to be followed last
        self._pending = [""]

    def items(self) -> Iterator[ImageFile | Skipped | LeftOut]:
        """All that is found."""
        inside = os.path.join(os.path.realpath(self._root), "")
        while self._pending or self._links:
            if self._pending:
                yield from self._folder(self._pending.pop())
            else:
                yield from self._link(self._links.pop(0), inside)

    def _folder(self, folder: str) -> Iterator[ImageFile | Skipped | LeftOut]:
        """What lies in one folder; folders within it are walked next, in their order."""
        try:
            here = _identity(os.path.join(self._root, folder))
            if here in self._seen_folders:
                return
            self._seen_folders.add(here)
            with os.scandir(os.path.join(self._root, folder)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(folder, reason_of(error, "the folder vanished"))
            return
        of_an_index = any(entry.name == CATALOG for entry in entries)
        sidecars = beside(entry.name for entry in entries)
        folders: list[str] = []
        for entry in entries:
            if entry.name == INDEX or (of_an_index and entry.name == THUMBNAILS):
                continue
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if self._excluded and self._excluded(relative):
                continue
            try:
                item = self._entry(entry, relative, folders)
                if isinstance(item, ImageFile):
                    named = sidecars.get(entry.name)
                    yield from self._in_planes(self._with_sidecar(item, folder, named) if named else item)
                elif item:
                    yield item
            except OSError as error:
                yield Skipped(relative, reason_of(error, "vanished while reading"))
        self._pending.extend(reversed(folders))

    def _in_planes(self, file: ImageFile) -> Iterator[ImageFile | LeftOut]:
        """A file as it is, or each plane of it, of the file's size and times; see `massl.core.images.plane_files`."""
        count = self._contents.planes(self._root, file)
        if count == 1:
            yield file
            return
        for number in range(1, count + 1):
            plane = replace(file, path=f"{file.path}#{number}")
            if os.path.lexists(os.path.join(self._root, plane.path)):
                yield LeftOut(plane.path, _PLANE_TAKEN)
            elif not (self._excluded and self._excluded(plane.path)):
                yield plane

    def _with_sidecar(self, file: ImageFile, folder: str, name: str) -> ImageFile:
        """A file with the sidecar of this name, if that is a regular file."""
        relative = f"{folder}/{name}" if folder else name
        with suppress(OSError):
            info = os.lstat(os.path.join(self._root, relative))
            if stat.S_ISREG(info.st_mode):
                return replace(file, sidecar=Sidecar(relative, info.st_size, storable(info.st_mtime_ns)))
        return file

    def _entry(
        self, entry: os.DirEntry[str], relative: str, folders: list[str]
    ) -> ImageFile | Skipped | LeftOut | None:
        """What one entry of a folder is; folders and links are noted for later."""
        if (why := _why_left_out(entry)) is not None and not (self._included and self._included(relative)):
            return LeftOut(relative, why) if why else None
        if entry.is_symlink():
            self._links.append(relative)
        elif entry.is_dir(follow_symlinks=False):
            folders.append(relative)
        elif kind_of_name(entry.name) != OTHER:
            info = entry.stat(follow_symlinks=False)
            if (info.st_dev, info.st_ino) not in self._seen_linked_files:
                return _judge(self._root, relative, info, self._contents)
        return None

    def _link(self, relative: str, inside: str) -> Iterator[ImageFile | Skipped | LeftOut]:
        """What a symbolic link leads to, unless it lies in the folder that is walked or was seen before."""
        target = os.path.realpath(os.path.join(self._root, relative))
        try:
            info = os.stat(os.path.join(self._root, relative))
            around = _identity(os.path.dirname(target))
        except OSError as error:
            if kind_of_name(relative) == PICTURE:
                yield Skipped(relative, reason_of(error, "broken link"))
            return
        if os.path.join(target, "").startswith(inside):
            return
        if stat.S_ISDIR(info.st_mode):
            self._pending.append(relative)
        elif kind_of_name(relative) != OTHER and (info.st_dev, info.st_ino) not in self._seen_linked_files:
            self._seen_linked_files.add((info.st_dev, info.st_ino))
            if around not in self._seen_folders and (item := _judge(self._root, relative, info, self._contents)):
                yield from self._in_planes(item) if isinstance(item, ImageFile) else (item,)


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


@dataclass(frozen=True)
class Found:
    """What a folder holds: images as paths relative to it, what was passed over, and how many of a kind left out."""

    images: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def look_through(root: Path, planes: PlaneCounter | None = None) -> Found:
    """Walks a folder; with `planes` each plane of a stack is a file of its own.

    Raises:
        MasslError: no folder, or no image file in it.
    """
    found = Found()
    for item in walk(root, contents=Contents(planes=planes)):
        if isinstance(item, ImageFile):
            found.images.append(item.path)
        elif isinstance(item, Skipped):
            found.skipped.append(item)
        else:
            found.left_out[item.kind] += 1
    if not found.images:
        raise _no_images(root, found.left_out)
    return found


def find_images(root: Path, planes: PlaneCounter | None = None) -> tuple[list[str], list[Skipped]]:
    """All image files below `root`, as paths relative to it, and what was passed over; see `look_through`.

    Raises:
        MasslError: no folder, or no image file in it.
    """
    found = look_through(root, planes)
    return found.images, found.skipped


def check_holds_images(root: Path, include: Sequence[str] = ()) -> None:
    """Raises a `MasslError` unless there is an image file somewhere below `root`; it stops at the first."""
    left_out: Counter[str] = Counter()
    for item in walk(root, include=include):
        if isinstance(item, ImageFile):
            return
        if isinstance(item, LeftOut):
            left_out[item.kind] += 1
    raise _no_images(root, left_out)


def left_out_line(left_out: Mapping[str, int]) -> str:
    """What the walk left out, in words; empty for nothing.

    Args:
        left_out: how many of each kind, as `LeftOut` names them.
    """
    own = (_HIDDEN_FOLDER, _HIDDEN_PICTURE, _APPLE_DOUBLE, _PLANE_TAKEN, UNOPENED)
    unread, folders = [], []
    for kind, count in sorted(left_out.items()):
        if kind.startswith("folder "):
            folders.append(f"{count:,} folder{'s' * (count != 1)} called {kind.removeprefix('folder ')}")
        elif kind not in own:
            unread.append(f"{count:,} {kind}")
    others = [f"{left_out[kind]:,} {kind}{'s' * (left_out[kind] != 1)}" for kind in own[:3] if left_out.get(kind)]
    if taken := left_out.get(_PLANE_TAKEN):
        others.append(f"{taken:,} plane{'s' * (taken != 1)} of stacks named like a file beside them")
    parts = []
    if unread:
        scientific = [kind for kind in EXPORTABLE if left_out.get(kind)]
        instead = f"; export {', '.join(scientific)} as OME-TIFF" if scientific else ""
        parts.append(f"{', '.join(unread)} (pictures of formats that massl doesn't read{instead})")
    if folders:
        parts.append(f"{', '.join(folders)} (which a system made)")
    if others:
        parts.append(", ".join(others))
    if unopened := left_out.get(UNOPENED):
        parts.append(f"{unopened:,} file{'s' * (unopened != 1)} of an unknown kind that can't be opened")
    return "; ".join(parts)


def system_folders(path: str) -> set[str]:
    """The names in a path, relative to the root and with forward slashes, of folders that a system made."""
    return {name for name in path.split("/")[:-1] if _system_folder(name)}


def _no_images(root: Path, left_out: Mapping[str, int]) -> MasslError:
    what = f"; left out: {left_out_line(left_out)}" if left_out else ""
    reads = "massl reads JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, RAW and DICOM"
    return MasslError(f"{root} holds no image files{what}; {reads}")


def _matcher(patterns: Sequence[str]) -> Callable[[str], object] | None:
    """Whether one of these patterns fits a path relative to the root; None where there are none."""
    plain = [pattern.removeprefix("./").strip("/") for pattern in patterns]
    anywhere = [fnmatch.translate(pattern) for pattern in plain if pattern and "/" not in pattern]
    from_root = [fnmatch.translate(pattern) for pattern in plain if "/" in pattern]
    if not anywhere and not from_root:
        return None
    names = re.compile("|".join(anywhere) or r"(?!)")
    paths = re.compile("|".join(from_root) or r"(?!)")
    return lambda path: names.match(path.rpartition("/")[2]) or paths.match(path)


def excluding(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a walk without these patterns passes over a path relative to its root, by its name or a folder's."""
    excluded = _matcher(patterns)

    def passes_over(path: str) -> bool:
        names = path.split("/")
        above = ("/".join(names[:depth]) for depth in range(1, len(names) + 1))
        return excluded is not None and any(map(excluded, above))

    return passes_over


def _identity(folder: str) -> tuple[int, int]:
    """What a folder is, under whichever name."""
    info = os.stat(folder)
    return info.st_dev, info.st_ino


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    """The kind of what is left out unless asked for, empty if it needs no mention; None of all else."""
    system = _system_folder(entry.name)
    if not entry.name.startswith(".") and not system:
        return None
    if entry.is_dir(follow_symlinks=False) or (system and entry.is_symlink()):
        return f"folder {system}" if system else _HIDDEN_FOLDER
    if not entry.name.startswith("."):
        return None
    if kind_of_name(entry.name) != PICTURE:
        return ""
    return _APPLE_DOUBLE if entry.name.startswith("._") else _HIDDEN_PICTURE


def _system_folder(name: str) -> str | None:
    """What to call a folder that a system makes; None for any other name."""
    low = name.lower()
    if found := _SYSTEM_FOLDERS.get(low):
        return found
    return next((called for start, called in _SYSTEM_BEGINNINGS.items() if low.startswith(start)), None)


def _judge(root: Path, path: str, info: os.stat_result, contents: Contents) -> ImageFile | Skipped | LeftOut | None:
    named = kind_of_name(path)
    if not stat.S_ISREG(info.st_mode):
        return Skipped(path, "not a regular file") if named == PICTURE else None
    kind = contents.kind(root, path, info) if needs_a_look(path) else named
    if not kind:
        return None
    if kind != PICTURE:
        return LeftOut(path, kind)
    return ImageFile(path, info.st_size, storable(info.st_mtime_ns), storable(info.st_ctime_ns))


def storable(time_ns: int) -> int:
    """A file's time, nanoseconds since 1970, or the nearest that 64 bits hold: those end in the year 2262."""
    return max(-(2**63), min(time_ns, 2**63 - 1))
