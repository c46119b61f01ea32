"""Where training images come from: a folder, a list of paths, or tar shards as WebDataset writes them."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from massl.core.errors import MasslError
from massl.core.files.csv_tables import read_paths
from massl.core.files.path_notation import as_on_disk
from massl.core.files.scan import Skipped, check_folder, look_through
from massl.core.images import plane_files
from massl.core.images.decoding import decode, dimensions, within_memory
from massl.core.images.file_reading import read_bytes
from massl.core.images.formats import PlaneCounter
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering_facts import BY_EACH_FILE, ShownAs
from massl.data.shards import LocalFiles, Shards, digest_of, expand, is_pattern, is_shard, open_shards

LISTS = (".txt", ".lst", ".csv")
KINDS = (
    "a folder of images, a list (.txt, .lst, .csv), a .tar, a folder of them, or a pattern as 'images-{000..123}.tar'"
)
SAMPLE = 100  # images that are looked at before a run


class Source(Protocol):
    """Images by number, in an order that stays the same."""

    shown_as: ShownAs
    """How its deep files and stacks are shown; each by itself, unless `source_rendering.measured` settled it."""

    @property
    def where(self) -> str:
        """What the user named."""

    @property
    def identity(self) -> str:
        """A digest of all names in their order: a run can only go on with the same."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many pictures that aren't read, or lie where nothing is looked for, of each kind."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call an image in a report."""

    def read(self, index: int) -> bytes:
        """An image file's content. May be called in any process.

        Raises:
            ImageError: it can't be read.
        """


class Files:
    """Files of their own: those of a folder, or of a list. `paths` are relative to `root`, or absolute."""

    def __init__(
        self, where: Path, root: Path, paths: Sequence[str], left_out: Mapping[str, int] | None = None
    ) -> None:
        self.where = str(where)
        self.root = root
        self.paths = paths
        self.left_out = left_out or {}
        self.shown_as = BY_EACH_FILE

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def identity(self) -> str:
        """A digest of the paths; the files may have been moved together."""
        return digest_of(map(os.fsencode, self.paths))

    def name(self, index: int) -> str:
        """The path, as found or listed."""
        return self.paths[index]

    def read(self, index: int) -> bytes:
        """Reads the file; see `massl.core.images.file_reading.read_bytes`."""
        return read_bytes(self.root / self.paths[index])


def find_source(path: Path, shown: ShownAs = BY_EACH_FILE) -> tuple[Source, list[Skipped]]:
    """The images that a path stands for, shown so, and what had to be passed over.

    A folder is walked as by the indexer; one that holds no images but .tar files is a folder of shards. A list has one
    path a line, or a CSV's column `path` or else its first, relative to the list's own folder; a line that begins with
    # is a comment, a file listed again counts once. A list of nothing but .tar files is one of shards. If `shown` says
    so, each plane of a stack in a folder is an image of its own; see `massl.core.images.plane_files`. A list names
    planes itself, as `stack.tif#12`.

    Raises:
        MasslError: there is nothing of the kind, or no image in it.
    """
    source, skipped = _open(path, plane_files.counter(shown.plane, shown.channels))
    source.shown_as = shown
    return source, skipped


def _open(path: Path, planes: PlaneCounter | None) -> tuple[Source, list[Skipped]]:
    if os.path.isdir(path):
        check_folder(path)
        try:
            found = look_through(path, planes)
        except MasslError:
            if not (shards := _tars_below(path)):
                raise
            return _open_shards(path, path, shards, [])
        return Files(path, path, found.images, found.left_out), found.skipped
    if os.path.exists(path):
        kind = path.suffix.lower()
        if kind in LISTS:
            return _open_list(path)
        if is_shard(path.name):
            return _open_shards(path, path.parent, [path], [])
        raise MasslError(f"{path} is not a source of images; give {KINDS}")
    if is_pattern(str(path)):
        named = [Path(name) for name in expand(str(path), glob.glob)]
        present = [shard for shard in named if os.path.lexists(shard)]
        if not present:
            raise MasslError(f"{path}: no file matches this pattern; check the spelling, and put it in quotes")
        root = Path(os.path.commonpath([shard.parent.absolute() for shard in present]))
        missing = [
            Skipped(os.path.relpath(shard, root), "there is no such file")
            for shard in named
            if not os.path.lexists(shard)
        ]
        return _open_shards(path, root, present, missing)
    raise MasslError(f"{path}: there is no such file or folder; give {KINDS}")


def decoded(source: Source, index: int, shortest: int | None = None) -> Image.Image:
    """An image of a source as it is shown: upright 8-bit sRGB; see `massl.core.images.decoding.decode`.

    Raises:
        ImageError: it can't be read or decoded.
    """
    return as_shown(source, source.read(index), shortest)


def as_shown(source: Source, data: bytes, shortest: int | None = None) -> Image.Image:
    """As `decoded`, of an image's content that was read before."""
    return decode(data, shortest, rendering=source.shown_as.rendering()).picture


