#!/usr/bin/env python3
"""Our own statistics of labels beside libraries': label errors beside cleanlab, temperatures beside scikit-learn's.

    benchmarks/libraries.py SET... [--draws 6] [--image-count 1500]

A SET is a folder with a subfolder a class. Of each class 5, 9, 20 or 50 images are labelled, one label in twenty is
changed at random, and both say which labels look wrong, from the same held-out probabilities; ours also where none was
changed. Then, without wrong labels, temperatures are fitted on held-out logits of the labelled images, and judged on
the images that have no label.
cleanlab is not among our dependencies: pip install cleanlab.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import average_precision_score, log_loss

from indexer import Encoder
from indexer.encoder.encoder_file import builtin_encoder
from indexer.fewshot.classifiers import softmax
from indexer.fewshot.label_errors import suspects
from indexer.fewshot.model_selection import choose, held_out, temperature
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image
from massl.core.images.image_errors import ImageError

COUNTS = (5, 9, 20, 50)  # labels a class
WRONG = 0.05  # of them
TRIED = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given")


def embedded(folder: Path, most: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors of at most so many of a folder's images, and their classes."""
    draw = np.random.default_rng(0)
    found = [folder / path for path in find_images(folder)[0] if "/" in path]
    encoder, pixels, names = Encoder.load(builtin_encoder()), [], []
    for place in np.sort(draw.permutation(len(found))[:most]):
        try:
            pixels.append(encoder.prepare(open_image(found[place], encoder.image_size)))
            names.append(found[place].parent.name)
        except ImageError:
            continue
    vectors = [encoder.embed(np.stack(pixels[start : start + 32])) for start in range(0, len(pixels), 32)]
    return np.concatenate(vectors), np.unique(names, return_inverse=True)[1]


def drawn(targets: NDArray[np.int64], count: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Rows of so many images of each class that has twice as many."""
    rows = [np.flatnonzero(targets == target) for target in range(targets.max() + 1)]
    return np.concatenate(
        [draw.permutation(own)[:count] for own in rows if len(own) >= 2 * count] or [np.empty(0, int)]
    )


class Logits(ClassifierMixin, BaseEstimator):
    """Takes logits for features, and for what it says: so scikit-learn fits its temperature to them alone."""

    def fit(self, logits: NDArray[np.float64], targets: NDArray[np.int64]) -> Logits:
        """Notes the classes."""
        self.classes_ = np.unique(targets)
        return self

    def decision_function(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """The logits themselves."""
        return logits

    def predict(self, logits: NDArray[np.float64]) -> NDArray[np.int64]:
        """The class with the largest."""
        return self.classes_[logits.argmax(1)]


def label_errors(vectors: NDArray[np.float32], labels: NDArray[np.int64], draw: np.random.Generator) -> dict[str, list]:
    """For each way the labels asked about, wrong and right ones, and how well it ranks them all."""
    classes = labels.max() + 1
    given = labels.copy()
    changed = draw.permutation(len(labels))[: max(1, round(WRONG * len(labels)))]
    given[changed] = (labels[changed] + draw.integers(1, classes, len(changed))) % classes
    wrong = given != labels
    choice = choose(vectors, given)
    names = tuple(map(str, range(classes)))
    found = suspects(np.arange(len(given)), vectors, given, names, choice)
    shares = softmax(held_out(vectors, given, choice.candidate) / choice.temperatures[0])
    asked = np.zeros(len(given), bool)
    asked[[each.image for each in found]] = True
    told = {"ours": [asked[wrong].sum(), asked[~wrong].sum()]}
    without = suspects(np.arange(len(labels)), vectors, labels, names, choose(vectors, labels))
    told["ours, none changed"] = [0, len(without)]
    told["changed, and all"] = [wrong.sum(), len(labels)]
    for way in TRIED:
        asked = find_label_issues(given, shares, filter_by=way, n_jobs=1)
        told[f"cleanlab {way}"] = [asked[wrong].sum(), asked[~wrong].sum()]
    others = shares.copy()
    others[np.arange(len(given)), given] = -1
    told["ranked ours"] = [average_precision_score(wrong, others.max(1) - shares[np.arange(len(given)), given])]
    for score in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        told[f"ranked cleanlab {score}"] = [
            average_precision_score(wrong, 1 - get_label_quality_scores(given, shares, method=score))
        ]
    return told


def temperatures(vectors: NDArray[np.float32], targets: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[str, float]:
    """Negative log likelihood a picture of the images without a label, by each way to find the temperature."""
    kept, renumbered = np.unique(targets[rows], return_inverse=True)
    rest = np.setdiff1d(np.flatnonzero(np.isin(targets, kept)), rows)
    truth = np.searchsorted(kept, targets[rest])
    candidate = choose(vectors[rows], renumbered).candidate
    logits = held_out(vectors[rows], renumbered, candidate)
    unseen = candidate.fit(vectors[rows], renumbered, len(kept)).logits(vectors[rest])
    theirs = CalibratedClassifierCV(FrozenEstimator(Logits().fit(logits, renumbered)), method="temperature")
    judged = {
        "none": softmax(unseen),
        "ours": softmax(unseen / temperature(logits, renumbered)),
        "scikit-learn": theirs.fit(logits, renumbered).predict_proba(unseen),
    }
    return {name: log_loss(truth, shares, labels=range(len(kept))) for name, shares in judged.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--image-count", type=int, default=1500)
    asked = parser.parse_args()
    sums: dict[int, dict[str, list]] = {count: defaultdict(list) for count in COUNTS}
    losses: dict[int, dict[str, list]] = {count: defaultdict(list) for count in COUNTS}
    for folder in asked.sets:
        vectors, targets = embedded(folder, asked.image_count)
        for count in COUNTS:
            for seed in range(asked.draws):
                draw = np.random.default_rng(seed)
                rows = drawn(targets, count, draw)
                classes = len(np.unique(targets[rows]))
                if classes < 2:
                    continue
                labels = np.unique(targets[rows], return_inverse=True)[1]
                for name, value in label_errors(vectors[rows], labels, draw).items():
                    sums[count][name].append(value)
                for name, loss in temperatures(vectors, targets, rows).items():
                    losses[count][name].append(loss)
    for count in COUNTS:
        if not sums[count]:
            continue
        runs = len(sums[count]["ours"])
        print(f"\n{count} labels a class, {runs} runs")
        for name, values in sums[count].items():
            total = np.sum(values, axis=0)
            print(f"  {name}: " + (f"{total[0]:,} and {total[1]:,}" if len(total) > 1 else f"{total[0] / runs:.3f}"))
        print(
            "  log likelihood lost a picture: " + ", ".join(f"{n} {np.mean(v):.3f}" for n, v in losses[count].items())
        )


if __name__ == "__main__":
    main()
