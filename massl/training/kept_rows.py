"""Embeddings that are computed once and kept in a run's folder until it ends, so that a killed run goes on there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from massl.core.disk_errors import cannot_write
from massl.core.files.atomic_writing import whole


class KeptRows:
    """A file of float16 numbers, `rows`; they are not a number until they are computed.

    Args:
        path: of the file. What is there already is kept if it has this shape.
        shape: of all rows.

    Raises:
        MasslError: it can't be written.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path = path
        try:
            if not self._is_there(shape):
                # Written whole: a map of a file with holes would end the process once the disk is full.
                with whole(self.path) as written, written.open("wb") as file:
                    np.save(file, np.full(shape, np.nan, np.float16))
            self.rows = np.lib.format.open_memmap(self.path, "r+")
        except OSError as error:
            raise cannot_write(self.path, error, "choose another --out") from None

    def __len__(self) -> int:
        return len(self.rows)

    def remove(self) -> None:
        """Removes the file, once nothing is left to learn from it."""
        self.path.unlink(missing_ok=True)

    def _is_there(self, shape: tuple[int, ...]) -> bool:
        try:
            return np.load(self.path, mmap_mode="r").shape == shape
        except (OSError, ValueError, EOFError):  # none, or damaged
            return False
