"""Pictures that may be of little use: blurred, dark, tiny and the like. Hints, not judgements.

Each hint is a number with a bound. The bound comes from the collection: three deviations from the median (by the median
absolute deviation, which a few odd pictures don't move), held within limits that hold for any collection. So of
pictures at night not all are dark, and of sharp ones the softest are not blurred.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.store.catalog import READY, Catalog
from indexer.store.meta import Meta
from massl.core.errors import MasslError

_DEVIATIONS = 3 * 1.4826  # of a normal distribution, in median absolute deviations
_SAMPLE = 20_000  # images that bounds are found from
_TILES = (128, 256, 512)  # pixels of a side, of tiles that are offered
_MOST = 0.9  # of the pictures, which tiles have to be smaller than
UNSEEN = 0.2  # of a picture, outside of its middle square, from which it is said
LARGE = 40  # times the encoder's side that a picture's longer one has, from which tiles are offered
_SHORTER, _LONGER = "min(width, height)", "max(width, height)"


@dataclass(frozen=True)
class Hint:
    """What a picture is said to be by one number.

    Attributes:
        value: the number, as SQL on `images` and `pixel_measures`.
        below: whether what lies below the bound is meant, else what lies above.
        limits: between which the bound always lies.
        what: the number, for a person.
    """

    value: str
    below: bool
    limits: tuple[float, float]
    what: str


HINTS: Mapping[str, Hint] = {
    "blurred": Hint("sharpness", True, (0.2, 0.35), "sharpness"),
    "dark": Hint("brightness", True, (20, 60), "grey level of its brightest twentieth"),
    # A white background is no fault: something dark stands before it.
    "overexposed": Hint(
        "overexposed * (brightness - contrast) / 255",
        False,
        (0.3, 0.6),
        "share of white pixels, times the grey level of its darkest twentieth",
    ),
    "low-contrast": Hint("contrast", True, (25, 60), "grey levels between its darkest and its brightest twentieth"),
    "one-colour": Hint("variety", True, (3, 10), "deviation of its colours from their mean"),
    "tiny": Hint(_SHORTER, True, (32, 112), "pixels of its shorter side"),
    "elongated": Hint(f"1.0 * {_LONGER} / {_SHORTER}", False, (2, 4), "longer side by the shorter"),
}

UNUSUAL = "unusual"
"""The hint that goes by no measure of pixels, but by the distance to all others."""

_FAR = Hint("", False, (0.02, 1.0), "distance to the tenth nearest other")

NAMES = (*HINTS, UNUSUAL)
"""All hints."""


@dataclass(frozen=True)
class Scores:
    """How unusual images are: rising ids, int64 `[N]`, and scores, float32 `[N]`."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class QualityBound:
    """A hint's name, and its bound in a collection.

    Attributes:
        name: one of `NAMES`.
        bound: from which on it is about an image.
        images: the ids of those that `UNUSUAL` is about, as a JSON list; empty for other hints.
    """

    name: str
    bound: float
    images: str = ""

    def where(self) -> tuple[str, list[float | str]]:
        """The condition on `images` as SQL, and its values."""
        if self.name == UNUSUAL:
            return "images.id IN (SELECT value FROM json_each(?))", [self.images]
        hint = HINTS[self.name]
        side = "<" if hint.below else ">"
        inner = f"SELECT image FROM pixel_measures JOIN images ON images.id = image WHERE {hint.value} {side} ?"
        return f"images.id IN ({inner})", [self.bound]


NOT_COMPARED = QualityBound(UNUSUAL, 0.0, "[]")
"""Stands for the bound of `UNUSUAL` as long as images are not compared: no image passes."""


def bounds(
    catalog: Catalog, names: Sequence[str] = tuple(HINTS), unusual: Callable[[], Scores] | None = None
) -> tuple[QualityBound, ...]:
    """The bounds of hints in a collection.

    Args:
        catalog: of the collection.
        names: of the hints.
        unusual: says how unusual each image is, for `UNUSUAL`.

    Raises:
        MasslError: there is no such hint.
    """
    if unknown := [name for name in names if name not in NAMES]:
        raise MasslError(f"there is no hint {unknown[0]!r}; there are: {', '.join(NAMES)}")
    measured = [name for name in names if name in HINTS]
    found = dict(zip(measured, _measured_bounds(catalog, measured), strict=True))
    if UNUSUAL in names and unusual is not None:
        found[UNUSUAL] = unusual_bound(unusual())
    return tuple(found[name] for name in dict.fromkeys(names))


