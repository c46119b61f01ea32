"""Files of settings: what one that came with a folder may decide, and what it may not."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.text import Text

from cli import configuration
from cli.commands import app
from cli.serve import _where
from cli.terminal import print_line, say
from tests.forked import Forks

# What a stranger may decide, by command: all that is marked where it is declared. Whoever marks another has thought of
# a folder that came from somebody who means ill.
HARMLESS = {
    "train": {"preset", "epochs", "settings", "precision", "accumulate", "checkpoint_activations", "workers", "seed"},
    "export": {"precision", "image_sizes", "stages", "projection", "strength", "own"},
    "eval": {
        "k",
        "temperature",
        "shots",
        "share",
        "draws",
        "probe",
        "steps",
        "edited",
        "min_images",
        "seed",
        "markdown",
    },
    "index": {"exclude", "strict"},
    "embed": {"strict"},
    "search": {"k", "exact", "quality", "sort"},
    "dupes": {"exact_only", "threshold"},
    "odd": {"k", "false_alarms", "patches"},
    "select": {"n", "by", "over", "curve", "seed", "quality"},
    "classify": {"min_probability"},
    "label export": {"min_probability"},
    "label sample": {"count"},
    "tag propose": {"least"},
}
EVERYWHERE = {"as_json", "verbose"}


def commands(group: Any, above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= commands(command, f"{above}{name} ") if hasattr(command, "commands") else {above + name: command}
    return found


def test_no_help_text_loses_a_word_that_looks_like_markup() -> None:
    for name, command in commands(typer.main.get_command(app)).items():
        for parameter in command.params:
            told = getattr(parameter, "help", None) or ""
            assert Text.from_markup(told).plain == told, (name, parameter.name)


def test_an_option_is_not_trusted_to_a_folder_unless_it_is_marked() -> None:
    for name, command in commands(typer.main.get_command(app)).items():
        assert set(configuration._harmless(command)) - EVERYWHERE == HARMLESS.get(name, set()), name


REFUSED = {
    "train": {
        "out": "'x'", "resume": "'x'", "labels": "'x'", "backbone": "'hf-hub:a/b'", "init": "'x'", "devices": "2",
        "track": "'wandb'", "name": "'x'", "set": "['backbone=hf-hub:a/b']", "compile": "true", "quiet": "true",
        "device": "'cpu'", "plan": "true", "profile": "2", "config": "'x.toml'", "teacher": "'x'", "report": "'x'",
        "range": "'file'", "channels": "'1'", "plane": "'max'",
    },
    "info": {"report": "'x'"},
    "export": {
        "out": "'x'", "whiten": "'x'", "calibrate": "'x'", "evaluation": "'x'", "range": "'file'", "channels": "'1'",
        "plane": "'max'",
    },
    "eval": {
        "encoder": "'x'", "report": "'x'", "train": "'x'", "test": "'x'", "ground-truth": "'x.pkl'",
        "range": "'file'", "channels": "'1'", "plane": "'max'",
    },
    "index": {
        "encoder": "'x'", "index-dir": "'x'", "skipped": "'x'", "rebuild": "true", "max-megapixels": "9",
        "image-size": "224", "tiles": "'512'", "range": "'file'", "channels": "'1'", "plane": "'max'",
        "watch": "true", "quiet": "true", "engine": "'milvus'", "engine-uri": "'http://mallory:1'",
        "embeddings": "['x']",
        "runtime": "'onnxruntime'",
    },
    "embed": {
        "out": "'x'", "encoder": "'x'", "part": "'1/2'", "image-size": "224", "max-megapixels": "9",
        "engine": "'ray'", "workers": "2", "range": "'file'", "channels": "'1'", "plane": "'max'",
    },
    "dupes": {
        "plan": "'x'", "index-dir": "'x'", "keep": "true", "forget": "true", "apply": "'x'", "by": "'trash'",
        "undo": "'x'",
    },
    "odd": {"maps": "'x'", "good": "'x'", "index-dir": "'x'"},
    "label.export": {"out": "'x'", "index-dir": "'x'", "format": "'onnx'"},
    "tag.export": {"out": "'x'", "index-dir": "'x'", "format": "'xmp'"},
    "tag.import": {"from-files": "true"},
    "serve": {
        "host": "'0.0.0.0'", "port": "80", "auth": "'mallory:pw'", "encoder": "'x'", "index-dir": "'x'",
        "root-path": "'/x'", "mcp": "true", "mcp-write": "true",
    },
    "demo": {"dir": "'x'", "host": "'0.0.0.0'", "auth": "'mallory:pw'"},
}  # fmt: skip


@pytest.mark.parametrize("command", REFUSED)
def test_what_a_folder_may_not_decide_is_ignored_and_named(massl, photos: Path, command: str) -> None:
    here = photos.parent / "here"
    keys = REFUSED[command]
    (here / "massl.toml").write_text(f"[{command}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()))
    words = command.split(".")
    lines = massl(*words, "--no-such-flag", XDG_CONFIG_HOME="/own").error
    for key in keys:
        (line,) = re.findall(rf"massl: massl\.toml in this folder may not set {key}, .*\n", lines)
        assert f"give --{key}, or put it below [{command}] in {Path('/own/massl/config.toml')}; " in line
    assert sorted(path.name for path in here.iterdir()) == ["massl.toml"]
    (here / "massl.toml").rename(here / "mine.toml")
    assert "massl.toml" not in massl(*words, "--no-such-flag", MASSL_CONFIG="mine.toml").error


def test_a_folder_overwrites_no_file(massl, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (photos / "massl.toml").write_text(f"[index]\nskipped = '{tmp_path / 'victim'}'\nexclude = ['space']\n")
    ran = massl("index", ".", cwd=photos)
    assert (ran.code, (tmp_path / "victim").read_text()) == (0, "precious")
    assert "massl.toml in this folder sets exclude = ['space']\n" in ran.error
    assert "18 images indexed" in ran.error


def test_numbers_of_a_training_may_come_with_a_folder_and_names_may_not() -> None:
    harmless = configuration._harmless(commands(typer.main.get_command(app))["train"])["settings"].only
    assert all(map(harmless, ("learning_rate=1e-3", "local-views=2", " batch = 64")))
    for pair in ("backbone=hf-hub:a/b", "augment=device", "compile=true", "nothing=1", "__doc__=1", 5, ""):
        assert not harmless(pair)


def test_a_folder_does_not_open_the_page_to_the_network(forks: Forks, indexed: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    (indexed / "massl.toml").write_text("[serve]\nhost = '0.0.0.0'\nauth = 'mallory:pw'\n")
    with (tmp_path / "log").open("w+") as log:
        server = forks.start(["serve", ".", "--port", port], [log.fileno()] * 2, cwd=indexed)
        try:
            until = time.monotonic() + 120
            while "Open http" not in (text := (tmp_path / "log").read_text()) and time.monotonic() < until:
                assert server.poll() is None, text
                time.sleep(0.1)
            listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            assert f"0100007F:{port:04X}" in listening
            assert f"00000000:{port:04X}" not in listening
            assert f"Open http://127.0.0.1:{port}/ in a browser. Ctrl-C" in text
            assert "may not set host" in text
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]"])
def test_a_page_that_is_open_to_the_network_says_so_and_where(host: str) -> None:
    said = _where("http://localhost:7860/", host, ("ada", "secret"))
    assert said.startswith("Open http://127.0.0.1:7860/ in a browser")
    assert "localhost" not in said
    assert "open to the network: everybody who can reach this machine can see it with the password of ada" in said
    assert "secret" not in said
    for address in re.findall(r"http://(\d+\.\d+\.\d+\.\d+):7860/", said):
        with socket.socket() as own:
            own.bind((address, 0))  # it is one of this machine's


def test_one_address_is_told_as_it_is() -> None:
    assert "Open http://192.168.1.5:80/ in a browser. The page is open" in _where(
        "x://y:80/", "192.168.1.5", ("a", "b")
    )
    assert "Open http://[fd00::5]:80/ in a browser. The page is open" in _where("x://y:80/", "fd00::5", ("a", "b"))
    assert _where("http://127.0.0.1:80/", "127.0.0.1", None) == "Open http://127.0.0.1:80/ in a browser."


def test_no_name_moves_a_terminal_s_cursor(massl, photos: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    say("a\x1b[31mb\nc\u202e")
    print_line("a\x1b[31mb\tc\udcff")  # to a file: the bytes that they are
    caught = capfdbinary.readouterr()
    assert caught.err == b"a\\x1b[31mb\\nc\\u202e\n"
    assert caught.out == b"a\x1b[31mb\tc\xff\n"
    script = [
        "script",
        "-qec",
        f"{sys.executable} -c 'from cli.terminal import print_line; print_line(chr(27) + \"[2J\")'",
    ]
    done = subprocess.run(
        [*script, "/dev/null"], capture_output=True, timeout=60, cwd=Path(configuration.__file__).parent.parent
    )
    assert b"\x1b[2J" not in done.stdout
    assert b"\\x1b[2J" in done.stdout
    (photos.parent / "here" / "massl.toml").write_text('[index]\n"\\u001b[2J" = 1\n')
    assert "\x1b" not in massl("index", photos).error
