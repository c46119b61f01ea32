"""Names that hold what no terminal should obey, or no text at all: every command works, and shows them harmlessly."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from cli import terminal
from cli.label import current_user
from massl.core.printable import visible
from tests.forked import Forks
from tests.indexer.tiny import picture, write_encoder

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# All that is text in one, and what is none in another, as a name that can't be decoded goes other ways.
NAMES = [
    "\x1b]0;title\x07\x1b[31mred two\nlines \u202egpj.exe \x9b31m a'b\"c;$(x)".encode(),
    b"caf\xe9 \xff\x1b[31m",
]


@pytest.fixture(params=NAMES, ids=ascii)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Six pictures and a broken one, in a folder of this name and with it in their own names."""
    root = tmp_path / os.fsdecode(request.param)
    root.mkdir()
    for number in range(6):
        (root / f"{number}{os.fsdecode(request.param)}.bmp").write_bytes(picture(number))
    (root / f"{os.fsdecode(request.param)}.jpg").write_text("no picture")
    return root


def test_commands_take_every_name_and_print_nothing_that_is_obeyed(massl, folder: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "tiny.onnx", name="\x1b[31mred\u202e")
    first = next(path.name for path in folder.iterdir() if path.name.startswith("0"))
    told = [
        massl("index", folder, "--encoder", encoder, "--skipped", tmp_path / "skipped.csv"),
        massl("info", folder),
        massl("info", encoder),
        massl("search", folder, folder / first),
        massl("dupes", folder),
        massl("odd", folder),
        massl("select", folder, "-n", 3, "--copy-to", tmp_path / "copies"),
        massl("label", "add", folder, "cat", first),
        massl("index", folder / "nothing"),
        massl("search", folder, folder / "nothing.jpg"),
        massl("index", folder, "--encoder", "builtin"),
        massl("label", "add", folder, "\x1b[31m", first),
        massl("index", folder, "--max-megapixels", "\x1b[31m"),
    ]
    for ran in told:
        assert not OBEYED.search(ran.output), ran.output
        assert not OBEYED.search(ran.error), ran.error
        assert "Error:" not in ran.error.replace("Error: Invalid", "")
    assert [ran.code for ran in told] == [0] * 8 + [1, 1, 4, 1, 2]
    for arguments in (("info", folder), ("search", folder, folder / first), ("label", "list", folder)):
        data = massl(*arguments, "--json").output
        assert json.loads(data.encode())["schema"] == 1  # valid UTF-8, whatever the names are
    exported = massl("label", "export", folder)
    assert first.replace('"', '""') in exported.output  # data, as it is: a pipe obeys nothing


def test_each_image_is_one_line_whatever_it_is_called(massl, folder: Path, tmp_path: Path) -> None:
    massl("index", folder, "--encoder", write_encoder(tmp_path / "tiny.onnx"), "-q")
    names = sorted(path.name for path in folder.glob("*.bmp"))
    massl("label", "add", folder, "ant", *names[:2], "-q")
    massl("label", "add", folder, "cat", *names[2:4], "-q")
    listed = massl("label", "list", folder).output.splitlines()
    assert {line.split("\t")[2] for line in listed} == {current_user()}
    assert [line.split("\t")[:2] for line in listed] == [
        [visible(label), visible(name)] for label, name in zip(["ant", "ant", "cat", "cat"], names[:4], strict=True)
    ]
    classified = massl("classify", folder, "-q").output.splitlines()
    assert sorted(line.split("\t")[2] for line in classified) == sorted(map(visible, names))


def test_a_terminal_is_sent_nothing_that_it_would_obey(massl, forks: Forks, folder: Path, tmp_path: Path) -> None:
    first = next(path.name for path in folder.iterdir() if path.name.startswith("0"))
    massl("index", folder, "--encoder", write_encoder(tmp_path / "tiny.onnx"))
    massl("label", "add", folder, "cat", first)
    for arguments in (["label", "list"], ["label", "export"]):
        main, side = pty.openpty()
        running = forks.start([*arguments, folder], [side, side])
        os.close(side)
        shown = b""
        while True:
            try:
                shown += os.read(main, 1 << 16)
            except OSError:  # its other side is closed
                break
        os.close(main)
        assert running.wait(60) == 0
        assert b"cat" in shown
        assert not OBEYED.search(shown.decode("utf-8", "surrogateescape").replace("\r\n", "\n"))


def test_an_index_elsewhere_knows_its_folder_whatever_its_name(massl, folder: Path, tmp_path: Path) -> None:
    encoder, place = write_encoder(tmp_path / "tiny.onnx"), tmp_path / "index"
    assert massl("index", folder, "--encoder", encoder, "--index-dir", place).code == 0
    assert massl("info", folder, "--index-dir", place).code == 0
    other = shutil.copytree(folder, tmp_path / "other")
    assert "belongs to" in massl("info", other, "--index-dir", place).error


def test_training_takes_every_name(massl, folder: Path, tmp_path: Path) -> None:
    small = "image_size=32 local_size=16 local_views=2 batch=4 memory=32 block=8 head_width=32 steps=2 workers=0"
    ran = massl(
        "train", folder, "--out", tmp_path / "run", "--backbone", "test_vit",
        *(part for setting in small.split() for part in ("--set", setting)),
    )  # fmt: skip
    assert ran.code == 0, ran.error
    assert not OBEYED.search(ran.error)
    tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert not OBEYED.search(massl("info", tmp_path / "run").output)


def test_what_is_shown_is_one_line_of_what_has_a_shape() -> None:
    assert visible("späte Äpfel, 日本.jpg") == "späte Äpfel, 日本.jpg"
    assert visible("a\x1b[31m\n\x9b\u202eb") == r"a\x1b[31m\n\x9b\u202eb"
    assert visible(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert visible("a\tb\n", keep="\t\n") == "a\tb\n"


def test_whatever_is_said_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("\x1b]52;c;eA==\x07\u2066 \udcff\n")
    assert capsys.readouterr().err == r"\x1b]52;c;eA==\x07\u2066 \xff\n" + "\n"
