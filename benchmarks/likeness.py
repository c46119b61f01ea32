"""Many vectors that lie as a few real embeddings do: for collections larger than any set of pictures at hand.

A vector is a point between a real embedding and one of its nearest others, with noise of the encoder's own covariance.
A search among them is neither as easy as among clusters nor as hopeless as among directions drawn at random.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.store.vectors import unit

NEIGHBOURS = 8
NOISE = 0.35  # of the vector's length
POOL = 100_000


class Likeness:
    """Draws vectors like those of a table that `massl embed` wrote.

    Args:
        table: a Parquet file; rows without a vector are left out.
    """

    def __init__(self, table: Path) -> None:
        import pyarrow.compute
        import pyarrow.parquet

        column = pyarrow.parquet.read_table(table, columns=["vector"])["vector"]
        lists = column.filter(pyarrow.compute.is_valid(column)).combine_chunks()
        packed = np.asarray(lists.flatten()).reshape(len(lists), -1)
        self.real = unit(packed.astype(np.float16))
        index = faiss.IndexFlatIP(self.real.shape[1])
        index.add(self.real)
        self._near = index.search(self.real, NEIGHBOURS + 1)[1][:, 1:]
        covariance = np.cov(self.real.T)
        values, axes = np.linalg.eigh(covariance / np.trace(covariance))
        random = np.random.default_rng(0).standard_normal((POOL, self.dim), np.float32)
        # Two of so many are as good as a new one, and drawing millions takes longer than all the rest.
        self._noise = random @ (axes * np.sqrt(values.clip(0) / 2)).T.astype(np.float32)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return int(self.real.shape[1])

    def draw(self, count: int, seed: int) -> NDArray[np.float16]:
        """Unit vectors, float16 `[count, dim]`; others for another seed."""
        random = np.random.default_rng(seed)
        first = random.integers(0, len(self.real), count)
        second = self._near[first, random.integers(0, NEIGHBOURS, count)]
        share = random.random((count, 1), np.float32)
        made = share * self.real[first] + (1 - share) * self.real[second]
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        one, other = random.integers(0, POOL, (2, count))
        made += NOISE * (self._noise[one] + self._noise[other])
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)
