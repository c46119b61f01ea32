"""What one session searches for: its examples and filters, as the browser sends them and as the indexer takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.screens.listings import TITLES, Listing
from app.session import Payload, number
from indexer.store.filters import EVERYTHING, ORIENTATIONS, Filter, day
from indexer.store.quality import QualityBound
from massl.core.errors import MasslError

MOST_EXAMPLES = 16
# Which of some tags a picture must have, as the browser says it and as the filter does.
TAGGING = {"all": "tags", "any": "any_tags", "none": "without_tags"}
# What each text of a list names.
_TEXTS = {"labels": "label", "folders": "folder", "tags": "tag", "quality": "quality hint", "cameras": "camera"}

_FAR = 1e9  # sides of a picture; what is no number is not less, and a larger whole number may be no float

Part = tuple[float, float, float, float]  # x, y, width, height of a region, as shares of the picture


@dataclass(frozen=True)
class Example:
    """A picture to be like, or with a weight of -1 unlike: an image of the collection, or an upload by its token."""

    image: int | None = None
    upload: str | None = None
    weight: float = 1.0
    part: Part | None = None


@dataclass(frozen=True)
class Question:
    """What is listed.

    Attributes:
        examples: what the pictures are to be like; none: all pictures, by path.
        wanted: what they must be.
        sort: one of `app.screens.listings.TITLES`; empty: the most similar first, or by path.
        proposed: in place of the pictures with the one tag in `wanted`, those that probably have it too.
        subset: what was chosen of these to be taken away, in place of all of them.
    """

    examples: tuple[Example, ...] = ()
    wanted: Filter = EVERYTHING
    sort: str = ""
    proposed: bool = False
    subset: Listing | None = None


NOTHING = Question()


def question(
    payload: Payload, image_of: Any, bounds_of: Callable[[Sequence[str]], tuple[QualityBound, ...]]
) -> Question:
    """Reads a question that the browser sent.

    Args:
        payload: `examples`, each with `image`, `content` or `upload`, and `weight`, `part`; `labels`, `tags`,
            `tagging`, `folders`, `quality`, `cameras`, `rating`, `orientation`, `named`, `since`, `until`, `sort`,
            `proposed`.
        image_of: the id of an image by the first digits of its content's hash.
        bounds_of: the bounds of quality hints in the collection.

    Raises:
        MasslError: it is none, there is no such hint, or a picture has gone.
    """
    given = _list(payload.get("examples"))
    if len(given) > MOST_EXAMPLES:
        raise MasslError(f"A search takes at most {MOST_EXAMPLES} examples; remove one first")
    examples = []
    for item in given:
        if not isinstance(item, dict):
            raise _unexpected()
        weight = -1.0 if item.get("weight") == -1 else 1.0
        part = _part(item.get("part"))
        if isinstance(item.get("upload"), str):
            examples.append(Example(None, item["upload"], weight, part))
        elif isinstance(item.get("content"), str):
            examples.append(Example(image_of(item["content"]), None, weight, part))
        else:
            examples.append(Example(number(item.get("image")), None, weight, part))
    since, until = (day(_text(payload[key], "date")) if payload.get(key) else None for key in ("since", "until"))
    labels, folders, tags, hints, cameras = (
        tuple(_text(item, name) for item in _list(payload.get(key))) for key, name in _TEXTS.items()
    )
    days: dict[str, Any] = {"taken_since": since, "taken_until": until, "or_modified": True}
    how = _text(payload.get("tagging") or "all", "tagging")
    if how not in TAGGING:
        raise MasslError(
            f"There is no choice {how[:20]!r} of tags (tagging= in the address); there are: {', '.join(TAGGING)}"
        )
    which: dict[str, Any] = {TAGGING[how]: tags}
    orientation = _text(payload.get("orientation") or "", "orientation")
    if orientation and orientation not in ORIENTATIONS:
        raise MasslError(
            f"There is no orientation {orientation[:20]!r} (in the address); there are: {', '.join(ORIENTATIONS)}"
        )
    of_picture: dict[str, Any] = {"cameras": cameras, "rating": _stars(payload), "orientation": orientation}
    named = tuple(dict.fromkeys(_text(payload.get("named") or "", "path").split()))
    wanted = Filter(labels, folders, **days, **which, **of_picture, named=named, quality=bounds_of(hints))
    proposed = payload.get("proposed") is True and len(wanted.tags) == 1 and not examples
    sort = _text(payload.get("sort") or "", "order")
    if sort and sort not in TITLES:
        raise MasslError(f"There is no order {sort[:20]!r} (sort= in the address); there are: {', '.join(TITLES)}")
    return Question(tuple(examples), wanted, sort, proposed)


def _stars(payload: Payload) -> int | None:
    """The least stars; None for pictures with any, and without."""
    given = payload.get("rating") or 0
    if given not in range(6):
        raise MasslError("A rating is 1 to 5 stars (rating= in the address); choose one of these")
    return int(given) or None


def tagging(wanted: Filter) -> dict[str, Any]:
    """The tags of a filter, and which of them a picture must have, as the browser says it."""
    found = {how: list(getattr(wanted, name)) for how, name in TAGGING.items() if getattr(wanted, name)}
    how = next(iter(found), "all")
    return {"tags": found.get(how, []), "tagging": how}


def _part(given: object) -> Part | None:
    if given is None:
        return None
    if not isinstance(given, list):
        raise _unexpected()
    if len(given) != 4 or not all(isinstance(item, (int, float)) and abs(item) < _FAR for item in given):
        raise MasslError(
            "A part of a picture (after the @ in the address) is its left side, top, width and height: four numbers "
            "from 0 to 1; draw it again"
        )
    x, y, width, height = (min(1.0, max(0.0, float(item))) for item in given)
    width, height = min(width, 1 - x), min(height, 1 - y)
    if width <= 0 or height <= 0:
        raise MasslError("That part of the picture is empty; draw a larger one")
    return x, y, width, height


def pixels(part: Part, width: int, height: int) -> tuple[int, int, int, int]:
    """A part in whole pixels of a picture: x, y, width, height, at least one pixel each."""
    left, top = min(int(part[0] * width), width - 1), min(int(part[1] * height), height - 1)
    right, bottom = (
        min(width, max(left + 1, round((part[0] + part[2]) * width))),
        min(height, max(top + 1, round((part[1] + part[3]) * height))),
    )
    return left, top, right - left, bottom - top


def _list(given: object) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise _unexpected()
    if len(given) > 1_000:
        raise MasslError("A search takes at most 1,000 labels, folders, tags or hints; remove some")
    return given


def _text(given: object, name: str) -> str:
    """A text; `name` is what it names, as an address may hold any."""
    if not isinstance(given, str):
        raise _unexpected()
    if len(given) > 4_096 or "\0" in given:
        raise MasslError(f"No {name} is called {given.replace(chr(0), '?')[:20]!r}; change it in the address, or here")
    return given


def _unexpected() -> MasslError:
    return MasslError("The page sent something unexpected; reload it")
