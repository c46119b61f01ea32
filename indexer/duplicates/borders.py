"""Which of several versions of a picture got a border: a screenshot or a print has more pixels than the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from indexer.search.pixel_verification import Looks

NEARLY = 0.9  # of the pixels within a border, that the picture which it was put around has at least
LOOKED_AT = 16  # pictures, at most, of which it is seen whether a file is one of them with a border


class Version(NamedTuple):
    """What decides between versions: how many pixels a file has, and whether it lacks the date of its taking."""

    pixels: int
    undated: bool


def bordered(
    versions: Mapping[int, Version], linked: Mapping[int, Mapping[int, float]], looks: Looks, threshold: float
) -> set[int]:
    """Positions of files that are another one with a plain border around it.

    The other one has fewer pixels, and nearly as many as are within the border: a small version is kept for no border.
    A file with the date on which it was taken is not held for a copy of one without it.

    Args:
        versions: of each position in `linked`.
        linked: of each position those that it duplicates, and how well they agree.
        looks: compares, by these positions.
        threshold: the agreement from which two pictures are one.
    """
    return {place for place in linked if _is_bordered(place, versions, linked, looks, threshold)}


def _is_bordered(
    place: int,
    versions: Mapping[int, Version],
    linked: Mapping[int, Mapping[int, float]],
    looks: Looks,
    threshold: float,
) -> bool:
    share = looks.within_border(place)
    if share is None:
        return False
    own = versions[place]
    # Also what was found beside a copy of it only: of many copies not each two are compared.
    near = {further for step in linked[place] for further in (step, *linked[step])}
    smaller = [
        other
        for other in near
        if NEARLY * share * own.pixels <= versions[other].pixels < own.pixels
        and (own.undated or not versions[other].undated)
    ]
    smaller.sort(key=lambda other: (-versions[other].pixels, other))
    return any(looks.without_border(place, other) >= threshold for other in smaller[:LOOKED_AT])
