"""Images in an object store, or wherever else fsspec reaches: below an address, named by a list, or in tar shards."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast
from urllib.parse import urlsplit

from massl.core.errors import MasslError
from massl.core.files.scan import Skipped, kind_of_member, left_out_line
from massl.core.files.temporary_folders import TemporaryFolder
from massl.core.images.file_reading import check_size, keep_memory
from massl.core.images.formats import HEAD, OTHER, PICTURE
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering_facts import BY_EACH_FILE
from massl.core.printable import visible
from massl.data.shards import digest_of, expand, is_pattern, is_shard, open_shards
from massl.data.sources import LISTS, Source, list_entries

READERS = 32  # objects that are read at a time: each takes long to begin
_BLOCK = 1 << 20  # bytes of a shard that are fetched at a time to find its images
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_KINDS = "a prefix, a list (.txt, .lst, .csv), a .tar, or a pattern as 's3://bucket/images-{000..123}.tar'"
# What fsspec asks for without saying how to get it.
_PACKAGES = {"s3": "'massl[s3]'", "s3a": "'massl[s3]'", "gs": "gcsfs", "gcs": "gcsfs"} | dict.fromkeys(
    ("az", "abfs", "abfss", "adl"), "adlfs"
)
_GO_ON = "run the same command again to go on"


def is_address(text: str) -> bool:
    """Whether a text is an address, as `s3://bucket/photos`, and no path of this machine."""
    return _ADDRESS.match(text) is not None


def lists_addresses(path: Path) -> bool:
    """Whether a path is that of a list on this machine that names objects by their addresses."""
    return path.suffix.lower() in LISTS and path.is_file() and any(map(is_address, list_entries(path)))


def find_objects(where: str) -> tuple[Source, list[Skipped]]:
    """The images that an address stands for, or a list on this machine of addresses; and what was passed over.

    Below a prefix all images are found by their names, those without a telling one by their first bytes. A prefix that
    holds no images but .tar files is one of shards. A list has one object a line, by its address or relative to the
    list's own place. One of nothing but .tar files is of shards.

    Raises:
        MasslError: the store can't be asked, there is nothing of the kind, or no image in it.
    """
    if not is_address(where):
        return _open_list(where, list_entries(Path(where)), None)
    store = Store(where)
    root = store.root
    if is_pattern(root):
        return _open_pattern(where, store)
    info = store.info(root)
    if info is not None and info["type"] == "file":
        if root.lower().endswith(LISTS):
            return _open_list(where, _fetched_list(where, store), store)
        if is_shard(root):
            return open_shards(where, ObjectFiles(store, [root]), [posixpath.basename(root)], [])
        raise MasslError(f"{where} is not a source of images; give {_KINDS}")
    return _open_prefix(where, store)


class Store:
    """A file system of fsspec. What goes wrong is one line. Safe to share by threads, and sent to other processes.

    Attributes:
        root: what an address names, as the file system writes it.

    Raises:
        MasslError: the address is none, or a package is missing.
    """

    def __init__(self, address: str) -> None:
        scheme = address.partition("://")[0]
        if importlib.util.find_spec("fsspec") is None:
            raise MasslError(f"{scheme}:// needs packages that aren't installed; run: pip install 'massl[s3]'")
        if not address.partition("://")[2].strip("/"):
            raise MasslError(f"{_shown(address)} names no place; give one as s3://bucket/photos")
        if urlsplit(address).password:
            raise MasslError("leave the password out of the address; set it as the store's own variables have it")
        from fsspec.core import url_to_fs

        try:
            self._fs, self.root = url_to_fs(address)
        except ImportError as error:
            package = _PACKAGES.get(scheme)
            needed = f"run: pip install {package}" if package else visible(str(error)[:120])
            raise MasslError(f"{scheme}:// needs a package that isn't installed; {needed}") from None
        except ValueError as error:
            if "Protocol not known" not in str(error):
                raise MasslError(f"{_shown(address)} can't be read: {_reason(error)}") from None
            raise MasslError(f"{scheme}:// is no kind of address that is known; give {_KINDS}") from None
        except Exception as error:
            raise MasslError(f"{_shown(address)} can't be read: {_reason(error)}") from None
        self.address = address
        self._read_last: str | None = None

    def of(self, address: str) -> str | None:
        """An address as a path of this store; None where it is of another one."""
        same = address.partition("://")[0] in (self._fs.protocol, *self._fs.protocol)
        return str(self._fs._strip_protocol(address)) if same else None

    def info(self, path: str) -> dict[str, Any] | None:
        """Its `type`, `file` or `directory`, and `size` in bytes; None where there is no such thing.

        Raises:
            MasslError: the store can't be asked.
        """
        try:
            return dict(self._fs.info(path))
        except FileNotFoundError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):  # no web server is there
                self._unable(cause)
            return None
        except Exception as error:
            self._unable(error)

    def size_now(self, path: str) -> float:
        """Bytes of an object, not as a listing had it; infinite where there is none.

        Raises:
            MasslError: the store can't be asked.
        """
        self._fs.invalidate_cache()
        info = self.info(path)
        return math.inf if info is None else int(info.get("size") or 0)

    def find(self, path: str) -> dict[str, int]:
        """All objects below a path, in a stable order, with their sizes in bytes.

        Raises:
            MasslError: the store can't be asked.
        """
        try:
            found = self._fs.find(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            self._unable(error)
        self._fs.invalidate_cache()  # a listing of millions
        return {name: int(found[name].get("size") or 0) for name in sorted(found)}

    def matching(self, pattern: str) -> list[str]:
        """The objects that match wildcards.

        Raises:
            MasslError: the store can't be asked.
        """
        try:
            return [str(name) for name in self._fs.glob(pattern)]
        except Exception as error:
            self._unable(error)

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """An object, or a part of it.

        Raises:
            ImageError: it can't be read, while others can.
            MasslError: the store can't be asked.
        """
        try:
            data = bytes(self._fs.cat_file(path, start=start, end=end))
        except Exception as error:
            raise ImageError(self._why(error), lasting=False) from None
        self._read_last = path
        return data

    @contextmanager
    def opened(self, path: str) -> Iterator[tuple[BinaryIO, int]]:
        """See `massl.data.shards.ShardFiles.opened`."""
        try:
            file = self._fs.open(path, "rb", block_size=_BLOCK, cache_type="readahead")
        except Exception as error:
            raise OSError(self._why(error)) from None
        with file:
            yield cast("BinaryIO", _ObjectReading(self, file)), int(file.size)

    def _why(self, error: Exception) -> str:
        """The reason why one object can't be read.

        Raises:
            MasslError: it isn't that object, the store can't be asked at all any more.
        """
        if isinstance(error, FileNotFoundError):
            return "there is no such object"
        try:
            if self._read_last is None:
                self._fs.invalidate_cache()
                self._fs.info(self.root)
            else:
                self._fs.cat_file(self._read_last, start=0, end=1)
        except FileNotFoundError:
            pass  # it answers
        except Exception as other:
            self._unable(other)
        return _reason(error)

    def _unable(self, error: Exception) -> NoReturn:
        mistaken = type(error).__name__ == "ParamValidationError"  # the same command would end in the same way
        then = "" if mistaken else f"; {_GO_ON}"
        raise MasslError(f"{_shown(self.address)} can't be read: {_reason(error)}{then}") from None


class _ObjectReading:
    """A file of a store. Its troubles are told as `Store.read` tells them: no reader of tars takes them for damage."""

    def __init__(self, store: Store, file: Any) -> None:
        self._store = store
        self._file = file

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._file.read(size))
        except Exception as error:
            raise ImageError(self._store._why(error), lasting=False) from None

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


class ObjectFiles:
    """`massl.data.shards.ShardFiles` of a store."""

    def __init__(self, store: Store, paths: Sequence[str]) -> None:
        self._store = store
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @contextmanager
    def opened(self, shard: int) -> Iterator[tuple[BinaryIO, int]]:
        """See `ShardFiles.opened`."""
        try:
            with self._store.opened(self._paths[shard]) as opened:
                yield opened
        except ImageError as error:  # of this one shard
            raise OSError(str(error)) from None

    def read_at(self, shard: int, offset: int, size: int) -> bytes:
        """See `ShardFiles.read_at`."""
        path = self._paths[shard]
        try:
            return self._store.read(path, offset, offset + size)
        except ImageError:
            if self._store.size_now(path) > offset:
                raise
            return b""  # a store refuses what begins after the end


class Objects:
    """Images that are objects of their own; see `massl.data.sources.Source`."""

    def __init__(
        self,
        where: str,
        store: Store,
        paths: Sequence[str],
        names: Sequence[str],
        sizes: Sequence[int] | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        """Takes, for each object, its path in the store, what to call it, and its size in bytes where it is known."""
        self.where = where
        self.left_out = left_out or {}
        self.shown_as = BY_EACH_FILE
        self._store = store
        self._paths = paths
        self._names = names
        self._sizes = sizes

    def __len__(self) -> int:
        return len(self._paths)

    @cached_property
    def identity(self) -> str:
        """A digest of the names."""
        return digest_of(map(os.fsencode, self._names))

    def name(self, index: int) -> str:
        """The path below the prefix, or as listed."""
        return self._names[index]

    def read(self, index: int) -> bytes:
        """Reads the object.

        Raises:
            ImageError: it can't be read.
            MasslError: the store can't be asked any more.
        """
        path = self._paths[index]
        if self._sizes is None:
            info = self._store.info(path)
            if info is None or info["type"] != "file":
                raise ImageError("there is no such object", lasting=False)
            size = int(info.get("size") or 0)
        else:
            size = self._sizes[index]
        check_size(size)
        keep_memory(size)
        data = self._store.read(path)
        check_size(len(data))
        return data


def _open_prefix(where: str, store: Store) -> tuple[Source, list[Skipped]]:
    root = store.root.rstrip("/")
    sizes = store.find(store.root)
    if not sizes:
        raise MasslError(f"{where}: there is nothing below it; check the spelling")
    names = {path: path[len(root) :].lstrip("/") for path in sizes if path.startswith(f"{root}/")}
    with ThreadPoolExecutor(READERS) as pool:  # some have to be looked at
        kinds = dict(zip(names, pool.map(partial(_kind, store), names.items()), strict=True))
    found = [path for path, kind in kinds.items() if kind == PICTURE]
    if found:
        left_out = Counter(kind for kind in kinds.values() if kind not in (PICTURE, OTHER))
        return Objects(
            where, store, found, [names[path] for path in found], [sizes[path] for path in found], left_out
        ), []
    if shards := [path for path, name in names.items() if is_shard(name)]:
        return open_shards(where, ObjectFiles(store, shards), [names[path] for path in shards], [])
    told = left_out_line(Counter(kind for kind in kinds.values() if kind != OTHER))
    raise MasslError(f"{where}: no image among {len(names):,} objects{f'; {told}' if told else ''}")


def _kind(store: Store, named: tuple[str, str]) -> str:
    path, name = named

    def head() -> bytes:
        try:
            return store.read(path, 0, HEAD)
        except ImageError:
            return b""

    return kind_of_member(name, head)


def _open_pattern(where: str, store: Store) -> tuple[Source, list[Skipped]]:
    named = expand(store.root, store.matching)
    present, missing = _present(store, named)
    if not present:
        raise MasslError(f"{where}: no object matches this pattern; check the spelling, and put it in quotes")
    root = posixpath.commonpath([posixpath.dirname(path) for path in present]) or "."
    skipped = [Skipped(posixpath.relpath(path, root), "there is no such object") for path in missing]
    names = [posixpath.relpath(path, root) for path in present]
    return open_shards(where, ObjectFiles(store, present), names, skipped)


def _present(store: Store, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The objects that there are, and those that there aren't."""
    with ThreadPoolExecutor(READERS) as pool:
        there = [info is not None for info in pool.map(store.info, paths)]
    return list(itertools.compress(paths, there)), [
        path for path, is_there in zip(paths, there, strict=True) if not is_there
    ]


