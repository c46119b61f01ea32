#!/usr/bin/env python3
"""Have other people's evaluation code measure the tests' embeddings, and keep its figures for the tests.

    golden.py OUT.json PART...      PART: dino=FOLDER revisitop=FOLDER isc=FOLDER torchmetrics ranx

The folders are clones of the public repositories facebookresearch/dino, filipradenovic/revisitop and
facebookresearch/isc2021; torchmetrics and ranx are packages, each of which can live in an environment of its own, as
the figures of a part are added to those that OUT.json already holds. Nothing of all this is part of the project; the
figures are, in tests/massl/evaluation/evaluation_golden.json. Run it from the project's folder with PYTHONPATH=. set.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.massl.evaluation.evaluation_data import CLASSES, TRAIN, copies, embeddings, landmarks, setups

SETUPS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}


def dino() -> dict[str, Any]:
    """k-NN by `knn_classifier` of DINO's eval_knn.py."""
    import torch

    vectors, labels = (torch.from_numpy(values) for values in embeddings())
    theirs = importlib.import_module("eval_knn").knn_classifier
    parts = vectors[:TRAIN], labels[:TRAIN], vectors[TRAIN:], labels[TRAIN:]
    return {str(k): theirs(*parts, k, 0.07, CLASSES)[0] / 100 for k in (1, 5, 10, 20)}


def revisitop() -> dict[str, Any]:
    """Landmarks by `compute_map` of the benchmark's evaluate.py, called as its example does."""
    np.in1d = np.isin  # type: ignore[attr-defined]  # its old name, which the script still uses
    queries, images, truth = landmarks()
    ranks = np.argsort(-(images @ queries.T), axis=0)
    theirs = importlib.import_module("evaluate").compute_map
    figures = {}
    for name, (good, junk) in SETUPS.items():
        average, _, precision, _ = theirs(ranks, setups(truth, good, junk), [1, 5, 10])
        figures[name] = {"map": float(average), "precision_at": [float(value) for value in precision]}
    return figures


def isc() -> dict[str, Any]:
    """Copies by `evaluate` of the challenge's isc/metrics.py."""
    theirs = importlib.import_module("isc.metrics")
    queries, originals, references = copies()
    scores = queries @ references.T
    found = theirs.evaluate(
        [theirs.GroundTruthMatch(f"Q{query}", f"R{original}") for query, original in enumerate(originals)],
        [
            theirs.PredictedMatch(f"Q{query}", f"R{reference}", float(scores[query, reference]))
            for query in range(len(queries))
            for reference in range(len(references))
        ],
    )
    return {
        "micro_ap": float(found.average_precision),
        "recall_at_p90": float(found.recall_at_p90),
        "recall_at_1": float(found.recall_at_rank1),
    }


def torchmetrics() -> dict[str, Any]:
    """Retrieval, clustering and mean accuracy a class."""
    import torch
    from torchmetrics.classification import MulticlassAccuracy
    from torchmetrics.clustering import AdjustedRandScore, NormalizedMutualInfoScore
    from torchmetrics.retrieval import RetrievalMAP, RetrievalPrecision

    vectors, labels = (torch.from_numpy(values) for values in embeddings())
    # torchmetrics takes scores for probabilities and drops matches at or below 0: add what leaves the order as it is.
    scores = vectors @ vectors.T + 2
    others = ~torch.eye(len(labels), dtype=torch.bool)
    relevant = labels[:, None] == labels[None, :]
    query = torch.arange(len(labels))[:, None].expand(len(labels), len(labels))
    figures = {}
    for name, metric in (
        ("map", RetrievalMAP()), ("precision_at_1", RetrievalPrecision(top_k=1)),
        ("precision_at_10", RetrievalPrecision(top_k=10)),
    ):  # fmt: skip
        figures[name] = float(metric(scores[others], relevant[others], indexes=query[others]))
    clusters = torch.from_numpy(embeddings()[0][:, :7].argmax(1))
    figures["nmi"] = float(NormalizedMutualInfoScore()(clusters, labels))
    figures["ari"] = float(AdjustedRandScore()(clusters, labels))
    accuracy = MulticlassAccuracy(num_classes=CLASSES, average="macro")
    figures["mean_per_class"] = float(accuracy(clusters, labels))
    return figures


def ranx() -> dict[str, Any]:
    """Retrieval in double precision, every image a query to the others."""
    from ranx import Qrels, Run, evaluate

    vectors, labels = embeddings()
    scores = vectors @ vectors.T
    names = [f"i{row}" for row in range(len(labels))]
    relevant, run = {}, {}
    for row, name in enumerate(names):
        others = [other for other in range(len(labels)) if other != row]
        relevant[name] = {names[other]: 1 for other in others if labels[other] == labels[row]}
        run[name] = {names[other]: float(scores[row, other]) for other in others}
    found = evaluate(Qrels(relevant), Run(run), ["map", "precision@1", "precision@10"])
    return {name.replace("@", "_at_"): float(value) for name, value in found.items()}


def main(out: str, *parts: str) -> None:
    path = Path(out)
    figures = json.loads(path.read_text()) if path.exists() else {}
    for part in parts:
        name, _, folder = part.partition("=")
        if folder:
            sys.path[:0] = [folder, f"{folder}/python"]
        else:
            print(name, importlib.metadata.version(name), file=sys.stderr)
        figures[name] = globals()[name]()
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
