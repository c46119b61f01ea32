"""How fast a run goes, how long it waits for images, how much memory it takes; and a trace of some of its steps."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

WARM = 5  # steps that a trace leaves out, as the first ones take longer


class Meter:
    """Counts the time of steps from one logged step to the next. Measuring and saving are not counted.

    Args:
        device: that trains.
        batch: images a step.
        step: that comes first.
    """

    def __init__(self, device: torch.device, batch: int, step: int) -> None:
        self.device = device
        self.batch = batch
        self._restart(step)

    def _restart(self, step: int) -> None:
        self._step, self._began, self._computed = step, time.monotonic(), time.process_time()
        self._waited = self._aside = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait for images."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around what is no part of a step."""
        began, computed = time.monotonic(), time.process_time()
        yield
        self._aside += time.monotonic() - began
        self._computed += time.process_time() - computed

    def figures(self, done: int, steps: int) -> dict[str, float]:
        """What `metrics.jsonl` has of speed and memory once `done` of `steps` are done; begins to count anew."""
        seconds = max(time.monotonic() - self._began - self._aside, 1e-9)
        each, waited = seconds / (done - self._step), self._waited
        computed = time.process_time() - self._computed
        self._restart(done)
        figures = {
            "images_per_second": self.batch / each,
            "step_seconds": each,
            "data_wait_share": waited / seconds,
            "peak_bytes": peak_memory(self.device),
            "seconds_left": (steps - done) * each,
        }
        if self.device.type == "cpu":
            offered = max(seconds - waited, 1e-9) * torch.get_num_threads()
            figures["processor_share"] = min(computed / offered, 1.0)
        return figures


def peak_memory(device: torch.device) -> int:
    """The most memory that this process has taken so far, in bytes: of a GPU, or of the machine where the CPU trains.

    Apple's GPU tells what it holds now alone.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class Trace:
    """Writes what a few steps spend their time on to a file that https://ui.perfetto.dev opens.

    Args:
        folder: the run's.
        device: that trains.
        start: the first step of this process.
        steps: of the whole run.
        count: steps to trace; 0: none.

    Attributes:
        path: the file, once it is written; before, None.
    """

    def __init__(self, folder: Path, device: torch.device, start: int, steps: int, count: int) -> None:
        self.path: Path | None = None
        self._folder = folder
        count = min(count, steps - start)
        self._first = start + min(WARM, steps - start - count)
        self._end = self._first + count
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities) if count > 0 else None

    def step_begins(self, step: int) -> None:
        """Starts the trace where its first step begins."""
        if self._profiler and step == self._first:
            with _unheard():
                self._profiler.start()

    def step_ends(self, step: int) -> None:
        """Writes the trace where its last step ended."""
        if self._profiler and step + 1 == self._end:
            with _unheard():
                self._profiler.stop()
            self.path = self._folder / f"trace-{self._first + 1}-to-{self._end}.json.gz"
            self._profiler.export_chrome_trace(str(self.path))
            self._profiler = None

    def close(self) -> None:
        """Drops a trace that did not come to its end."""
        if self._profiler and self._profiler.profiler is not None:
            with _unheard():
                self._profiler.stop()
        self._profiler = None


@contextmanager
def _unheard() -> Iterator[None]:
    """Keeps what the profiler's library has to say off standard error, where it writes by itself."""
    sys.stderr.flush()
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)
