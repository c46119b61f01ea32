"""The command as a person runs it: in a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Forks


@dataclass
class Ran:
    """What a command left behind. `error` is checked to hold no traceback."""

    code: int
    output: str
    error: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        return json.loads(self.output)


def failed(ran: Ran, code: int = 1) -> str:
    """The one line that a failure prints."""
    assert ran.code == code, ran.error
    assert ran.output == ""
    (line,) = ran.error.strip().splitlines()
    assert line.startswith("massl: ")
    return line


@pytest.fixture
def massl(tmp_path: Path, forks: Forks) -> Callable[..., Ran]:
    """Runs `massl` with these arguments in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()

    def run(*arguments: object, cwd: Path = here, **environment: str) -> Ran:
        done = forks.run(arguments, cwd=cwd, environment={**os.environ, "NO_COLOR": "1", **environment})
        output, error = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        assert "Traceback" not in error
        return Ran(done.returncode, output, error)

    return run
