"""Catalogs of vectors alone, and whether what an engine finds is what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from indexer.search.engines.interface import CurrentIndex, OpenedEngine
from indexer.store.catalog import Catalog
from indexer.store.vectors import unit
from tests.indexer.vectors import clustered

DIM = 24
VECTORS = clustered(7_000, DIM)


def quiet(step: str, done: int, total: int) -> None: ...


def catalog_of(path: Path, count: int) -> Catalog:
    """A catalog of so many images."""
    facts = {"dim": str(DIM), "generation": "0", "encoder_sha256": "0" * 64, "checked": "2026-01-01"}
    catalog = Catalog.create(path / "catalog.sqlite", facts)
    add(catalog, range(count))
    return catalog


def add(catalog: Catalog, rows: range) -> None:
    """Images in seven folders, a minute apart."""
    with catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, state, embedding) VALUES (?, 1, ?, 'ready', ?)",
            [(b"%d_%%/%d" % (row % 7, row), row * 60 * 10**9, VECTORS[row].tobytes()) for row in rows],
        )


def check(catalog: Catalog, engine: OpenedEngine, queries: int = 20, share: float = 0.98) -> CurrentIndex:
    """The engine finds what the catalog holds now, and nothing else."""
    rows = list(catalog.read("SELECT id, embedding FROM images WHERE +state = 'ready' AND embedding IS NOT NULL"))
    ids = np.array([row[0] for row in rows])
    vectors = np.stack([np.frombuffer(row[1], np.float16) for row in rows]).astype(np.float32)
    current = engine.get(quiet)
    assert len(current) == len(ids)
    asked = unit(VECTORS[:queries])
    scores, found = current.search(asked, 20)
    assert np.isin(found[np.isfinite(scores)], ids).all()
    every = current.search(asked[:1], len(ids) + 5)[1]
    if current.exact:
        np.testing.assert_array_equal(np.sort(every[every >= 0]), np.sort(ids))
    true = ids[np.argsort(-(asked @ vectors.T), 1)[:, :10]]
    hits = [len(set(one) & set(other)) for one, other in zip(found.tolist(), true.tolist(), strict=True)]
    assert np.mean(hits) / 10 >= share
    return current
