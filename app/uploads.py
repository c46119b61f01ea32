"""Taking an upload: checked, decoded, and gone from the disk before anything else happens."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from indexer import Query
from indexer.store.paths import can_name_a_file
from massl.core.errors import MasslError
from massl.core.images.decode_cost import FROM_OTHERS
from massl.core.images.decoding import decode, within_memory
from massl.core.images.file_reading import read_bytes
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import EACH_FILE, Rendering

_PREVIEW = 512  # pixels of the longer side
_LARGE = 768  # pixels of the shorter side
MOST_BYTES = 256 << 20  # of all uploads that are remembered, of all sessions
_LONGEST = 8  # times the shorter side, of what is remembered of a very long picture: an encoder sees its middle only


@dataclass(frozen=True)
class Upload:
    """A picture somebody asks with, and a small copy of it as a `data:` address.

    Attributes:
        query: to search by the whole picture.
        preview: the small copy.
        large: a larger copy, as a file's content, to cut a part out of.
        size: its width and height in pixels.
        reduced: how many pixels of the upload's side one of the larger copy stands for, 1 or more.
    """

    query: Query
    preview: str
    large: bytes
    size: tuple[int, int]
    reduced: float = 1.0

    @property
    def bytes(self) -> int:
        """About what it takes to remember it."""
        return len(self.preview) + len(self.large) + len(self.query.data or b"")


class Remembered:
    """The pictures that people asked with, by a token each. Those used longest ago make room for others."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[str, Upload]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, name: str, upload: Upload) -> str:
        """Remembers an upload and what it is called, and returns its token."""
        token = secrets.token_urlsafe(9)
        with self._lock:
            self._kept[token] = name, upload
            self._bytes += upload.bytes
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1].bytes
        return token

    def get(self, token: str) -> tuple[str, Upload]:
        """An upload and what it is called.

        Raises:
            MasslError: it isn't remembered any more.
        """
        with self._lock:
            if token not in self._kept:
                raise MasslError("An uploaded picture is kept only while the page is open; choose it again")
            self._kept.move_to_end(token)
            return self._kept[token]

    def forget(self, token: str) -> None:
        """Makes room."""
        with self._lock:
            if token in self._kept:
                self._bytes -= self._kept.pop(token)[1].bytes


def take(
    path: object, folder: Path, shortest: int, name: str = "This file", rendering: Rendering = EACH_FILE
) -> Upload:
    """Reads an uploaded picture and deletes the file.

    Args:
        path: what the browser says the upload is called; not to be trusted.
        folder: the only place where uploads lie.
        shortest: pixels of the shorter side that the encoder needs. The same decoding as indexing uses, so that a
            picture of the collection finds itself with a score of 1.
        name: what an error calls it.
        rendering: how deep files are shown.

    Raises:
        MasslError: it is no upload, or no picture that can be read.
    """
    if not isinstance(path, str) or not can_name_a_file(path):
        raise MasslError("Nothing was uploaded; try again")
    file = Path(path).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise MasslError(
            "There is no such upload: it is deleted when it was searched with, or after five minutes; upload it again"
        )
    try:
        return of_bytes(read_bytes(file), shortest, name, rendering)
    except ImageError as error:
        raise _no_picture(name, error) from None
    finally:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another upload may lie beside it
            file.parent.rmdir()


def of_bytes(data: bytes, shortest: int, name: str, rendering: Rendering = EACH_FILE) -> Upload:
    """Reads a picture that came as a file's content; the other arguments are as for `take`.

    Raises:
        MasslError: it is no picture that can be read.
    """
    try:
        with within_memory():
            return _upload(data, shortest, rendering)
    except ImageError as error:
        raise _no_picture(name, error) from None


def _no_picture(name: str, error: ImageError) -> MasslError:
    return MasslError(f"{name} can't be used as a picture: {error}")


def _upload(data: bytes, shortest: int, rendering: Rendering) -> Upload:
    picture = decode(data, shortest, rendering=rendering, allowed=FROM_OTHERS).picture
    # The session remembers the pixels that searching needs, not the file: 50 MB a person would add up.
    picture.info.clear()
    if (spare := (max(picture.size) - _LONGEST * min(picture.size)) // 2) > 0:
        left, top = (spare, 0) if picture.width > picture.height else (0, spare)
        picture = picture.crop((left, top, picture.width - left, picture.height - top))
    query = Query(_encoded(picture, "PNG", compress_level=1), digest=hashlib.sha256(data).digest())
    del picture
    # Parts are cut out of more than the encoder needs of the whole.
    decoded = decode(data, max(shortest, _LARGE), rendering=rendering, allowed=FROM_OTHERS)
    large, width = decoded.picture, decoded.width
    del decoded
    large.info.clear()
    large.thumbnail((2 * _LARGE, 2 * _LARGE), reducing_gap=2.0)
    small = large.copy()
    small.thumbnail((_PREVIEW, _PREVIEW))
    preview = base64.b64encode(_encoded(small, "WEBP", quality=75)).decode()
    content = _encoded(large, "JPEG", quality=92)
    return Upload(query, "data:image/webp;base64," + preview, content, large.size, width / large.width)


def _encoded(picture: Image.Image, format_: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()
