"""The gate before Gradio: what the web server answers at all.

Gradio's own routes serve files by path and fetch addresses for the browser; none of that is wanted here. The only
files that come through are thumbnails, asked for by the image's number.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server import is_loopback
from indexer.thumbnails import LARGE, SIDE
from massl.errors import MasslError

if TYPE_CHECKING:
    from indexer import Collection

MAX_BODY = 4 << 20  # bytes of an event; a hundred thousand selected images fit
THUMBNAIL_THREADS = 4

_THUMBNAIL = re.compile(r"/(thumbnail|preview)/(\d{1,18})")
# Files made for one person to fetch, in the folder of uploads under a name that can't be guessed.
_DOWNLOAD = re.compile(r"/download/([0-9a-f]{32})/(classifier\.onnx)")
_API = "/gradio_api/"
# Files by path, other people's pages, other people's recordings, Gradio's code editor, a second form of the endpoints
# that fails on names it doesn't know: nothing the page needs.
_CLOSED: tuple[str, ...] = ("file", "proxy", "stream", "deep_link", "process_recording", "custom_component")
_CLOSED += ("vibe", "undo-vibe", "run-", "call/v2")
_FORMS = (f"{_API}upload", "/login")  # bodies that are no JSON; Gradio limits their size itself
_HEADERS = {
    # The browser's own guarantee that nothing is loaded from, or sent to, another machine.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Gate:
    """ASGI middleware around Gradio's application.

    Args:
        app: what lies behind.
        collection: whose thumbnails are served.
        local: the page listens on this machine only, so that a request that names another host is a trick
            (DNS rebinding).
        uploads: the folder that uploads arrive in, and that files lie in which were made for somebody to fetch.
    """

    def __init__(self, app: ASGIApp, collection: Collection, local: bool, uploads: Path) -> None:
        self._app = app
        self._collection = collection
        self._local = local
        self._uploads = uploads
        self._threads: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, rewrites or passes on one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cache = False

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer[name] = value
                if cache and message["status"] == 200:
                    answer["Cache-Control"] = "private, max-age=300"
            await send(message)

        async def refuse(status: int, reason: str) -> None:
            await PlainTextResponse(reason, status)(scope, receive, send_with_headers)

        path = scope["path"]
        if self._local and not _names_this_machine(headers.get("host", "")):
            await refuse(403, "this page answers to 127.0.0.1 and localhost only")
        elif scope["method"] not in ("GET", "HEAD") and headers.get("sec-fetch-site") == "cross-site":
            await refuse(403, "sent from another web site")
        elif path.startswith(_API) and path.removeprefix(_API).startswith(_CLOSED):
            await refuse(403, "not served")
        elif wanted := _THUMBNAIL.fullmatch(path):
            if not await self._logged_in(scope, receive):
                await refuse(401, "log in first")
            elif picture := await self._thumbnail(int(wanted[2]), LARGE if wanted[1] == "preview" else SIDE):
                cache = True
                # Not by Gradio's route for files, whose address can't hold every folder's name.
                await Response(picture, media_type="image/webp")(scope, receive, send_with_headers)
            else:
                await refuse(404, "no such picture, or it can't be read")
        elif wanted := _DOWNLOAD.fullmatch(path):
            made = self._uploads.resolve() / wanted[1] / wanted[2]
            if not made.is_file():
                await refuse(404, "this file is gone; export it again")
            else:
                inside = f"{_API}file={made}"
                try:
                    await self._app({**scope, "path": inside, "raw_path": inside.encode()}, receive, send_with_headers)
                finally:  # fetched once; exporting again makes another
                    await anyio.to_thread.run_sync(lambda: shutil.rmtree(made.parent, ignore_errors=True))
        elif scope["method"] == "POST" and path.rstrip("/") not in _FORMS:
            body = await _read(receive)
            if body is None:
                await refuse(413, "too much at once; select fewer pictures")
            elif _has_link(body):
                await refuse(403, "links are not fetched; upload the picture itself")
            else:
                await self._app(scope, _replay(body, receive), send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    async def _logged_in(self, scope: Scope, receive: Receive) -> bool:
        """Whether Gradio would let this request in."""
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        inside = f"{_API}login_check"
        asked = {**scope, "method": "GET", "path": inside, "raw_path": inside.encode(), "query_string": b""}
        await self._app(asked, receive, note)
        return status == 200

    async def _thumbnail(self, image: int, side: int) -> bytes | None:
        def read() -> bytes | None:
            file = self._collection.thumbnail(image, side)
            return file.read_bytes() if file else None

        if self._threads is None:  # belongs to the event loop, so it can't be made before there is one
            self._threads = anyio.CapacityLimiter(THUMBNAIL_THREADS)
        try:
            return await anyio.to_thread.run_sync(read, limiter=self._threads)
        except (MasslError, OSError):  # the collection itself has gone; what is asked for next says so
            return None


def _names_this_machine(host: str) -> bool:
    return is_loopback(re.sub(r":\d+$", "", host))


async def _read(receive: Receive) -> bytes | None:
    """A request's body; None if it is longer than it may be."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _has_link(body: bytes) -> bool:
    """Whether a JSON body names a file by its web address: Gradio would fetch it for whoever asks."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return False  # Gradio's parser refuses it as well
    return any(str(entry.get("path", "")).lower().lstrip().startswith(("http:", "https:")) for entry in _objects(data))


def _objects(data: Any) -> Iterator[dict[str, Any]]:
    pending = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
