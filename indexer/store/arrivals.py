"""When images came: at the end of every run of the indexer, how far the ids of the catalog went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.store.catalog import READY, Catalog, now
from indexer.store.meta import Meta

ENOUGH = 20  # images; runs that brought fewer are looked at together with those before
REMEMBERED = 200  # runs; earlier ones count as one


@dataclass(frozen=True)
class Arrivals:
    """The newest images of a collection, and the others.

    Attributes:
        since: when the first of the newest had come, ISO 8601 in UTC; None where all came at once.
        newest: int64 ids, rising; none where all came at once.
        older: int64 ids, rising.
    """

    since: str | None
    newest: NDArray[np.int64]
    older: NDArray[np.int64]


def note(catalog: Catalog) -> None:
    """Remembers that a run ended here. One that was killed is not noted: the next goes on with the same images."""
    runs = catalog.meta().arrivals
    ((last,),) = catalog.read("SELECT coalesce(max(id), 0) FROM images")
    if last and (not runs or last > runs[-1][1]):
        runs += ((now(), last),)
        catalog.set_meta(Meta.arrivals.to(runs[:1] + runs[1:][-REMEMBERED:]))


def latest(catalog: Catalog) -> Arrivals:
    """The images of the latest run that brought any, or of as many as brought `ENOUGH`; never those of the first."""
    rows = catalog.read(f"SELECT id FROM images WHERE {READY} AND embedding IS NOT NULL ORDER BY id")
    ids = np.fromiter((identity for (identity,) in rows), np.int64)
    found = Arrivals(None, ids[:0], ids)
    runs = catalog.meta().arrivals
    for before, run in zip(runs[-2::-1], runs[:0:-1], strict=True):
        first = int(np.searchsorted(ids, before[1], side="right"))
        if len(ids) - first > len(found.newest):  # what a run brought may have gone since
            found = Arrivals(run[0], ids[first:], ids[:first])
        if len(found.newest) >= ENOUGH:
            break
    return found
