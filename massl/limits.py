"""How much memory pictures may take while they are decoded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

# The picture itself, a copy of it turned upright and one in sRGB, four bytes a pixel each, and a decoder's own.
BYTES_PER_PIXEL = 16

_CGROUP = Path("/sys/fs/cgroup")


def available_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that this process can still have without swapping: the machine's, or its container's where that is less."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit.isdecimal():
            used = int((cgroup / "memory.current").read_text())
            kept = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
            # Of what counts as used, the cache of files is given back when somebody needs it.
            available = min(available, int(limit) - used + int(kept.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass  # no container, or one that doesn't say
    return max(0, available)


class PixelBudget:
    """Pixels that may be in memory at a time, shared by the threads that decode.

    Pictures of a usual size are decoded side by side; very large ones wait for one another. So memory stays within
    the budget whatever the sizes, and no picture is refused because there are many threads.

    Attributes:
        pixels: the most at a time.
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._free = pixels
        self._changed = threading.Condition()

    @classmethod
    def of_this_machine(cls) -> PixelBudget:
        """Half of the memory that is free now."""
        return cls(available_memory() // 2 // BYTES_PER_PIXEL)

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Holds `pixels` of the budget, once they are free.

        Raises:
            MemoryError: more than the whole budget.
        """
        if pixels > self.pixels:
            raise MemoryError
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()
