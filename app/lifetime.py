"""How long the server remembers what a browser left behind, and how much of it at most."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from app.inbox import Inbox

SESSIONS = 256  # whose state is remembered; the one that was used longest ago makes room
IDLE = timedelta(hours=1)  # without a sign of life; an open page gives one a minute
PAUSE = 30.0  # seconds between two looks
LOOKS = 10  # in a row at which answers wait unfetched, before they are thrown away
UNFETCHED = 256  # answers that wait for their browsers; of one session:
UNFETCHED_OF_ONE = 32


@asynccontextmanager
async def tidying(app: Any, inbox: Inbox) -> AsyncIterator[None]:
    """Clears away, again and again, what nobody comes back for: sessions, answers, uploads.

    Args:
        app: Gradio's application; entered in its event loop.
        inbox: where uploads lie.
    """
    waited: Counter[str] = Counter()

    async def repeat() -> None:
        while True:
            await asyncio.sleep(PAUSE)
            tidy(app, waited)
            await anyio.to_thread.run_sync(inbox.sweep)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def tidy(app: Any, waited: Counter[str]) -> None:
    """Clears away sessions and answers once.

    Args:
        app: Gradio's application.
        waited: for each session, at how many looks in a row its answers waited; brought up to date.
    """
    holder = app.state_holder
    for session, used in list(holder.time_last_used.items()):
        if datetime.now() - used > IDLE:
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)
    for state in list(holder.session_data.values()):
        # A second copy of all that the page shows, for links that this page doesn't offer: 240 KB a session.
        state.config_values.clear()
    queue = app.get_blocks()._queue
    busy = {event.session_hash for event in queue.event_ids_to_events.values()}
    answers = queue.pending_messages_per_session.items()
    waiting = {session for session, waiting in answers if waiting.qsize() and session not in busy}
    for session in waited.keys() - waiting:
        del waited[session]
    waited.update(waiting)
    for session in [session for session, looks in waited.items() if looks >= LOOKS]:
        queue.pending_messages_per_session.pop(session, None)
        queue.pending_event_ids_session.pop(session, None)


def full(app: Any, session: str | None) -> bool:
    """Whether so many answers wait to be fetched, of a session or of all, that no more may be asked for."""
    queues = app.get_blocks()._queue.pending_messages_per_session
    if session in queues and queues[session].qsize() >= UNFETCHED_OF_ONE:
        return True
    return sum(answers.qsize() for answers in queues.values()) >= UNFETCHED
