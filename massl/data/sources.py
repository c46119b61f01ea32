"""Where training images come from: a folder, a list of paths, or tar shards as WebDataset writes them."""

from __future__ import annotations

import glob
import hashlib
import io
import itertools
import math
import os
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.files.csv_tables import read_paths
from massl.core.files.path_notation import as_on_disk
from massl.core.files.scan import Skipped, check_folder, kind_of_member, look_through
from massl.core.images.decoding import (
    ImageError,
    check_size,
    decode,
    dimensions,
    keep_memory,
    read_bytes,
    within_memory,
)
from massl.core.images.formats import HEAD, OTHER, PICTURE

LISTS = (".txt", ".lst", ".csv")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.z")
KINDS = (
    "a folder of images, a list (.txt, .lst, .csv), a .tar, a folder of them, or a pattern as 'images-{000..123}.tar'"
)
MAX_SHARDS = 1_000_000  # that a pattern may name
OPEN_SHARDS = 64  # a process
SAMPLE = 100  # images that are looked at before a run


class Source(Protocol):
    """Images by number, in an order that stays the same."""

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

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def identity(self) -> str:
        """A digest of the paths; the files may have been moved together."""
        return _digest(map(os.fsencode, self.paths))

    def name(self, index: int) -> str:
        """The path, as found or listed."""
        return self.paths[index]

    def read(self, index: int) -> bytes:
        """Reads the file; see `massl.core.images.decoding.read_bytes`."""
        return read_bytes(self.root / self.paths[index])


class Shards:
    """Members of uncompressed tar files, read in place: nothing is unpacked.

    Where each member lies is found once and kept in arrays, about 20 bytes and a name an image, which worker processes
    share.
    """

    def __init__(self, where: Path, shards: Sequence[Path], names: Sequence[str], indexes: Sequence[_Index]) -> None:
        """Takes, for each shard, what to call it and where its images lie."""
        self.where = str(where)
        self.shards = shards
        self.names = names
        self.left_out: Mapping[str, int] = sum((index.left_out for index in indexes), Counter())
        self._shard = np.repeat(np.arange(len(indexes), dtype=np.int32), [len(index.names) for index in indexes])
        self._offset = np.concatenate([index.offsets for index in indexes])
        self._size = np.concatenate([index.sizes for index in indexes])
        self._text = b"".join(name for index in indexes for name in index.names)
        self._ends = np.cumsum([0, *(len(name) for index in indexes for name in index.names)], dtype=np.int64)
        self._files: dict[int, io.FileIO] = {}
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._offset)

    @cached_property
    def identity(self) -> str:
        """A digest of the shards' and members' names."""
        return _digest(os.fsencode(self.name(index)) for index in range(len(self)))

    def name(self, index: int) -> str:
        """The shard's name and the member's."""
        member = os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]])
        return f"{self.names[self._shard[index]]}/{member}"

    def read(self, index: int) -> bytes:
        """Reads one member, by its place in the shard."""
        size = int(self._size[index])
        check_size(size)
        keep_memory(size)
        try:
            data = _read_at(self._file(int(self._shard[index])), int(self._offset[index]), size)
        except OSError as error:
            raise ImageError(f"its shard can't be read: {(error.strerror or str(error)).lower()}") from None
        if len(data) < size:
            raise ImageError("its shard has become shorter since the run began")
        return data

    def _file(self, shard: int) -> io.FileIO:
        """Opens a shard, in each process anew, and keeps the last few open."""
        if self._process != os.getpid():
            self._files, self._process = {}, os.getpid()
        if (file := self._files.get(shard)) is None:
            if len(self._files) >= OPEN_SHARDS:
                del self._files[next(iter(self._files))]  # closes once its last reader is done
            file = self._files[shard] = io.FileIO(self.shards[shard])
        return file

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_files": {}}


def find_source(path: Path) -> tuple[Source, list[Skipped]]:
    """The images that a path stands for, and what had to be passed over.

    A folder is walked as by the indexer; one that holds no images but .tar files is a folder of shards. A list has one
    path a line, or a CSV's column `path` or else its first, relative to the list's own folder; a line that begins with
    # is a comment, a file listed again counts once.

    Raises:
        MasslError: there is nothing of the kind, or no image in it.
    """
    if os.path.isdir(path):
        check_folder(path)
        try:
            found = look_through(path)
        except MasslError:
            if not (shards := _tars_below(path)):
                raise
            return _open_shards(path, path, shards, [])
        return Files(path, path, found.images, found.left_out), found.skipped
    if os.path.exists(path):
        kind = path.suffix.lower()
        if kind in LISTS:
            return _open_list(path)
        if kind == ".tar" or path.name.lower().endswith(COMPRESSED):
            return _open_shards(path, path.parent, [path], [])
        raise MasslError(f"{path} is not a source of images; give {KINDS}")
    if re.search(r"[{*?\[]", str(path)):
        named = _expand(path)
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
                decode(source.read(index))
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
        found.append(
            f"{small} of {seen} images looked at are smaller than a view of {image_size} pixels and will be enlarged; "
            "smaller views (--set image_size=…) would learn as much in less time"
        )
    return found


# Lists ----------------------------------------------------------------------------------------------------------------


def _open_list(path: Path) -> tuple[Files, list[Skipped]]:
    root = path.parent
    paths, skipped, seen = [], [], set()
    lines = read_paths(path) if path.suffix.lower() == ".csv" else _read_list(path).split("\n")
    for line in lines:
        if not (entry := line.strip()) or entry.startswith("#"):
            continue
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
        if stat.S_ISREG(os.stat(path).st_mode):
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


