#!/usr/bin/env python3
"""Which list of the screen Label finds a rare class: of pictures of which 1 % are of it, how many four pages show.

Run: python benchmarks/rare_classes.py FOLDER/CLASS... (each a subfolder of a set: its pictures become the rare class).

A simulated person has labelled ten others and three of the rare class, drawn at random, and answers four pages of 24.
The figure is how many of the other rare pictures were shown. The rest of the set is one class.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer import Encoder
from indexer.anomalies.neighbour_distance import distances
from indexer.fewshot.classification import Classification, classify
from indexer.fewshot.sampling import least_sure, most_different, most_sure
from massl.core.errors import MasslError
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image

OTHERS, RARE, CANDIDATES = 990, 10, 40
PAGES, PAGE, LABELLED, KNOWN = 4, 24, 10, 3
Order = Callable[[Classification, NDArray[np.float32]], NDArray[np.int64]]


def confident(result: Classification) -> NDArray[np.int64]:
    """The proposals of the rare class, the likeliest first."""
    rows = most_sure(result)
    return rows[result.predicted[rows] == result.classes.index("rare")]


def likeliest(result: Classification, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """The likeliest of the rare class first, whatever is proposed: as `CollectionFewshot.likeliest`."""
    shares = result.fitted.probabilities(vectors)[:, result.fitted.classes.index("rare")]
    return np.argsort(-shares, kind="stable")


ORDERS: dict[str, Order] = {
    "Random sample": lambda result, vectors: np.random.default_rng(
        np.flatnonzero(result.labelled).tolist()  # others at each page
    ).permutation(np.flatnonzero(~result.labelled)),
    "Diverse": lambda result, vectors: most_different(vectors, result.labelled, PAGE),
    "Uncertain": lambda result, vectors: least_sure(result),
    "Confident, all classes": lambda result, vectors: most_sure(result),
    "Confident, the rare class": lambda result, vectors: confident(result),
    "Uncertain, the rare class": lambda result, vectors: likeliest(result, vectors),
}


class FlatIndex:
    """Exact search over rows, for `distances`. A `CurrentIndex`."""

    exact = True

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: NDArray[np.float32], k: int, among: object = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rows = np.arange(len(self.vectors)) if among is None else np.asarray(among)
        cosines = queries @ self.vectors[rows].T
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(cosines, best, 1), rows[best]


def embedded(folder: Path, encoder: Encoder) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Unit vectors of others and of candidates for the rare ones, and which these are."""
    draw = np.random.default_rng(0)
    paths = [path for path in find_images(folder.parent)[0] if "/" in path]
    rare = draw.permutation([path for path in paths if path.split("/")[0] == folder.name])[:CANDIDATES]
    others = draw.permutation([path for path in paths if path.split("/")[0] != folder.name])[:OTHERS]
    vectors = []
    many = encoder.for_many(len(rare) + len(others))
    for start in range(0, len(rare) + len(others), 32):
        named = [*rare, *others][start : start + 32]
        pixels = [encoder.prepare(open_image(folder.parent / path, encoder.resize)) for path in named]
        vectors.append(many.embed(np.stack(pixels)))
    return np.concatenate(vectors), np.arange(len(rare) + len(others)) < len(rare)


def found(vectors: NDArray[np.float32], rare: NDArray[np.bool_], name: str, seed: int) -> int:
    """How many of the unknown rare ones are shown on the pages."""
    draw = np.random.default_rng(seed)
    shown = np.concatenate(
        [draw.permutation(np.flatnonzero(~rare))[:LABELLED], draw.permutation(np.flatnonzero(rare))[:KNOWN]]
    )
    ids = np.arange(len(vectors))
    labels = {int(row): "rare" if rare[row] else "other" for row in shown}
    before = sum(label == "rare" for label in labels.values())
    scores = (
        distances(FlatIndex(vectors), ids, vectors.astype(np.float16), ids, ids, 2.0) if name == "Unusual" else None
    )
    for _ in range(PAGES):
        if scores is not None:
            order = np.argsort(-scores, kind="stable")
        else:
            order = ORDERS[name](classify(ids, vectors, labels), vectors)
        page = [row for row in order.tolist() if row not in labels][:PAGE]
        labels |= {row: "rare" if rare[row] else "other" for row in page}
    return sum(label == "rare" for label in labels.values()) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=6)
    options = parser.parse_args()
    encoder = Encoder.load()
    unknown = RARE - KNOWN
    totals: dict[str, list[float]] = {}
    for folder in options.classes:
        vectors, candidates = embedded(folder, encoder)
        for draw in range(options.draws):
            chosen = np.random.default_rng(draw).permutation(np.flatnonzero(candidates))[:RARE]
            kept = np.sort(np.concatenate([chosen, np.flatnonzero(~candidates)]))
            for name in (*ORDERS, "Unusual"):
                try:
                    count = found(vectors[kept], candidates[kept], name, draw)
                except MasslError as error:
                    raise SystemExit(f"{folder}: {error}") from None
                totals.setdefault(f"{folder.parent.name}/{folder.name} {name}", []).append(count)
        for name in (*ORDERS, "Unusual"):
            mean = np.mean(totals[f"{folder.parent.name}/{folder.name} {name}"])
            print(f"{folder.parent.name}/{folder.name:<24} {name:<26} {mean:.1f} of {unknown}", flush=True)


if __name__ == "__main__":
    main()
