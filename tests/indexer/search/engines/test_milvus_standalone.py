"""Milvus's own server under 20,000 vectors: filled, filtered, killed while it is sent to, and gone on with.

`MILVUS_PYTHON` names a Python that has the PyPI package `milvus` (2.3.5); `.ci/run` makes one. The smaller tests of
`test_milvus_engine.py` take that server, too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from indexer.search.engines.catalog_scan import CatalogScan
from indexer.search.engines.interface import CurrentIndex
from indexer.search.engines.milvus_engine import MilvusEngine, MilvusIndex
from indexer.search.engines.milvus_server import Away, MilvusServer
from indexer.search.engines.recall import nearest
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter, among
from indexer.store.vectors import CatalogVectors, unit
from tests.indexer.search.engines.catalogs import quiet
from tests.indexer.search.engines.standalone import Server
from tests.indexer.vectors import clustered

pytestmark = pytest.mark.skipif("MILVUS_PYTHON" not in os.environ, reason="needs MILVUS_PYTHON, with milvus==2.3.5")

DIM, COUNT, MORE = 64, 20_000, 8_000
PATIENCE = 300.0  # seconds for a server that starts, or makes its index, on a machine with much else to do


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    try:
        started = Server(os.environ["MILVUS_PYTHON"], tmp_path / "server")
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        until_it_answers(started)
        yield started
    finally:
        started.kill()


def until_it_answers(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return MilvusServer(server.address).check()
        except Away:
            assert time.monotonic() < deadline
            time.sleep(1)


def add(catalog: Catalog, vectors: np.ndarray, first: int) -> None:
    """Images in seven folders, a minute apart."""
    with catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, state, embedding) VALUES (?, 1, ?, 'ready', ?)",
            [(b"%d/%d" % (row % 7, row), row * 60 * 10**9, one.tobytes()) for row, one in enumerate(vectors, first)],
        )


def recall(index: CurrentIndex, catalog: Catalog, queries: np.ndarray, wanted: Filter | None = None) -> float:
    """The share of the ten nearest that are found; nothing is found that a filter keeps out or that has gone."""
    source = CatalogVectors(catalog)
    assert len(index) == len(source)
    passing = among(catalog, wanted) if wanted else np.concatenate([ids for ids, _ in source.blocks()])
    true = nearest(source.blocks_of(passing), queries, 10)[1]
    found = index.search(queries, 20, wanted)[1]
    assert np.isin(found[found >= 0], passing).all()
    return float(np.mean([len(set(a[:10]) & set(b)) for a, b in zip(found, true, strict=True)])) / 10


def until_indexed(server: Server, catalog: Catalog, folder: Path, queries: np.ndarray) -> MilvusIndex:
    """By one command after another, until the server is searched; in the catalog meanwhile nothing is missed."""
    deadline = time.monotonic() + PATIENCE
    while not isinstance(index := MilvusEngine(server.address).open(catalog, folder).get(quiet), MilvusIndex):
        assert recall(index, catalog, queries[:10]) == 1
        assert time.monotonic() < deadline
        time.sleep(1)
    return index


def test_a_server_that_is_killed_while_it_is_sent_to_finds_as_much_as_before(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = clustered(COUNT + MORE + 100, DIM)
    queries = unit(vectors[-100:])
    facts = {"dim": str(DIM), "generation": "0", "encoder_sha256": "0" * 64, "checked": "2026-01-01"}
    catalog = Catalog.create(tmp_path / "catalog.sqlite", facts)
    add(catalog, vectors[:COUNT], 0)
    engine = MilvusEngine(server.address).open(catalog, tmp_path)
    index = engine.get(quiet, tidy=True)
    assert isinstance(index, MilvusIndex)
    folders = Filter(folders=("1", "2", "3", "4", "5"), until=date(1970, 1, 20))
    assert recall(index, catalog, queries) >= 0.99
    assert recall(index, catalog, queries, folders) >= 0.95  # in the server
    assert recall(index, catalog, queries, Filter(folders=("3",))) == 1  # few are compared, each
    measured = engine.measured()
    assert measured is not None
    assert measured.recall >= 0.99

    # As after a restart in the middle of a compaction: it searches, but not yet by its index.
    client, collection = engine.server._connected(), engine._state()[1].collection
    client.release_collection(collection)
    client.drop_index(collection, "vector")
    index_parameters = client.prepare_index_params()
    index_parameters.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 200})
    client.create_index(collection, index_parameters, sync=False)
    client.load_collection(collection)
    index = until_indexed(server, catalog, tmp_path, queries)
    assert engine.server.without_index(collection) == 0
    assert recall(index, catalog, queries) >= 0.99

    # Killed when it has the first of two parts of what is new.
    with catalog.writing() as connection:
        connection.execute("DELETE FROM images WHERE id % 10 = 1")
    add(catalog, vectors[COUNT : COUNT + MORE], COUNT)
    with caplog.at_level(logging.CRITICAL):
        index = engine.get(lambda step, done, total: server.kill())
    assert isinstance(index, CatalogScan)
    assert recall(index, catalog, queries[:10]) == 1

    server.start()
    until_it_answers(server)
    index = until_indexed(server, catalog, tmp_path, queries)
    assert recall(index, catalog, queries) >= 0.99
    assert recall(index, catalog, queries, folders) >= 0.95
    again = MilvusEngine(server.address).open(catalog, tmp_path)
    assert again._state()[1].collection == collection  # it was gone on with, not filled anew
    again.forget()
    assert not again.server._connected().list_collections()
