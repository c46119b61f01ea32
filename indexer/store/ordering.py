"""Images in an order to look through: by time, folder, tag, size of the file, or quality; and how many a month."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.store.catalog import Catalog
from indexer.store.filters import UNKNOWN, Filter
from indexer.store.paths import from_bytes
from indexer.store.quality import HINTS
from massl.core.errors import MasslError

# As `Filter.or_modified`: the day of the file counts where it isn't known when the picture was taken.
_MOMENT = (
    f"coalesce(file_metadata.taken, CASE WHEN mtime_ns <> {UNKNOWN} THEN "
    "strftime('%Y-%m-%dT%H:%M:%S', mtime_ns / 1000000000, 'unixepoch', 'localtime') END)"
)
_FACTS = "images LEFT JOIN file_metadata ON file_metadata.image = images.id"

# What images are ordered by, as SQL, and whether the largest comes first.
_ORDERS = {
    "newest": (_MOMENT, True),
    "oldest": (_MOMENT, False),
    "taken": ("file_metadata.taken", False),
    "folder": ("NULL", False),
    "tag": ("(SELECT min(tag) FROM tags WHERE tags.image = images.id)", False),
    "rating": ("file_metadata.rating", True),
    "size": ("size", True),
    **{name: (hint.value, not hint.below) for name, hint in HINTS.items()},
}
ORDERS = tuple(_ORDERS)
"""How images can be ordered: the newest or the oldest first; by the day they were taken alone; by path; by tag, the
first of several; the best rated first; the largest file first; and those first that a quality hint is most about. What
isn't known comes last, and equals by path."""

TIMES = ("newest", "oldest", "taken")
"""The orders by time."""


@dataclass(frozen=True)
class Placed:
    """An image in an order.

    Attributes:
        image: its id.
        path: relative to the root.
        size: of the file, in bytes.
        moment: when it was taken, by the camera's clock, as ISO 8601 or a day alone; else when its file was last
            modified, in local time; empty where neither is known.
        value: what it is ordered by: a moment, a tag, a rating, bytes, or what the hint goes by; None where that isn't
            known, and for the order by path.
    """

    image: int
    path: str
    size: int
    moment: str
    value: str | float | None


def ordered(
    catalog: Catalog, by: str, wanted: Filter, limit: int = -1, images: Sequence[int] | None = None
) -> list[Placed]:
    """The images that pass, in order.

    Args:
        catalog: of the images.
        by: one of `ORDERS`.
        wanted: what they must be.
        limit: how many at most, the first ones; -1: all.
        images: only these ids, some thousands at most.

    Raises:
        MasslError: there is no such order.
    """
    if by not in _ORDERS:
        raise MasslError(f"there is no order {by[:20]!r}; choose one of {', '.join(ORDERS)}")
    key, falling = _ORDERS[by]
    where, values = wanted.where()
    if images is not None:
        where += f" AND images.id IN ({', '.join(str(int(image)) for image in images)})"
    measures = " LEFT JOIN pixel_measures ON pixel_measures.image = images.id" if by in HINTS else ""
    rows = catalog.read(
        f"SELECT images.id, path, size, {_MOMENT} AS moment, {key} AS value FROM {_FACTS}{measures} WHERE {where} "
        f"ORDER BY value IS NULL, value {'DESC' if falling else 'ASC'}, path LIMIT ?",
        [*values, limit],
    )
    return [Placed(image, from_bytes(path), size, moment or "", value) for image, path, size, moment, value in rows]


def months(catalog: Catalog, wanted: Filter) -> dict[str, int]:
    """How many of the images that pass are of each month, as `2024-05`, in order; see `Placed.moment`.

    Nothing where no image says when it was taken: days of files tell when they were copied.
    """
    where, values = wanted.where()
    rows = catalog.read(
        f"SELECT substr({_MOMENT}, 1, 7) AS month, count(*), count(file_metadata.taken) FROM {_FACTS} WHERE {where} "
        "GROUP BY month ORDER BY month",
        values,
    )
    found = [(month, count, said) for month, count, said in rows if month is not None]
    return {month: count for month, count, _ in found} if any(said for *_, said in found) else {}
