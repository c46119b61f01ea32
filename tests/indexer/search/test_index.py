"""The index of a collection: what changed since it was built, files that are damaged or replaced, other engines."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import Collection, Encoder, Query
from indexer.json_results import of_collection
from indexer.search.engines.engine_selection import Ladder, Measured
from indexer.search.engines.faiss_engines import Exact, FastScan
from indexer.search.engines.interface import Engine, Preparing, VectorIndex
from indexer.search.index import CollectionIndex
from indexer.store.catalog import Catalog
from indexer.store.vectors import VectorSource, unit
from massl.core.errors import MasslError
from tests.indexer.former import write_as_format
from tests.indexer.vectors import SMALL_STEPS, NumpyEngine, clustered

DIM = 24
VECTORS = clustered(7_000, DIM)


def quiet(step: str, done: int, total: int) -> None: ...


def catalog_of(path: Path, count: int) -> Catalog:
    """A catalog of so many images."""
    catalog = Catalog.create(path / "catalog.sqlite", {"dim": str(DIM), "generation": "0"})
    add(catalog, range(count))
    return catalog


def add(catalog: Catalog, rows: range) -> None:
    with catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, state, embedding) VALUES (?, 1, 1, 'ready', ?)",
            [(b"%d" % row, VECTORS[row].tobytes()) for row in rows],
        )


def check(catalog: Catalog, index: CollectionIndex, queries: int = 20, share: float = 0.98) -> None:
    """The index finds what the catalog holds now, and nothing else."""
    rows = list(catalog.read("SELECT id, embedding FROM images WHERE +state = 'ready' AND embedding IS NOT NULL"))
    ids = np.array([row[0] for row in rows])
    vectors = np.stack([np.frombuffer(row[1], np.float16) for row in rows]).astype(np.float32)
    current = index.get(quiet)
    assert len(current) == len(ids)
    every = np.arange(1, ids.max() + 10)
    np.testing.assert_array_equal(every[current.holds(every)], np.sort(ids))
    asked = unit(VECTORS[:queries])
    _, found = current.search(asked, 20)
    assert np.isin(found, ids).all()
    true = ids[np.argsort(-(asked @ vectors.T), 1)[:, :10]]
    hits = [len(set(one) & set(other)) for one, other in zip(found.tolist(), true.tolist(), strict=True)]
    assert np.mean(hits) / 10 >= share


@pytest.mark.parametrize("count", [300, 6_500])
def test_changes_are_searched_without_building_anew(tmp_path: Path, count: int) -> None:
    catalog = catalog_of(tmp_path, count)
    index = CollectionIndex(catalog, tmp_path, SMALL_STEPS)
    check(catalog, index)
    (file,) = tmp_path.glob("vectors-*.faiss")
    add(catalog, range(count, count + 50))
    with catalog.writing() as connection:
        # Gone, replaced and back again, where the queries look.
        connection.execute("UPDATE images SET state = 'gone' WHERE id % 7 = 1 AND id < 300")
        connection.execute("UPDATE images SET embedding = ? WHERE id % 7 = 2 AND id < 300", [VECTORS[-1].tobytes()])
        connection.execute("UPDATE images SET state = 'ready' WHERE id < 20")
        connection.execute("DELETE FROM images WHERE id % 7 = 3 AND id < 300")
    check(catalog, index)
    check(catalog, CollectionIndex(catalog, tmp_path, SMALL_STEPS))  # another process
    assert list(tmp_path.glob("vectors-*.faiss")) == [file]
    index.get(quiet, tidy=True)  # at the end of a run it is built anew, while that takes no time
    assert list(tmp_path.glob("vectors-*.faiss")) != [file]
    check(catalog, index)
    assert list(catalog.read("SELECT count(*) FROM changes")) == [(0,)]


def test_an_index_that_another_process_overtook_is_given_up_for_the_newer(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, 300)

    class Slow(Ladder):
        """While it builds another process writes more images, and its own index of them."""

        def build(self, source: VectorSource, preparing: Preparing) -> tuple[Engine, VectorIndex, Measured]:
            built = super().build(source, preparing)
            if len(source) == 300:
                other = Catalog.open(tmp_path / "catalog.sqlite")
                add(other, range(300, 320))
                check(other, CollectionIndex(other, tmp_path, SMALL_STEPS))
                other.close()
            return built

    index = CollectionIndex(catalog, tmp_path, Slow(SMALL_STEPS.steps, SMALL_STEPS.floor))
    assert len(index.get(quiet)) == 320
    check(catalog, index)
    check(catalog, CollectionIndex(catalog, tmp_path, SMALL_STEPS))
    assert len(list(tmp_path.glob("vectors-*.faiss"))) == 1


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "hide", "show", "change", "delete", "tidy", "reopen"]), st.integers(0, 2**31)
        ),
        max_size=8,
    )
)
def test_any_sequence_of_changes_gives_what_the_catalog_holds(tmp_path_factory, steps: list[tuple[str, int]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    catalog = catalog_of(folder, 100)
    index = CollectionIndex(catalog, folder, SMALL_STEPS)
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
            index = CollectionIndex(catalog, folder, SMALL_STEPS)
        elif kind == "tidy":
            index.get(quiet, tidy=True)
        else:
            with catalog.writing() as connection:
                connection.execute(statements[kind], [number % 4])
        check(catalog, index, share=0.0)


@pytest.mark.parametrize(
    ("count", "damage"),
    [(300, "flip"), (300, "gone"), (4_500, "flip"), (4_500, "empty"), (6_500, "flip"), (6_500, "cut")],
)
def test_a_damaged_file_of_any_engine_is_noticed_and_rebuilt(tmp_path: Path, count: int, damage: str) -> None:
    catalog = catalog_of(tmp_path, count)
    name = CollectionIndex(catalog, tmp_path, SMALL_STEPS).get(quiet).measured.engine
    assert name == {300: "exact", 4_500: "fast scan", 6_500: "cells"}[count]
    (file,) = tmp_path.glob("vectors-*.faiss")
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 3] ^= 4
    file.unlink() if damage == "gone" else file.write_bytes({"flip": data, "cut": data[:-9], "empty": b""}[damage])
    built = []
    CollectionIndex(catalog, tmp_path, SMALL_STEPS).get(lambda *step: built.append(step))
    assert built
    check(catalog, CollectionIndex(catalog, tmp_path, SMALL_STEPS))
    built.clear()
    CollectionIndex(catalog, tmp_path, SMALL_STEPS).get(lambda *step: built.append(step))
    assert not built


def test_a_mapped_index_stays_right_while_its_file_is_replaced(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, 4_500)
    reader = CollectionIndex(catalog, tmp_path, SMALL_STEPS)
    held = reader.get(quiet)
    (before,) = tmp_path.glob("vectors-*.faiss")
    wanted = held.search(unit(VECTORS[:10]), 10)
    writer = CollectionIndex(catalog, tmp_path, SMALL_STEPS)
    add(catalog, range(4_500, 6_500))
    writer.get(quiet, tidy=True)
    assert not before.exists()
    for one, other in zip(wanted, held.search(unit(VECTORS[:10]), 10), strict=True):
        np.testing.assert_array_equal(one, other)
    check(catalog, reader)
    assert reader.get(quiet).measured.engine == "cells"


def test_a_folder_that_can_not_be_written_costs_the_file_alone(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, 500)

    class Full(Exact):
        def write(self, index, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    index = CollectionIndex(catalog, tmp_path, Ladder(((0, Full()),)))
    built = []
    index.get(lambda *step: built.append(step))
    assert built
    built.clear()
    add(catalog, range(500, 510))
    index.get(lambda *step: built.append(step))
    assert not built
    check(catalog, index)
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir() if "vectors" in path.name) == []


def test_the_file_is_kept_where_only_what_may_be_written_can_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def as_on_windows(file: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flush(file)

    monkeypatch.setattr(os, "fsync", as_on_windows)
    check(catalog_of(tmp_path, 300), CollectionIndex(Catalog(tmp_path / "catalog.sqlite"), tmp_path, SMALL_STEPS))
    assert len(list(tmp_path.glob("vectors-*.faiss"))) == 1


def test_an_older_file_that_somebody_has_mapped_is_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = catalog_of(tmp_path, 300)
    index = CollectionIndex(catalog, tmp_path, SMALL_STEPS)
    index.get(quiet)
    (old,) = tmp_path.glob("vectors-*.faiss")
    remove = Path.unlink

    def as_on_windows(path: Path, missing_ok: bool = False) -> None:
        if path == old:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", as_on_windows)
    add(catalog, range(300, 400))
    index.get(quiet, tidy=True)
    assert CollectionIndex(catalog, tmp_path, SMALL_STEPS).is_current()
    assert len(list(tmp_path.glob("vectors-*.faiss"))) == 2
    monkeypatch.undo()
    add(catalog, range(400, 500))
    index.get(quiet, tidy=True)
    assert len(list(tmp_path.glob("vectors-*.faiss"))) == 1


@pytest.mark.parametrize("count", [300, 4_500, 6_500])
def test_a_faiss_that_can_not_map_reads_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    read = faiss.read_index

    def without_mapping(path: str, flags: int = 0) -> object:
        if flags & faiss.IO_FLAG_MMAP_IFC:
            raise RuntimeError("Error: 'false' failed: Not implemented")
        return read(path, flags)

    monkeypatch.setattr(faiss, "read_index", without_mapping)
    catalog = catalog_of(tmp_path, count)
    check(catalog, CollectionIndex(catalog, tmp_path, SMALL_STEPS))
    built: list[tuple[str, int, int]] = []
    CollectionIndex(catalog, tmp_path, SMALL_STEPS).get(lambda *step: built.append(step))
    assert not built


def test_a_catalog_that_notes_no_changes_is_brought_up_to_date(tmp_path: Path) -> None:
    catalog_of(tmp_path, 50).close()
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)) as old:
        facts = [("vectors_file", "vectors-0.faiss"), ("vectors_generation", "0")]
        old.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", facts)
    write_as_format(tmp_path / "catalog.sqlite", 2)
    catalog = Catalog.open(tmp_path / "catalog.sqlite")
    index = CollectionIndex(catalog, tmp_path, SMALL_STEPS)
    check(catalog, index)
    add(catalog, range(50, 60))
    check(catalog, index)


# Through a collection -------------------------------------------------------------------------------------------------


def test_another_engine_takes_the_place_of_faiss(photos: Path, encoder: Encoder) -> None:
    collection = Collection.create(photos, encoder, engines=Ladder(((0, NumpyEngine()),)))
    collection.update()
    assert of_collection(collection)["search"]["engine"] == "numpy"
    first = sorted(photos.glob("flag/*"))[0]
    query = [Query.of_file(first)]
    found = [(result.path, round(result.score, 5)) for result in collection.search(query, 24)]
    first.unlink()
    collection.update()
    again = Collection.open(photos, engines=Ladder(((0, NumpyEngine()),)))
    assert [(r.path, round(r.score, 5)) for r in again.search(query, 24)] == found[1:]
    assert len(again.search(query, 24, under="space")) == 6
    # FAISS doesn't know its file, and builds its own.
    assert [(r.path, round(r.score, 5)) for r in Collection.open(photos).search(query, 24)] == found[1:]


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
