"""Which events of the page, and calls of a program, are passed on to Gradio: those of the right form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.access.upload_folder import Refused

if TYPE_CHECKING:
    from gradio.blocks import Blocks

_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CALL = "call/"
_FETCHED = re.compile(r"/gradio_api/call/[^/]+/([^/]+)/?")


def checked(route: str, body: bytes, blocks: Blocks) -> tuple[bytes, str | None]:
    """The body of an event with what Gradio needs of it and nothing else, and its session.

    Args:
        route: what follows `/gradio_api/`.
        body: as it was sent.
        blocks: the page, which knows its events and components.

    Raises:
        Refused: it is no event of this page.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(422, "the body is not valid JSON") from None
    if not isinstance(given, dict):
        raise Refused(422, "an event must be a JSON object")
    if route.startswith(_CALL):
        kept = _called(route.removeprefix(_CALL), given, blocks)
    else:
        kept = {"queue/join": _joined, "component_server": _asked, "cancel": _cancelled, "reset": _reset}[route](
            given, blocks
        )
    return json.dumps(kept).encode(), kept.get("session_hash")


def fetches_nothing(path: str, blocks: Blocks) -> bool:
    """Whether a GET asks for the result of a call that nobody made, or that was fetched: Gradio would never answer."""
    event = _FETCHED.fullmatch(path)
    if not event:
        return False
    queue = blocks._queue
    waiting = queue.pending_event_ids_session.values()
    return event[1] not in queue.event_ids_to_events and not any(event[1] in events for events in waiting)


def known(route: str) -> bool:
    """Whether a POST to this route is an event."""
    return route in ("queue/join", "component_server", "cancel", "reset") or (
        route.startswith(_CALL) and "/" not in route.removeprefix(_CALL)
    )


def _joined(given: Mapping[str, Any], blocks: Blocks) -> dict[str, Any]:
    number, trigger = given.get("fn_index"), given.get("trigger_id")
    if type(number) is not int or number not in blocks.fns:
        raise Refused(422, "the page has no such event; reload it")
    # What happens as the page opens is triggered by the page, which is none of its own elements.
    if trigger is not None and (type(trigger) is not int or trigger not in (0, blocks._id, *blocks.blocks)):
        raise Refused(422, "the page has no such element; reload it")
    return {
        "data": _data(given, blocks.fns[number]),
        "fn_index": number,
        "session_hash": _session(given),
        "event_data": given.get("event_data"),
        "trigger_id": trigger,
    }


def _called(name: str, given: Mapping[str, Any], blocks: Blocks) -> dict[str, Any]:
    for function in blocks.fns.values():
        if function.api_name == name and function.api_visibility == "public":
            session = {} if given.get("session_hash") is None else {"session_hash": _session(given)}
            return {"data": _data(given, function), **session}
    raise Refused(404, "there is no such endpoint; use /search or /classify")


def _asked(given: Mapping[str, Any], blocks: Blocks) -> dict[str, Any]:
    number, name = given.get("component_id"), given.get("fn_name")
    block = blocks.blocks.get(number) if type(number) is int else None
    if block is None or not isinstance(name, str):
        raise Refused(422, "the page has no such element; reload it")
    if not getattr(getattr(block, name, None), "_is_server_fn", False):
        raise Refused(422, "this element has no such function; reload the page")
    return {
        "data": given.get("data"),
        "component_id": number,
        "session_hash": _session(given),
        "fn_name": name,
    }


def _cancelled(given: Mapping[str, Any], blocks: Blocks) -> dict[str, Any]:
    number = given.get("fn_index")
    if type(number) is not int or number not in blocks.fns:
        raise Refused(422, "the page has no such event; reload it")
    return {"session_hash": _session(given), "fn_index": number, **_reset(given, blocks)}


def _reset(given: Mapping[str, Any], blocks: Blocks) -> dict[str, Any]:
    event = given.get("event_id")
    if not isinstance(event, str) or not _SESSION.fullmatch(event):
        raise Refused(422, "this event id is not valid")
    return {"event_id": event}


def _session(given: Mapping[str, Any]) -> str:
    session = given.get("session_hash")
    if not isinstance(session, str) or not _SESSION.fullmatch(session):
        raise Refused(422, "this session is not valid; reload the page")
    return session


def _data(given: Mapping[str, Any], function: Any) -> list[Any]:
    """The arguments; of files only where they lie, as Gradio would look after all else that they say."""
    data = given.get("data")
    wanted = list(function.inputs)
    if isinstance(data, list) and len(data) != len(wanted):
        # A program leaves out what only the page has: the session's state.
        data = _filled(data, wanted)
    if not isinstance(data, list) or len(data) != len(wanted):
        raise Refused(422, f"this event takes {len(wanted)} values")
    return [None if block.stateful else _bare(value) for block, value in zip(wanted, data, strict=True)]


def _filled(data: list[Any], wanted: list[Any]) -> list[Any]:
    given = iter(data)
    sent = [block for block in wanted if not block.stateful]
    return [None if block.stateful else next(given) for block in wanted] if len(sent) == len(data) else data


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {"path": path} if isinstance(path := value.get("path"), str) else {}
    return value if isinstance(value, (int, float, str, bool)) else None
