"""How much memory pictures may take while they are read, decoded and used: one budget a process, in bytes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from massl.core.machine import cores

ALWAYS = 64 << 20  # bytes that are granted however little is free: a photograph of a few megapixels
TOGETHER = max(2 << 30, cores() * (256 << 20))  # bytes that pictures take side by side; a larger one goes alone

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_FRESH = 1.0  # seconds for which a measurement of the free memory is good enough


def available_memory(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Bytes that this process can still have without swapping.

    The least of what is left of the machine's memory, of each control group's (a container's, versions 1 and 2) and of
    the process's own limit on addresses (`ulimit -v`).
    """
    left = [int(psutil.virtual_memory().available), *_left_of_groups(cgroup, membership)]
    if sys.platform != "win32":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            left.append(limit - int(psutil.Process().memory_info().vms))
    return max(0, min(left))


def _left_of_groups(root: Path, membership: Path) -> Iterator[int]:
    """What is left to each control group that this process is in, and to those above it, in bytes."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        lines = []
    paths = {controllers: path.strip("/") for _, controllers, path in lines}
    version_1 = next((path for names, path in paths.items() if "memory" in names.split(",")), "")
    for top, path, limit, used, cache in (
        (root, paths.get("", ""), "memory.max", "memory.current", "inactive_file"),
        (root / "memory", version_1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        # In a container the path is often the one that the host sees, and isn't there: then the top is the container's.
        inside = [top, *(top / "/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 2))]
        for group in dict.fromkeys(inside):
            try:
                most = (group / limit).read_text().strip()
                if most.isdecimal():
                    taken = int((group / used).read_text())
                    kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    # Of what counts as used, the cache of files is given back when somebody needs it.
                    yield int(most) - taken + int(kept.get(cache, 0))
            except (OSError, ValueError):
                pass  # no such group, or one that doesn't say


@dataclass
class Grant:
    """Memory that a thread holds. `remains` bytes of it are still held when its block ends, see `MemoryBudget.take`."""

    remains: int = 0


class MemoryBudget:
    """Bytes that pictures may take at a time, shared by all threads of a process.

    Pictures of a usual size are decoded side by side, up to `TOGETHER` and half of the free memory. One that takes more
    waits until no other is held, and goes alone if half of the free memory suffices. Who waits longest is next.

    A thread that asks for more gives back what it holds and asks for the sum. So no thread holds what another waits
    for, and none can wait for ever.

    Attributes:
        processes: how many processes like this one share the free memory.
    """

    def __init__(self, available: Callable[[], int] = available_memory, together: int = TOGETHER) -> None:
        """`available` measures the free memory; `together` is the most that is taken side by side; both in bytes."""
        self._available = available
        self._together = together
        self.processes = 1
        self._start()

    def _start(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._taken = 0
        self._own = threading.local()
        self._measured, self._half = float("-inf"), 0

    def after_fork(self) -> None:
        """A process that was forked off shares no threads with its parent, whose locks may have been held."""
        self._start()

    def divide(self, processes: int) -> None:
        """From now on this process has its share of what so many like it have together."""
        self.processes = max(1, processes)

    @contextmanager
    def take(self, needed: int) -> Iterator[Grant]:
        """Holds `needed` bytes more, once they are free. `remains` of the grant are kept where `held` is around it.

        Raises:
            MemoryError: more than half of the memory that is free.
        """
        before = self._held
        self._change(before + needed)
        grant = Grant()
        try:
            yield grant
        finally:
            self._change(before + (grant.remains if self._depth else 0))

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is kept inside of this block is held until its end."""
        before = self._held
        self._own.depth = self._depth + 1
        try:
            yield
        finally:
            self._own.depth -= 1
            self._change(before)

    def keep(self, needed: int) -> None:
        """Holds `needed` bytes more until the end of the `held` around it; does nothing where there is none.

        Raises:
            MemoryError: more than half of the memory that is free.
        """
        if self._depth:
            self._change(self._held + needed)

    @property
    def _held(self) -> int:
        return getattr(self._own, "bytes", 0)

    @property
    def _depth(self) -> int:
        return getattr(self._own, "depth", 0)

    def _change(self, wanted: int) -> None:
        """Makes what this thread holds `wanted` bytes."""
        with self._changed:
            before = self._held
            self._taken -= before
            now = before
            try:
                if wanted > before:
                    self._wait_for(wanted)
                now = wanted
            finally:
                self._taken += now
                self._own.bytes = now
                if self._waiting:
                    self._changed.notify_all()

    def _wait_for(self, wanted: int) -> None:
        turn = object()
        self._waiting.append(turn)
        try:
            if self._waiting[0] is not turn:
                self._changed.notify_all()  # what this thread held is free for those before it
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._fits(wanted))
        finally:
            self._waiting.remove(turn)

    def _fits(self, wanted: int) -> bool:
        if self._taken + wanted <= ALWAYS // self.processes:
            return True
        now = time.monotonic()
        if self._taken == 0 or now - self._measured > _FRESH:
            self._measured, self._half = now, self._available() // 2 // self.processes
        if self._taken == 0:
            if wanted > max(ALWAYS, self._half):
                raise MemoryError
            return True
        return self._taken + wanted <= min(self._together // self.processes, self._half)


BUDGET = MemoryBudget()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BUDGET.after_fork)
