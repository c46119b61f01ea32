"""How long the map takes and how much of the neighbourhoods it keeps, on real embeddings.

python benchmarks/map.py COLLECTION [--index-dir FOLDER] [--vectors 2000 10000 100000]

More vectors than the collection has are mixtures of its own: each between an image and one of its eight nearest.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer import Collection
from indexer.projection import layout
from indexer.store.vectors import CatalogVectors, unit

NEIGHBOURS = 10
ASKED = 1_000  # images whose neighbours are compared


class Stored:
    """Vectors in memory. A `VectorSource`."""

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        self.vectors, self.dim, self.ids = vectors, vectors.shape[1], np.arange(len(vectors))

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        for start in range(0, len(self), 32_768):
            yield self.ids[start : start + 32_768], self.vectors[start : start + 32_768]

    def sample(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        return self.of(np.sort(np.random.default_rng(0).permutation(len(self))[:count]))

    def of(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        return ids, self.vectors[ids]


def drawn(own: NDArray[np.float32], count: int) -> NDArray[np.float16]:
    """So many vectors, float16 `[count, D]`."""
    draw = np.random.default_rng(0)
    if count <= len(own):
        return own[draw.permutation(len(own))[:count]].astype(np.float16)
    first = draw.integers(0, len(own), count)
    _, near = faiss.knn(own, own, 9, metric=faiss.METRIC_INNER_PRODUCT)
    second = near[first, draw.integers(1, 9, count)]
    share = draw.uniform(0, 0.5, (count, 1)).astype(np.float32)
    return unit((own[first] * (1 - share) + own[second] * share).astype(np.float16)).astype(np.float16)


def kept(vectors: NDArray[np.float32], points: NDArray[np.float32]) -> float:
    """The share of each image's nearest others that are among its nearest on the map."""
    asked = np.random.default_rng(1).permutation(len(vectors))[:ASKED]
    _, true = faiss.knn(vectors[asked], vectors, NEIGHBOURS + 1, metric=faiss.METRIC_INNER_PRODUCT)
    _, seen = faiss.knn(points[asked], points, NEIGHBOURS + 1)
    pairs = zip(asked.tolist(), true.tolist(), seen.tolist(), strict=True)
    return float(np.mean([len((set(one) & set(other)) - {own}) / NEIGHBOURS for own, one, other in pairs]))


def main() -> None:
    """Prints a row for each number of vectors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("--index-dir")
    parser.add_argument("--vectors", type=int, nargs="+", default=[2_000, 10_000, 100_000])
    told = parser.parse_args()
    catalog = Collection.open(told.collection, told.index_dir).catalog
    own = np.concatenate([unit(packed) for _, packed in CatalogVectors(catalog).blocks()])
    print("vectors | principal, s | kept | by neighbours, s | kept | laid out | most memory, MiB")
    for count in told.vectors:
        source = Stored(drawn(own, count))
        vectors = unit(source.vectors)
        began = time.monotonic()
        _, rough = layout.principal(source)
        between = time.monotonic()
        _, points, laid_out = layout.by_neighbours(source)
        ended = time.monotonic()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        row = (count, between - began, kept(vectors, rough), ended - between, kept(vectors, points), laid_out, memory)
        print("{:,} | {:.1f} | {:.3f} | {:.0f} | {:.3f} | {:,} | {:,}".format(*row), flush=True)


if __name__ == "__main__":
    main()
