#!/usr/bin/env python3
"""How many newer pictures are said to look unlike the older ones: of the same set, of another, and half of each.

    benchmarks/drift.py COLLECTION... [--older 500] [--newer 200] [--splits 20]

Each COLLECTION is a folder that massl has indexed. Of a set some pictures are older and others newer;
then each set is older and every other one newer; then half of the newer ones are of each other set. Last, sets are
split again and again, with 20 to 200 newer pictures: how often do such look different, which is a false alarm?
"""

from __future__ import annotations

import argparse
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer import Collection
from indexer.monitoring.drift import unlike
from indexer.store.vectors import CatalogVectors, unit

NEWER = (20, 50, 100, 200)  # pictures of the splits


def drawn(vectors: NDArray[np.float32], counts: tuple[int, int], seed: int) -> tuple[NDArray[np.float32], ...]:
    """So many older and so many newer ones, all different."""
    order = np.random.default_rng(seed).permutation(len(vectors))
    return vectors[order[: counts[0]]], vectors[order[counts[0] : sum(counts)]]


def spread(found: list[tuple[float, float]]) -> str:
    """The range of what is said, and of what is said at least."""
    said, least = np.array(found).T
    return (
        f"{said.min():.0%} to {said.max():.0%} (median {np.median(said):.0%}), "
        f"at least {least.min():.0%} to {least.max():.0%}"
    )


def main() -> None:
    """Prints a line a question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=Path)
    parser.add_argument("--older", type=int, default=500)
    parser.add_argument("--newer", type=int, default=200)
    parser.add_argument("--splits", type=int, default=20)
    asked = parser.parse_args()
    sets = {}
    for place in asked.collections:
        opened = Collection.open(place)
        sets[place.name] = unit(CatalogVectors(opened.catalog).sample(1 << 20)[1])
        print(f"{place.name}: {len(sets[place.name]):,} pictures, {opened.encoder.name}")
    counts = asked.older, asked.newer
    parts = {name: drawn(vectors, counts, 0) for name, vectors in sets.items()}

    def told(older: NDArray[np.float32], newer: NDArray[np.float32]) -> tuple[float, float]:
        found = unlike(older, newer)
        return found.share, found.at_least

    print("of the same set:", spread([told(*part) for part in parts.values()]))
    pairs = list(permutations(parts, 2))
    print("of another set:", spread([told(parts[one][0], parts[other][1]) for one, other in pairs]))
    half = asked.newer // 2
    mixed = {
        pair: told(parts[pair[0]][0], np.concatenate([parts[pair[0]][1][:half], parts[pair[1]][1][:half]]))
        for pair in pairs
    }
    print("half of them of another set:", spread(list(mixed.values())))
    for pair in (min(mixed, key=lambda each: mixed[each]), max(mixed, key=lambda each: mixed[each])):
        print(f"  {pair[0]}, half {pair[1]}: {mixed[pair][0]:.0%}, at least {mixed[pair][1]:.0%}")
    alarms = [
        told(*drawn(vectors, (min(asked.older, len(vectors) - newer), newer), seed))[1] > 0
        for vectors in sets.values()
        for newer in NEWER
        for seed in range(asked.splits)
    ]
    print(f"splits of one set: {sum(alarms)} of {len(alarms)} look different")


if __name__ == "__main__":
    main()
