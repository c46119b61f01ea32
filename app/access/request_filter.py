"""The gate before Gradio: what the web server answers at all.

Gradio's own routes serve files by path and fetch addresses for the browser; none of that is wanted here. The only
pictures that come through are decoded and reduced copies without metadata, asked for by the image's number.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import events, mcp_request
from app.access.agent_login import AgentLogin
from app.access.login_attempts import LONGEST, Attempts, checker
from app.access.origin import client_of, followed_link, foreign, readable
from app.access.pace import in_time
from app.access.retention import Lifetime
from app.access.upload_folder import Inbox, Refused
from indexer.store.thumbnails import LARGE, SIDE
from massl.core.errors import MasslError

if TYPE_CHECKING:
    from indexer import Collection

MAX_BODY = 2 << 20  # bytes of an event; a hundred thousand selected images fit
MAX_CALL = 4 << 20  # bytes of an agent's request, as the MCP library has it; a picture of 3 MB fits, in base64
CALLS = 2  # of agents that are answered at the same time
CALLS_WAITING = 16  # that may wait
MAX_LOGIN = 16 << 10  # bytes of a name and a password
MOST_LOGINS = 1_000  # browsers that stay logged in, the latest
MAX_BODIES = 32 << 20  # bytes of all bodies that are being read
THUMBNAIL_THREADS = 4

FULL = 2560  # pixels of the longer side of a picture that fills a window

_SIDES = {"thumbnail": SIDE, "preview": LARGE, "full": FULL}  # of the longer side, by what is asked for
_PICTURE = re.compile(rf"/({'|'.join(_SIDES)})/([0-9]{{1,18}})")
# Files made for one person to fetch, in the folder of uploads under a name that can't be guessed.
_DOWNLOAD = re.compile(r"/download/([0-9a-f]{32})/(classifier\.onnx)")
_HEARTBEAT = re.compile(r"/gradio_api/heartbeat/([A-Za-z0-9_-]{1,64})")
_API = "/gradio_api/"
AGENTS = "/mcp"  # where programs speak MCP; Gradio's address for it is closed
# Files by path, other people's pages, other people's recordings, Gradio's code editor, a second form of the endpoints
# that fails on names it doesn't know and what describes these, the log-in's token for scripts to read: nothing the page
# needs.
_CLOSED: tuple[str, ...] = ("openapi", "file", "proxy", "stream", "deep_link", "process_recording", "custom_component")
_CLOSED += ("mcp", "vibe", "undo-vibe", "run-", "call/v2", "token", "dev/", "upload_progress", "profiling")
# What there is before somebody has logged in: the page that asks for the password, and what it is made of.
_BEFORE_LOGIN = ("/assets/", "/static/", "/svelte/", f"{_API}theme.css", f"{_API}startup-events")
_BEFORE_LOGIN_EXACTLY = ("/", "/login", "/logout", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json")
_HEADERS = {
    # The browser's own guarantee that nothing is loaded from, or sent to, another machine.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    # No other site may embed anything of the page, or keep a hold on the window that it opens it in.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# A page that goes on to where it is: the browser sends its cookies along only then.
_GO_ON = "<!doctype html><title>MaSSL</title><script>location.replace(location.pathname + location.search)</script>"


class Gate:
    """ASGI middleware around Gradio's application.

    Args:
        app: what lies behind.
        collection: whose thumbnails are served.
        local: the page listens on this machine only, so that a request that names another host is a trick
            (DNS rebinding).
        login: the name and the password that it asks for; None for none.
        inbox: where uploads arrive, and files lie which were made for somebody to fetch.
        lifetime: what is remembered of browsers.
        agents: whether programs may speak MCP.
    """

    def __init__(
        self,
        app: ASGIApp,
        collection: Collection,
        local: bool,
        login: tuple[str, str] | None,
        inbox: Inbox,
        lifetime: Lifetime,
        agents: bool = False,
    ) -> None:
        self._app = app
        self._collection = collection
        self._local = local
        self._login = login is not None
        self._inbox = inbox
        self._lifetime = lifetime
        self._attempts = Attempts()
        self._agents = agents
        self._agent_login = AgentLogin(checker(*login), self._attempts) if agents and login else None
        self._calls: anyio.CapacityLimiter | None = None  # of agents
        self._reading = 0  # bytes of bodies
        self._threads: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, rewrites or passes on one request."""
        if scope["type"] == "websocket":  # the page has none, and a browser's same-origin rule doesn't hold for them
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "headers": readable(scope["headers"])}
        answering = _Answer(scope, send)
        path, method = scope["path"], scope["method"]
        if reason := foreign(method, path, Headers(scope=scope), self._local):
            await answering.refuse(403, reason)
        elif method not in ("GET", "HEAD", "POST"):  # a preflight asks for another site
            await answering.refuse(405, "not served")
        elif not path.isprintable():
            await answering.refuse(404, "not served")
        elif path.startswith(_API) and path.removeprefix(_API).startswith(_CLOSED):
            await answering.refuse(403, "not served")
        elif self._agents and path.rstrip("/") == AGENTS:
            await self._agent(scope, receive, answering)
        elif path == "/" and self._login and _lacks_cookies(scope):
            await answering.send(HTMLResponse(_GO_ON))
        elif not await self._admitted(scope, receive):
            await answering.refuse(401, "log in first")
        elif method == "POST":
            await self._post(scope, receive, answering)
        elif wanted := _PICTURE.fullmatch(path):
            if picture := await self._picture(int(wanted[2]), _SIDES[wanted[1]]):
                answering.cache = True
                # Not by Gradio's route for files, whose address can't hold every folder's name.
                await answering.send(Response(picture, media_type="image/webp"))
            else:
                await answering.refuse(404, "no such picture, or it can't be read")
        elif wanted := _DOWNLOAD.fullmatch(path):
            made = self._inbox.folder / wanted[1] / wanted[2]
            if not made.is_file():
                await answering.refuse(404, "this file is gone; export it again")
            else:
                inside = f"{_API}file={made}"
                try:
                    await self._app({**scope, "path": inside, "raw_path": inside.encode()}, receive, answering)
                finally:  # fetched once; exporting again makes another
                    await anyio.to_thread.run_sync(lambda: shutil.rmtree(made.parent, ignore_errors=True))
        elif wanted := _HEARTBEAT.fullmatch(path):
            with self._lifetime.open(wanted[1]):
                await self._pass(scope, receive, answering)
        elif events.fetches_nothing(path, scope["app"].get_blocks()):
            await answering.refuse(404, "there is no such event, or its result was fetched already; ask again")
        else:
            await self._pass(scope, receive, answering)

    async def _post(self, scope: Scope, receive: Receive, answering: _Answer) -> None:
        """What changes something, or asks with more than an address."""
        path = scope["path"].rstrip("/")
        sender = client_of(scope["client"][0] if scope.get("client") else None)
        receive = in_time(receive)
        try:
            if path == "/login":
                await self._log_in(scope, await self._read(scope, receive, MAX_LOGIN), receive, sender, answering)
            elif path == f"{_API}upload":
                await answering.send(JSONResponse(await self._inbox.take(scope, receive, sender)))
            elif path.startswith(_API) and events.known(route := path.removeprefix(_API)):
                if Headers(scope=scope).get("content-type", "").partition(";")[0].strip() != "application/json":
                    raise Refused(415, "send an event as application/json")
                body = await self._read(scope, receive, MAX_BODY)
                # A link to a picture, that Gradio would fetch for whoever asks.
                if _has_link(body):
                    raise Refused(403, "links are not fetched; upload the picture itself")
                blocks = scope["app"].get_blocks()
                body, session = events.checked(route, body, blocks)
                if self._lifetime.full(session):
                    raise Refused(503, "too many answers are waiting; fetch them first")
                await self._pass(_as_json(scope, body), _replay(body, receive), answering)
            else:
                raise Refused(404, "not served")
        except Refused as refused:
            await answering.refuse(refused.status, refused.reason)

    async def _agent(self, scope: Scope, receive: Receive, answering: _Answer) -> None:
        """One request of MCP, by its transport "streamable HTTP", without sessions."""
        headers = Headers(scope=scope)
        try:
            if scope["method"] != "POST":
                raise Refused(405, "this address is for programs that speak MCP; they POST to it")
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                raise Refused(415, "send a request as application/json")
            if self._agent_login:
                sender = client_of(scope["client"][0] if scope.get("client") else None)
                await self._agent_login.check(headers.get("authorization"), sender)
            receive = in_time(receive)
            body = await self._read(scope, receive, MAX_CALL)
            mcp_request.check(body)
            if _has_link(body):
                raise Refused(403, "links are not fetched; send the picture itself")
            if self._calls is None:  # belongs to the event loop, as the limiter of pictures
                self._calls = anyio.CapacityLimiter(CALLS)
            if self._calls.statistics().tasks_waiting >= CALLS_WAITING:
                raise Refused(503, "too many agents ask at once; try again in a moment")
            inside = f"{_API}mcp/"
            async with self._calls:
                asked = {**scope, "path": inside, "raw_path": inside.encode()}
                await self._pass(_as_json(asked, body), _replay(body, receive), answering)
        except Refused as refused:
            await answering.refuse(refused.status, refused.reason)

    async def _log_in(self, scope: Scope, body: bytes, receive: Receive, sender: str, answering: _Answer) -> None:
        wait = self._attempts.wait(sender)
        if wait is None:
            raise Refused(429, f"too many attempts to log in; try again in {LONGEST:.0f} seconds")
        await anyio.sleep(wait)
        await self._pass(scope, _replay(body, receive), answering)
        if answering.status == 200:
            self._attempts.succeeded(sender)
            tokens = scope["app"].tokens
            for token in list(tokens)[:-MOST_LOGINS]:
                del tokens[token]

    async def _admitted(self, scope: Scope, receive: Receive) -> bool:
        """Whether a request may come in: it has logged in, or nobody needs to for this."""
        path = scope["path"]
        if not self._login or (path.rstrip("/") or "/") in _BEFORE_LOGIN_EXACTLY or path.startswith(_BEFORE_LOGIN):
            return True
        given = Headers(scope=scope).get("authorization")
        if self._agent_login and given and path == f"{_API}upload":  # what an agent will search with
            sender = client_of(scope["client"][0] if scope.get("client") else None)
            try:
                await self._agent_login.check(given, sender)
            except Refused:
                return False
            return True
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        inside = f"{_API}login_check"
        asked = {**scope, "method": "GET", "path": inside, "raw_path": inside.encode(), "query_string": b""}
        await self._app(asked, receive, note)
        return status == 200

    async def _pass(self, scope: Scope, receive: Receive, answering: _Answer) -> None:
        try:
            await self._app(scope, receive, answering)
        except RuntimeError as error:
            # A stream of answers that nobody waits for any more: Gradio has said so in it, and fails afterwards.
            if not (answering.status and isinstance(error.__cause__, HTTPException)):
                raise
            await answering({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read(self, scope: Scope, receive: Receive, most: int) -> bytes:
        """A request's body.

        Raises:
            Refused: it is longer than it may be, or too much is being read of others.
        """
        told = Headers(scope=scope).get("content-length", "0")
        body = bytearray()
        try:
            while True:
                message = await receive()
                piece = message.get("body", b"")
                self._reading += len(piece)
                body += piece
                if len(body) > most or len(told) > 12 or (told.isdecimal() and int(told) > most):
                    raise Refused(413, "too much at once; select fewer pictures")
                if self._reading > MAX_BODIES:
                    raise Refused(503, "the page is busy; try again in a moment")
                if not message.get("more_body"):
                    return bytes(body)
        finally:
            self._reading -= len(body)

    async def _picture(self, image: int, side: int) -> bytes | None:
        if self._threads is None:  # belongs to the event loop, so it can't be made before there is one
            self._threads = anyio.CapacityLimiter(THUMBNAIL_THREADS)
        try:
            return await anyio.to_thread.run_sync(self._decoded, image, side, limiter=self._threads)
        except MasslError:  # the collection itself has gone; what is asked for next says so
            return None

    def _decoded(self, image: int, side: int) -> bytes | None:
        """A picture of at most this side as WebP; of one that is no larger than a preview there is no other copy."""
        images = self._collection.images
        if side == FULL and 0 < max(images.sides([image]).get(image, ("", 0, 0))[1:]) <= LARGE:
            side = LARGE
        return images.thumbnail(image, side)


class _Answer:
    """Sends an answer with the headers that all of them have.

    Attributes:
        status: of the answer; 0 before it began.
        cache: whether the browser may keep it for a while.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status = 0
        self.cache = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            answer = MutableHeaders(scope=message)
            for name in {name for name in answer if name.startswith("access-control-")}:
                del answer[name]  # Gradio's leave to other sites
            for name, value in _HEADERS.items():
                answer[name] = value
            if self.cache and self.status == 200:
                answer["Cache-Control"] = "private, max-age=300"
            message["headers"] = [
                (name, _strict(value, self._scope["scheme"] == "https") if name == b"set-cookie" else value)
                for name, value in message["headers"]
            ]
        await self._send(message)

    async def send(self, response: Response) -> None:
        """Sends a whole answer."""
        await response(self._scope, _nothing, self)

    async def refuse(self, status: int, reason: str) -> None:
        """Sends a sentence."""
        headers = {}
        if status == 401 and self._scope["path"].rstrip("/") == AGENTS:
            headers["WWW-Authenticate"] = 'Basic realm="MaSSL"'
        if status == 408:  # the rest of the body may still come
            headers["Connection"] = "close"
        await self.send(PlainTextResponse(reason, status, headers))


def _strict(cookie: bytes, tls: bool) -> bytes:
    """A Set-Cookie header for this page alone: hidden from scripts, sent by no other site, and by TLS if it came so.

    The server takes a request for one by TLS if it is, or if a proxy says so that may: one on this machine, or that
    `FORWARDED_ALLOW_IPS` names.
    """
    parts = [part.strip() for part in cookie.decode("latin-1").split(";")]
    kept = [part for part in parts if part.partition("=")[0].lower() not in ("httponly", "samesite", "secure")]
    return "; ".join([*kept, "HttpOnly", "SameSite=Strict", *(["Secure"] if tls else [])]).encode("latin-1")


def _lacks_cookies(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return followed_link(headers) and "access-token" not in headers.get("cookie", "")


def _as_json(scope: Scope, body: bytes) -> Scope:
    kept = [header for header in scope["headers"] if header[0] not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*kept, (b"content-length", str(len(body)).encode())]}


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


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
        return False  # refused for that
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
