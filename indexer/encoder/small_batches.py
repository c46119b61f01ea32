"""ONNX Runtime on several small batches at a time, each by one thread: faster than one batch by all threads.

What the operations of a small batch hand to each other stays in a core's own cache, and no thread waits for another
after each operation. `benchmarks/engines.py` measures it, and `docs/reference/encoder-file.md` has what it found.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

BATCH = 4  # pictures; 1 to 8 are about as fast with a vision transformer, and more need more memory

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class SmallBatches:
    """Threads that use one session of ONNX Runtime at once. Safe to share by threads."""

    def __init__(self, embed: Embed, threads: int) -> None:
        """Starts no thread yet.

        Args:
            embed: uint8 `[N, S, S, 3]`, N at most `BATCH`, to float32 `[N, D]`, on the thread that calls it.
            threads: batches at a time.
        """
        self._embed = embed
        self._pool = ThreadPoolExecutor(threads, "embed")

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 `[N, S, S, 3]` to float32 `[N, D]`."""
        if len(pixels) <= BATCH:
            return self._embed(pixels)
        starts = range(0, len(pixels), BATCH)
        return np.concatenate(list(self._pool.map(self._embed, (pixels[row : row + BATCH] for row in starts))))
