"""Labels that are probably wrong: the others, without them, name these images differently.

Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021):
a label is suspect where a head that never saw it gives another class at least as much probability as images of that
class get on average. Of those, only where by Bayes' rule the label is more likely wrong than right, if few labels are
(`WRONG`): people have better to do than to look at what is merely hard to tell. Nothing is changed: a person decides,
and a label that was looked at and kept is not asked about again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.fewshot.classifiers import softmax
from indexer.fewshot.model_selection import ModelSelection, held_out

EVIDENCE = 4  # neighbours shown with a suspect
WRONG = 0.05  # of labels, before one looks; by hand 3 to 10 % are (Northcutt, Athalye and Mueller, NeurIPS 2021)


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        image: its id.
        given: the label it has.
        probability: of that label, by a head that was fitted without it.
        proposed: the class that it looks like.
        proposed_probability: of that class.
        neighbours: ids and cosines of the nearest images with the proposed label, nearest first.
        nearest: cosine of the nearest other image with the given label; None if there is none.
    """

    image: int
    given: str
    probability: float
    proposed: str
    proposed_probability: float
    neighbours: tuple[tuple[int, float], ...]
    nearest: float | None


def suspects(
    ids: NDArray[np.int64],
    features: NDArray[np.float32],
    targets: NDArray[np.integer],
    classes: tuple[str, ...],
    choice: ModelSelection,
) -> list[Suspect]:
    """Labels that are probably wrong, the most suspect first.

    Args:
        ids: of the labelled images, `[n]`.
        features: their unit vectors, `[n, D]`.
        targets: their classes, `[n]`, each at least once. Where one has a single example nothing can be held out, and
            nothing is suspect.
        classes: the labels.
        choice: what `indexer.fewshot.model_selection.choose` chose for them.
    """
    if np.bincount(targets, minlength=len(classes)).min() < 2:
        return []
    shares = softmax(held_out(features, targets, choice.candidate) / choice.temperatures[0])
    rows = np.arange(len(targets))
    usual = np.array([shares[targets == target, target].mean() for target in range(len(classes))])
    confident = np.where(shares >= usual, shares, -1.0)
    likely = confident.argmax(1)
    found = []
    wrong = WRONG * confident.max(1) > (1 - WRONG) * shares[rows, targets]
    suspect = (likely != targets) & wrong
    for row in rows[suspect]:
        cosines = features @ features[row]
        cosines[row] = -np.inf
        alike = np.flatnonzero(targets == likely[row])
        alike = alike[np.argsort(-cosines[alike], kind="stable")[:EVIDENCE]]
        own = cosines[(targets == targets[row]) & (rows != row)]
        found.append(
            Suspect(
                int(ids[row]),
                classes[targets[row]],
                float(shares[row, targets[row]]),
                classes[likely[row]],
                float(shares[row, likely[row]]),
                tuple((int(ids[other]), float(cosines[other])) for other in alike),
                float(own.max()) if len(own) else None,
            )
        )
    # By the label's own probability alone: it puts more of the wrong ones first than its distance to the proposal.
    return sorted(found, key=lambda suspect: suspect.probability)
