"""Thumbnails: the only pictures that the page ever serves. Kept in files where the disk lets us, else in memory."""

from __future__ import annotations

import io
import threading
import zlib
from collections import OrderedDict
from pathlib import Path

from massl.core import disk_errors
from massl.core.files.atomic_writing import whole
from massl.core.files.scan import THUMBNAILS
from massl.core.images.content import sha256
from massl.core.images.decoding import MAX_PIXELS, decode, within_memory
from massl.core.images.file_reading import open_content
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import EACH_FILE, Rendering
from massl.core.regular_files import read_regular

SIDE = 256  # pixels of the longer side
LARGE = 1024  # of one that is looked at by itself
IN_MEMORY = 48 << 20  # bytes of thumbnails that can't be written: a few thousand
_MOST = 16 << 20  # bytes of a file, far more than one of them takes

# Behind a WebP file's own end, where no reader of it looks: this, and the CRC-32 of all before it.
_MARK = b"massl"


class Thumbnails:
    """The thumbnails of a collection. Safe to be shared by threads.

    Args:
        folder: the collection's.
        room: bytes of those that can't be written.
    """

    def __init__(self, folder: Path, room: int = IN_MEMORY) -> None:
        self._folder = folder / THUMBNAILS
        self._room = room
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self.trouble: OSError | None = None  # why the last one could not be written

    def get(
        self,
        original: Path,
        digest: str,
        max_pixels: int = MAX_PIXELS,
        side: int = SIDE,
        rendering: Rendering = EACH_FILE,
    ) -> bytes | None:
        """The thumbnail of a file, kept or made now: WebP, upright, sRGB, without any metadata.

        Named by the content's SHA-256 in hexadecimal, and by how deep files are shown, so that it is never stale. A
        damaged one is made anew. None if the original can't be read, or is no longer of that content (changed, or
        another that took its name).
        """
        name = f"{digest}-{rendering.key}" if rendering.key else digest
        path = self._folder / digest[:2] / (f"{name}.webp" if side == SIDE else f"{name}-{side}.webp")
        if self._folder.is_symlink() or path.parent.is_symlink() or path.is_symlink():
            return None  # we make none: it would be written, and served, through it
        if (found := _read(path)) is not None:
            return found
        with self._lock:
            if (name, side) in self._kept:
                self._kept.move_to_end((name, side))
                return self._kept[name, side]
        made = _make(original, digest, max_pixels, side, rendering)
        if made is None:
            return None
        if not self._folder.parent.is_dir():  # the whole index has gone, which is for others to say
            return None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path, flush=False) as written:  # the next one needn't wait for the disk
                written.write_bytes(made + _mark(made))
            self.trouble = None
        except OSError as error:
            self.trouble = error
            self._keep((name, side), made)
        return made

    def _keep(self, key: tuple[str, int], made: bytes) -> None:
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._room and self._kept:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def notice(self) -> str:
        """What a person may want to know: that they can't be kept, and why; empty where they are."""
        trouble = self.trouble
        if trouble is None:
            return ""
        return (
            f"thumbnails can't be stored on the disk ({disk_errors.reason(trouble)}) and are made anew "
            "whenever massl starts; to have them kept, "
            f"{disk_errors.remedy(trouble, 'choose another place with --index-dir')}"
        )


def _make(original: Path, digest: str, max_pixels: int, side: int, rendering: Rendering) -> bytes | None:
    try:
        with within_memory(), open_content(original) as content:
            if sha256(content).hex() != digest:
                return None
            picture = decode(content, side, max_pixels, rendering).picture
            picture.thumbnail((side, side), reducing_gap=2.0)
        # A fresh picture of the pixels alone: nothing of the file's metadata can come along.
        clean = picture.copy()
        clean.info.clear()
        with io.BytesIO() as buffer:
            clean.save(buffer, "WEBP", quality=80, method=2)
            return buffer.getvalue()
    except (ImageError, OSError):
        return None


def _read(path: Path) -> bytes | None:
    """A thumbnail from its file, without what stands behind it; None if there is none, or it is damaged."""
    try:
        data = read_regular(path, _MOST)
    except OSError:
        return None
    end = int.from_bytes(data[4:8], "little") + 8
    if data[:4] != b"RIFF" or data[end:] not in (_mark(data[:end]), b""):  # earlier versions put nothing behind it
        return None
    return data[:end] if len(data) >= end else None


def _mark(data: bytes) -> bytes:
    return _MARK + zlib.crc32(data).to_bytes(4, "little")
