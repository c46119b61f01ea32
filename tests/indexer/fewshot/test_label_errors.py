"""Labels that are probably wrong."""

from __future__ import annotations

import numpy as np

from indexer import Collection
from indexer.fewshot.label_errors import EVIDENCE, suspects
from indexer.fewshot.model_selection import choose
from tests.indexer.kinds import kinds

CLASSES = ("a", "b", "c")


def test_labels_that_were_swapped_are_found_with_their_neighbours_as_evidence() -> None:
    ids, vectors, targets = kinds(150, 3, seed=0, spread=0.5)
    given = targets.copy()
    wrong = np.array([4, 50, 90, 120])
    given[wrong] = (targets[wrong] + 1) % 3
    found = suspects(ids, vectors, given, CLASSES, choose(vectors, given))
    assert {suspect.image for suspect in found[:4]} == set(ids[wrong].tolist())
    places = {int(identity): row for row, identity in enumerate(ids)}
    for suspect in found[:4]:
        row = places[suspect.image]
        assert suspect.given == CLASSES[given[row]]
        assert suspect.proposed == CLASSES[targets[row]]
        assert suspect.proposed_probability > 19 * suspect.probability
        assert len(suspect.neighbours) == EVIDENCE
        scores = [score for _, score in suspect.neighbours]
        assert scores == sorted(scores, reverse=True)
        assert {CLASSES[given[places[other]]] for other, _ in suspect.neighbours} == {suspect.proposed}
        assert suspect.nearest is not None
    gaps = [suspect.probability - suspect.proposed_probability for suspect in found]
    assert gaps == sorted(gaps)


def test_right_labels_of_clear_kinds_are_not_suspect() -> None:
    ids, vectors, targets = kinds(150, 3, seed=1, spread=0.3)
    assert suspects(ids, vectors, targets, CLASSES, choose(vectors, targets)) == []


def test_right_labels_of_kinds_that_overlap_are_hardly_ever_suspect() -> None:
    asked = 0
    for seed in range(8):
        ids, vectors, targets = kinds(150, 3, seed, spread=1.0)  # a tenth of them is taken for another kind
        asked += len(suspects(ids, vectors, targets, CLASSES, choose(vectors, targets)))
    assert asked <= 10  # of 1,200; 21 where the label had to be unlikely and the other class likely


def test_a_single_example_of_a_class_is_not_suspect() -> None:
    ids, vectors, targets = kinds(20, 2, seed=2)
    targets[:] = 0
    targets[0] = 1
    assert suspects(ids, vectors, targets, ("a", "b"), choose(vectors, targets)) == []


def test_a_label_that_somebody_looked_at_and_kept_is_not_asked_about_again(
    collection: Collection,
) -> None:
    fruits = [image for image, path in collection.images.ready() if path.startswith("fruit")]
    rest = [image for image, path in collection.images.ready() if not path.startswith("fruit")]
    collection.labels.add("fruit", [*fruits[:4], fruits[5]], "me")
    collection.labels.add("other", [*rest, fruits[4]], "me")
    suspect, *others = collection.fewshot.suspects()
    assert (suspect.image, suspect.given, suspect.proposed) == (fruits[4], "other", "fruit")
    collection.confirmations.add([(suspect.image, suspect.given)])
    assert Collection.open(collection.root).fewshot.suspects() == others
    collection.confirmations.remove([(suspect.image, suspect.given)])
    assert collection.fewshot.suspects() == [suspect, *others]
    # Another label on the same image is another question.
    collection.confirmations.add([(suspect.image, "fruit")])
    assert collection.fewshot.suspects() == [suspect, *others]
