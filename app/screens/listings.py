"""Lists of pictures on the screen "Search" that are made whole, in an order of their own, and shown page by page."""

from __future__ import annotations

import posixpath
import re
from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from app.formatting import plural, readable, sentence
from app.screens.classification_advice import percent
from app.screens.tiles import MOST, Tile, tile, with_ratios, with_worst_tiles
from indexer import Collection, Query
from indexer.jobs.background import JobStatus
from indexer.search.query import Ranking
from indexer.store.filters import Filter
from indexer.store.ordering import TIMES, Placed
from indexer.store.quality import UNUSUAL, Scores, unusual_bound
from massl.core.errors import MasslError

LIKELY = 0.5  # the least probability of a proposed tag
MOST_SUBSET = 1_000
WAYS = ("diverse", "typical", "balanced")
BEST = 200  # results of a search that are put in another order
TITLES = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "taken": "By date taken",
    "folder": "By folder",
    "tag": "By tag",
    "rating": "Best rated first",
    "size": "Largest files first",
    "blurred": "Most blurred first",
    "dark": "Darkest first",
    "overexposed": "Most overexposed first",
    "low-contrast": "Least contrast first",
    "one-colour": "Fewest colours first",
    "tiny": "Fewest pixels first",
    "elongated": "Most elongated first",
    "unusual": "Most unusual first",
}
MOST_STEPS = 48  # of a time line; beyond, it goes by years


@dataclass(frozen=True)
class Listed:
    """One picture of a list: `score` is written on it, `heading` stands before it."""

    image: int
    score: str = ""
    heading: str = ""


@dataclass(frozen=True)
class Listing:
    """Pictures in their order.

    Attributes:
        title: of the list.
        note: what is said beside it.
        rows: the pictures.
        tag: that is proposed for all of them; empty where none is.
        empty: what is said where there are none.
        pending: whether it is not made yet.
        framed: whether the most unusual tile of each picture is framed.
    """

    title: str
    note: str
    rows: tuple[Listed, ...]
    tag: str = ""
    empty: str = ""
    pending: bool = False
    framed: bool = False

    def open(self, collection: Collection) -> Listing:
        """The same without the pictures whose proposal was answered since the list was made."""
        if not self.tag:
            return self
        tagged = collection.tags.of([row.image for row in self.rows])
        refused = collection.rejected_tags.of_tag(self.tag)
        rows = tuple(row for row in self.rows if row.image not in refused and self.tag not in tagged.get(row.image, ()))
        return replace(self, rows=rows)

    def tiles(self, collection: Collection, first: int, last: int) -> list[Tile]:
        """The pictures from place `first` up to before `last`; without those that have left the collection."""
        rows = {row.image: row for row in self.rows[first:last]}
        drawn = [tile(*each) | _marks(rows[each[0]], self.tag) for each in collection.images.described(list(rows))]
        if self.framed:
            drawn = with_worst_tiles(collection, drawn)
        return with_ratios(collection, drawn)


def sorted_by(order: str, collection: Collection, wanted: Filter, ranking: Ranking | None) -> Listing:
    """All pictures that pass, or those that fit a search best, in one of `ORDERS`, with headings between them.

    A score says less about order than a date: only the `BEST` of a search are put in another one.
    """
    title = TITLES[order]
    if ranking is None:
        placed = collection.images.ordered(order, wanted, MOST)
        scores: dict[int, str] = {}
    else:
        best = ranking.images[:BEST].tolist()
        placed = collection.images.ordered(order, images=best)
        scores = {image: f"{score:z.2f}" for image, score in zip(best, ranking.scores[:BEST].tolist(), strict=True)}
        title += f", of the {plural(len(placed), 'most similar picture', 'most similar pictures')}"
    rows, last = [], ""
    for each in placed:
        heading = _heading(order, each)
        rows.append(Listed(each.image, scores.get(each.image, ""), heading if heading != last else ""))
        last = heading
    total = collection.images.count(wanted)
    note = plural(total, "picture", "pictures") if len(rows) == total else f"{len(rows):,} of {total:,} pictures"
    return Listing(title, note, tuple(rows))


