"""An index in a file: what changed since it was built, files that are damaged or replaced."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.search.engines import index_file
from indexer.search.engines.engine_selection import Ladder
from indexer.search.engines.faiss_engine import Exact
from indexer.search.engines.index_file import IndexFile
from indexer.search.engines.interface import IndexKind, Measured, Preparing, VectorIndex
from indexer.store.catalog import Catalog
from indexer.store.meta import Meta
from indexer.store.vectors import VectorSource, unit
from tests.indexer.former import write_as_format
from tests.indexer.search.engines.catalogs import DIM, VECTORS, add, catalog_of, check, quiet
from tests.indexer.vectors import SMALL_STEPS


def test_an_index_of_before_there_were_other_engines_is_still_used(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, 300)
    IndexFile(catalog, tmp_path, SMALL_STEPS).get(quiet)
    kept = json.loads(catalog.meta().vectors_kept)
    catalog.set_meta(("vectors_file", kept["file"]), ("vectors_sha256", kept["sha256"]))
    catalog.forget_meta(Meta.vectors_kept)
    built: list[tuple[str, int, int]] = []
    IndexFile(catalog, tmp_path, SMALL_STEPS).get(lambda *step: built.append(step))
    assert not built


@pytest.mark.parametrize(
    "kept",
    [
        '{"file": "../a", "sha256": ""}',
        "[",
        '{"file": "vectors-0a.faiss"}',
        "3",
        "[" * 9999,
        '{"large": 3}',
        '{"large": {"file": "vectors-0123456789abcdef.faiss", "sha256": ""}, "later": {"file": "../../a.faiss"}}',
    ],
)
def test_a_catalog_that_names_another_file_leads_to_none(tmp_path: Path, kept: str) -> None:
    catalog = catalog_of(tmp_path, 30)
    IndexFile(catalog, tmp_path, SMALL_STEPS).get(quiet)
    catalog.set_meta(Meta.vectors_kept.to(kept))
    again = IndexFile(catalog, tmp_path, SMALL_STEPS)
    assert (again.is_current(), again.measured(), again.how()) == (False, None, "")
    check(catalog, again)


def mapped(index: faiss.Index, ids: np.ndarray, dim: int = DIM) -> faiss.Index:
    stored = faiss.IndexIDMap(index)
    index.this.disown()
    stored.own_fields = True
    stored.add_with_ids(np.ascontiguousarray(np.resize(unit(VECTORS[: len(ids)]), (len(ids), dim))), ids)
    return stored


def numbers_of(dim: int = DIM) -> faiss.Index:
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


IDS = np.arange(1, 31)


def cut_short() -> faiss.Index:
    stored = mapped(numbers_of(), IDS)
    faiss.copy_array_to_vector(IDS[:10], stored.id_map)
    return stored


@pytest.mark.parametrize("second", [False, True], ids=["the only file", "the second file"])
@pytest.mark.parametrize(
    "make",
    {
        "fewer numbers": lambda: mapped(numbers_of(8), IDS, 8),
        "more numbers": lambda: mapped(numbers_of(DIM + 4), IDS, DIM + 4),
        "below nought": lambda: mapped(numbers_of(), -IDS),
        "falling": lambda: mapped(numbers_of(), IDS[::-1].copy()),
        "the same": lambda: mapped(numbers_of(), np.full_like(IDS, 3)),
        "huge": lambda: mapped(numbers_of(), IDS + (1 << 40)),
        "no ids": numbers_of,
        "too few ids": cut_short,
        "empty": lambda: mapped(numbers_of(), IDS[:0]),
    }.items(),
    ids=lambda case: case[0],
)
def test_an_index_of_another_form_is_built_anew_whatever_its_checksum(
    tmp_path: Path, make: tuple[str, Callable[[], faiss.Index]], second: bool
) -> None:
    catalog = catalog_of(tmp_path, 30)
    IndexFile(catalog, tmp_path, SMALL_STEPS).get(quiet)
    kept = json.loads(catalog.meta().vectors_kept)
    data = faiss.serialize_index(make[1]()).tobytes()
    digest = hashlib.sha256(data).hexdigest()
    other = {"file": f"vectors-{digest[:16]}.faiss", "sha256": digest}
    (tmp_path / other["file"]).write_bytes(data)
    later = {**other, "measured": catalog.meta().vectors_measured, "noted": 0}
    catalog.set_meta(Meta.vectors_kept.to(json.dumps({"large": kept, "later": later} if second else other)))
    again = IndexFile(catalog, tmp_path, SMALL_STEPS)
    current = check(catalog, again)
    for image in (1, 30):
        scores, found = current.search(unit(VECTORS[image - 1 : image]), 3, np.array([image]))
        assert found[np.isfinite(scores)].tolist() == [image]


@pytest.mark.parametrize("count", [300, 6_500])
def test_changes_are_searched_without_building_anew(tmp_path: Path, count: int) -> None:
    catalog = catalog_of(tmp_path, count)
    index = IndexFile(catalog, tmp_path, SMALL_STEPS)
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
    check(catalog, IndexFile(catalog, tmp_path, SMALL_STEPS))  # another process
    assert list(tmp_path.glob("vectors-*.faiss")) == [file]
    index.get(quiet, tidy=True)  # at the end of a run it is built anew, while that takes no time
    assert list(tmp_path.glob("vectors-*.faiss")) != [file]
    check(catalog, index)
    assert list(catalog.read("SELECT count(*) FROM changes")) == [(0,)]


LARGE = Ladder(SMALL_STEPS.steps, large=4_000)


def test_what_changes_of_a_large_index_gets_a_second_file_until_that_is_a_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_bearable", lambda count: 100)
    catalog = catalog_of(tmp_path, 5_000)
    index = IndexFile(catalog, tmp_path, LARGE)
    check(catalog, index)
    (first,) = tmp_path.glob("vectors-*.faiss")
    built: list[int] = []
    added = 5_000
    for more in (150, 60, 150):  # the second time it is searched beside
        add(catalog, range(added, added + more))
        added += more
        with catalog.writing() as connection:  # of both files some are gone, another, and back again
            for least in (more // 10, 5_000):
                connection.execute("UPDATE images SET state = 'gone' WHERE id BETWEEN ? + 1 AND ? + 12", [least] * 2)
                connection.execute("UPDATE images SET state = 'ready' WHERE id = ? + 9", [least])
                connection.execute(
                    "UPDATE images SET embedding = ? WHERE id BETWEEN ? + 20 AND ? + 25",
                    [VECTORS[-1 - more].tobytes(), least, least],
                )
        before = set(tmp_path.glob("vectors-*.faiss"))
        check(catalog, index)
        check(catalog, IndexFile(catalog, tmp_path, LARGE))  # another process
        assert first in tmp_path.glob("vectors-*.faiss")
        built.append(len(set(tmp_path.glob("vectors-*.faiss")) - before))
        assert len(list(tmp_path.glob("vectors-*.faiss"))) == 2
        index.get(quiet, tidy=True)
    assert built == [1, 0, 1]
    assert index.is_current()
    assert IndexFile(catalog, tmp_path, LARGE).is_current()
    add(catalog, range(added, added + 300))  # now it is more than a tenth
    check(catalog, index)
    assert first not in tmp_path.glob("vectors-*.faiss")
    assert len(list(tmp_path.glob("vectors-*.faiss"))) == 1
    assert list(catalog.read("SELECT count(*) FROM changes")) == [(0,)]


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_damaged_file_of_two_has_all_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    monkeypatch.setattr(index_file, "_bearable", lambda count: 100)
    catalog = catalog_of(tmp_path, 4_000)
    index = IndexFile(catalog, tmp_path, LARGE)
    index.get(quiet)
    (first,) = tmp_path.glob("vectors-*.faiss")
    add(catalog, range(4_000, 4_200))
    index.get(quiet)
    (second,) = set(tmp_path.glob("vectors-*.faiss")) - {first}
    damaged = first if which == "first" else second
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    check(catalog, IndexFile(catalog, tmp_path, LARGE))
    (only,) = tmp_path.glob("vectors-*.faiss")
    assert only not in (first, second)


def test_what_can_not_be_written_of_a_second_file_is_searched_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_bearable", lambda count: 100)
    catalog = catalog_of(tmp_path, 4_000)
    index = IndexFile(catalog, tmp_path, LARGE)
    index.get(quiet)
    files = list(tmp_path.glob("vectors-*.faiss"))

    def full(self: Exact, index: VectorIndex, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Exact, "write", full)
    add(catalog, range(4_000, 4_200))
    check(catalog, index)
    built: list[str] = []
    add(catalog, range(4_200, 4_210))
    index.get(lambda step, done, total: built.append(step))
    assert not built  # not tried again for every picture
    assert list(tmp_path.glob("vectors-*.faiss")) == files
    check(catalog, index)


def test_an_index_that_another_process_overtook_is_given_up_for_the_newer(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, 300)

    class Slow(Ladder):
        """While it builds another process writes more images, and its own index of them."""

        def build(self, source: VectorSource, preparing: Preparing) -> tuple[IndexKind, VectorIndex, Measured]:
            built = super().build(source, preparing)
            if len(source) == 300:
                other = Catalog.open(tmp_path / "catalog.sqlite")
                add(other, range(300, 320))
                check(other, IndexFile(other, tmp_path, SMALL_STEPS))
                other.close()
            return built

    index = IndexFile(catalog, tmp_path, Slow(SMALL_STEPS.steps, SMALL_STEPS.floor))
    assert len(index.get(quiet)) == 320
    check(catalog, index)
    check(catalog, IndexFile(catalog, tmp_path, SMALL_STEPS))
    assert len(list(tmp_path.glob("vectors-*.faiss"))) == 1


@pytest.mark.parametrize(
    ("count", "damage"),
    [(300, "flip"), (300, "gone"), (4_500, "flip"), (4_500, "empty"), (6_500, "flip"), (6_500, "cut")],
)
def test_a_damaged_file_of_any_engine_is_noticed_and_rebuilt(tmp_path: Path, count: int, damage: str) -> None:
    catalog = catalog_of(tmp_path, count)
    name = IndexFile(catalog, tmp_path, SMALL_STEPS).get(quiet).measured.engine
    assert name == {300: "exact", 4_500: "fast scan", 6_500: "cells"}[count]
    (file,) = tmp_path.glob("vectors-*.faiss")
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 3] ^= 4
    file.unlink() if damage == "gone" else file.write_bytes({"flip": data, "cut": data[:-9], "empty": b""}[damage])
    built = []
    IndexFile(catalog, tmp_path, SMALL_STEPS).get(lambda *step: built.append(step))
    assert built
    check(catalog, IndexFile(catalog, tmp_path, SMALL_STEPS))
    built.clear()
    IndexFile(catalog, tmp_path, SMALL_STEPS).get(lambda *step: built.append(step))
    assert not built


def test_a_mapped_index_stays_right_while_its_file_is_replaced(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, 4_500)
    reader = IndexFile(catalog, tmp_path, SMALL_STEPS)
    held = reader.get(quiet)
    (before,) = tmp_path.glob("vectors-*.faiss")
    wanted = held.search(unit(VECTORS[:10]), 10)
    writer = IndexFile(catalog, tmp_path, SMALL_STEPS)
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

    index = IndexFile(catalog, tmp_path, Ladder(((0, Full()),)))
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
    check(catalog_of(tmp_path, 300), IndexFile(Catalog(tmp_path / "catalog.sqlite"), tmp_path, SMALL_STEPS))
    assert len(list(tmp_path.glob("vectors-*.faiss"))) == 1


def test_an_older_file_that_somebody_has_mapped_is_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = catalog_of(tmp_path, 300)
    index = IndexFile(catalog, tmp_path, SMALL_STEPS)
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
    assert IndexFile(catalog, tmp_path, SMALL_STEPS).is_current()
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
    check(catalog, IndexFile(catalog, tmp_path, SMALL_STEPS))
    built: list[tuple[str, int, int]] = []
    IndexFile(catalog, tmp_path, SMALL_STEPS).get(lambda *step: built.append(step))
    assert not built


def test_a_catalog_that_notes_no_changes_is_brought_up_to_date(tmp_path: Path) -> None:
    catalog_of(tmp_path, 50).close()
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)) as old:
        facts = [("vectors_file", "vectors-0.faiss"), ("vectors_generation", "0")]
        old.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", facts)
    write_as_format(tmp_path / "catalog.sqlite", 2)
    catalog = Catalog.open(tmp_path / "catalog.sqlite")
    index = IndexFile(catalog, tmp_path, SMALL_STEPS)
    check(catalog, index)
    add(catalog, range(50, 60))
    check(catalog, index)
