"""What is said of a disk that refuses."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from indexer.store.catalog import cannot_write as catalog_cannot_write
from massl.core.disk_errors import cannot_write


@pytest.mark.parametrize(
    ("number", "advice", "not_advice"),
    [
        (errno.ENOSPC, "free some space, or choose another --out", "connection"),
        (errno.EDQUOT, "your disk quota", "connection"),
        (errno.EROFS, "mount the disk for writing", "free some space"),
        (errno.EACCES, "permission to write", "free some space"),
        (errno.EIO, "and its connection", "free some space"),
        (errno.EMFILE, "ulimit -n", "--out"),
        (errno.ENAMETOOLONG, "shorter name", "free some space"),
        (errno.ESTALE, "connect the drive again", "free some space"),
        (errno.ENOEXEC, "choose another --out", "free some space"),
    ],
)
def test_each_fault_gets_its_own_advice(number: int, advice: str, not_advice: str) -> None:
    said = str(cannot_write(Path("a.csv"), OSError(number, os.strerror(number)), "choose another --out"))
    assert said.startswith(f"a.csv can't be written ({os.strerror(number).lower()}); ")
    assert advice in said
    assert not_advice not in said


def test_a_failing_disk_is_not_called_full(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    said = str(catalog_cannot_write(tmp_path, error))
    assert "and its connection" in said
    assert "free some space" not in said
