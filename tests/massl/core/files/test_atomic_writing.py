"""Files written whole or not at all: on full disks, on an interruption, under the longest names."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from massl.core.errors import MasslError
from massl.core.files.atomic_writing import (
    FORGOTTEN,
    check_output,
    remove_forgotten,
    remove_older,
    temporary,
    whole,
    write,
)
from tests.massl.conftest import full_disk


@pytest.mark.parametrize("flush", [True, False])
def test_a_file_is_replaced_once_all_of_it_is_written(tmp_path: Path, flush: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with whole(path, flush) as written:
        written.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_the_old_file_stays_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="too large"), full_disk(), whole(path) as written:
        written.write_bytes(b"n" * 1000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    def half() -> None:
        with whole(tmp_path / "file") as written:
            written.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole(tmp_path / "no" / "file") as written:
        written.write_text("new")


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "." * 254 + "x"])
def test_any_name_that_a_file_can_have_can_be_written(tmp_path: Path, name: str) -> None:
    with whole(tmp_path / name) as written:
        written.write_text("new")
    assert (tmp_path / name).read_text() == "new"


def test_two_who_write_one_file_at_once_each_write_all_of_theirs(tmp_path: Path) -> None:
    with whole(tmp_path / "file") as one, whole(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one"  # who came last


def test_older_files_are_removed_and_others_left(tmp_path: Path) -> None:
    for name in ("a-1", "a-2", "b-1"):
        (tmp_path / name).touch()
    (tmp_path / "a-3").mkdir()  # can't be removed
    remove_older(tmp_path / "a-2", "a-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2", "a-3", "b-1"]


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    with temporary(tmp_path) as one, temporary(tmp_path) as other:
        one.touch()
        other.touch()
        os.utime(other, (0, time.time() - FORGOTTEN - 1))
        remove_forgotten(tmp_path)
        assert list(tmp_path.iterdir()) == [one]


def test_a_link_goes_on_pointing_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    with whole(tmp_path / "link") as written:
        written.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"


def test_nothing_but_a_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="no ordinary file"), whole(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(IsADirectoryError), whole(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]


def test_what_is_no_file_is_written_to_straight(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, b"rows")
    assert os.read(reader, 10) == b"rows"
    os.close(reader)
    assert pipe.is_fifo()
    write(tmp_path / "file", b"rows")
    assert (tmp_path / "file").read_bytes() == b"rows"
    with pytest.raises(IsADirectoryError):
        write(tmp_path, b"rows")


def test_a_table_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"old")
    with pytest.raises(OSError, match="too large"), full_disk():
        write(tmp_path / "labels.csv", b"n" * 1000)
    assert (tmp_path / "labels.csv").read_bytes() == b"old"


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    write(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_an_output_may_not_take_the_place_of(tmp_path: Path) -> None:
    index = tmp_path / "index"
    (index / "thumbnails" / "256").mkdir(parents=True)
    for name in ("index/catalog.sqlite", "index/thumbnails/a.webp", "photo.JPG", "labels.csv"):
        (tmp_path / name).write_text("old")
    for name, reason in (
        ("index/catalog.sqlite", "is inside an index"),
        ("index/new.csv", "is inside an index"),
        ("index/thumbnails/new.csv", "is inside an index"),
        ("photo.JPG", "is a picture"),
        ("index", "is a folder"),
        ("nowhere/new.csv", "there is no folder"),
    ):
        with pytest.raises(MasslError, match=reason):
            check_output(tmp_path / name)
    with pytest.raises(MasslError, match="/dev/stdout"):
        check_output(Path("-"))
    for name in ("labels.csv", "new.jpg", "index/../labels.csv"):
        check_output(tmp_path / name)
    (tmp_path / "index" / "mine").mkdir()
    check_output(tmp_path / "index" / "mine" / "new.csv")  # of somebody who keeps an index in the folder of his work


def test_standard_output_into_a_file_adds_to_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("old\n")
    code = "from pathlib import Path; from massl.core.files.atomic_writing import write; "
    code += "write(Path('/dev/stdout'), b'new\\n')"
    with (tmp_path / "all.csv").open("r+") as out:  # not every program that sends it there appends
        out.seek(4)
        subprocess.run([sys.executable, "-c", f"print('first'); {code}; print('last')"], stdout=out, check=True)
    assert (tmp_path / "all.csv").read_text() == "old\nfirst\nnew\nlast\n"


def test_an_output_that_is_write_protected_stays(tmp_path: Path, bound: list[str]) -> None:
    (tmp_path / "labels.csv").write_text("old")
    (tmp_path / "labels.csv").chmod(0o400)
    code = "import sys; from pathlib import Path; from massl.core.files.atomic_writing import check_output; "
    code += "check_output(Path(sys.argv[1]))"
    command = [*bound, sys.executable, "-c", code, str(tmp_path / "labels.csv")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert "can't be written: permission denied" in ran.stderr