def _open_list(where: str, entries: Sequence[str], store: Store | None) -> tuple[Source, list[Skipped]]:
    """Objects of one store. Whether images are there is found as they are read, which takes a question each."""
    paths: dict[str, str] = {}
    skipped = []
    base = posixpath.dirname(store.root) if store else ""
    for entry in entries:
        path: str | None = posixpath.join(base, entry)
        if is_address(entry):
            store = store or Store(entry)
            path = store.of(entry)
        elif not base:
            path = None
        if path is None:
            skipped.append(Skipped(entry, "not in the same store as the other objects of the list"))
        else:
            paths.setdefault(path, entry)
    if store is None or not paths:
        raise MasslError(f"{where} lists no object; write one address a line, as s3://bucket/photos/1.jpg")
    if all(map(is_shard, paths)):
        present, missing = _present(store, list(paths))
        if not present:
            raise MasslError(
                f"{where}: there is not one of the {len(paths):,} shards that it lists; check the spelling"
            )
        skipped += [Skipped(paths[path], "there is no such object") for path in missing]
        return open_shards(where, ObjectFiles(store, present), [paths[path] for path in present], skipped)
    return Objects(where, store, list(paths), list(paths.values())), skipped


def _fetched_list(where: str, store: Store) -> list[str]:
    """The entries of a list that lies in a store.

    Raises:
        MasslError: it can't be read.
    """
    with TemporaryFolder("list") as folder:
        copy = Path(folder, f"list{posixpath.splitext(store.root)[1]}")
        try:
            copy.write_bytes(store.read(store.root))
            return list_entries(copy)
        except ImageError as error:
            raise MasslError(f"{where}: {error}") from None
        except MasslError as error:
            raise MasslError(str(error).replace(str(copy), where)) from None


def _reason(error: Exception) -> str:
    """What went wrong, in few words; libraries of stores have exceptions of their own for all of it."""
    kind = type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, PermissionError):
        said = visible(" ".join(str(error).split())[:120])
        return f"access is denied{f' ({said})' if said else ''}; check the credentials"
    if kind == "ParamValidationError":
        return "no bucket can be called so; check the spelling"
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return "it doesn't answer in time"
    return visible(" ".join(str(error).split())[:200]) or kind


def _shown(address: str) -> str:
    return visible(address[:200])
