"""The Dockerfile's promises, as far as they can be held without Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from massl.core.telemetry import SWITCHES

DOCKERFILE = (Path(__file__).parent.parent / "Dockerfile").read_text(encoding="utf-8")
STRANGER = "54321"  # a user without an entry in the password file


def test_every_documented_docker_run_line_is_run_as_the_owner_of_the_photos() -> None:
    lines = re.findall(r"^#   (docker run .*)$", DOCKERFILE, re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        assert '--user "$(id -u):$(id -g)"' in line
        assert "--shm-size" in line or " train " not in line


def test_the_image_switches_telemetry_off_for_whatever_is_run_in_it() -> None:
    lines = re.findall(r"^ENV (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    set_there = dict(re.findall(r"(\w+)=(\S+)", " ".join(lines)))
    assert SWITCHES.items() <= set_there.items()


@pytest.mark.parametrize("home", ["/", "/home/massl"])
def test_a_user_without_a_name_and_a_home_works_and_is_told_nothing_needless(home: str, photos: Path) -> None:
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("to become another user this needs root and setpriv")
    as_stranger = ["setpriv", "--reuid", STRANGER, "--regid", STRANGER, "--clear-groups", sys.executable]
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {"HOME": home}
    if subprocess.run([*as_stranger, "-c", "import cli"], env=environment, capture_output=True).returncode:
        pytest.skip("other users can't read this installation")
    with tempfile.TemporaryDirectory() as folder:  # of pytest's own, others can't enter the folders above
        Path(folder).chmod(0o755)
        root = Path(shutil.copytree(photos, Path(folder, "photos")))
        for path in (root, *root.rglob("*")):
            os.chown(path, int(STRANGER), int(STRANGER))
        picture = next(root.rglob("*.jpg"))
        for command in (["index", root], ["label", "add", root, "cat", picture], ["search", root, picture]):
            line = [*as_stranger, "-c", "from cli import main; main()", *map(str, command), "-q"]
            done = subprocess.run(line, env=environment, cwd="/", capture_output=True, text=True)
            assert done.stderr == ""
            assert done.returncode == 0
