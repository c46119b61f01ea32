"""A disk without any space left: what is stored can be read, and is written again once there is some."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexer.store import connecting
from indexer.store.catalog import Catalog
from indexer.store.connecting import beside
from indexer.store.meta import Meta
from massl.core.errors import MasslError
from tests.massl.conftest import full_disk


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """One that nobody has open."""
    found = Catalog.create(tmp_path / "catalog.sqlite", {})
    found.set_meta(Meta.dim.to(384))
    found.close()
    return found


def test_a_catalog_on_a_full_disk_is_read_and_not_written(catalog: Catalog) -> None:
    with full_disk(0):
        found = Catalog.open(catalog.path, whole=True)
        assert found.meta().dim == 384
        with found.snapshot():
            assert found.meta().dim == 384
        with found.reading_from_threads() as read:
            assert read("SELECT value FROM meta WHERE key = ?", ["dim"]) == [("384",)]
        with pytest.raises(MasslError, match=r"can't be written \(no space left on device\); free some space"):
            found.set_meta(Meta.dim.to(385))


def test_another_error_of_the_disk_is_not_said_to_be_a_full_one(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = connecting.connect

    def failing(path: Path, opening: str, check_same_thread: bool = True) -> sqlite3.Connection:
        if opening:
            return real(path, opening, check_same_thread)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    monkeypatch.setattr(connecting, "connect", failing)
    found = Catalog.open(catalog.path, whole=True)
    assert found.meta().dim == 384
    with pytest.raises(MasslError, match=r"can't be written \(disk i/o error\); check the disk"):
        found.set_meta(Meta.dim.to(385))


def test_a_change_since_is_read_by_a_process_that_met_a_full_disk(catalog: Catalog) -> None:
    with full_disk(0):
        found = Catalog.open(catalog.path)
    other = Catalog.open(catalog.path)
    other.set_meta(Meta.dim.to(385))
    other.close()
    assert found.meta().dim == 385


def test_a_catalog_is_written_once_there_is_space(catalog: Catalog) -> None:
    with full_disk(0):
        found = Catalog.open(catalog.path)
    with catalog.path.with_name("filler").open("wb") as filler:  # the free space is another, as where some was made
        filler.write(bytes(1 << 20))
        os.fsync(filler.fileno())
    found.set_meta(Meta.dim.to(385))
    assert Catalog.open(catalog.path).meta().dim == 385


def test_what_is_not_in_the_file_itself_yet_is_not_passed_over(catalog: Catalog) -> None:
    log, shared = beside(catalog.path, "-wal"), beside(catalog.path, "-shm")
    with closing(sqlite3.connect(catalog.path, isolation_level=None)) as killed:
        killed.execute("PRAGMA journal_mode = WAL")
        killed.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('dim', '385')")
        written = log.read_bytes()
    log.write_bytes(written)  # as a process leaves it that was killed
    shared.unlink(missing_ok=True)
    with full_disk(0), pytest.raises(MasslError, match=r"free some space|check the disk"):
        Catalog.open(catalog.path).meta()
