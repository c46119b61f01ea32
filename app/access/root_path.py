"""The page below a path of a proxy, as `https://example.org/photos/`."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BelowPath:
    """ASGI middleware that takes a path off the addresses of requests, so that all behind it sees them at `/`.

    A proxy may pass on an address whole or without the path; both work, and so does the page on its own machine.

    Args:
        app: what lies behind.
        path: as `/photos`; not empty.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on one request; `/photos` is sent on to `/photos/`, as the page's addresses are relative to that."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == self._path:
            query = scope["query_string"].decode("latin-1")
            there = RedirectResponse(f"{self._path}/{'?' * bool(query)}{query}")
            await there(scope, receive, send)
        else:
            path = scope["path"]
            # Until none is left: what lies behind knows the path too and would take it off once more, after the gate.
            while self._below(path):
                path = path[len(self._path) :] or "/"
            raw = scope.get("raw_path") if path == scope["path"] else path.encode()

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    if headers.get("location", "").endswith(self._path):  # after logging out
                        headers["location"] += "/"
                await send(message)

            await self._app({**scope, "path": path, "raw_path": raw}, receive, answer)

    def _below(self, path: str) -> bool:
        return path == self._path or path.startswith(f"{self._path}/")
