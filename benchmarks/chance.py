#!/usr/bin/env python3
"""Are `false_matches` right: how many false matches there were where so many were expected.

    benchmarks/chance.py FOLDER... [--images 2000] [--queries 400] [--encoder ENCODER.onnx]

Of each folder's images a sample is calibrated as `massl index` does it. Images that the calibration did not probe are
searched for. A result that is no copy is a false match; what counts as a copy are pixels that agree, by the rule of the
calibration itself, and where unrelated pixels agree too nothing does.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer import Encoder
from indexer.ingest.embedding import FileEmbedder
from indexer.search import calibration
from indexer.search.calibration import COINCIDE, PROBES, UNLIKE
from indexer.search.pixel_verification import Looks
from massl.core.files.scan import find_images

EXPECTED = (1.0, 0.1, 0.01)
RESULTS = 20  # of each query that are judged


def counted(
    root: Path, paths: Sequence[str], vectors: NDArray[np.float32], encoder: Encoder, queries: int
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """How many queries there were, and of each of `EXPECTED` how many false matches, and how many copies, a query."""
    hashes = [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths]
    of_content = {digest: row for row, digest in reversed(list(enumerate(hashes)))}
    rows = [of_content[digest] for digest in sorted(of_content)]  # as the catalog gives them: each content once
    looks = Looks([root / paths[row] for row in rows], [hashes[row] for row in rows], {})
    vectors = vectors[rows].astype(np.float16).astype(np.float32)
    fitted = calibration.fit(vectors, looks, encoder)
    similar = vectors[:PROBES] @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    tell_copies = calibration.far_agreement(similar, looks) < UNLIKE
    asked = range(PROBES, min(len(rows), PROBES + queries))
    pairs, expected = [], []
    for query in asked:
        scores = vectors[query] @ vectors.T
        scores[query] = -np.inf
        best = np.argsort(-scores)[:RESULTS]
        crowd = float(calibration.neighbourhood(scores[best][None])[0])
        found = [fitted.false_matches(float(scores[row]), len(rows), crowd) for row in best]
        pairs += [(query, int(row)) for row, share in zip(best, found, strict=True) if share <= EXPECTED[0]]
        expected += [share for share in found if share <= EXPECTED[0]]
    same = np.array([tell_copies and agreement >= COINCIDE for agreement in looks.agreements(pairs)], bool)
    under = np.array(expected)[None] <= np.array(EXPECTED)[:, None]
    return len(asked), (under & ~same).sum(1) / len(asked), (under & same).sum(1) / len(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--encoder")
    given = parser.parse_args()
    encoder = Encoder.load(given.encoder)
    print("| set | images | queries | expected 1 | 0.1 | 0.01 | copies beside these |\n" + "| --- " * 7 + "|")
    for folder in given.folders:
        found = sorted(find_images(folder)[0])
        paths = random.Random(0).sample(found, min(given.images, len(found)))
        vectors, rows, _ = FileEmbedder(encoder).embed_paths(folder, paths, lambda done, total: None)
        tell(folder, [paths[row] for row in rows], vectors, encoder, given.queries)


def tell(folder: Path, paths: Sequence[str], vectors: NDArray[np.float32], encoder: Encoder, queries: int) -> None:
    """Prints a row of the table."""
    asked, false, copies = counted(folder, paths, vectors, encoder, queries)
    shares = " | ".join(f"{share:.3f}" for share in false)
    print(f"| {folder.name} | {len(paths):,} | {asked} | {shares} | {copies[0]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
