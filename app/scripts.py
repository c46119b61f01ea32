"""The page's scripts: the ES modules of `script/`, served as they are written. Nothing bundles them."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_SOURCES = {
    file.name: file.read_bytes()
    for file in sorted((files("app") / "script").iterdir(), key=lambda file: file.name)
    if file.name.endswith(".js")
}
# In the address of each, so that a browser may keep them, and never mixes those of two versions: what a module imports
# lies beside it, under the same address.
_VERSION = hashlib.sha256(b"".join(name.encode() + source for name, source in _SOURCES.items())).hexdigest()[:16]
_FAILED = "This part of the page could not be loaded. Is massl still running? Reload the page to try again."


def starting(name: str) -> str:
    """What Gradio runs once an HTML component is there (its `js_on_load`): fetches `script/<name>.js` and opens it.

    The module exports `open(page)`; `script/screen.js` says what that is to do, `script/channel.js` what `page` is. The
    address is relative to the page's own, as that of a thumbnail: a proxy may put the page below a path.
    """
    return (
        f'import(new URL("script/{_VERSION}/{name}.js", document.baseURI)).then(\n'
        # Gradio gives a component the events whose quoted names it finds in here.
        '  (script) => script.open({ element, act: (what) => trigger("act", what), props, server, upload, watch }),\n'
        "  () => {\n"
        '    const said = document.createElement("div");\n'
        '    said.className = "message error";\n'
        '    said.setAttribute("role", "alert");\n'
        f'    said.textContent = "{_FAILED}";\n'
        "    element.firstElementChild.replaceChildren(said);\n"
        "  },\n"
        ");"
    )


def route() -> Route:
    """The route that serves them, behind the same gate as the rest of the page."""
    return Route("/script/{version}/{name}", _answer, methods=["GET"])


async def _answer(request: Request) -> Response:
    source = _SOURCES.get(request.path_params["name"])
    if source is None or request.path_params["version"] != _VERSION:
        return PlainTextResponse("the page is older than the program; reload it", 404)
    # Its kind outright: what a machine thinks that .js is may be wrong, and a browser runs no module of another kind.
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(source, media_type="text/javascript", headers=kept)
