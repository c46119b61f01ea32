"""Embeddings that come out the same everywhere: RandomState's stream is frozen by NumPy's policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAIN = 900  # the others are test images
CLASSES = 12
LANDMARKS = 400  # images of the made-up benchmark of landmarks
QUERIES = 30
COPIES = 250  # references; every one has two edited copies


def embeddings() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """1,500 embeddings in double precision of 12 overlapping classes of unequal size, and their labels."""
    state = np.random.RandomState(7)
    labels = np.sort(state.randint(0, CLASSES**2, 1500) // CLASSES)[state.permutation(1500)]
    labels = np.minimum(labels, state.randint(0, CLASSES, 1500) + 3) % CLASSES
    vectors = state.normal(size=(CLASSES, 24))[labels] + state.normal(scale=1.9, size=(1500, 24))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels.astype(np.int64)


def landmarks() -> tuple[NDArray[np.float64], NDArray[np.float64], list[dict[str, list[int]]]]:
    """Queries, images, and a ground truth of easy, hard and junk images: some queries have none of a kind."""
    state = np.random.RandomState(8)
    queries, images = state.normal(size=(QUERIES, 16)), state.normal(size=(LANDMARKS, 16))
    truth = []
    for query in range(QUERIES):
        chosen = state.permutation(LANDMARKS)
        ends = np.cumsum([state.randint(0, 12), state.randint(0, 9), state.randint(0, 30)])
        kinds = dict(zip(("easy", "hard", "junk"), np.split(chosen, ends)[:3], strict=True))
        for kind, pull in (("easy", 0.5), ("hard", 0.2), ("junk", 0.3)):
            images[kinds[kind]] += pull * queries[query]
        truth.append({kind: rows.tolist() for kind, rows in kinds.items()})
    return (*(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, images)), truth)


def copies() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Queries, the reference that each is a copy of, and the references."""
    state = np.random.RandomState(9)
    references = state.normal(size=(COPIES, 16))
    originals = state.permutation(np.repeat(np.arange(COPIES), 2))
    strength = state.uniform(0.2, 1.6, (len(originals), 1))
    queries = references[originals] + strength * state.normal(size=(len(originals), 16))
    return (
        queries / np.linalg.norm(queries, axis=1, keepdims=True),
        originals.astype(np.int64),
        references / np.linalg.norm(references, axis=1, keepdims=True),
    )


def setups(truth: list[dict[str, list[int]]], good: tuple[str, ...], junk: tuple[str, ...]) -> list[dict[str, Any]]:
    """The ground truth as the benchmark's own script takes it: what is to be found, and what doesn't count."""
    return [
        {"ok": np.concatenate([entry[kind] for kind in good]), "junk": np.concatenate([entry[kind] for kind in junk])}
        for entry in truth
    ]
