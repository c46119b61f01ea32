"""How the content of an image file is read: regular files only, and what fits into memory."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from massl.core.disk_errors import reason_of
from massl.core.images import plane_files, row_reading, stacks, tiff
from massl.core.images.content import Content, StoredContent
from massl.core.images.image_errors import ImageError
from massl.core.memory_budget import BUDGET
from massl.core.regular_files import open_regular

MAX_BYTES = 1 << 30

_LARGE = 16 << 20  # bytes of a file from which it is worth the while to read it in parts


def read_bytes(path: Path) -> bytes:
    """Reads a whole regular file, or a plane of a stack (see `plane_files`); never waits on a FIFO or a device.

    Raises:
        ImageError: it is missing, unreadable, empty, no regular file, or larger than 1 GiB.
    """
    if (plane := plane_files.split(path)) is not None:
        return _read_plane(*plane)
    try:
        opened = open_regular(path)
    except IsADirectoryError:
        raise ImageError("a folder, not an image", lasting=False) from None
    except OSError as error:
        raise ImageError(reason_of(error, "vanished while reading"), lasting=False) from None
    with opened as file:
        check_size(size := os.fstat(file.fileno()).st_size)
        try:
            keep_memory(size)
            # A file that something still writes to must not be read without end.
            return file.read(size)
        except MemoryError:
            raise _too_much_to_read(size) from None
        except OSError as error:
            raise ImageError(reason_of(error, "vanished while reading"), lasting=False) from None


def _read_plane(stack: Path, number: int) -> bytes:
    try:
        return plane_files.read(stack, number, keep_memory)
    except (tiff.Unsupported, stacks.NotInStack) as error:
        raise ImageError(str(error)) from None
    except OSError as error:
        raise ImageError(reason_of(error, "vanished while reading"), lasting=False) from None
    except MemoryError:
        raise _too_much_to_read(stack.stat().st_size) from None
    except (ValueError, KeyError, struct.error) as error:
        raise ImageError(f"damaged: {error}") from None


@contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """A regular file's content: its bytes, or of a large picture that can be read a few rows at a time, the file.

    Raises:
        ImageError: as `read_bytes`; or the file was written to before the block ended.
    """
    with ExitStack() as opened:
        try:
            content = StoredContent(opened.enter_context(open_regular(path)))
            check_size(len(content))
            by_rows = len(content) >= _LARGE and row_reading.files_of(content) is not None
        except OSError:
            by_rows = False  # of which `read_bytes` says more
        if not by_rows:
            opened.close()
            yield read_bytes(path)
            return
        try:
            yield content
        finally:
            if not content.is_as_it_was():
                raise ImageError("changed while reading", lasting=False) from None


def check_size(size: int) -> None:
    """Raises an `ImageError` for an image file of `size` bytes that holds nothing or is larger than 1 GiB."""
    if size == 0:
        raise ImageError("empty file")
    if size > MAX_BYTES:
        raise ImageError(f"{size / 2**30:.1f} GiB, more than the limit of 1 GiB a file")


def keep_memory(size: int) -> None:
    """Counts a file's `size` bytes as memory in use, before they are read, for as long as `within_memory` lasts.

    Raises:
        ImageError: there is not so much.
    """
    try:
        BUDGET.keep(size)
    except MemoryError:
        raise _too_much_to_read(size) from None


def _too_much_to_read(size: int) -> ImageError:
    return ImageError(f"not enough memory to read it: {in_units(size)}", lasting=False)


def whole(data: Content) -> bytes:
    """All bytes of a file, which count as memory in use where they weren't in memory before.

    Raises:
        ImageError: there is not so much.
    """
    if isinstance(data, bytes):
        return data
    keep_memory(len(data))
    return data[:]


def in_units(size: int) -> str:
    """A number of bytes, in words."""
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{-(-size // 2**20)} MiB"
