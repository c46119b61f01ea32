"""Where a picture is unusual: its patches beside those of the pictures that are most like it.

As SPADE does (Cohen and Hoshen, "Sub-image anomaly detection with deep pyramid correspondences", 2020), with the
encoder's patch tokens. Eleven pictures are read, whatever the size of the collection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.search.near_copies import copies_from
from indexer.search.query import Query
from indexer.search.searcher import Searcher
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter
from indexer.store.images import Images
from indexer.store.tiling import Box
from massl.core.errors import MasslError

NEAREST = 10  # pictures that a picture is compared with
_MORE = 20  # of which may be near copies of it, whose parts say nothing


@dataclass(frozen=True, eq=False)
class UnusualParts:
    """How unusual each part of a picture is.

    Attributes:
        distances: float32 `[h, w]`, 0 to 2: one minus the cosine of a patch with the most similar patch of the pictures
            that are most like this one.
        part: x, y, width and height of what was compared, as shares of the upright picture: the patches divide it
            evenly.
        peak: the most unusual patch, x, y, width and height in pixels of the upright picture.
        beside: how many pictures it was compared with.
    """

    distances: NDArray[np.float32]
    part: tuple[float, float, float, float]
    peak: Box
    beside: int


def unusual_parts(
    catalog: Catalog, searcher: Searcher, image: int, box: Box | None = None, good: str | None = None
) -> UnusualParts:
    """Compares a picture, or a tile of it, part by part.

    Args:
        catalog: of the collection.
        searcher: finds the pictures, or tiles, that are most like it.
        image: its id.
        box: the tile, in pixels; the picture as the encoder sees it if left out.
        good: compare with pictures of this label alone.

    Raises:
        MasslError: the encoder has no patches, the file can't be read any more, or there is no other picture.
    """
    facts = Images(catalog).facts(image)
    asked = Query(image=image, crop=box)
    ranking = searcher.rank([asked], NEAREST + _MORE, Filter(labels=(good,)) if good else Filter())
    least = copies_from(ranking.calibration, ranking.among)
    found = searcher.describe(ranking)
    # A copy of a defect would hide it; a good picture can be as like as it will.
    others = ([] if good else [result for result in found if result.score < least]) or found
    if not others:
        raise MasslError("there is no other picture to compare this one with")
    others = others[:NEAREST]
    heat = searcher.heat_beside(asked, [Query(image=other.image, crop=box and other.box) for other in others])
    x, y, width, height = box or (0, 0, facts.width, facts.height)
    left, top, across, down = heat.part
    part = (
        (x + left * width) / facts.width,
        (y + top * height) / facts.height,
        across * width / facts.width,
        down * height / facts.height,
    )
    distances = (1 - heat.cosines).clip(0).astype(np.float32)
    return UnusualParts(distances, part, _peak(distances, part, facts.width, facts.height), len(others))


def _peak(distances: NDArray[np.float32], part: tuple[float, float, float, float], width: int, height: int) -> Box:
    row, column = divmod(int(distances.argmax()), distances.shape[1])
    edges = []
    for at, count, start, share, side in (
        (column, distances.shape[1], part[0], part[2], width),
        (row, distances.shape[0], part[1], part[3], height),
    ):
        first, last = ((start + share * place / count) * side for place in (at, at + 1))
        edges.append((int(np.floor(first + 1e-6)), int(np.ceil(min(last, side) - 1e-6))))
    (x, right), (y, bottom) = edges
    return x, y, right - x, bottom - y
