"""How long the server waits for a request's body: a sender that stalls holds what was reserved for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
from starlette.types import Message, Receive

from app.access.upload_folder import Refused

QUIET = 30.0  # seconds without a byte
GRACE = 60.0  # seconds for which a body may come as slowly as it likes
SLOWEST = 4 << 10  # bytes a second, from then on and on average: 50 MB in three and a half hours


def in_time(
    receive: Receive, quiet: float = QUIET, grace: float = GRACE, clock: Callable[[], float] = time.monotonic
) -> Receive:
    """A request's messages, for as long as its body comes at a pace. What follows the body may take any time.

    Args:
        receive: of the request.
        quiet: the most seconds without a message.
        grace: the most seconds for the whole body, beside those that it takes at `SLOWEST`.
        clock: seconds that never go back.
    """
    started = clock()
    read = 0
    ended = False

    async def timely() -> Message:
        nonlocal read, ended
        if ended:
            return await receive()
        left = started + grace + read / SLOWEST - clock()
        message = None
        with anyio.move_on_after(max(0.0, min(quiet, left))):
            message = await receive()
        if message is None:
            raise Refused(408, "the request was not finished in time; send it again, without pauses")
        read += len(message.get("body", b""))
        ended = message["type"] != "http.request" or not message.get("more_body")
        return message

    return timely
