"""What the score of a picture's best tile means, in a collection with tiles.

Chance is that of whole pictures' best tiles: of many tiles one is more likely to be alike than a picture as a whole. So
tiles of a sample of the pictures are scored against every other picture's best tile. Pictures that are near copies of
each other as wholes are no chance. What a copy scores is not known of tiles, as a part hardly ever lies as they do:
only the very same tile is called `same`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.search.calibration import BACKGROUND, CROWD, FAR, FEWEST, PROBES, Calibration, Null, neighbourhood
from indexer.search.near_copies import copies_from
from indexer.store import tiles
from indexer.store.catalog import Catalog
from indexer.store.tiles import TileVectors
from indexer.store.vectors import several, unit


def of_tiles(catalog: Catalog, whole: Calibration) -> Calibration:
    """Calibrates on the tiles of a sample of pictures; empty where their tiles are too many to compare `FEWEST`.

    Args:
        catalog: of a collection with tiles.
        whole: what scores of whole pictures mean in it.
    """
    dim = catalog.meta().dim
    ids, images, vectors = _sample(catalog)
    owners, places = np.unique(images, return_inverse=True)
    if len(owners) < FEWEST:
        return Calibration()
    found, packed = several(catalog, owners.tolist(), dim)
    wholes = np.zeros((len(owners), dim), np.float32)
    wholes[np.searchsorted(owners, found)] = unit(packed)
    related = wholes @ wholes.T >= copies_from(whole, len(owners))
    np.fill_diagonal(related, True)
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(len(owners)))
    draw = np.random.default_rng(0)
    probes = np.sort(draw.permutation(len(ids))[:PROBES])
    best = np.maximum.reduceat(vectors[probes] @ vectors[order].T, starts, axis=1)
    best[related[places[probes]]] = -np.inf
    highest = -np.sort(-best, axis=1)[:, : FAR[1]]
    usable = np.isfinite(highest).sum(1) > 1
    crowd = np.array([neighbourhood(row[None, np.isfinite(row)])[0] for row in highest[usable]], np.float32)
    outstanding = best[usable] - CROWD * crowd[:, None]
    return Calibration(None, _null(best), _null(outstanding))


def _sample(catalog: Catalog) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """All tiles of some pictures, drawn at random, the same each time.

    Returns:
        their numbers and pictures, int64 `[n]`, and unit vectors, float32 `[n, D]`.
    """
    known = tiles.places(catalog)
    owners, counts = np.unique(known.images, return_counts=True)
    order = np.random.default_rng(0).permutation(len(owners))
    kept = owners[order[np.cumsum(counts[order]) <= BACKGROUND]]
    rows = np.flatnonzero(np.isin(known.images, kept))
    ids, packed = TileVectors(catalog).of(known.ids[rows])
    return ids, known.images[rows][np.isin(known.ids[rows], ids)], unit(packed)


def _null(values: NDArray[np.float32]) -> Null:
    falling = -np.sort(-values[np.isfinite(values)].astype(np.float64))
    return Null.of(falling, np.ones(len(falling)))
