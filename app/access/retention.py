"""How long the server remembers what a browser left behind, and how much of it at most."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any

import anyio

from app.access.upload_folder import Inbox

SESSIONS = 256  # whose state is remembered; the one that was used longest ago makes room
IDLE = timedelta(hours=1)  # after which the state of a tab that was closed is forgotten
PAUSE = 30.0  # seconds between two looks
LOOKS = 10  # in a row at which answers wait unfetched, before they are thrown away
UNFETCHED = 256  # answers that wait for their browsers; of one session:
UNFETCHED_OF_ONE = 32


class Lifetime:
    """Clears away what nobody comes back for: sessions, answers that nobody fetched, uploads that nobody read.

    Args:
        app: Gradio's application. All of this happens in its event loop.
        inbox: where uploads lie.
    """

    def __init__(self, app: Any, inbox: Inbox) -> None:
        self._app = app
        self._inbox = inbox
        self._open: Counter[str] = Counter()  # connections that a tab holds for as long as it is open, by session
        self._waited: Counter[str] = Counter()  # at how many looks in a row a session's answers waited

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks again and again, until it is left."""

        async def repeat() -> None:
            while True:
                await asyncio.sleep(PAUSE)
                self.tidy()
                await anyio.to_thread.run_sync(self._inbox.sweep)

        task = asyncio.create_task(repeat())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @contextmanager
    def open(self, session: str) -> Iterator[None]:
        """Keeps a session for as long as its tab is open, however long nobody uses it."""
        self._open[session] += 1
        if state := self._app.state_holder.session_data.get(session):
            state.is_closed = False  # it was cut off, and is back
        try:
            yield
        finally:
            self._open[session] -= 1
            self._open += Counter()  # without those at zero

    def full(self, session: str | None) -> bool:
        """Whether so many answers wait to be fetched, of a session or of all, that no more may be asked for."""
        queues = self._app.get_blocks()._queue.pending_messages_per_session
        if session in queues and queues[session].qsize() >= UNFETCHED_OF_ONE:
            return True
        return sum(answers.qsize() for answers in queues.values()) >= UNFETCHED

    def tidy(self) -> None:
        """Clears away sessions and answers, once."""
        holder = self._app.state_holder
        for session, used in list(holder.time_last_used.items()):
            if session not in self._open and datetime.now() - used > IDLE:
                holder.session_data.pop(session, None)
                holder.time_last_used.pop(session, None)
        for state in list(holder.session_data.values()):
            # A second copy of all that the page shows, for links that this page doesn't offer: 240 KB a session.
            state.config_values.clear()
        queue = self._app.get_blocks()._queue
        busy = {event.session_hash for event in queue.event_ids_to_events.values()}
        answers = queue.pending_messages_per_session.items()
        waiting = {session for session, waiting in answers if waiting.qsize() and session not in busy}
        for session in self._waited.keys() - waiting:
            del self._waited[session]
        self._waited.update(waiting)
        for session in [session for session, looks in self._waited.items() if looks >= LOOKS]:
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)
