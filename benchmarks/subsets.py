"""Time of choosing subsets from vectors that are made up: `python benchmarks/subsets.py 100000 500`.

Prints seconds and CPU seconds of each way to choose, and what the subset covers beside one drawn at random.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexer.subsets import selection

GROUPS = 2_000
BLOCK = 65_536
LEAST = 0.98  # the cosine from which two vectors are near copies
ALIKE = 0.6


def made_up(count: int, dim: int) -> NDArray[np.float16]:
    """Unit vectors in groups within groups, a tenth of them near copies of another, float16 `[count, dim]`."""
    draw = np.random.default_rng(0)
    kinds = draw.standard_normal((40, dim), np.float32)
    groups = kinds[draw.integers(0, 40, GROUPS)] + 0.8 * draw.standard_normal((GROUPS, dim), np.float32)
    shares = draw.pareto(1.5, GROUPS) + 0.1
    of = draw.choice(GROUPS, count, p=shares / shares.sum())
    vectors = np.empty((count, dim), np.float16)
    for start in range(0, count, BLOCK):
        rows = groups[of[start : start + BLOCK]]
        rows = rows + 0.7 * draw.standard_normal(rows.shape, np.float32)
        copies = np.flatnonzero(draw.random(len(rows)) < 0.1)
        rows[copies] = rows[copies // 2] + 0.05 * draw.standard_normal((len(copies), dim), np.float32)
        vectors[start : start + BLOCK] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vectors", type=int)
    parser.add_argument("chosen", type=int)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    vectors = made_up(options.vectors, options.dim)
    folders = np.random.default_rng(1).integers(0, 20, len(vectors))
    groups = {str(name): np.flatnonzero(folders == name) for name in range(20)}
    ways: dict[str, Callable[[], NDArray[np.int64]]] = {
        "random": lambda: np.random.default_rng(2).choice(len(vectors), options.chosen, replace=False),
        "diverse": lambda: selection.farthest_first(vectors, options.chosen, LEAST),
        "typical": lambda: selection.typical(vectors, options.chosen, LEAST),
        "balanced": lambda: selection.balanced(vectors, groups, options.chosen, LEAST),
    }
    print(f"{len(vectors):,} vectors of {options.dim}, {options.chosen:,} chosen")
    print(f"{'':<10}{'seconds':>9}{'CPU s':>8}{'covered':>9}{'mean':>7}{'lowest':>8}")
    for name, choose in ways.items():
        started, used = time.perf_counter(), time.process_time()
        rows = choose()
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
        nearest = np.full(len(vectors), -np.inf, np.float32)
        selection.compare(nearest, vectors, vectors[rows])
        covered, mean, lowest = (nearest >= ALIKE).mean(), nearest.mean(), nearest.min()
        print(f"{name:<10}{seconds:>9.1f}{cpu:>8.1f}{100 * covered:>8.1f}%{mean:>7.3f}{lowest:>8.3f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
