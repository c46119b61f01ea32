"""Milvus: what is half filled, somebody else's, out of date or away, tried with milvus-lite, and with a server.

The server is that of the PyPI package `milvus` (2.3.5), where `MILVUS_PYTHON` names a Python that has it: see
`benchmarks/milvus.py`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer import Collection, Encoder, Query
from indexer.search.engines import engine_choice, milvus_engine, milvus_server, trusted_addresses
from indexer.search.engines.catalog_scan import CatalogScan
from indexer.search.engines.milvus_engine import Kept, MilvusIndex, OpenedMilvus
from indexer.search.engines.milvus_server import MilvusServer
from indexer.store import image_writes
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter, among
from indexer.store.meta import Meta
from indexer.store.vectors import unit
from massl.core.errors import MasslError
from tests.indexer.search.engines.catalogs import VECTORS, add, catalog_of, check, quiet
from tests.indexer.search.engines.standalone import Server

pytest.importorskip("milvus_lite", reason="needs milvus-lite")


STANDALONE = pytest.param(
    "standalone",
    marks=pytest.mark.skipif("MILVUS_PYTHON" not in os.environ, reason="needs MILVUS_PYTHON, with milvus==2.3.5"),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in processes of its own."""
    started = Server(os.environ["MILVUS_PYTHON"], tmp_path_factory.mktemp("standalone"))
    yield started
    started.kill()


@pytest.fixture(scope="module", params=["lite", STANDALONE])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> MilvusServer:
    """One for all tests, as it takes a moment to start."""
    if request.param == "lite":
        return MilvusServer(str(tmp_path_factory.mktemp("milvus") / "vectors.db"))
    return MilvusServer(request.getfixturevalue("running").address)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """300 images."""
    return catalog_of(tmp_path, 300)


@pytest.fixture
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of settings in which no address stands yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.delenv(trusted_addresses.VARIABLE, raising=False)
    return tmp_path / "own"


def opened(catalog: Catalog, server: MilvusServer) -> OpenedMilvus:
    """As by a process that begins."""
    return OpenedMilvus(catalog, catalog.path.parent, server)


def kept(catalog: Catalog) -> Kept:
    return Kept.of(catalog.meta().engine_kept)


def steps_of(engine: OpenedMilvus, tidy: bool = False) -> set[str]:
    """What it did to be ready."""
    seen: set[str] = set()
    engine.get(lambda step, done, total: seen.add(step), tidy)
    return seen


def test_a_second_process_uses_what_the_first_one_filled(catalog: Catalog, server: MilvusServer) -> None:
    assert steps_of(opened(catalog, server)) - {"indexing", "measuring"} == {"adding"}  # a server's graph is measured
    assert steps_of(opened(catalog, server)) == set()
    add(catalog, range(300, 310))
    assert server.count(kept(catalog).collection) == 300
    assert isinstance(check(catalog, opened(catalog, server)), MilvusIndex)
    assert server.count(kept(catalog).collection) == 310


