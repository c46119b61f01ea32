"""Labels that are probably wrong."""

from __future__ import annotations

import numpy as np

from indexer import Collection
from indexer.choosing import choose
from indexer.suspects import EVIDENCE, suspects
from tests.indexer.kinds import kinds

CLASSES = ("a", "b", "c")


def test_labels_that_were_swapped_are_found_with_their_neighbours_as_evidence() -> None:
    ids, vectors, targets = kinds(150, 3, seed=0)
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
        assert suspect.probability < 0.2 < 0.5 <= suspect.proposed_probability
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


def test_a_single_example_of_a_class_is_not_suspect() -> None:
    ids, vectors, targets = kinds(20, 2, seed=2)
    targets[:] = 0
    targets[0] = 1
    assert suspects(ids, vectors, targets, ("a", "b"), choose(vectors, targets)) == []


def test_a_label_that_somebody_looked_at_and_kept_is_not_asked_about_again(
    collection: Collection,
) -> None:
    flags = [image for image, path in collection.images() if path.startswith("flag")]
    rest = [image for image, path in collection.images() if not path.startswith("flag")]
    collection.add_labels("flag", flags[:5], "me")
    collection.add_labels("other", [*rest, flags[5]], "me")
    suspect, *others = collection.suspects()
    assert (suspect.image, suspect.given, suspect.proposed) == (flags[5], "other", "flag")
    collection.confirm_labels([(suspect.image, suspect.given)])
    assert Collection.open(collection.root).suspects() == others
    collection.forget_confirmed([(suspect.image, suspect.given)])
    assert collection.suspects() == [suspect, *others]
    # Another label on the same image is another question.
    collection.confirm_labels([(suspect.image, "flag")])
    assert collection.suspects() == [suspect, *others]
