"""Tags proposed one against the rest, for pictures that carry several."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.fewshot.tag_proposals import ENOUGH, propose
from massl.core.errors import MasslError

COUNT = 400


def made(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Vectors in which three tags each have a direction of their own, which chance blurs."""
    draw = np.random.default_rng(seed)
    has = {tag: draw.random(COUNT) < share for tag, share in (("sea", 0.4), ("dusk", 0.3), ("dog", 0.2))}
    vectors = draw.normal(size=(COUNT, 16)) * 0.6
    for place, own in enumerate(has.values()):
        vectors[:, place] += 2 * own
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.arange(1, COUNT + 1), vectors.astype(np.float32), has


def test_claimed_probabilities_are_true_of_pictures_that_carry_several_tags() -> None:
    claimed, true = [], []
    for seed in range(2):
        ids, vectors, has = made(seed)
        shown = np.random.default_rng(seed).permutation(COUNT)[:120]
        any_tag = {int(ids[row]) for row in shown if any(own[row] for own in has.values())}
        for tag in ("sea", "dusk"):
            own = has[tag]
            tagged = {image for image in any_tag if own[image - 1]}
            found = propose(tag, ids, vectors, tagged, any_tag, frozenset())
            assert found.claimed
            assert not set(found.images.tolist()) & any_tag
            assert (np.diff(found.probability) <= 0).all()
            sure = found.probability >= 0.8
            claimed += found.probability[sure].tolist()
            true += own[found.images[sure] - 1].tolist()
    assert len(true) > 60
    assert np.mean(true) > np.mean(claimed) - 0.1


def test_no_probability_is_claimed_of_few_examples_nor_of_accepted_ones() -> None:
    ids, vectors, has = made(0)
    own, others = ids[has["sea"]].tolist(), ids[~has["sea"]].tolist()
    for yes, no, accepted, claimed in [
        (ENOUGH, ENOUGH, 0, True), (ENOUGH - 1, ENOUGH, 0, False), (ENOUGH, ENOUGH - 1, 0, False),
        (ENOUGH, ENOUGH, 1, False),
    ]:  # fmt: skip
        found = propose("sea", ids, vectors, set(own[:yes]), set(own[:yes]), set(others[:no]), set(own[:accepted]))
        assert (found.claimed, found.examples, found.others) == (claimed, yes, no)
        values = {value for _, value in found.likely(0.0)}
        assert (None in values) is not claimed
    with pytest.raises(MasslError, match="known of 1 images, and 10 are known not to have it"):
        propose("sea", ids, vectors, set(own[:1]), set(own[:1]), set(others[:10]))


def test_a_rejection_is_learnt_from() -> None:
    ids, vectors, has = made(1)
    own, others = ids[has["sea"]].tolist(), ids[~has["sea"]].tolist()
    before = propose("sea", ids, vectors, set(own[:12]), set(own[:12]) | set(others[:12]), frozenset())
    wrong = before.images[:3].tolist()  # whatever they are
    after = propose("sea", ids, vectors, set(own[:12]), set(own[:12]) | set(others[:12]), set(wrong))
    assert not set(wrong) & set(after.images.tolist())
    assert after.others == before.others + len(wrong)
