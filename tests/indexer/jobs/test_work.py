"""Work in the background: done once, told of, stopped, and never lost in silence."""

from __future__ import annotations

import threading

import pytest

from indexer.jobs.work import Report, Work
from massl.core.errors import MasslError

LONG = 20.0  # seconds that nothing here takes


def test_it_is_done_once_a_key_however_many_ask() -> None:
    calls: list[int] = []
    gate = threading.Event()

    def count(report: Report) -> int:
        calls.append(1)
        report("counting", 1, 2)
        gate.wait(LONG)
        return len(calls)

    work = Work(count)
    assert work.standing("a").state == "idle"
    for _ in range(5):
        work.begin("a")
    work.wait(0.05)
    standing = work.standing("a")
    assert (standing.state, standing.result) == ("running", None)
    gate.set()
    work.wait(LONG)
    work.begin("a")
    assert (work.standing("a").state, work.standing("a").result) == ("done", 1)
    assert work.standing("a").current
    other = work.standing("b")  # what was found before is still there to be shown
    assert (other.state, other.result, other.current) == ("idle", 1, False)
    work.begin("b")
    work.wait(LONG)
    assert work.standing("b").result == 2
    work.begin("b", anew=True)
    work.wait(LONG)
    assert work.standing("b").result == 3
    work.forget()
    assert (work.standing("b").state, work.standing("b").result) == ("idle", 3)
    work.begin("b")
    work.wait(LONG)
    assert work.standing("b").result == 4


def test_it_tells_how_far_it_is_and_stops_when_told() -> None:
    reported, go = threading.Event(), threading.Event()

    def count(report: Report) -> int:
        report("counting", 3, 10)
        reported.set()
        go.wait(LONG)
        report("counting", 4, 10)
        return 4

    work = Work(count)
    work.begin("a")
    assert reported.wait(LONG)
    standing = work.standing("a")
    assert (standing.state, standing.step, standing.done, standing.total) == ("running", "counting", 3, 10)
    work.stop()
    go.set()
    work.wait(LONG)
    assert work.standing("a").state == "stopped"
    work.begin("a")  # and can be begun again
    work.wait(LONG)
    assert work.standing("a").result == 4


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MasslError("the disk is full"), "the disk is full"), (ValueError("secret"), "something went wrong")],
)
def test_what_goes_wrong_is_a_sentence(error: Exception, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    def count(report: Report) -> int:
        raise error

    work = Work(count)
    work.begin("a")
    work.wait(LONG)
    standing = work.standing("a")
    assert standing.state == "failed"
    assert standing.reason.startswith(reason)
    assert "secret" not in standing.reason
    assert bool(caplog.records) == isinstance(error, ValueError)
