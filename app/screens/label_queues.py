"""The lists of the screen "Label" that are answered page by page: which pictures come next."""

from __future__ import annotations

from collections.abc import Collection as Several

import numpy as np
from numpy.typing import NDArray

from app.screens.tiles import PAGE_SIZES
from indexer import Collection
from indexer.fewshot.classification import Classification
from indexer.fewshot.sampling import least_sure, most_sure
from indexer.search.near_copies import copies_from
from indexer.store.revision import Revision

PAGE = PAGE_SIZES[0]
QUEUES = {  # views of a page that is answered, and what is said beside their names
    "different": "different from labelled pictures and from each other",
    "unusual": "unlike all other pictures, the least usual first",
    "unsure": "a label helps most here; of copies one is listed",
    "strange": "unlike every labelled picture: do some belong to a class that has no name yet?",
    "sure": "reject the wrong proposals, then accept the rest",
    "drawn": "label every picture, or accept its proposal if it is right; this measures the accuracy",
}
_ONE_OF_COPIES = ("unusual", "unsure", "strange")  # the label of one tells what its copies are
_LOOKED_AT = 20 * PAGE  # pictures among which a page without copies is sought


def note(view: str, only: str) -> str:
    """What is said beside the name of a queue; `only` is as of `next_page`."""
    return f"the likeliest to be “{only}” first, whatever is proposed" if view == "unsure" and only else QUEUES[view]


def next_page(
    view: str,
    collection: Collection,
    result: Classification | None,
    passed: Several[int],
    sure: float,
    now: Revision,
    only: str = "",
) -> list[int]:
    """The next page of a queue, image ids; empty where it is at its end, or tells nothing yet.

    Args:
        view: one of `QUEUES`.
        collection: whose pictures.
        result: what the labels tell so far.
        passed: images that were left for later, or rejected.
        sure: the least probability of a proposal, 0 to 1, in the view "sure".
        now: the collection's revision.
        only: the one class that is proposed, in the view "sure", or that is likeliest, in "unsure"; empty: any.
    """
    if view == "unsure" and only and result is not None:
        ids = collection.fewshot.likeliest(only, now)
    else:
        ids = _ordered(view, collection, result, len(passed), sure, now)
    if view == "sure" and only and result is not None:
        proposed = only in result.classes and result.predicted == result.classes.index(only)
        ids = ids[np.isin(ids, result.images[proposed])]
    ids = ids[~np.isin(ids, np.fromiter(passed, np.int64, len(passed)))]
    if view in _ONE_OF_COPIES:
        ids = _one_of_copies(ids[:_LOOKED_AT], collection, now)
    return [int(image) for image in ids[:PAGE]]


def _ordered(
    view: str, collection: Collection, result: Classification | None, passed: int, sure: float, now: Revision
) -> NDArray[np.int64]:
    if view == "different":
        return np.array(collection.fewshot.different(PAGE + passed, now), np.int64)
    if view == "unusual":
        everything, scores = collection.anomalies.by_image()
        ids = everything[np.argsort(-scores, kind="stable")]
        return ids[~np.isin(ids, list(collection.labels.by_image()))]
    if result is None:
        return np.empty(0, np.int64)
    if view == "drawn":
        return np.random.default_rng().permutation(result.images[~result.labelled])
    rows = most_sure(result) if view == "sure" else least_sure(result)
    if view == "sure":
        rows = rows[result.probability[rows] >= sure]
    elif view == "strange":
        rows = rows[~result.familiar[rows]]
    return result.images[rows]


def _one_of_copies(ids: NDArray[np.int64], collection: Collection, now: Revision) -> NDArray[np.int64]:
    """The same in the same order, without those that are near copies of an earlier one, as far as a page needs."""
    everything, vectors = collection.fewshot.vectors(now)
    least = copies_from(collection.searcher.calibration(), len(everything))
    rows = np.searchsorted(everything, ids)
    kept: list[int] = []
    for place, row in enumerate(rows):
        earlier = vectors[rows[kept]]
        if not kept or float((earlier @ vectors[row]).max()) < least:
            kept.append(place)
        if len(kept) == PAGE:
            break
    return ids[kept]
