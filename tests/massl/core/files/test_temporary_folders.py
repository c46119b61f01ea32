"""Temporary folders of processes that were killed are removed by the next one; nobody else's are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from massl.core.files.temporary_folders import TemporaryFolder

HOLD = """if True:
    import sys, time
    from massl.core.files.temporary_folders import TemporaryFolder
    folder = TemporaryFolder("test")
    print(folder.name, flush=True)
    time.sleep(60)
"""


def grown_old(folder: Path) -> None:
    long_ago = time.time() - 3_600
    os.utime(folder / "in-use.lock", (long_ago, long_ago))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_what_a_killed_process_left_is_removed_and_what_is_in_use_or_foreign_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout is not None
        held = Path(other.stdout.readline().strip())
        (held / "upload").write_bytes(b"a picture")
        grown_old(held)
        with TemporaryFolder("test") as own:
            assert held.is_dir()  # its process lives
            assert Path(own).is_dir()
        assert not Path(own).exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
    outside = tmp_path / "outside"
    for folder in (outside, tmp_path / "massl-without-lock", tmp_path / "massl-fresh"):
        folder.mkdir()
    for folder in (outside, tmp_path / "massl-fresh"):
        (folder / "in-use.lock").touch()
    grown_old(outside)
    (tmp_path / "massl-link").symlink_to(outside)
    linked = tmp_path / "massl-linked-lock"
    linked.mkdir()
    (linked / "in-use.lock").symlink_to(outside / "in-use.lock")
    stays = {path.name for path in tmp_path.iterdir()} - {held.name}
    with TemporaryFolder("test"):
        assert not held.exists()
    assert {path.name for path in tmp_path.iterdir()} == stays
    assert (outside / "in-use.lock").exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owner here")
def test_what_somebody_else_owns_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / "massl-theirs"
    theirs.mkdir()
    (theirs / "in-use.lock").touch()
    grown_old(theirs)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: theirs.stat().st_uid + 1)
        with TemporaryFolder("test"):
            assert theirs.exists()
    with TemporaryFolder("test"):
        assert not theirs.exists()
