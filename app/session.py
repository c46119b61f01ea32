"""What one person has done in the page: the state of a browser session, and what a browser may send to change it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from indexer.store.revision import Revision
from massl.core.errors import MasslError

MOST_IMAGES = 100_000  # of one action

Payload = dict[str, Any]  # what the browser sent, not to be trusted; `do` names the action
State = TypeVar("State")


@dataclass(frozen=True)
class Step:
    """A labelling step that can be taken back: image to (label, author) before, None for no label, and after.

    Also what was decided of labels, each an image and a label: proposals `rejected`, doubtful ones `confirmed`. And of
    tags: those `tagged` anew, each an image and a tag, the rejections that this took back (`untold`), those
    `untagged`, with their author, and those `refused` anew.
    """

    text: str
    before: dict[int, tuple[str, str] | None]
    after: dict[int, str | None]
    rejected: tuple[tuple[int, str], ...] = ()
    confirmed: tuple[tuple[int, str], ...] = ()
    tagged: tuple[tuple[int, str], ...] = ()
    untold: tuple[tuple[int, str], ...] = ()
    untagged: tuple[tuple[int, str, str], ...] = ()
    refused: tuple[tuple[int, str], ...] = ()


@dataclass
class Session:
    """The state of one browser session; every session has its own.

    Attributes:
        steps: what can be undone, the latest last.
        turn: counts the answers to the browser.
        collection: the identity of the collection that all of this is about; empty at first.
        revision: of the collection, for the answer that is being given; None until it was asked for.
    """

    steps: list[Step] = field(default_factory=list)
    turn: int = 0
    collection: str = ""
    revision: Revision | None = None
    _states: dict[type, Any] = field(default_factory=dict)

    def forget(self) -> None:
        """Back to the beginning: another collection has taken the place of the one that all of this was about."""
        self.steps = []
        self._states.clear()

    def of(self, kind: type[State]) -> State:
        """A screen's own part of the state, made by `kind()` when it is first asked for."""
        return self._states.setdefault(kind, kind())


def number(value: object) -> int:
    """A number that the browser sent, from 0 to 2^63 - 1.

    Raises:
        MasslError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise MasslError("The page sent something unexpected; reload it")
    return value


def images(payload: Payload) -> list[int]:
    """The ids of the pictures that an action is for, each once.

    Raises:
        MasslError: there are none, or too many.
    """
    given = payload.get("images")
    if not isinstance(given, list) or len(given) > MOST_IMAGES:
        raise MasslError("The page sent something unexpected; reload it")
    if not given:
        raise MasslError("Select some pictures first")
    return list(dict.fromkeys(number(image) for image in given))