Comparing = JobStatus[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""All pictures being compared: rising ids of all, and how unusual each is."""


def not_compared(title: str, comparing: Comparing) -> Listing:
    """What is shown as long as pictures are still compared, or where that failed."""
    failed = comparing.state == "failed"
    empty = sentence(readable(comparing.reason)) if failed else "All pictures are being compared for this."
    return Listing(title, "", (), empty=empty, pending=not failed)


def with_unusual(wanted: Filter, comparing: Comparing) -> Filter | None:
    """The filter with the pictures that are unusual now, if it asks for such; None as long as that isn't known."""
    if all(bound.name != UNUSUAL for bound in wanted.quality):
        return wanted
    if comparing.result is None:
        return None
    found = unusual_bound(Scores(*comparing.result))
    return replace(wanted, quality=tuple(found if bound.name == UNUSUAL else bound for bound in wanted.quality))


def unusual(
    collection: Collection,
    wanted: Filter,
    ranking: Ranking | None,
    comparing: Comparing,
) -> Listing:
    """The least usual first, of all pictures that pass, or of the `BEST` that fit a search.

    Args:
        collection: whose pictures.
        wanted: what they must be.
        ranking: of the search.
        comparing: rising ids of all pictures and how unusual each is, once they are compared.
    """
    title = TITLES["unusual"]
    if comparing.result is None:
        return not_compared(title, comparing)
    ids, scores = comparing.result
    order = np.argsort(-scores, kind="stable")
    if ranking is not None:
        order = order[np.isin(ids[order], ranking.images[:BEST])]
        title += f", of the {plural(len(order), 'most similar picture', 'most similar pictures')}"
    elif (passing := collection.images.that_pass(wanted)) is not None:
        order = order[np.isin(ids[order], passing)]
    rows = tuple(Listed(int(ids[row]), f"{scores[row]:z.2f}") for row in order[:MOST].tolist())
    note = plural(len(order), "picture", "pictures") + ", by the distance to the others"
    return Listing(title, note if len(rows) == len(order) else f"{len(rows):,} of {note}", rows, framed=True)


def _heading(order: str, placed: Placed) -> str:
    if order == "folder":
        return readable(posixpath.dirname(placed.path)) or "In no folder"
    if order == "tag":
        return str(placed.value) if placed.value is not None else "No tag"
    if order not in TIMES:
        return ""
    try:
        return f"{date.fromisoformat(str(placed.value)[:10]):%B %Y}"
    except ValueError:
        return str(placed.value or "")[:7] or "Date not known"


@dataclass(frozen=True)
class TimeStep:
    """A month or a year of a time line: its first and last day, what it is called, and how many pictures are of it."""

    since: str
    until: str
    name: str
    count: int


def time_line(months: Mapping[str, int]) -> tuple[TimeStep, ...]:
    """The months that have pictures, or the years where there are many; none where all pictures are of one.

    Args:
        months: see `indexer.store.ordering.months`; some may be no months.
    """
    by_years = len(months) > MOST_STEPS
    counts: dict[date, int] = {}  # by the first day
    for month, count in months.items():
        if re.fullmatch(r"[1-9]\d{3}-(0[1-9]|1[0-2])", month, re.ASCII):
            first = date(int(month[:4]), 1 if by_years else int(month[5:]), 1)
            counts[first] = counts.get(first, 0) + count
    if len(counts) < 2:
        return ()
    return tuple(_step(first, by_years, count) for first, count in sorted(counts.items()))


def _step(first: date, whole_year: bool, count: int) -> TimeStep:
    last = first.replace(month=12 if whole_year else first.month)
    last = last.replace(day=monthrange(last.year, last.month)[1])
    return TimeStep(str(first), str(last), f"{first:%Y}" if whole_year else f"{first:%B %Y}", count)


def subset(
    collection: Collection, count: int, by: str, wanted: Filter, like: Sequence[Query], images: Sequence[int] | None
) -> Listing:
    """So many pictures without near copies, chosen among those selected, or among those that pass and fit a search.

    A balanced one is balanced over labels, or over folders where nothing is labelled.

    Raises:
        MasslError: the number or the way is none, or nothing is there to choose from.
    """
    if not 1 <= count <= MOST_SUBSET or by not in WAYS:
        raise MasslError(f"A subset has 1 to {MOST_SUBSET:,} pictures; type such a number")
    over = "labels" if collection.labels.counts() else "folders"
    if images is None:
        found = collection.subsets.choose(count, by, wanted=wanted, like=like, over=over)
    else:
        found = collection.subsets.choose(count, by, images=images, over=over)
    how = f"{by} over {over}" if by == "balanced" else by
    note = f"{how}, of {plural(found.among, 'picture', 'pictures')}"
    if len(found.images) < count:
        note += "; others are near copies of these" if by != "balanced" else "; there are no more to balance"
    rows = tuple(Listed(item.image) for item in found.images)
    return Listing(f"A subset of {plural(len(rows), 'picture', 'pictures')}", note, rows)


def proposed(collection: Collection, wanted: Filter) -> Listing:
    """The pictures that probably have the one tag that is filtered for, of those that pass the other filters.

    Raises:
        MasslError: too few pictures have the tag, or are known not to have it.
    """
    (tag,) = wanted.tags
    found = collection.tag_proposals.of(tag)
    likely = found.likely(LIKELY)
    if (passing := collection.images.that_pass(replace(wanted, tags=()))) is not None:
        kept = set(passing.tolist())
        likely = [(image, probability) for image, probability in likely if image in kept]
    rows = tuple(
        Listed(image, "" if probability is None else f"{percent(probability)} %")
        for image, probability in likely[:MOST]
    )
    note = f"{plural(len(rows), 'picture', 'pictures')}, the likeliest first"
    if not found.claimed:
        note += "; there are too few examples to say how likely"
    empty = f"No other picture probably has the tag “{tag}”. Tag more pictures, or change the filters."
    return Listing(f"Probably “{tag}” too", note, rows, tag, empty)


def _marks(row: Listed, tag: str) -> dict[str, str]:
    marks = {"score": row.score, "heading": row.heading, "proposal": tag}
    return {name: text for name, text in marks.items() if text}
