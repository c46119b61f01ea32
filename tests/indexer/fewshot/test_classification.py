"""Classes from a few labels: the choice of a head, its probabilities, its estimate."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer import Collection
from indexer.fewshot.classification import NONE, SAMPLE, Classification, classify
from indexer.fewshot.classifiers import LOGISTIC, NEIGHBOURS, PROTOTYPES, Candidate, candidates, softmax
from indexer.fewshot.clusters import find_groups
from indexer.fewshot.label_state import CollectionFewshot
from indexer.fewshot.model_selection import MOST, choose, folds, held_out, sample, wilson
from indexer.fewshot.sampling import most_different, most_sure
from massl.core.errors import MasslError
from tests.indexer.kinds import kinds, labels_of


def test_every_method_is_tried_and_the_best_chosen() -> None:
    ids, vectors, targets = kinds(300, 3, seed=1)
    result = classify(ids, vectors, labels_of(ids, targets, 20))
    assert {item.method for item in result.compared} == {LOGISTIC, PROTOTYPES, NEIGHBOURS}
    accuracies = [item.accuracy for item in result.compared]
    assert accuracies == sorted(accuracies, reverse=True)
    assert result.method == result.compared[0].method


def test_neighbours_are_chosen_where_a_class_lies_in_two_places() -> None:
    # Opposite corners are of one class: no linear head can tell them apart.
    draw = np.random.default_rng(0)
    corners = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])
    place = draw.integers(0, 4, 200)
    points = corners[place] + 0.3 * draw.standard_normal((200, 2))
    vectors = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    ids = np.arange(200)
    result = classify(ids, vectors, labels_of(ids, place // 2, 30))
    assert result.method == NEIGHBOURS
    assert (result.predicted == place // 2).mean() > 0.95


@pytest.mark.parametrize("candidate", candidates(100), ids=str)
def test_each_head_beats_chance_by_far_and_its_logits_are_shares(candidate: Candidate) -> None:
    _, vectors, targets = kinds(300, 4, seed=2)
    logits = candidate.fit(vectors[:100], targets[:100], 4).logits(vectors[100:])
    assert logits.shape == (200, 4)
    assert (logits.argmax(1) == targets[100:]).mean() > 0.7
    assert np.allclose(softmax(logits).sum(1), 1)


def test_the_nearest_class_mean_is_by_distance() -> None:
    _, vectors, targets = kinds(60, 3, seed=3)
    means = np.stack([vectors[targets == target].mean(0) for target in range(3)])
    nearest = ((vectors[:, None] - means) ** 2).sum(2).argmin(1)
    assert (Candidate(PROTOTYPES).fit(vectors, targets, 3).logits(vectors).argmax(1) == nearest).all()


def test_no_image_is_named_by_a_head_that_saw_it() -> None:
    # Labels at random: a head that saw an image would know its label, one that didn't can only guess.
    _, vectors, _ = kinds(120, 1, seed=4)
    targets = np.random.default_rng(0).integers(0, 4, 120)
    logits = held_out(vectors, targets, Candidate(NEIGHBOURS, 3))
    assert (logits.argmax(1) == targets).mean() < 0.5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=2, max_size=5))
def test_every_class_is_in_every_fit_and_every_image_is_held_out_once(sizes: list[int]) -> None:
    targets = np.repeat(np.arange(len(sizes)), sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = folds(targets)
    assert sorted(row for _, outside in splits for row in outside) == list(range(len(targets)))
    assert all(set(targets[inside]) == set(range(len(sizes))) for inside, _ in splits)


def test_the_estimate_and_its_interval_hold_on_images_never_labelled() -> None:
    inside, told, seen = 0, [], []
    for seed in range(20):
        ids, vectors, targets = kinds(600, 4, seed=seed, spread=1.5)
        result = classify(ids, vectors, labels_of(ids, targets, 8, seed))
        right = float((result.predicted == targets)[~result.labelled].mean())
        if result.estimated_accuracy is None or result.interval is None:
            continue
        low, high = result.interval
        assert low < result.estimated_accuracy < high
        inside += low <= right <= high
        told.append(result.estimated_accuracy)
        seen.append(right)
    assert len(told) >= 18  # of 20: where all classes are named it is seldom doubted
    assert inside >= len(told) - 2
    assert abs(np.mean(told) - np.mean(seen)) < 0.05  # neither flattered nor belittled
    assert 0.5 < np.mean(seen) < 0.9


def test_probabilities_are_as_often_right_as_they_say() -> None:
    said, right = [], []
    for seed in range(10):
        ids, vectors, targets = kinds(600, 3, seed=seed, spread=1.5)
        result = classify(ids, vectors, labels_of(ids, targets, 20, seed))
        said.append(result.probability[~result.labelled])
        right.append((result.predicted == targets)[~result.labelled])
    shares, hits = np.concatenate(said), np.concatenate(right)
    for low, high in ((0.4, 0.6), (0.6, 0.8), (0.8, 1.0)):
        among = (shares >= low) & (shares < high)
        assert abs(shares[among].mean() - hits[among].mean()) < 0.12


def test_unsure_images_are_left_without_a_class_and_labelled_ones_keep_theirs() -> None:
    ids, vectors, targets = kinds(300, 3, seed=5, spread=1.5)
    result = classify(ids, vectors, labels_of(ids, targets, 5))
    sure = result.sure(0.7)
    assert sure[result.labelled].all()
    assert (result.probability[sure] >= 0.7).all()
    assert 15 < sure.sum() < 300
    assert result.sure(0.0).all()


def test_images_unlike_all_labelled_ones_are_left_without_a_class_however_sure_the_head() -> None:
    ids, vectors, targets = kinds(600, 6, seed=9, spread=0.35)
    some = targets < 3
    labels = labels_of(ids[some], targets[some], 8)
    result = classify(ids, vectors, labels)
    assert result.compared[0].accuracy > 0.9  # of the classes that there are
    assert result.familiar[some & ~result.labelled].mean() > 0.8
    assert result.familiar[~some].mean() < 0.05
    assert result.sure(0.5)[~some].mean() < 0.05
    assert result.sure(0.0).all()  # unless nobody asked to be sure
    # Nothing is claimed of them either, neither together nor one by one.
    assert (result.estimated_accuracy, result.interval, result.expected()) == (None, None, None)
    assert result.needs == SAMPLE
    assert result.unnamed[0] < 0.5 < result.unnamed[1] + 0.1
    assert (result.probability[~some] > 0.5).mean() < 0.05
    assert (result.probability[some & ~result.labelled] > 0.5).mean() > 0.8
    assert classify(ids, vectors, labels_of(ids, targets, 8)).familiar.mean() > 0.85


def test_a_rejected_class_is_not_proposed_and_the_others_become_no_likelier() -> None:
    ids, vectors, targets = kinds(200, 3, seed=6)
    labels = labels_of(ids, targets, 5)
    before = classify(ids, vectors, labels)
    row = int(np.flatnonzero(~before.labelled)[0])
    first = before.classes[before.predicted[row]]
    after = classify(ids, vectors, labels, {int(ids[row]): frozenset({first, "no such class"})})
    assert after.classes[after.predicted[row]] != first
    assert after.probability[row] <= 1 - before.probability[row]
    assert (np.delete(after.probability, row) == np.delete(before.probability, row)).all()
    nothing = classify(ids, vectors, labels, {int(ids[row]): frozenset(before.classes), 10**9: frozenset({first})})
    assert nothing.predicted[row] == NONE
    assert not nothing.sure(0.0)[row]
    # What somebody gave stands, whatever was rejected before.
    own = int(np.flatnonzero(before.labelled)[0])
    kept = classify(ids, vectors, labels, {int(ids[own]): frozenset({labels[int(ids[own])]})})
    assert kept.classes[kept.predicted[own]] == labels[int(ids[own])]


def test_six_right_of_six_is_no_certainty() -> None:
    low, high = wilson(1.0, 6)
    assert 0.5 < low < 0.7
    assert high == pytest.approx(1.0)


def test_many_labels_are_sampled_with_every_class_in() -> None:
    targets = np.concatenate([np.zeros(3 * MOST, np.int64), np.ones(3, np.int64)])
    rows = sample(targets, MOST)
    assert len(rows) <= MOST + 2
    assert (targets[rows] == 1).sum() >= 2
    _, vectors, own = kinds(MOST + 500, 2, seed=7, dim=8)
    assert choose(vectors, own).judged_on <= MOST + 1


def test_a_collection_classifies_afresh_when_anything_changed(collection: Collection) -> None:
    pictures = collection.images.ready()
    for kind in ("flag", "space"):
        collection.labels.add(kind, [image for image, path in pictures if path.startswith(kind)][:3], "me")
    first = collection.fewshot.classify()
    assert collection.fewshot.classify() is first
    image = int(first.images[~first.labelled][0])
    row = int(np.flatnonzero(first.images == image)[0])
    proposed = first.classes[first.predicted[row]]
    assert collection.rejections.add({image: proposed}) == 1
    assert collection.rejections.add({image: proposed}) == 0
    second = collection.fewshot.classify()
    assert second.classes[second.predicted[row]] != proposed
    assert (
        Collection.open(collection.root).fewshot.classify().predicted[row] == second.predicted[row]
    )  # it is in the catalog
    assert collection.rejections.remove([(image, proposed)]) == 1
    assert collection.fewshot.classify().predicted[row] == first.predicted[row]
    (collection.root / pictures[0][1]).unlink()
    collection.update()
    assert len(collection.fewshot.classify().images) == len(pictures) - 1
    with pytest.raises(MasslError, match="no longer in the collection"):
        collection.rejections.add({10**6: "flag"})


def test_labels_of_several_classes_are_given_together_or_not_at_all(collection: Collection) -> None:
    with pytest.raises(MasslError, match="1 to 100 printable characters"):
        collection.labels.give({1: "fine", 2: "x" * 10_000}, "me")
    with pytest.raises(MasslError, match="no longer in the collection"):
        collection.labels.give({1: "fine", 10**6: "fine"}, "me")
    assert collection.labels.every() == []
    assert collection.labels.give({1: " fine ", 2: "<b>bold</b>"}, "me") == 2
    assert collection.labels.counts() == {"<b>bold</b>": 1, "fine": 1}


def _by_the_page(seed: int, drawn: int = 0) -> tuple[float, float | None, float, bool]:
    """How many of one's own pictures were named rightly when hidden, what share of the proposals was expected to be
    right if anything was claimed, what share was, and whether that lay in the interval if there was one. Of pictures
    labelled as the page suggests: the middles of groups, by what most of them show, then what is most different. At the
    end so many more as chance draws.
    """
    ids, vectors, targets = kinds(600, 4, seed=seed, spread=1.3)
    labels: dict[int, str] = {}
    place = {int(image): row for row, image in enumerate(ids)}
    for group in find_groups(ids, vectors):
        rows = [place[image] for image in group.typical]
        most = int(np.bincount(targets[rows]).argmax())
        labels |= {int(ids[row]): "abcd"[most] for row in rows if targets[row] == most}
    for row in most_different(vectors, np.isin(ids, list(labels)), 24):
        labels[int(ids[row])] = "abcd"[targets[row]]
    free = np.flatnonzero(~np.isin(ids, list(labels)))
    page = {int(ids[row]): "abcd"[targets[row]] for row in np.random.default_rng(seed).choice(free, drawn, False)}
    result = classify(ids, vectors, labels | page, drawn=set(page))
    names = np.array(["abcd".index(name) for name in result.classes])
    about = result.familiar & ~result.labelled
    right = float((names[result.predicted] == targets)[about].mean())
    own, expected = result.compared[0].accuracy, result.expected()
    if expected is None:
        return own, None, right, True
    assert expected.images == about.sum()
    low, high = expected.interval
    assert low < expected.accuracy < high
    return own, expected.accuracy, right, low <= right <= high


def test_what_is_said_of_proposals_is_less_flattered_by_easy_labels_than_what_is_said_of_these() -> None:
    runs = [_by_the_page(seed) for seed in range(8)]
    said = [(own - right, expected - right) for own, expected, right, _ in runs if expected is not None]
    assert len(said) >= 3
    own, proposals = np.mean(said, 0)
    assert own > 0.05  # groups are easy: cross-validation over them promises too much
    assert abs(proposals) < own / 2
    assert sum(inside for *_, inside in runs) >= 7


def test_labels_that_chance_has_drawn_tell_how_good_the_others_are() -> None:
    runs = [_by_the_page(seed, drawn=48) for seed in range(8)]
    errors = [expected - right for _, expected, right, _ in runs if expected is not None]
    assert len(errors) == 8
    assert abs(np.mean(errors)) < 0.03  # 48 of them leave 0.07 either way in a single run
    assert sum(inside for *_, inside in runs) >= 7


def _rare(seed: int, drawn: int) -> tuple[Classification, NDArray[np.bool_]]:
    """Of 1,230 images 30 are bad, which can hardly be seen; and 16 of each kind are labelled, and what chance draws."""
    rng = np.random.default_rng(seed)
    ids, vectors, targets = kinds(2400, 2, seed=seed, spread=3.0)
    bad = targets == 1
    kept = np.sort(np.concatenate([np.flatnonzero(~bad), np.flatnonzero(bad)[:30]]))
    ids, vectors, bad = ids[kept], vectors[kept], bad[kept]
    shown = np.concatenate([rng.choice(np.flatnonzero(bad == kind), 16, replace=False) for kind in (False, True)])
    sample = rng.choice(np.setdiff1d(np.arange(len(ids)), shown), drawn, replace=False)
    names = {int(ids[row]): "bad" if bad[row] else "good" for row in (*shown, *sample)}
    return classify(ids, vectors, names, drawn={int(ids[row]) for row in sample}), bad


def test_of_a_rare_class_no_more_is_right_than_the_random_sample_allows() -> None:
    warned, claims, held = 0, [], []
    for seed in range(7):
        result, bad = _rare(seed, drawn=40)
        told = {item.label: item for item in result.proposals()}
        free = result.familiar & ~result.labelled
        for label, is_bad in (("bad", True), ("good", False)):
            item = told[label]
            assert item.proposed == (free & (result.predicted == result.classes.index(label))).sum()
            assert item.at_most is not None
            assert item.right is not None
            held.append((bad == is_bad)[free].sum() <= item.at_most)
            assert item.right <= min(item.proposed, item.at_most)
        assert sum(item.sampled for item in told.values()) == 40
        warned += told["bad"].too_many
        by_the_head = result.probability[free & (result.predicted == result.classes.index("bad"))].sum()
        claims.append((told["bad"].right, by_the_head, (bad & free).sum()))
    assert warned >= 1
    assert sum(held) >= len(held) - 2  # it is a 95 % interval
    claimed, by_the_head, there = np.mean(claims, 0)
    assert by_the_head > 4 * there  # than which no more can be right
    assert claimed < 3 * there


def test_without_a_random_sample_nothing_is_said_of_how_many_there_can_be() -> None:
    result, _ = _rare(0, drawn=0)
    assert [(item.at_most, item.too_many) for item in result.proposals()] == [(None, False)] * 2
    assert sum(item.proposed for item in result.proposals()) == (result.familiar & ~result.labelled).sum()
    assert all(item.proposed == 0 for item in result.proposals(least=1.0))


def test_a_few_that_chance_has_drawn_are_too_few_to_go_by() -> None:
    ids, vectors, targets = kinds(600, 3, seed=3, spread=1.5)
    labels = labels_of(ids, targets, 12)
    few, enough = (classify(ids, vectors, labels, drawn=set(list(labels)[:count])) for count in (19, 20))
    assert (few.drawn, few.judged_on) == (False, 36)
    assert (enough.drawn, enough.judged_on) == (True, 20)


def test_labels_that_were_only_agreed_to_are_no_evidence_and_yet_are_learnt_from() -> None:
    ids, vectors, targets = kinds(600, 3, seed=3, spread=1.5)
    labels = labels_of(ids, targets, 12)
    before = classify(ids, vectors, labels)
    easy = most_sure(before)[:60]
    agreed = {int(ids[row]): before.classes[before.predicted[row]] for row in easy}
    counted = classify(ids, vectors, labels | agreed)
    after = classify(ids, vectors, labels | agreed, accepted=set(agreed))
    assert (after.judged_on, counted.judged_on) == (36, 96)
    assert counted.compared[0].accuracy > before.compared[0].accuracy + 0.1  # "94 %" became "97 %" by agreeing
    assert after.compared == before.compared
    assert after.estimated_accuracy == before.estimated_accuracy
    assert after.unnamed == before.unnamed  # although the nearest of the unlabelled images are no longer among them
    assert sum(after.counts.values()) == 96
    assert after.labelled[easy].all()
    nobody = classify(ids, vectors, labels, accepted=set(labels))
    assert (nobody.estimated_accuracy, nobody.expected()) == (None, None)


def test_the_surer_the_proposals_the_more_of_them_are_expected_to_be_right() -> None:
    ids, vectors, targets = kinds(600, 3, seed=6, spread=1.3)
    result = classify(ids, vectors, labels_of(ids, targets, 15))
    every, sure = result.expected(), result.expected(0.8)
    assert every is not None
    assert sure is not None
    assert sure.accuracy > every.accuracy
    assert sure.images == (result.sure(0.8) & ~result.labelled).sum() < every.images
    assert result.expected(1.0) is None


def test_a_few_labels_drawn_at_random_are_not_doubted_away(pictures: Path, tmp_path: Path) -> None:
    """Hidden in clusters, five of a class are named no better than by guessing; nothing would be proposed at all."""
    shutil.copytree(pictures, tmp_path / "photos")
    collection = Collection.create(tmp_path / "photos")
    collection.update()
    kinds_of = {image: path.split("/")[0] for image, path in collection.images.ready()}
    ids, vectors = CollectionFewshot(collection.catalog).vectors()
    for seed in range(4, 8):
        draw = np.random.default_rng(seed)
        labels = {
            int(image): kind
            for kind in dict.fromkeys(kinds_of.values())
            for image in draw.choice([image for image, other in kinds_of.items() if other == kind], 5, replace=False)
        }
        result = classify(ids, vectors, labels)
        assert (result.probability[~result.labelled] >= 0.5).mean() > 0.3
