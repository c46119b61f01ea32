"""What the screen "Search" says of results: how good a match each is, and how many are expected by chance."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.screens.search_request import Part
from app.screens.tiles import Tile, tile
from indexer import Result
from indexer.search.query import Ranking

BANDS = {"same": "Same", "alike": "Alike"}  # the others are not told apart from what is common in the folder
_STEP = 0.01  # of the cut-off slider


def match_tile(result: Result) -> Tile:
    """A result as a picture of the page, with its score and what that means."""
    return (
        tile(result.image, result.path, result.label)
        | {
            "score": f"{result.score:z.2f}",
            "value": round(result.score, 4),
            "hint": chance(result.false_matches, result.rank),
            "box": result.box,
        }
        | _band(result)
    )


def _band(result: Result) -> dict[str, str]:
    """What is written below a result: nothing where it scores as many others do, as most good hits of one kind do."""
    if result.match == "weak":
        return {}
    return {
        "band": result.match,
        "bandName": BANDS[result.match],
        "chance": chance_short(result.false_matches, result.rank),
    }


def levels(ranking: Ranking | None) -> list[dict[str, Any]]:
    """For each place of the cut-off slider, from all to the best alone: score, pictures above it, and what to say."""
    if ranking is None or not len(ranking):
        return []
    lowest, highest = float(ranking.scores[-1]), float(ranking.scores[0])
    marks = np.arange(np.floor(lowest / _STEP) + 1, np.ceil(highest / _STEP)) * _STEP
    return [
        {
            "score": round(float(mark), 2),
            "above": (above := ranking.above(round(float(mark), 2))),
            "chance": among(ranking.false_matches(float(mark)), above),
        }
        for mark in marks
    ]


def chance(false_matches: float, rank: int) -> str:
    """What a score means: how many of the results with at least this score are expected by chance."""
    if false_matches < 0.1:
        return "Very unlikely to be a coincidence: an unrelated picture almost never looks this similar"
    if false_matches >= rank:
        return (
            "Many pictures in this folder are this similar. It may show the same kind of thing, but the score does not "
            "show that it is the same picture or object"
        )
    few = max(1, round(false_matches))
    return f"About {few:,} unrelated picture{'s' * (few > 1)} in this folder would be this similar by chance"


def chance_short(false_matches: float, rank: int) -> str:
    """The same in a few words; empty if such scores are common."""
    if false_matches < 0.1:
        return "unlikely by chance"
    return "" if false_matches >= rank else f"{max(1, round(false_matches)):,} by chance"


def among(false_matches: float, above: int) -> str:
    """How many of the pictures above a score are expected by chance."""
    if false_matches < 0.1:
        return "almost none of them by chance"
    if false_matches >= above:
        return "this similarity is common in this folder"
    return f"about {max(1, round(false_matches)):,} of them by chance"


def heat_words(cosines: np.ndarray, part: Part) -> str:
    """What a heat map shows; `cosines` are float `[rows, columns]`, `part` is what of the picture they cover."""
    rows, columns = cosines.shape
    text = (
        f"Bright parts are most similar to what you searched with ({cosines.max():z.2f}), dark parts least "
        f"({cosines.min():z.2f}). The picture is compared in {rows} by {columns} parts."
    )
    return text if min(part[2], part[3]) > 0.99 else text + " Only the square in the frame was compared."
