"""The interface for programs as an OpenAPI document, and as a page that shows it and loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from massl import __version__

DOCUMENT, PAGE = "/openapi.json", "/api"

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_WHOLE: dict[str, Any] = {"type": "integer"}
_TRUTH: dict[str, Any] = {"type": "boolean"}


def _or_none(kind: Mapping[str, Any], told: str = "") -> dict[str, Any]:
    return {"type": [kind["type"], "null"]} | ({"description": told} if told else {})


def _object(told: str = "", **properties: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
    return found | ({"description": told} if told else {})


def _list(items: Mapping[str, Any], told: str = "") -> dict[str, Any]:
    return {"type": "array", "items": items} | ({"description": told} if told else {})


def _said(kind: Mapping[str, Any], told: str) -> dict[str, Any]:
    return {**kind, "description": told}


_RESULT = _object(
    rank=_WHOLE,
    path=_said(_TEXT, "relative to the folder"),
    score=_said(_NUMBER, "cosine similarity, to 1"),
    match=_said(_TEXT, "same, alike or weak"),
    false_matches=_said(_NUMBER, "images expected to score as high by chance"),
    label=_or_none(_TEXT),
    taken=_or_none(_TEXT, "when it was taken, by the camera's clock"),
)
_RESULT["properties"]["box"] = _list(_WHOLE, "x, y, width and height in pixels, only where a tile scored best")
_SCHEMAS: dict[str, Any] = {
    "Search": _object(schema=_WHOLE, results=_list(_RESULT), milliseconds=_NUMBER),
    "Classification": {
        **_object(
            "further figures are as massl classify --json prints them",
            schema=_WHOLE,
            labels=_said({"type": "object"}, "how many images carry each label"),
            estimated_accuracy=_or_none(_NUMBER),
            predictions=_list(_object(path=_TEXT, label=_or_none(_TEXT), probability=_NUMBER, unfamiliar=_TRUTH)),
        ),
        "additionalProperties": True,
    },
    "Event": _object(event_id=_TEXT),
}


def _content(kind: str, schema: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"content": {kind: {"schema": schema, **more}}}


def _answers(told: str, found: Mapping[str, Any], refused: Mapping[str, str]) -> dict[str, Any]:
    return {
        "200": {"description": told, **found},
        **{status: {"description": why, **_content("text/plain", _TEXT)} for status, why in refused.items()},
    }


_BUSY = {"401": "log in first", "503": "the page is busy; try again in a moment"}


def _endpoint(name: str, summary: str, given: Mapping[str, Any], example: Any, schema: str) -> dict[str, Any]:
    """The two requests of an endpoint: asking, and fetching the answer."""
    body = _object(data=given)
    asking = {
        "operationId": name,
        "summary": summary,
        "description": "Answers at once with the number of an event, by which the result is fetched.",
        "requestBody": {"required": True, **_content("application/json", body, example={"data": example})},
        "responses": _answers(
            "the event",
            _content("application/json", {"$ref": "#/components/schemas/Event"}),
            {"415": "send an event as application/json", "422": "the body is not as it must be", **_BUSY},
        ),
    }
    fetching = {
        "operationId": f"{name}_result",
        "summary": f"Fetches the result of {name}",
        "description": f"Waits until it is there, and gives it once. The event complete has a list with one {schema} "
        "as its data. The event error has an object, whose error says in a sentence what is wrong. A heartbeat, every "
        "15 seconds, has null.",
        "parameters": [{"name": "event_id", "in": "path", "required": True, "schema": _TEXT}],
        "responses": _answers(
            "events",
            _content("text/event-stream", _TEXT, example=f"event: complete\ndata: [{schema}]\n\n"),
            {"401": _BUSY["401"], "404": "there is no such event, or its result was fetched already"},
        ),
    }
    path = f"/gradio_api/call/{name}"
    return {path: {"post": asking}, f"{path}/{{event_id}}": {"get": fetching}}


_UPLOAD = {
    "operationId": "upload",
    "summary": "Takes a picture to search with",
    "description": "It is deleted when it was searched with, or after five minutes.",
    "requestBody": {
        "required": True,
        **_content("multipart/form-data", _object(files=_said({**_TEXT, "format": "binary"}, "50 MB at most"))),
    },
    "responses": _answers(
        "a list with the path to search with",
        _content("application/json", _list(_TEXT)),
        {"413": "the picture is too large", **_BUSY},
    ),
}
_LOGIN = {
    "operationId": "login",
    "summary": "Logs in",
    "description": "Only where the page has a password. The answer's cookies are sent with all other requests.",
    "requestBody": {
        "required": True,
        **_content("application/x-www-form-urlencoded", _object(username=_TEXT, password=_TEXT)),
    },
    "responses": _answers("logged in, by cookies", {}, {"400": "the name or the password is wrong"}),
}


def document(name: str, login: bool) -> dict[str, Any]:
    """The document, OpenAPI 3.1.

    Args:
        name: of the collection.
        login: whether the page has a password.
    """
    image = _said(_object(path=_TEXT), "what an upload returned")
    search = {
        "type": "array",
        "prefixItems": [image, _said(_WHOLE | {"minimum": 1, "maximum": 1_000}, "how many results")],
        "minItems": 2,
        "maxItems": 2,
        "description": "the picture, and the number of results, 1 to 1,000",
    }
    nothing = {"type": "array", "maxItems": 0, "description": "nothing"}
    paths: dict[str, Any] = {"/login": {"post": _LOGIN}} if login else {}
    paths["/gradio_api/upload"] = {"post": _UPLOAD}
    paths |= _endpoint(
        "search", "Finds the pictures most like an uploaded one", search, [{"path": "what upload returned"}, 20],
        "Search",
    )  # fmt: skip
    paths |= _endpoint(
        "classify", "Predicts a class for every picture from the labels so far", nothing, [], "Classification"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{name} · MaSSL",
            "version": __version__,
            "description": "The collection that the page shows. Errors come back as a sentence.",
        },
        "servers": [{"url": "."}],  # where this document lies: a proxy may put it below a path
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def routes(name: str, login: bool) -> list[Route]:
    """The routes of the document and of the page, behind the same gate as the rest."""
    told = document(name, login)
    html = _page(told)

    async def json(request: Request) -> Response:
        return JSONResponse(told)

    async def page(request: Request) -> Response:
        return HTMLResponse(html)

    return [Route(DOCUMENT, json, methods=["GET"]), Route(PAGE, page, methods=["GET"])]


def _page(told: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("app", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("interface.html.jinja").render(told=told, document=DOCUMENT.lstrip("/"))