def test_a_server_that_is_too_old_is_refused_by_its_version(
    server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.check()
    monkeypatch.setattr(milvus_server, "OLDEST", (9, 1))
    if server.is_lite:  # which has no such version, and is as new as its package
        server.check()
    else:
        with pytest.raises(MasslError, match=r"^Milvus at .* is version v?2\.\S+; massl needs 9\.1 or newer$"):
            server.check()


class Killed(BaseException):
    """What a process doesn't live to see."""


@pytest.mark.parametrize("moment", ["create", "write", "prepare", "seal", "take"])
@pytest.mark.parametrize("filled", [False, True])
def test_a_kill_at_any_moment_leaves_one_collection_that_is_whole_again(
    catalog: Catalog, tmp_path: Path, server: MilvusServer, monkeypatch: pytest.MonkeyPatch, moment: str, filled: bool
) -> None:
    before = set(server._connected().list_collections())
    if filled:
        opened(catalog, server).get(quiet)
        add(catalog, range(300, 310))
        with catalog.writing() as connection:
            connection.execute("DELETE FROM images WHERE id = 3")
    with monkeypatch.context() as patch:
        owner, name = (milvus_engine.index_state, "take") if moment == "take" else (MilvusServer, moment)
        whole = getattr(owner, name)

        def killed(*given: object) -> None:
            if moment in ("write", "seal"):
                whole(*given)
            raise Killed

        patch.setattr(owner, name, killed)
        try:
            opened(catalog, server).get(quiet)
        except Killed:
            pass
        else:
            assert filled
            assert moment in ("create", "prepare")  # which nothing asks for that is filled
    assert isinstance(check(catalog, opened(catalog, server)), MilvusIndex)
    assert len(set(server._connected().list_collections()) - before) == 1
    assert steps_of(opened(catalog, server)) == set()


@pytest.mark.parametrize("loss", ["rows", "stamp", "all", "stamp of another"])
def test_what_the_server_lost_is_filled_again(
    catalog: Catalog, server: MilvusServer, loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened(catalog, server).get(quiet)
    name = kept(catalog).collection
    if loss == "rows":
        server.delete(name, [1, 2])
    elif loss == "stamp":
        server.delete(name, [-1])
    elif loss == "all":
        server.drop(name)
    else:
        server.seal(name, catalog.meta().dim, {"stamp": "x"})
    assert isinstance(check(catalog, opened(catalog, server)), MilvusIndex)
    others = loss in ("stamp", "stamp of another")
    assert (kept(catalog).collection != name) == others
    assert ("written to by another index" in caplog.text) == others
    if others:  # nothing of somebody else's is removed
        assert server.count(name) >= 299


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_name_that_somebody_took_for_a_collection_of_another_form_is_left_to_them(
    catalog: Catalog, server: MilvusServer, dynamic: bool, caplog: pytest.LogCaptureFixture
) -> None:
    from pymilvus import DataType

    check(catalog, opened(catalog, server))
    name, client = kept(catalog).collection, server._connected()
    client.drop_collection(name)
    schema = client.create_schema(enable_dynamic_field=dynamic)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index)
    client.insert(name, [{"id": 1, "vector": [0.5] * 8}])
    assert isinstance(check(catalog, opened(catalog, server)), MilvusIndex)
    assert kept(catalog).collection != name
    assert caplog.text.count("it stays as it is") == 1
    assert client.query(name, filter="id >= 0", output_fields=["id"], consistency_level="Strong") == [{"id": 1}]
    client.drop_collection(name)


def test_two_copies_of_a_catalog_don_t_write_to_one_collection(
    catalog: Catalog, server: MilvusServer, tmp_path: Path
) -> None:
    opened(catalog, server).get(quiet)
    name = kept(catalog).collection
    catalog.close()
    (tmp_path / "copy").mkdir()
    shutil.copy(catalog.path, tmp_path / "copy")
    copy = Catalog.open(tmp_path / "copy" / "catalog.sqlite")
    add(copy, range(300, 320))
    check(copy, opened(copy, server))
    assert kept(copy).collection == name
    check(catalog, opened(catalog, server))
    check(copy, opened(copy, server))
    assert kept(catalog).collection != name
    assert (len(opened(catalog, server).get(quiet)), len(opened(copy, server).get(quiet))) == (300, 320)


def test_another_encoder_s_vectors_take_the_place_of_the_first_ones(catalog: Catalog, server: MilvusServer) -> None:
    opened(catalog, server).get(quiet)
    before = set(server._connected().list_collections())
    image_writes.forget_embeddings(catalog, [Meta.encoder_sha256.to("1" * 64)])
    with catalog.writing() as connection:
        connection.execute("UPDATE images SET embedding = ? WHERE id < 100", [VECTORS[-1].tobytes()])
    index = opened(catalog, server).get(quiet)
    assert len(index) == 99
    assert set(server._connected().list_collections()) == before


def test_filters_inside_the_engine_find_what_filters_by_ids_find(
    catalog: Catalog, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where many images pass, folders and dates are asked for in the engine's own words, if those are up to date."""
    engine = opened(catalog, server)
    engine.get(quiet, tidy=True)
    monkeypatch.setattr(milvus_engine, "FEW", 0)
    monkeypatch.setattr(milvus_engine, "COMPARED", 0)
    asked: list[str] = []
    search = MilvusServer.search
    monkeypatch.setattr(MilvusServer, "search", lambda self, *given: asked.append(given[3]) or search(self, *given))
    middle = 150 * 60 * 10**9

    class Afternoon(Filter):
        """What no test of days can say: half of what there is."""

        def times(self) -> tuple[int, int]:
            return middle, 2**62

    for wanted in (Filter(folders=("3_%",)), Afternoon(folders=("3_%", "5_%")), Afternoon(since=None)):
        index = engine.get(quiet)
        ids = index.search(unit(VECTORS[:2]), 300, wanted)[1]
        where, values = wanted.where()
        passing = [row[0] for row in catalog.read(f"SELECT id FROM images WHERE {where} ORDER BY id", values)]
        for found in ids:
            np.testing.assert_array_equal(np.sort(found[found >= 0]), passing)
    assert not any("id in" in condition for condition in asked)

    # Renamed folders: ids at first, the engine's own words again after the update.
    asked.clear()
    with catalog.writing() as connection:
        connection.execute("UPDATE images SET path = CAST('new/' || id AS BLOB) WHERE id % 2")
    catalog.set_meta(Meta.moves.to(1))
    wanted = Filter(folders=("new",))
    passing = among(catalog, wanted)
    assert passing is not None
    for tidy in (False, True):
        assert engine.is_current() is False
        found = engine.get(quiet, tidy).search(unit(VECTORS[:1]), 300, wanted)[1][0]
        np.testing.assert_array_equal(np.sort(found[found >= 0]), passing)
    assert ["id in" in condition for condition in asked] == [True, False]
    assert engine.is_current()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_server_that_is_away_costs_speed_alone(
    catalog: Catalog, nobody: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(milvus_server, "_CONNECTING", 0.2)
    engine = opened(catalog, MilvusServer(nobody))
    for _ in range(3):
        assert isinstance(check(catalog, engine), CatalogScan)
    assert len(caplog.records) == 1  # and is said once
    assert f"Milvus at {nobody} can't be asked" in caplog.records[0].message
    assert "every image in the catalog is compared" in caplog.records[0].message
    assert "at present every picture is compared" in engine.how()
    monkeypatch.setattr("indexer.search.engines.catalog_scan.MOST", 100)
    with pytest.raises(MasslError, match=r"can't be asked: .*; 300 vectors are too many to compare"):
        engine.get(quiet).search(unit(VECTORS[:1]), 5)


def test_a_server_that_goes_in_the_middle_of_a_search_is_asked_again_later(
    catalog: Catalog, server: MilvusServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = opened(catalog, server)
    index = engine.get(quiet)
    wanted = index.search(unit(VECTORS[:3]), 5)[1]
    name = kept(catalog).collection
    server.drop(name)
    np.testing.assert_array_equal(index.search(unit(VECTORS[:3]), 5)[1], wanted)
    assert "can't be asked" in caplog.text
    assert isinstance(engine.get(quiet), CatalogScan)
    monkeypatch.setattr(milvus_engine, "_PATIENCE", 0.0)
    engine._away_until = 0.0
    assert isinstance(engine.get(quiet), MilvusIndex)
    assert server.count(name) == 300


def test_more_results_than_a_server_gives_come_from_the_catalog(
    catalog: Catalog, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_engine, "MOST_RESULTS", 50)
    scores, ids = opened(catalog, server).get(quiet).search(unit(VECTORS[:2]), 200)
    assert ids.shape == (2, 200)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", "say where Milvus is"),
        ("vectors", "neither http://HOST:PORT of a server nor a .db file"),
        ("ftp://host", "no address of a server"),
        ("http://", "no address of a server"),
        ("http://host:port", "no address of a server"),
        ("http://ada:secret@host:19530", "leave the password out of the address"),
    ],
)
def test_an_address_that_is_none_is_a_sentence_without_a_password(address: str, why: str) -> None:
    with pytest.raises(MasslError, match=why) as caught:
        milvus_engine.engine(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"collection": "photos"}', '{"images": "1"}', '{"x": 1}'])
def test_what_a_catalog_says_of_a_collection_that_is_not_ours_leads_to_none(text: str) -> None:
    assert Kept.of(text) == Kept()


def test_an_address_that_a_catalog_brings_along_is_not_asked(
    photos: Path, encoder: Encoder, own_settings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else's catalog would have the embeddings of one's own pictures sent elsewhere."""
    collection = Collection.create(photos, encoder)
    collection.update()
    query = [Query.of_file(sorted(photos.glob("flag/*"))[0])]
    wanted = [result.path for result in collection.search(query)]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        collection.catalog.set_meta(Meta.engine.to("milvus"), Meta.engine_address.to(address))
        assert [result.path for result in Collection.open(photos).search(query)] == wanted
        with pytest.raises(BlockingIOError):
            listening.accept()
        with pytest.MonkeyPatch.context() as patch:  # unless this user allows it
            patch.setenv(trusted_addresses.VARIABLE, address)
            assert trusted_addresses.is_trusted(address)
    assert f"the index names a search engine at {address}, which may be somebody else's choice" in caplog.text
    assert list(own_settings.rglob("*")) == []


def test_an_engine_that_this_version_does_not_have_costs_speed_alone(
    collection: Collection, own_settings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collection.catalog.set_meta(Meta.engine.to("other"))
    assert len(Collection.open(collection.root).search([Query(image=1)], 5)) == 5
    assert f"there is no search engine 'other'; there are {', '.join(engine_choice.names())}" in caplog.text


def test_a_collection_changes_its_engine_there_and_back(
    collection: Collection, server: MilvusServer, own_settings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        query = [Query(image=1)]
        wanted = [(result.path, round(result.score, 5)) for result in collection.search(query)]
        before = set(server._connected().list_collections())
        collection.searcher.use_engine("milvus", server.address)
        assert json.loads(trusted_addresses.file().read_text()) == [server.address]
        assert [(result.path, round(result.score, 5)) for result in collection.search(query)] == wanted
        measured = collection.searcher.measured()
        assert measured is not None
        assert measured.engine == "milvus"
        assert collection.searcher.how() == f"by Milvus at {server.address}"
        (made,) = set(server._connected().list_collections()) - before
        # One that is open already follows, whichever engine it began with.
        other = Collection.open(collection.root)
        assert [(result.path, round(result.score, 5)) for result in other.search(query)] == wanted
        collection.searcher.use_engine("faiss")
        assert made not in server._connected().list_collections()
        assert [(result.path, round(result.score, 5)) for result in other.search(query)] == wanted
        assert other.searcher.how() == "every picture is compared"
    assert caplog.text == ""
    assert engine_choice.names()[0] == "faiss"
    assert "milvus" in engine_choice.names()


def test_the_catalog_is_searched_while_the_server_has_no_index_of_what_it_was_sent(
    catalog: Catalog, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(catalog, server)
    assert isinstance(engine.get(quiet), MilvusIndex)
    missing = 300
    monkeypatch.setattr(MilvusServer, "without_index", lambda self, name: missing)

    def restarted() -> OpenedMilvus:
        return opened(catalog, server)

    engine = restarted()
    assert isinstance(check(catalog, engine), CatalogScan)
    assert "still making its index" in engine.how()
    monkeypatch.setattr(milvus_engine, "MOST", 200)  # too many to compare
    assert isinstance(restarted().get(quiet), MilvusIndex)
    monkeypatch.undo()
    monkeypatch.setattr(MilvusServer, "without_index", lambda self, name: missing)
    steps: list[int] = []

    def built(step: str, done: int, total: int) -> None:
        nonlocal missing
        steps.append(done)
        missing -= 150

    assert isinstance(restarted().get(built, tidy=True), MilvusIndex)  # a command that has the time waits
    assert steps == [0, 150]
    assert isinstance(check(catalog, engine), MilvusIndex)
    assert "still" not in engine.how()
    missing = 300
    assert isinstance(engine.get(quiet), MilvusIndex)  # not asked at each search
    monkeypatch.setattr(milvus_engine.time, "monotonic", lambda now=time.monotonic: now() + 100)
    assert isinstance(engine.get(quiet), CatalogScan)  # but a restart that nobody noticed is, a minute later


def test_a_collection_is_ready_while_the_server_still_merges_what_it_has_indexed(
    catalog: Catalog, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([(100, 200), (300, 250)])  # of 300: indexed, and to be indexed anew as their parts were merged

    def described(self: MilvusServer, name: str) -> dict[str, object]:
        indexed, pending = next(told)
        return {"indexed_rows": indexed, "pending_index_rows": pending, "state": "InProgress"}

    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(MilvusServer, "_index", described)
        patch.setattr(MilvusServer, "wait_for_index", lambda self, name, count, few, preparing: steps.append(count))
        patch.setattr(milvus_server.time, "sleep", lambda seconds: None)
        index = opened(catalog, server).get(
            lambda step, done, total: steps.append(done) if step == "indexing" else None
        )
    assert isinstance(index, MilvusIndex)
    assert steps == [100, 300]  # it waited once, and then for what is searched


def test_several_that_search_while_images_come_send_each_change_once(catalog: Catalog, server: MilvusServer) -> None:
    opened(catalog, server).get(quiet)
    name, found = kept(catalog).collection, []

    def search() -> None:
        own = Catalog.open(catalog.path)
        index = opened(own, server).get(quiet)
        found.append((type(index), len(index)))
        own.close()

    add(catalog, range(300, 400))
    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(MilvusIndex, 400)] * 4
    assert (kept(catalog).collection, server.count(name)) == (name, 400)


def test_a_catalog_that_can_only_be_read_is_searched_in_the_server_while_nothing_changed(
    catalog: Catalog, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(catalog, server).get(quiet)
    reader = Catalog.open(catalog.path)
    monkeypatch.setattr(reader, "can_be_written", lambda: False)
    assert isinstance(check(reader, opened(reader, server)), MilvusIndex)
    add(catalog, range(300, 310))
    assert isinstance(check(reader, opened(reader, server)), CatalogScan)
    assert server.count(kept(catalog).collection) == 300
