"""What every search engine must do, whatever it keeps and wherever."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import Collection, Encoder, Query
from indexer.json_results import of_collection
from indexer.search.engines import milvus_engine
from indexer.search.engines.engine_selection import Ladder
from indexer.search.engines.faiss_engine import Exact, FastScan
from indexer.search.engines.interface import Engine
from indexer.store.filters import Filter, among
from indexer.store.labels import Labels
from indexer.store.vectors import unit
from massl.core.errors import MasslError
from tests.indexer.search.engines.catalogs import VECTORS, add, catalog_of, check, quiet
from tests.indexer.vectors import SMALL_STEPS, MatrixEngine, NumpyKind, clustered

LITE = importlib.util.find_spec("milvus_lite") is not None
ENGINES: dict[str, Callable[[Path], Engine]] = {
    "faiss": lambda folder: SMALL_STEPS,
    "numpy, in a file": lambda folder: Ladder(((0, NumpyKind()),)),
    "numpy": lambda folder: MatrixEngine(),
    "milvus": lambda folder: milvus_engine.engine(str(folder / "vectors.db")),
}
every_engine = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(name == "milvus" and not LITE, reason="needs pip install milvus-lite")
        )
        for name in ENGINES
    ],
)


@every_engine
def test_changes_are_searched_by_whoever_opens_the_engine(tmp_path: Path, name: str) -> None:
    catalog = catalog_of(tmp_path, 300)
    engine = ENGINES[name](tmp_path)
    opened = engine.open(catalog, tmp_path)
    check(catalog, opened)
    assert opened.is_current()
    assert opened.how()
    measured = opened.measured()
    assert measured is not None
    assert (measured.vectors, measured.recall) == (300, 1.0)
    add(catalog, range(300, 350))
    with catalog.writing() as connection:
        # Gone, replaced and back again, where the queries look.
        connection.execute("UPDATE images SET state = 'gone' WHERE id % 7 = 1")
        connection.execute("UPDATE images SET embedding = ? WHERE id % 7 = 2", [VECTORS[-1].tobytes()])
        connection.execute("UPDATE images SET state = 'ready' WHERE id < 20")
        connection.execute("DELETE FROM images WHERE id % 7 = 3")
    assert not opened.is_current()
    check(catalog, opened)
    opened.get(quiet, tidy=True)
    assert opened.is_current()
    check(catalog, engine.open(catalog, tmp_path))  # as another process, later


@every_engine
@settings(max_examples=8, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "hide", "show", "change", "delete", "tidy", "reopen"]), st.integers(0, 2**31)
        ),
        max_size=6,
    )
)
def test_any_sequence_of_changes_gives_what_the_catalog_holds(
    tmp_path_factory: pytest.TempPathFactory, name: str, steps: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    catalog = catalog_of(folder, 100)
    engine = ENGINES[name](folder)
    opened = engine.open(catalog, folder)
    statements = {
        "hide": "UPDATE images SET state = 'gone' WHERE id % 5 = ?",
        "show": "UPDATE images SET state = 'ready' WHERE id % 5 = ?",
        "change": f"UPDATE images SET embedding = x'{VECTORS[-2].tobytes().hex()}' WHERE id % 11 = ? AND id > 1",
        "delete": "DELETE FROM images WHERE id % 13 = ? AND id > 13",
    }
    done = 100
    for kind, number in steps:
        if kind == "add":
            add(catalog, range(done, done := done + 1 + number % 40))
        elif kind == "reopen":
            opened = engine.open(catalog, folder)
        elif kind == "tidy":
            opened.get(quiet, tidy=True)
        else:
            with catalog.writing() as connection:
                connection.execute(statements[kind], [number % 4])
        check(catalog, opened, share=0.0)


@every_engine
def test_filters_by_label_folder_date_and_ids_are_kept_to_the_letter(tmp_path: Path, name: str) -> None:
    catalog = catalog_of(tmp_path, 300)
    Labels(catalog).add('a "b" \\ % ä', [5, 6, 7], "me")
    index = ENGINES[name](tmp_path).open(catalog, tmp_path).get(quiet, tidy=True)
    day = datetime.fromtimestamp(0, UTC).astimezone().date()
    for wanted in (
        Filter(labels=('a "b" \\ % ä',)), Filter(folders=("3_%", "5_%")), Filter(folders=("3_%",), labelled=True),
        Filter(until=day), Filter(since=day, folders=("1_%",)), Filter(since=day + timedelta(0)),
    ):  # fmt: skip
        passing = among(catalog, wanted)
        assert passing is not None
        for given_as in (wanted, passing):
            scores, found = index.search(unit(VECTORS[:2]), 300, given_as)
            for row, ids in zip(scores, found, strict=True):
                np.testing.assert_array_equal(np.sort(ids[np.isfinite(row)]), passing)
                assert (np.diff(row[np.isfinite(row)]) <= 1e-6).all()
    assert index.search(unit(VECTORS[:2]), 9, np.empty(0, np.int64))[1].shape == (2, 0)
    assert index.search(unit(VECTORS[:2]), 0)[1].shape == (2, 0)


@every_engine
def test_a_collection_is_searched_by_any_engine_alike(photos: Path, encoder: Encoder, name: str) -> None:
    engine = ENGINES[name](photos.parent)
    collection = Collection.create(photos, encoder, engines=engine)
    collection.update()
    assert of_collection(collection)["search"]["recall"] == 1.0
    first = sorted(photos.glob("flag/*"))[0]
    query = [Query.of_file(first)]
    found = [(result.path, round(result.score, 5)) for result in collection.search(query, 24)]
    first.unlink()
    collection.update()
    again = Collection.open(photos, engines=engine)
    assert [(r.path, round(r.score, 5)) for r in again.search(query, 24)] == found[1:]
    assert len(again.search(query, 24, under="space")) == 6
    pairs = again.duplicates.find().groups
    # Another engine doesn't take what this one left for its own.
    usual = Collection.open(photos)
    assert [(r.path, round(r.score, 5)) for r in usual.search(query, 24)] == found[1:]
    assert usual.duplicates.find().groups == pairs


def test_exact_is_exact_whatever_the_engine_missed(collection: Collection) -> None:
    with collection.catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, hash, state, embedding) VALUES (?, 1, 1, ?, 'ready', ?)",
            [(b"more/%d" % row, b"%d" % row, row_.tobytes()) for row, row_ in enumerate(clustered(5_000, 384))],
        )

    class Blind(FastScan):
        efforts: tuple[int, ...] = (20,)

    blind = Collection.open(collection.root, engines=Ladder(((0, Exact()), (0, Blind())), floor=0.0))
    query = [Query(image=collection.catalog.read("SELECT max(id) FROM images").__next__()[0])]
    truth = [(r.path, round(r.score, 5)) for r in collection.search(query, 30)]
    assert collection.searcher.index().exact
    for file in collection.folder.glob("vectors-*"):
        file.unlink()
    exact = [(r.path, round(r.score, 5)) for r in blind.search(query, 30, exact=True)]
    assert not blind.searcher.index().exact
    assert exact == truth
    some = {(r.path, round(r.score, 5)) for r in blind.search(query, 30)}
    assert some < {(r.path, round(r.score, 5)) for r in collection.search(query, 5_000)}  # true scores, all the same
    only = blind.search(query, 30, exact=True, under="flag")
    assert len(only) == 6
    with pytest.raises(MasslError, match="no image lies below"):
        blind.search(query, exact=True, under="more/1")


def test_images_that_went_are_no_part_of_what_is_usual(photos: Path, encoder: Encoder) -> None:
    for folder in ("flag", "painting"):
        shutil.rmtree(photos / folder)
    collection = Collection.create(photos, encoder)
    collection.update()
    images = [image for image, _ in collection.images.ready()]
    with collection.catalog.writing() as connection:  # as an update under way does
        connection.execute("UPDATE images SET state = 'gone' WHERE id IN (?, ?, ?)", images[-3:])
    kinds = sorted(path.name for path in photos.iterdir() if path.name[0] != ".")
    apart, together = (collection.search([Query(image=images[0])], 9, under=under) for under in (kinds, ()))
    assert [vars(one) for one in apart] == [vars(one) for one in together]
