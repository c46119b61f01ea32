"""What a log line says of speed and memory, and the trace of a few steps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from massl.data.sources import find_source
from massl.training import metering
from massl.training.loop import train
from massl.training.metering import Meter, Trace, peak_memory
from tests.massl.conftest import small_settings

CPU = torch.device("cpu")


def test_measuring_and_saving_are_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now, computed = 100.0, 7.0
    monkeypatch.setattr(metering.time, "monotonic", lambda: now)
    monkeypatch.setattr(metering.time, "process_time", lambda: computed)
    threads = torch.get_num_threads()
    meter = Meter(CPU, 10, 4)
    with meter.waiting():
        now += 1
    now, computed = now + 3, computed + 1.5 * threads
    with meter.aside():
        now, computed = now + 50, computed + 40
    found = meter.figures(6, 10)
    del found["peak_bytes"]
    assert found == {
        "images_per_second": 5, "step_seconds": 2, "data_wait_share": 0.25, "seconds_left": 8, "processor_share": 0.5,
    }  # fmt: skip
    now += 7
    found = meter.figures(7, 10)
    assert (found["step_seconds"], found["data_wait_share"]) == (7, 0)


def test_peak_memory_is_of_the_whole_process() -> None:
    before = peak_memory(CPU)
    rows = torch.ones(1 << 26)  # 256 MB
    assert before > 100 << 20
    assert peak_memory(CPU) >= rows.numel() * 4


def test_every_line_says_how_fast_and_how_much(run: Path) -> None:
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["step_seconds"] > 0
        assert row["peak_bytes"] > 100 << 20
        assert 0 <= row["data_wait_share"] <= 1
        assert 0 < row["processor_share"] <= 1


@pytest.mark.parametrize(("steps", "asked", "traced"), [(8, 2, "6-to-7"), (3, 2, "2-to-3"), (2, 9, "1-to-2")])
def test_a_trace_shows_the_steps_asked_for(
    steps: int, asked: int, traced: str, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, _ = find_source(photos)
    summary = train(source, tmp_path / "run", small_settings(steps=str(steps)), profile=asked)
    assert summary["trace"] == str(tmp_path / "run" / f"trace-{traced}.json.gz")
    events = json.loads(gzip.decompress(Path(summary["trace"]).read_bytes()))["traceEvents"]
    names = [event.get("name") for event in events]
    count = int(traced[-1]) - int(traced[0]) + 1
    assert sum("Optimizer.step" in str(name) and "AdamW" in str(name) for name in names) >= count
    assert "Profiler" not in capfd.readouterr().err


def test_without_a_trace_there_is_none(photos: Path, tmp_path: Path) -> None:
    trace = Trace(tmp_path, CPU, 0, 10, 0)
    for step in range(10):
        trace.step_begins(step)
        trace.step_ends(step)
    trace.close()
    assert trace.path is None
    ended = Trace(tmp_path, CPU, 0, 10, 3)
    ended.step_begins(5)
    ended.close()
    assert not list(tmp_path.glob("trace*"))
