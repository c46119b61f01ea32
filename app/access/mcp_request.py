"""Which bodies are passed on to the MCP library: those of the form of JSON-RPC. It fails on some of the others."""

from __future__ import annotations

import json
from typing import Any

from app.access.upload_folder import Refused

_LONGEST_NAME = 100  # letters of a method, a tool or an id
_DEEPEST = 32  # lists and objects within each other


def check(body: bytes) -> None:
    """Checks one message of MCP, a JSON-RPC 2.0 request, notification or answer.

    Raises:
        Refused: it is none.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):  # also bytes that are no UTF-8, and numbers of thousands of digits
        raise Refused(400, "the body is not valid JSON") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Refused(400, 'the body must be one JSON-RPC 2.0 object, as {"jsonrpc": "2.0", "id": 1, "method": ...}')
    if _depth(message) > _DEEPEST:
        raise Refused(400, f"the body has more than {_DEEPEST} lists and objects within each other")
    if "id" in message and not _is_id(message["id"]):
        raise Refused(400, f"id must be a whole number or a text of up to {_LONGEST_NAME} letters")
    if "result" in message or "error" in message:
        return
    if not _is_name(message.get("method")):
        raise Refused(400, f"method must be a text of up to {_LONGEST_NAME} letters, as tools/list")
    given = message.get("params")
    if not isinstance(given, dict | None):
        raise Refused(400, "params must be an object")
    if message["method"] != "tools/call":
        return
    if given is None or not _is_name(given.get("name")):
        raise Refused(400, f"params.name must be the name of a tool, of up to {_LONGEST_NAME} letters")
    if not isinstance(given.get("arguments"), dict | None):
        raise Refused(400, "params.arguments must be an object")


def _is_id(value: Any) -> bool:
    return _is_name(value) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63)


def _is_name(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)  # half characters, which no answer can repeat


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
