"""Where uploads arrive: how large one may be, how many may lie there, whose, and for how long."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope

MAX_FILE = 50 << 20  # bytes of an upload; the browser's side says so too, in find.js
MAX_REQUEST = MAX_FILE + (64 << 10)  # bytes of a request, with the borders of its parts
MAX_FILES = 4  # of a request
MAX_FIELD = 1 << 10  # bytes of a form field; nothing that the page sends has any
MAX_WAITING = 16  # files of one sender that nobody has read yet
MOST_OF_ONE = 128 << 20  # bytes of one sender: on their way, and not read yet
MOST = 512 << 20  # bytes of all senders
SPARE = 256 << 20  # bytes of the disk that uploads leave free
EXPIRES = 300.0  # seconds until an upload that nobody read is deleted


class Refused(Exception):
    """An upload that isn't taken: the status of the answer, and a sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class _Arrived:
    sender: str
    size: int
    at: float


class Inbox:
    """The folder of uploads. Every file gets a folder of its own, under a name that can't be guessed.

    Args:
        folder: readable by its owner alone.
        clock: seconds that never go back.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder.resolve()
        self._clock = clock
        self._arrived: dict[Path, _Arrived] = {}
        self._coming: dict[str, int] = {}  # bytes that are reserved, by sender
        self._lock = threading.Lock()

    async def take(self, scope: Scope, receive: Receive, sender: str) -> list[str]:
        """Reads a request's files, and returns their paths.

        Nothing is kept of what is too large, of the wrong form, or cut off in the middle.

        Args:
            scope: of the request.
            receive: of the request.
            sender: who sent it; see `app.access.origin.client_of`.

        Raises:
            Refused: too large, too many, or no form with files.
        """
        request = Request(scope, _limited(receive, MAX_REQUEST))
        told = request.headers.get("content-length", "")
        exact = told.isascii() and told.isdecimal() and len(told) < 20 and "transfer-encoding" not in request.headers
        size = int(told) if exact else MAX_REQUEST
        if size > MAX_REQUEST:
            raise Refused(413, f"too large: the limit is {MAX_FILE >> 20} MB")
        with self._reserved(sender, size):
            try:
                async with request.form(max_files=MAX_FILES, max_fields=MAX_FILES, max_part_size=MAX_FIELD) as form:
                    files = [item for item in form.getlist("files") if isinstance(item, UploadFile)]
                    if not files:
                        raise Refused(400, "no file was sent; send a form with a part called files")
                    return [await self._keep(file, sender) for file in files]
            except HTTPException as error:
                raise Refused(400, f"the form can't be read: {error.detail}") from None
            except ClientDisconnect:
                raise Refused(400, "the upload was cut off") from None
            except OSError:
                raise Refused(
                    507, "the upload can't be stored: the disk is full, or the upload folder is gone"
                ) from None

    def sweep(self) -> None:
        """Deletes what nobody read in time."""
        now = self._clock()
        with self._lock:
            for path in [path for path, what in self._arrived.items() if now - what.at > EXPIRES]:
                del self._arrived[path]
                shutil.rmtree(path.parent, ignore_errors=True)

    @contextmanager
    def _reserved(self, sender: str, size: int) -> Iterator[None]:
        with self._lock:
            for path in [path for path in self._arrived if not path.exists()]:
                del self._arrived[path]  # read, and so gone
            own = [what.size for what in self._arrived.values() if what.sender == sender]
            coming = self._coming.get(sender, 0)
            if len(own) >= MAX_WAITING or sum(own) + coming + size > MOST_OF_ONE:
                raise Refused(429, "too many uploads at once; try again when the others are done")
            waiting = sum(what.size for what in self._arrived.values()) + sum(self._coming.values())
            if waiting + size > MOST:
                raise Refused(503, "too many uploads at once; try again in a few minutes")
            if shutil.disk_usage(self.folder).free < size + SPARE:
                raise Refused(507, "the disk where massl keeps uploads is full")
            self._coming[sender] = coming + size
        try:
            yield
        finally:
            with self._lock:
                self._coming[sender] -= size
                if not self._coming[sender]:
                    del self._coming[sender]

    async def _keep(self, file: UploadFile, sender: str) -> str:
        path = self.folder / secrets.token_hex(16) / "picture"
        if (file.size or 0) > MAX_FILE:
            raise Refused(413, f"too large: the limit is {MAX_FILE >> 20} MB")
        path.parent.mkdir()
        try:
            with path.open("wb") as written:
                while piece := await file.read(1 << 20):
                    written.write(piece)
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
        with self._lock:
            self._arrived[path] = _Arrived(sender, file.size or 0, self._clock())
        return str(path)


def _limited(receive: Receive, most: int) -> Receive:
    """A request's messages, until they hold more bytes than they may."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most:
            raise Refused(413, f"too large: the limit is {MAX_FILE >> 20} MB")
        return message

    return limited
