"""What every screen is: actions by name, and a drawing of its state as plain values.

A screen is a module here with a subclass of `Screen`, listed in `SCREENS`. The class says what it must provide. Its
counterpart is the ES module `script/<key>.js`; `script/screen.js` says what that exports. The messages between the two:

| the script sends | answered by | with |
| --- | --- | --- |
| `act({do, ...})` | one of `actions`, then `draw` | the drawing, and `screen`, `turn`, `message`, `looked` |
| `channel.beside({do, ...})` | one of `asides` | what it returns or `error`, and `screen`, `turn`, `aside` |
| `channel.ask(name, value)` | one of `functions` | what it returns, or `error` |
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from app.formatting import sentence
from app.session import Payload, Session
from indexer import Collection
from indexer.jobs.background import BackgroundJob, JobReport, Outcome
from indexer.store.revision import Revision
from massl.core.errors import MasslError

Action = Callable[[Session, Payload], str | None]
Aside = Callable[[Session, Payload], dict[str, Any]]

_LOOKS = ("start", "look")  # actions that change nothing; a screen need not have them


def said_of(error: Exception) -> str:
    """What the browser is told of an error; of one that nobody foresaw, whoever runs the server sees the details."""
    if isinstance(error, MasslError):
        return sentence(str(error))
    logging.getLogger(__name__).error("an answer of the page failed", exc_info=error)
    return "Something went wrong. The terminal where massl runs shows the details. Try again."


class Screen(ABC):
    """One tab of the page. Holds no state of any session: that is the `Session` passed in.

    A subclass has its script in `script/<key>.js` and its style in `style/<key>.css`. It must provide `key`, `title`,
    `actions`, `draw` and `reset`; `asides` and `functions` where its script asks for such.

    Attributes:
        key: names the script and the style, and in the page the element `massl-<key>`.
        title: of the tab.

    Args:
        collection: what is looked at.
        uploads: the folder that uploads arrive in.
    """

    key: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, collection: Collection, uploads: Path) -> None:
        self.collection = collection
        self.uploads = uploads

    @property
    @abstractmethod
    def actions(self) -> Mapping[str, Action]:
        """What the browser can ask for: an action changes the session, and may return what it did as a sentence.

        An action raises MasslError for what can't be done; the page shows its text.
        """

    @property
    def asides(self) -> Mapping[str, Aside]:
        """What the browser can ask for that leaves the screen as it is: the next page, say. May raise MasslError."""
        return {}

    @property
    def functions(self) -> Sequence[Callable[[Any], dict[str, Any]]]:
        """What its script can ask for without a session, by the function's name: value in, plain values out."""
        return ()

    @abstractmethod
    def draw(self, session: Session) -> dict[str, Any]:
        """The screen of a session, in values that JSON can carry, for its script to draw."""

    @abstractmethod
    def reset(self, session: Session) -> None:
        """Back to the screen's beginning: what the session was looking at is gone from the collection."""

    def job(self, do: Callable[[JobReport], Outcome]) -> BackgroundJob[Outcome]:
        """A job on the collection that goes on beside what people do, the same for everybody."""
        return BackgroundJob(do, lambda status: self.collection.close())  # that thread's connection

    def revision(self, session: Session) -> Revision:
        """What the collection is now: asked for once to act on it, and once more to draw what came of that."""
        if session.revision is None:
            session.revision = self.collection.revision()
        return session.revision

    def _check_collection(self, session: Session) -> None:
        session.revision = None
        before, session.collection = session.collection, self.revision(session).collection
        if before not in ("", session.collection):
            session.forget()
            raise MasslError(
                "The folder was indexed from scratch meanwhile, so this page starts again; labels given before "
                "can't be undone here"
            )

    def do(self, session: Session, payload: Payload) -> dict[str, Any]:
        """Does an action and draws the screen; an error comes back as its message. An aside is answered alone."""
        name = str(payload.get("do"))
        if aside := self.asides.get(name):
            return self._beside(session, payload, name, aside)
        try:
            self._check_collection(session)
            action = self.actions.get(name)
            if action is None and name not in _LOOKS:
                raise MasslError("The page is older than the program; reload it")
            said = action(session, payload) if action else None
            if name not in _LOOKS:
                session.revision = None  # the action may have changed the collection
            message = {"kind": "done", "text": said} if said else None
        except Exception as error:
            message = {"kind": "error", "text": said_of(error)}
        try:
            drawn = self.draw(session)
        except Exception as error:
            session.revision = None
            self.reset(session)
            message = {"kind": "error", "text": said_of(error)}
            try:
                drawn = self.draw(session)
            except Exception:  # the collection itself has gone: what was drawn before stays, below the sentence
                drawn = {"gone": True}
        session.turn += 1
        looked = name == "look"  # by itself: what was said last need not make room for it
        return {"screen": self.key, "turn": session.turn, **drawn, "message": message, "looked": looked}

    def _beside(self, session: Session, payload: Payload, name: str, aside: Aside) -> dict[str, Any]:
        try:
            self._check_collection(session)
            answer = aside(session, payload)
        except Exception as error:  # the edge, as in `do`
            answer = {"error": said_of(error)}
        session.turn += 1
        return {"screen": self.key, "turn": session.turn, "aside": name, **answer, "message": None}