def unusual_bound(known: Scores) -> QualityBound:
    """The bound of `UNUSUAL`, and the images beyond it."""
    bound = _bound(_FAR, known.scores)
    return QualityBound(UNUSUAL, bound, json.dumps(known.ids[known.scores > bound].tolist()))


def _measured_bounds(catalog: Catalog, names: Sequence[str]) -> tuple[QualityBound, ...]:
    if not names:
        return ()
    values = ", ".join(HINTS[name].value for name in names)
    ((count,),) = catalog.read("SELECT count(*) FROM pixel_measures")
    rows = catalog.read(
        f"SELECT {values} FROM pixel_measures JOIN images ON images.id = image "
        f"WHERE {READY} AND width > 0 AND height > 0 AND image % {max(1, count // _SAMPLE)} = 0"
    )
    table = np.array(list(rows), np.float64).reshape(-1, len(names))
    return tuple(QualityBound(name, _bound(HINTS[name], table[:, place])) for place, name in enumerate(names))


def _bound(hint: Hint, values: NDArray[np.floating]) -> float:
    low, high = hint.limits
    if not len(values):
        return low if hint.below else high
    middle = float(np.median(values))
    spread = _DEVIATIONS * float(np.median(np.abs(values - middle)))
    return float(np.clip(middle - spread if hint.below else middle + spread, low, high))


def counts(catalog: Catalog, unusual: Callable[[], Scores] | None = None) -> dict[str, tuple[int, float]]:
    """How many images each hint is about, and its bound; without those that are about none.

    Args:
        catalog: of the collection.
        unusual: says how unusual each image is; else nothing is told of that.
    """
    found = {}
    for bound in bounds(catalog, NAMES if unusual else tuple(HINTS), unusual):
        where, values = bound.where()
        ((count,),) = catalog.read(f"SELECT count(*) FROM images WHERE {READY} AND {where}", values)
        if count:
            found[bound.name] = count, round(bound.bound, 4)
    return found


def unseen(catalog: Catalog) -> float:
    """The mean share of a picture that lies outside of its middle square, which is all that encoders are given.

    Of a picture that is cut into several tiles, nothing is.
    """
    side = catalog.meta().tiles.size
    whole = f"{_LONGER} <= {side}" if side else "1"
    ((share,),) = catalog.read(
        f"SELECT avg(CASE WHEN {whole} THEN 1.0 - 1.0 * {_SHORTER} / {_LONGER} ELSE 0.0 END) FROM images "
        f"WHERE {READY} AND width > 0 AND height > 0"
    )
    return float(share or 0.0)


def tell_of_tiles(catalog: Catalog, image_size: int) -> str:
    """What to say, once in a collection's life, where tiles would show much more of its pictures; else nothing."""
    meta = catalog.meta()
    if meta.tiles or meta.tiles_told:
        return ""
    side = LARGE * image_size
    ((large,),) = catalog.read(f"SELECT count(*) FROM images WHERE {READY} AND {_LONGER} >= ?", [side])
    if not large:
        return ""
    catalog.set_meta(Meta.tiles_told.to(True))
    what = "picture has a side" if large == 1 else "pictures have a side"
    return (
        f"{large:,} {what} of {side:,} pixels or more, and the encoder sees {image_size} x {image_size}; to find small "
        "things in them, cut them into tiles: --tiles 512 --rebuild"
    )


def tell_of_square(catalog: Catalog) -> str:
    """What to say, once in a collection's life, where much of its pictures isn't given to the encoder; else nothing."""
    share = unseen(catalog)
    if share < UNSEEN or catalog.meta().square_told or catalog.meta().tiles:
        return ""
    catalog.set_meta(Meta.square_told.to(True))
    told = f"{100 * share:.0f} % of an average picture lies outside of its middle square; the encoder sees no more"
    # A picture is cut only where it is larger than a tile.
    cut = ", ".join(f"avg({_LONGER} > {size})" for size in _TILES)
    ((*shares,),) = catalog.read(f"SELECT {cut} FROM images WHERE {READY} AND {_LONGER} > {1 + UNSEEN} * {_SHORTER}")
    fitting = [size for size, cut in zip(_TILES, shares, strict=True) if (cut or 0) >= _MOST]
    return f"{told}. With --tiles {fitting[-1]} --rebuild it sees all of most of them" if fitting else told
