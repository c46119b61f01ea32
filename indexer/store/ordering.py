"""Images in an order to look through: by the time they were taken, by folder or by size of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.store.catalog import Catalog
from indexer.store.filters import UNKNOWN, Filter
from indexer.store.paths import from_bytes
from massl.core.errors import MasslError

_ORDERS = {
    "newest": "moment IS NULL, moment DESC, path",
    "oldest": "moment IS NULL, moment, path",
    "folder": "path",
    "size": "size DESC, path",
}
ORDERS = tuple(_ORDERS)
"""How images can be ordered: the newest or the oldest first, by path, the largest file first."""

# As `Filter.or_modified`: the day of the file counts where it isn't known when the picture was taken.
_MOMENT = (
    f"coalesce(file_metadata.taken, CASE WHEN mtime_ns <> {UNKNOWN} THEN "
    "strftime('%Y-%m-%dT%H:%M:%S', mtime_ns / 1000000000, 'unixepoch', 'localtime') END)"
)


@dataclass(frozen=True)
class Placed:
    """An image in an order.

    Attributes:
        image: its id.
        path: relative to the root.
        size: of the file, in bytes.
        moment: when it was taken, by the camera's clock, as ISO 8601 or a day alone; else when its file was last
            modified, in local time; empty where neither is known.
    """

    image: int
    path: str
    size: int
    moment: str


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
    where, values = wanted.where()
    if images is not None:
        where += f" AND images.id IN ({', '.join(str(int(image)) for image in images)})"
    rows = catalog.read(
        f"SELECT images.id, path, size, {_MOMENT} AS moment FROM images "
        f"LEFT JOIN file_metadata ON file_metadata.image = images.id WHERE {where} ORDER BY {_ORDERS[by]} LIMIT ?",
        [*values, limit],
    )
    return [Placed(image, from_bytes(path), size, moment or "") for image, path, size, moment in rows]
