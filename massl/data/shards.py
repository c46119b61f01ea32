"""Tar shards, as WebDataset writes them: where each image lies in them, read in place. Nothing is unpacked."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import os
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.files.scan import Skipped, kind_of_member
from massl.core.images.file_reading import check_size, keep_memory
from massl.core.images.formats import HEAD, OTHER, PICTURE
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering_facts import BY_EACH_FILE

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.z")
MAX_SHARDS = 1_000_000  # that a pattern may name
OPEN_SHARDS = 64  # a process
INDEXED_AT_ONCE = 8  # for slow disks: what waits is reading, one header an image


class ShardFiles(Protocol):
    """The files of shards by number, wherever they lie. May be used in any process and thread."""

    def __len__(self) -> int: ...

    def opened(self, shard: int) -> AbstractContextManager[tuple[BinaryIO, int]]:
        """A file from its beginning, and its length in bytes.

        Raises:
            OSError: there is none, or it can't be read.
        """

    def read_at(self, shard: int, offset: int, size: int) -> bytes:
        """`size` bytes of a file, or fewer at its end.

        Raises:
            OSError: it can't be read.
        """


class LocalFiles:
    """`ShardFiles` of this machine."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._files: dict[int, io.FileIO] = {}
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._paths)

    def opened(self, shard: int) -> AbstractContextManager[tuple[BinaryIO, int]]:
        """See `ShardFiles.opened`."""
        return _OpenedShard(self._paths[shard])

    def read_at(self, shard: int, offset: int, size: int) -> bytes:
        """See `ShardFiles.read_at`."""
        file = self._file(shard)
        if hasattr(os, "pread"):
            return os.pread(file.fileno(), size, offset)
        file.seek(offset)
        return file.read(size) or b""

    def _file(self, shard: int) -> io.FileIO:
        """Opens a shard, in each process anew, and keeps the last few open."""
        if self._process != os.getpid():
            self._files, self._process = {}, os.getpid()
        if (file := self._files.get(shard)) is None:
            if len(self._files) >= OPEN_SHARDS:
                del self._files[next(iter(self._files))]  # closes once its last reader is done
            file = self._files[shard] = io.FileIO(self._paths[shard])
        return file

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_files": {}}


