"""A job in the background: done once, told of, stopped, and never lost in silence."""

from __future__ import annotations

import threading

import pytest

from indexer.jobs.background import BackgroundJob, JobReport
from massl.core.errors import MasslError

LONG = 20.0  # seconds that nothing here takes


def test_it_is_done_once_a_key_however_many_ask() -> None:
    calls: list[int] = []
    gate = threading.Event()

    def count(report: JobReport) -> int:
        calls.append(1)
        report("counting", 1, 2)
        gate.wait(LONG)
        return len(calls)

    job = BackgroundJob(count)
    assert job.status("a").state == "idle"
    for _ in range(5):
        job.begin("a")
    job.wait(0.05)
    status = job.status("a")
    assert (status.state, status.result) == ("running", None)
    gate.set()
    job.wait(LONG)
    job.begin("a")
    assert (job.status("a").state, job.status("a").result) == ("done", 1)
    assert job.status("a").current
    other = job.status("b")  # what was found before is still there to be shown
    assert (other.state, other.result, other.current) == ("idle", 1, False)
    job.begin("b")
    job.wait(LONG)
    assert job.status("b").result == 2
    job.begin("b", anew=True)
    job.wait(LONG)
    assert job.status("b").result == 3
    job.forget()
    assert (job.status("b").state, job.status("b").result) == ("idle", 3)
    job.begin("b")
    job.wait(LONG)
    assert job.status("b").result == 4


def test_it_tells_how_far_it_is_and_stops_when_told() -> None:
    reported, go = threading.Event(), threading.Event()

    def count(report: JobReport) -> int:
        report("counting", 3, 10)
        reported.set()
        go.wait(LONG)
        report("counting", 4, 10)
        return 4

    job = BackgroundJob(count)
    job.begin("a")
    assert reported.wait(LONG)
    status = job.status("a")
    assert (status.state, status.step, status.done, status.total) == ("running", "counting", 3, 10)
    job.stop()
    go.set()
    job.wait(LONG)
    assert job.status("a").state == "stopped"
    job.begin("a")  # and can be begun again
    job.wait(LONG)
    assert job.status("a").result == 4


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MasslError("the disk is full"), "the disk is full"), (ValueError("secret"), "something went wrong")],
)
def test_what_goes_wrong_is_a_sentence(error: Exception, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    def count(report: JobReport) -> int:
        raise error

    job = BackgroundJob(count)
    job.begin("a")
    job.wait(LONG)
    status = job.status("a")
    assert status.state == "failed"
    assert status.reason.startswith(reason)
    assert "secret" not in status.reason
    assert bool(caplog.records) == isinstance(error, ValueError)


def test_a_pause_ends_as_soon_as_it_is_stopped_and_its_end_is_told() -> None:
    waiting, ended = threading.Event(), []

    def wait(report: JobReport) -> None:
        waiting.set()
        report.pause(LONG)

    job = BackgroundJob(wait, ended.append)
    job.begin()
    assert waiting.wait(LONG)
    assert not job.wait(0)
    job.stop()
    assert job.wait(LONG / 2)
    assert [status.state for status in ended] == ["stopped"]
