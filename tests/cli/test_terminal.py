"""Lines of progress where there is no terminal."""

from __future__ import annotations

import itertools
import re

import pytest

from cli import terminal
from cli.commands import main
from massl.core.printable import shortened


def test_the_time_left_is_that_of_the_step_that_is_at_work(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(terminal, "PLAIN_EVERY", 0)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(seconds))
    with terminal.ProgressLine("comparing", "images", quiet=False) as line:
        for step, total in (("neighbours", 1000), ("pairs", 200)):
            for done in range(0, total, 100):
                line.update(done, total, step)
    told = [int(left.replace(",", "")) for left in re.findall(r", (\S+) s left", capsys.readouterr().err)]
    assert told == [*range(9, 0, -1), 1]


def test_no_rate_is_told_of_what_is_done_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.ProgressLine("comparing", "images", quiet=False) as line:
        line.update(100, 100)
    assert capsys.readouterr().err == "comparing 100 of 100\n"


def test_an_endless_name_is_shown_by_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("a" + 5000 * "x" + "z", "--a" + 5000 * "x" + "z"):
        with pytest.raises(SystemExit):
            main(["info", argument])
        said = capsys.readouterr().err
        assert len(said) < 1500
        assert re.search("axxx.*x…x.*xz", said, re.DOTALL)
    assert shortened(f"{'y' * 500} {'n' * 500}") == f"{'y' * 500} {'n' * 500}"