@dataclass(frozen=True)
class _Index:
    """Where the images of one shard lie, in bytes, and what had to be passed over."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: list[bytes]
    skipped: list[Skipped]
    left_out: Counter[str]


def _open_shards(
    where: Path, root: Path, shards: Sequence[Path], skipped: list[Skipped]
) -> tuple[Shards, list[Skipped]]:
    names = [os.path.relpath(shard, root).replace(os.sep, "/") for shard in shards]
    with ThreadPoolExecutor(8) as pool:  # for slow disks: what waits is reading, one header an image
        indexes = list(pool.map(_index, shards, names))
    skipped = skipped + [item for index in indexes for item in index.skipped]
    source = Shards(where, shards, names, indexes)
    if not len(source):
        first = f"; the first: {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise MasslError(f"{where}: no image in {len(shards)} tar shard{'s' * (len(shards) != 1)}{first}")
    return source, skipped


def _tars_below(root: Path) -> list[Path]:
    """Every tar file below a folder, compressed ones among them, in a stable order; hidden ones are left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in sorted(files)
            if name.lower().endswith((".tar", *COMPRESSED)) and not name.startswith(".")
        ]
    return found


def _expand(path: Path) -> list[Path]:
    """The files that a pattern names: braces as in a shell, then wildcards, each in order."""
    literals, choices = re.split(r"\{([^{}]*)\}", str(path))[::2], []
    for inner in re.findall(r"\{([^{}]*)\}", str(path)):
        if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
            width = len(numbers[1]) if numbers[1].startswith("0") else 0
            first, last = int(numbers[1]), int(numbers[2])
            if last - first >= MAX_SHARDS:
                raise MasslError(f"{path} names more than {MAX_SHARDS:,} shards")
            choices.append([f"{number:0{width}d}" for number in range(first, last + 1)])
        else:
            choices.append(inner.split(","))
    if math.prod(map(len, choices)) > MAX_SHARDS:
        raise MasslError(f"{path} names more than {MAX_SHARDS:,} shards")
    found: dict[str, None] = {}
    for chosen in itertools.product(*choices):
        text = "".join(itertools.chain(*zip(literals, [*chosen, ""], strict=True)))
        found |= dict.fromkeys(sorted(glob.glob(text)) if re.search(r"[*?\[]", text) else [text])
    return [Path(name) for name in found]


def _index(shard: Path, name: str) -> _Index:
    """Finds the images of one shard by its headers. What is whole before a damage is used."""
    offsets: list[int] = []
    sizes: list[int] = []
    names: list[bytes] = []
    skipped: list[Skipped] = []
    left_out: Counter[str] = Counter()
    try:
        if reason := _not_a_tar(shard):
            skipped.append(Skipped(name, reason))
        else:
            with shard.open("rb", buffering=0) as file:
                for member in _members(shard):
                    if isinstance(member, str):
                        used = f"; the {len(names)} images before that are used" if names else ""
                        skipped.append(Skipped(name, member + used))
                        continue
                    kind = kind_of_member(member.name, partial(_head, file, member))
                    if kind == PICTURE and member.reason:
                        skipped.append(Skipped(f"{name}/{member.name}", member.reason))
                    elif kind == PICTURE:
                        offsets.append(member.offset)
                        sizes.append(member.size)
                        names.append(os.fsencode(member.name))
                    elif kind != OTHER:
                        left_out[kind] += 1
    except OSError as error:
        skipped.append(Skipped(name, (error.strerror or str(error)).lower()))
    return _Index(np.array(offsets, np.int64), np.array(sizes, np.int64), names, skipped, left_out)


def _head(file: io.FileIO, member: _Member) -> bytes:
    """The first bytes of a member's content; none of what is no plain file."""
    return b"" if member.reason or member.name.endswith("/") else _read_at(file, member.offset, min(HEAD, member.size))


def _not_a_tar(shard: Path) -> str | None:
    if not stat.S_ISREG(os.stat(shard).st_mode):
        return "not a regular file"
    with shard.open("rb") as file:
        head = file.read(6)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")):
        return "compressed, so its members can't be reached one by one; unpack it once to a plain .tar"
    return None if head else "empty file"


class _Member(NamedTuple):
    name: str
    offset: int  # of the content, in bytes
    size: int
    reason: str = ""  # why it can't be used


def _members(shard: Path) -> Iterator[_Member | str]:
    """Yields the members of a tar file in their order; a string, the last, says what is wrong with it."""
    length, offset = shard.stat().st_size, 0
    with shard.open("rb") as file:
        archive: tarfile.TarFile | None = None
        while True:
            file.seek(offset)
            header = file.read(tarfile.BLOCKSIZE)
            if header == bytes(tarfile.BLOCKSIZE):
                return
            if len(header) < tarfile.BLOCKSIZE:
                yield f"cut short: it ends after {length:,} bytes without the mark that ends a tar"
                return
            try:
                file.seek(offset)
                archive = archive or tarfile.TarFile(fileobj=file)
                file.seek(offset)
                archive.offset = offset
                info = tarfile.TarInfo.fromtarfile(archive)
                following = archive.offset
            except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError):
                yield f"damaged at byte {offset:,}" if offset else "no tar file"
                return
            member = _Member(info.name, info.offset_data, info.size)
            if info.isdir():
                member = member._replace(name=info.name + "/")
            elif not info.isreg() or info.issparse():
                member = member._replace(reason="a link or special file in the archive")
            if following <= offset or member.size < 0:
                yield f"damaged at byte {offset:,}"
                return
            if not member.reason and member.offset + member.size > length:
                yield f"cut short: it ends inside {member.name}"
                return
            yield member
            offset = following


def _read_at(file: io.FileIO, offset: int, size: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), size, offset)
    file.seek(offset)
    return file.read(size) or b""


def _digest(names: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name + b"\0")
    return digest.hexdigest()