class _OpenedShard:
    """A local file, which must be a regular one: a FIFO would be waited for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> tuple[BinaryIO, int]:
        info = os.stat(self._path)
        if not stat.S_ISREG(info.st_mode):
            raise OSError("not a regular file")
        self._file = self._path.open("rb")
        return self._file, info.st_size

    def __exit__(self, *raised: object) -> None:
        self._file.close()


class Shards:
    """Members of uncompressed tar files, read in place.

    Where each member lies is found once and kept in arrays, about 20 bytes and a name an image, which worker processes
    share.
    """

    def __init__(self, where: str, files: ShardFiles, names: Sequence[str], indexes: Sequence[ShardIndex]) -> None:
        """Takes, for each shard, what to call it and where its images lie."""
        self.where = where
        self.names = names
        self.shown_as = BY_EACH_FILE
        self.left_out: Mapping[str, int] = sum((index.left_out for index in indexes), Counter())
        self._files = files
        self._shard = np.repeat(np.arange(len(indexes), dtype=np.int32), [len(index.names) for index in indexes])
        self._offset = np.concatenate([index.offsets for index in indexes])
        self._size = np.concatenate([index.sizes for index in indexes])
        self._text = b"".join(name for index in indexes for name in index.names)
        self._ends = np.cumsum([0, *(len(name) for index in indexes for name in index.names)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offset)

    @cached_property
    def identity(self) -> str:
        """A digest of the shards' and members' names."""
        return digest_of(os.fsencode(self.name(index)) for index in range(len(self)))

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
            data = self._files.read_at(int(self._shard[index]), int(self._offset[index]), size)
        except OSError as error:
            raise ImageError(f"its shard can't be read: {(error.strerror or str(error)).lower()}") from None
        if len(data) < size:
            raise ImageError("its shard has become shorter since the run began")
        return data


def open_shards(
    where: str, files: ShardFiles, names: Sequence[str], skipped: Sequence[Skipped]
) -> tuple[Shards, list[Skipped]]:
    """The images of shards, and what had to be passed over: `skipped`, and what is damaged in them.

    Args:
        where: what the user named.
        files: the shards.
        names: what to call each.
        skipped: what was passed over before.

    Raises:
        MasslError: there is no image in them.
    """
    with ThreadPoolExecutor(INDEXED_AT_ONCE) as pool:
        indexes = list(pool.map(partial(_index, files), range(len(names)), names))
    skipped = [*skipped, *(item for index in indexes for item in index.skipped)]
    source = Shards(where, files, names, indexes)
    if not len(source):
        first = f"; the first: {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise MasslError(f"{where}: no image in {len(names)} tar shard{'s' * (len(names) != 1)}{first}")
    return source, skipped


def is_shard(name: str) -> bool:
    """Whether a file is a shard by its name, one of a compressed kind among them."""
    return name.lower().endswith((".tar", *COMPRESSED))


def is_pattern(text: str) -> bool:
    """Whether a text names several shards."""
    return re.search(r"[{*?\[]", text) is not None


def expand(pattern: str, matches: Callable[[str], Iterable[str]]) -> list[str]:
    """The files that a pattern names, each once: braces as in a shell, then wildcards, each in order.

    Args:
        pattern: as `images-{000..123}.tar`.
        matches: what there is that matches a text with wildcards.

    Raises:
        MasslError: more than `MAX_SHARDS`.
    """
    literals, choices = re.split(r"\{([^{}]*)\}", pattern)[::2], []
    for inner in re.findall(r"\{([^{}]*)\}", pattern):
        if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
            width = len(numbers[1]) if numbers[1].startswith("0") else 0
            first, last = int(numbers[1]), int(numbers[2])
            if last - first >= MAX_SHARDS:
                raise MasslError(f"{pattern} names more than {MAX_SHARDS:,} shards")
            choices.append([f"{number:0{width}d}" for number in range(first, last + 1)])
        else:
            choices.append(inner.split(","))
    if math.prod(map(len, choices)) > MAX_SHARDS:
        raise MasslError(f"{pattern} names more than {MAX_SHARDS:,} shards")
    found: dict[str, None] = {}
    for chosen in itertools.product(*choices):
        text = "".join(itertools.chain(*zip(literals, [*chosen, ""], strict=True)))
        found |= dict.fromkeys(sorted(matches(text)) if re.search(r"[*?\[]", text) else [text])
    return list(found)


@dataclass(frozen=True)
class ShardIndex:
    """Where the images of one shard lie, in bytes, and what had to be passed over."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: list[bytes]
    skipped: list[Skipped]
    left_out: Counter[str]


def _index(files: ShardFiles, shard: int, name: str) -> ShardIndex:
    """Finds the images of one shard by its headers. What is whole before a damage is used."""
    offsets: list[int] = []
    sizes: list[int] = []
    names: list[bytes] = []
    skipped: list[Skipped] = []
    left_out: Counter[str] = Counter()
    try:
        with files.opened(shard) as (file, length):
            if reason := _not_a_tar(file.read(6)):
                skipped.append(Skipped(name, reason))
                length = 0
            for member in _members(file, length) if length else ():
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
    return ShardIndex(np.array(offsets, np.int64), np.array(sizes, np.int64), names, skipped, left_out)


def _head(file: BinaryIO, member: _Member) -> bytes:
    """The first bytes of a member's content; none of what is no plain file."""
    if member.reason or member.name.endswith("/"):
        return b""
    file.seek(member.offset)
    return file.read(min(HEAD, member.size))


def _not_a_tar(head: bytes) -> str | None:
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")):
        return "compressed, so its members can't be reached one by one; unpack it once to a plain .tar"
    return None if head else "empty file"


class _Member(NamedTuple):
    name: str
    offset: int  # of the content, in bytes
    size: int
    reason: str = ""  # why it can't be used


def _members(file: BinaryIO, length: int) -> Iterator[_Member | str]:
    """Yields the members of a tar file in their order; a string, the last, says what is wrong with it."""
    offset = 0
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


def digest_of(names: Iterable[bytes]) -> str:
    """The identity of a source: SHA-256 of its names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name + b"\0")
    return digest.hexdigest()