def check_same(source: Source, images: int, identity: str | None) -> None:
    """Raises a `MasslError` unless `source` is what a run was started on; early runs recorded no `identity`."""
    back = "bring them back to what they were, or start a new run"
    if images != len(source):
        raise MasslError(f"the run was started on {images} images, but {source.where} now holds {len(source)}; {back}")
    if identity not in (None, source.identity):
        raise MasslError(f"the images of {source.where} have other names or another order than the run's; {back}")


def check_readable(source: Source) -> None:
    """Raises a `MasslError` if not one image can be read."""
    last = ""
    for index in range(len(source)):
        try:
            with within_memory():
                decoded(source, index)
            return
        except ImageError as error:
            last = f"{source.name(index)!r}: {error}"
    raise MasslError(f"no image of {source.where} can be read; the last was {last}")


def doubts(source: Source, image_size: int) -> list[str]:
    """A line for each thing about the images that training can live with, but a person should know.

    Looks at up to `SAMPLE` images, evenly spaced, no further than their headers.

    Args:
        source: the images.
        image_size: the side of a global view, in pixels.
    """
    contents: set[tuple[int, bytes]] = set()
    small = seen = 0
    for index in np.unique(np.linspace(0, len(source) - 1, min(SAMPLE, len(source))).astype(int)):
        try:
            with within_memory():
                data = source.read(int(index))
                small += min(dimensions(data)) < image_size
        except Exception:  # the run itself will say what is wrong with it
            continue
        seen += 1
        if len(contents) < 2:
            contents.add((len(data), hashlib.sha256(data).digest()))
    found = []
    if seen > 1 and len(contents) == 1:
        found.append(
            f"all {seen} images looked at are the same picture, byte for byte, so there is nothing to learn; check "
            "that this is the right folder"
        )
    if small:
        told = f"{small} of {seen} images looked at are smaller than a view of {image_size} pixels and will be enlarged"
        # Where most are larger, smaller views would take pixels from these.
        less = "; smaller views (--set image_size=…) would learn as much in less time"
        found.append(told + less if 2 * small > seen else told)
    return found


# Lists ----------------------------------------------------------------------------------------------------------------


def list_entries(path: Path) -> list[str]:
    """What a list names, in its order: a line each, or a CSV's column `path` or else its first; without comments.

    Raises:
        MasslError: it can't be read, or is no text.
    """
    lines = read_paths(path) if path.suffix.lower() == ".csv" else _read_list(path).split("\n")
    return [entry for line in lines if (entry := line.strip()) and not entry.startswith("#")]


def _open_list(path: Path) -> tuple[Source, list[Skipped]]:
    root = path.parent
    paths, skipped, seen = [], [], set()
    for entry in list_entries(path):
        full = os.path.normpath(os.path.join(root, entry))
        reason = None if full in seen else _unusable(full)
        if reason and (meant := _meant(path, entry)) != entry:
            entry, full = meant, os.path.normpath(os.path.join(root, meant))
            reason = None if full in seen else _unusable(full)
        if full in seen:
            continue
        seen.add(full)
        if reason:
            skipped.append(Skipped(entry, reason))
        else:
            paths.append(entry)
    if not seen:
        raise MasslError(f"{path} lists no image; write one path a line, relative to {root.resolve()} or absolute")
    if not paths:
        first = f"{skipped[0].path!r}: {skipped[0].reason}"
        raise MasslError(
            f"not one of the {len(skipped)} files that {path} lists can be used; the first is {first} "
            f"(paths are taken relative to {root.resolve()})"
        )
    if all(map(is_shard, paths)):
        return open_shards(str(path), LocalFiles([root / entry for entry in paths]), paths, skipped)
    return Files(path, root, paths), skipped


def _meant(table: Path, entry: str) -> str:
    try:
        return as_on_disk(table.parent, entry)
    except MasslError as error:
        raise MasslError(f"{table}: {error}") from None


def _read_list(path: Path) -> str:
    """A list's text: UTF-8 with or without a mark, or the UTF-16 that Windows writes; other bytes stay as they are.

    Raises:
        MasslError: it can't be read, or is no text.
    """
    try:
        data = read_bytes(path)
    except ImageError as error:
        if str(error) != "empty file":
            raise MasslError(f"{path}: {error}") from None
        data = b""
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16", "replace") if utf16 else data.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise MasslError(f"{path} is not text; a list has one path per line")
    return text


def _unusable(path: str) -> str | None:
    try:
        if stat.S_ISREG(os.stat(plane_files.file_of(Path(path))).st_mode):
            return None
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, ValueError):
        pass
    try:
        read_bytes(Path(path))
    except ImageError as error:
        return str(error)
    except ValueError as error:
        return str(error)
    return None


# Shards ---------------------------------------------------------------------------------------------------------------


def _open_shards(
    where: Path, root: Path, paths: Sequence[Path], skipped: Sequence[Skipped]
) -> tuple[Shards, list[Skipped]]:
    names = [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]
    return open_shards(str(where), LocalFiles(paths), names, skipped)


def _tars_below(root: Path) -> list[Path]:
    """Every tar file below a folder, compressed ones among them, in a stable order; hidden ones are left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if is_shard(name) and not name.startswith(".")]
    return found
