"""The bytes of a file: in memory, or of a large one on the disk, of which only what is asked for is read."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
from typing import Any, BinaryIO, TypeAlias

_BLOCK = 1 << 20  # bytes that are hashed at a time


class StoredContent:
    """An open file in place of its bytes. Slices give bytes, fewer where the file ends. Safe to share by threads.

    It is read, not mapped into memory: a file that is cut short meanwhile would end a process that has it mapped.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._turn = threading.Lock()
        self._state = self._now()

    def __len__(self) -> int:
        return self._state[0]

    def __getitem__(self, part: slice) -> bytes:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("bytes of a file are read one after the other")
        with self._turn:
            self._file.seek(start)
            return self._file.read(max(0, stop - start))

    def startswith(self, prefix: bytes | tuple[bytes, ...]) -> bool:
        """See `bytes.startswith`."""
        longest = max(map(len, prefix), default=0) if isinstance(prefix, tuple) else len(prefix)
        return self[:longest].startswith(prefix)

    def is_as_it_was(self) -> bool:
        """Whether nobody has written to the file since it was opened, as far as its size and times tell."""
        return self._now() == self._state

    def _now(self) -> tuple[int, int, int]:
        state = os.fstat(self._file.fileno())
        return state.st_size, state.st_mtime_ns, state.st_ctime_ns


Content: TypeAlias = bytes | StoredContent


class _Stream(io.RawIOBase):
    """A stream over `StoredContent`, with a place of its own."""

    def __init__(self, content: StoredContent) -> None:
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._content)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        found = self._content[self._at : self._at + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def stream(content: Content) -> BinaryIO:
    """A stream of its bytes, for libraries that read files."""
    return io.BytesIO(content) if isinstance(content, bytes) else io.BufferedReader(_Stream(content))


def sha256(content: Content) -> bytes:
    """The digest of all bytes."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    digest = hashlib.sha256()
    for start in range(0, len(content), _BLOCK):
        digest.update(content[start : start + _BLOCK])
    return digest.digest()


def unpacked(layout: str, content: Content, at: int) -> tuple[Any, ...]:
    """See `struct.unpack_from`."""
    return struct.unpack(layout, content[at : at + struct.calcsize(layout)])
