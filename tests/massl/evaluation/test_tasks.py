"""Every protocol against an independent implementation, on the same embeddings.

The figures in evaluation_golden.json are other people's: recipes/evaluation/golden.py had their code measure these
embeddings.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    normalized_mutual_info_score,
)
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from massl.core import similarities
from massl.core.errors import MasslError
from massl.evaluation import fewshot, knn_predict, knn_top1, rankme
from massl.evaluation.accuracy import confusion, mean_per_class
from massl.evaluation.clustering import agreement, cluster
from massl.evaluation.copies import copy_detection, pairs
from massl.evaluation.fewshot import Draws, few_shot, low_shot, nearest_mean
from massl.evaluation.figure_table import figures
from massl.evaluation.linear import RATES, linear_probe, logistic_probe, train_layers
from massl.evaluation.retrieval import retrieval
from massl.evaluation.splits import stratified
from massl.evaluation.tasks import TASKS, Labelled, ProtocolOptions, measure
from tests.massl.evaluation.evaluation_data import CLASSES, TRAIN, copies, embeddings

GOLDEN = json.loads(Path(__file__).with_name("evaluation_golden.json").read_text())


@pytest.fixture(params=[1 << 25, 3000], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All similarities at once, and two queries at a time."""
    monkeypatch.setattr(similarities, "BLOCK", request.param)
    return


def clusters(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, count)
    vectors = generator.normal(size=(5, 16))[labels] + generator.normal(scale=1.2, size=(count, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_scikit_learns(k: int) -> None:
    train, train_labels = clusters(1500, 0)
    test, test_labels = clusters(700, 0)
    theirs = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    wanted = theirs.fit(train, train_labels).score(test, test_labels)
    assert knn_top1(train, train_labels, test, test_labels, k) == pytest.approx(wanted, abs=1e-6)


def test_knn_equals_dinos_script(blocks: None) -> None:
    vectors, labels = embeddings()
    ks = (1, 5, 10, 20)
    predicted = knn_predict(vectors[:TRAIN], labels[:TRAIN], vectors[TRAIN:], ks)
    for k, row in zip(ks, predicted, strict=True):
        assert (row == labels[TRAIN:]).mean() == pytest.approx(GOLDEN["dino"][str(k)], abs=1e-6)


def test_leaving_one_out_equals_doing_so_by_hand(blocks: None) -> None:
    vectors, labels = clusters(60, 1)
    right = [
        knn_top1(np.delete(vectors, row, 0), np.delete(labels, row), vectors[[row]], labels[[row]], 7)
        for row in range(60)
    ]
    assert knn_top1(vectors, labels, vectors, labels, 7, leave_one_out=True) == pytest.approx(np.mean(right))
    left_out = [
        retrieval(vectors[[row]], labels[[row]], np.delete(vectors, row, 0), np.delete(labels, row)).map
        for row in range(60)
    ]
    assert retrieval(vectors, labels, vectors, labels, leave_one_out=True).map == pytest.approx(np.mean(left_out))


def test_retrieval_equals_ranx_and_torchmetrics(blocks: None) -> None:
    vectors, labels = embeddings()
    found = retrieval(vectors, labels, vectors, labels, leave_one_out=True)
    for theirs in (GOLDEN["ranx"], GOLDEN["torchmetrics"]):
        assert found.map == pytest.approx(theirs["map"], abs=1e-6)
        assert found.precision_at[1] == pytest.approx(theirs["precision_at_1"], abs=1e-6)
        assert found.precision_at[10] == pytest.approx(theirs["precision_at_10"], abs=1e-6)
    assert found.queries == len(labels)


@given(st.integers(0, 10**6), st.integers(3, 40), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_average_precision_equals_scikit_learns_also_where_scores_tie(seed: int, count: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    # Whole numbers: products are exact, and many of them alike.
    vectors = generator.integers(-1, 2, (count, 3)).astype(np.float64)
    labels = generator.integers(0, classes, count)
    found = retrieval(vectors, labels, vectors, labels, leave_one_out=True)
    for row in range(count):
        others = np.arange(count) != row
        relevant = labels[others] == labels[row]
        if relevant.any():
            wanted = average_precision_score(relevant, (vectors @ vectors[row])[others])
            assert found.average_precision[row] == pytest.approx(wanted, abs=1e-9)
        else:
            assert np.isnan(found.average_precision[row])


def test_a_tie_between_right_and_wrong_is_no_hit_but_one_between_right_ones_is() -> None:
    same = np.tile([[1.0, 0.0]], (4, 1))
    ours = retrieval(same[:1], np.array([0]), same, np.array([0, 0, 0, 0]), at=(1,))
    mixed = retrieval(same[:1], np.array([0]), same, np.array([0, 0, 1, 1]), at=(1,))
    assert (ours.precision_at[1], mixed.precision_at[1]) == (1, 0)


def test_clustering_equals_torchmetrics_and_finds_what_is_plain() -> None:
    vectors, labels = embeddings()
    found = agreement(vectors[:, :7].argmax(1), labels)
    assert found.nmi == pytest.approx(GOLDEN["torchmetrics"]["nmi"], abs=1e-6)
    assert found.ari == pytest.approx(GOLDEN["torchmetrics"]["ari"], abs=1e-6)
    plain = cluster(np.eye(4)[np.arange(40) % 4] + 0.01, np.arange(40) % 4)
    assert (plain.nmi, plain.ari, plain.accuracy) == pytest.approx((1, 1, 1))
    assert (plain.predicted == np.arange(40) % 4).all()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
@settings(max_examples=40, deadline=None)
def test_the_assignment_of_clusters_is_the_best_of_all(both: list[tuple[int, int]]) -> None:
    from itertools import permutations

    found, labels = np.array(both).T
    best = max(float((np.array(order)[found] == labels).mean()) for order in permutations(range(4)))
    ours = agreement(found, labels)
    assert ours.accuracy == pytest.approx(best)
    assert (ours.predicted == labels).mean() == pytest.approx(best)
    assert ours.nmi == pytest.approx(normalized_mutual_info_score(labels, found))
    assert ours.ari == pytest.approx(adjusted_rand_score(labels, found))


def test_accuracies_equal_others() -> None:
    vectors, labels = embeddings()
    predicted = vectors[:, :7].argmax(1)
    assert mean_per_class(labels, predicted) == pytest.approx(GOLDEN["torchmetrics"]["mean_per_class"], abs=1e-6)
    assert mean_per_class(labels, predicted) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert (confusion(labels, predicted, CLASSES) == confusion_matrix(labels, predicted)).all()


def test_copy_detection_equals_the_challenges_script(blocks: None) -> None:
    found = copy_detection(*copies())[-1]
    assert found.micro_ap == pytest.approx(GOLDEN["isc"]["micro_ap"], abs=1e-6)
    assert found.recall_at_p90 == pytest.approx(GOLDEN["isc"]["recall_at_p90"], abs=1e-6)
    assert found.recall_at_1 == pytest.approx(GOLDEN["isc"]["recall_at_1"], abs=1e-6)


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_micro_average_precision_equals_scikit_learns_in_every_group(seed: int, count: int, queries: int) -> None:
    generator = np.random.default_rng(seed)
    references = generator.integers(-2, 3, (count, 3)).astype(np.float64)
    asked = generator.integers(-2, 3, (queries, 3)).astype(np.float64)
    originals = generator.integers(0, count, queries)
    groups = generator.integers(0, 3, queries)
    truth = np.arange(count) == originals[:, None]
    found = copy_detection(asked, originals, references, groups)
    for group in (-1, *np.unique(groups)):
        mine = np.ones(queries, bool) if group == -1 else groups == group
        wanted = average_precision_score(truth[mine].ravel(), (asked[mine] @ references.T).ravel())
        assert found[int(group)].micro_ap == pytest.approx(wanted, abs=1e-9)


def test_pairs_that_are_told_apart_score_1() -> None:
    figures, area = pairs(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False]))
    assert (figures.micro_ap, figures.recall_at_p90, area) == (1, 1, 1)
    figures, area = pairs(np.array([0.9, 0.8, 0.2, 0.1]), np.array([False, True, False, True]))
    assert area == pytest.approx(0.25)
    assert figures.recall_at_p90 == 0


def test_few_shot_equals_scikit_learns_nearest_centroid() -> None:
    vectors, labels = embeddings()
    draws = few_shot(vectors[:TRAIN], labels[:TRAIN], vectors[TRAIN:], labels[TRAIN:], (1, 5), 100, 3)
    generator = np.random.default_rng(3)
    rows_of = [np.flatnonzero(labels[:TRAIN] == label) for label in range(CLASSES)]
    for count in (1, 5):
        wanted = []
        for _ in range(100):
            chosen = np.concatenate([generator.permutation(rows)[:count] for rows in rows_of])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # single images have no variance, which it computes besides
                theirs = NearestCentroid().fit(vectors[chosen], labels[chosen])
            wanted.append(theirs.score(vectors[TRAIN:], labels[TRAIN:]))
        assert draws[count].accuracies == pytest.approx(wanted, abs=1e-6)
        spread = 1.96 * torch.tensor(wanted).std() / 10
        assert draws[count].ci95 == pytest.approx(float(spread), abs=1e-6)
    assert draws[5].mean > draws[1].mean


def test_without_test_images_the_drawn_ones_are_not_tested() -> None:
    vectors = np.eye(8, dtype=np.float32)
    labels = np.arange(8) % 2
    # Everything is equally far from everything, but itself: only a leak could tell the classes apart.
    found = few_shot(vectors, labels, None, None, (3,), 50, 0)
    assert found[3].mean == pytest.approx(0.5, abs=0.15)
    with pytest.raises(MasslError, match="one to test on"):
        few_shot(vectors, labels, None, None, (4,), 2, 0)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        draws = Draws(generator.normal(0.6, 0.1, 100), 5)
        hits += abs(draws.mean - 0.6) <= draws.ci95
    assert 0.92 < hits / 400 < 0.98


def test_nearest_mean_is_by_distance_not_by_angle() -> None:
    assert nearest_mean(np.array([[1.0, 0.0], [0.1, 0.1]]), np.array([[0.2, 0.0]])) == [1]


def test_low_shot_draws_of_different_seeds_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[bool, ...]] = []

    def watched(*given: Any) -> Any:
        drawn.append(tuple((chosen := stratified(*given)).tolist()))
        return chosen

    monkeypatch.setattr(fewshot, "stratified", watched)
    vectors, labels = clusters(60, 0)
    for seed in range(3):
        low_shot(vectors, labels, vectors, labels, (0.4,), 3, seed)
    assert len(set(drawn)) == len(drawn) == 9


def test_low_shot_improves_with_labels_and_equals_a_direct_minimum() -> None:
    vectors, labels = (values[: TRAIN + 200] for values in embeddings())
    test = vectors[TRAIN:], labels[TRAIN:]
    found = low_shot(vectors[:TRAIN], labels[:TRAIN], *test, (0.02, 0.4), 3, 0)
    assert found[0.4].mean > found[0.02].mean
    assert found[0.02].labelled == stratified(labels[:TRAIN], 0.02, 0).sum()
    chosen = stratified(labels[:TRAIN], 0.4, [0, 1])
    centre = vectors[:TRAIN][chosen].mean(0)
    inside, outside = ((rows - centre) for rows in (vectors[:TRAIN][chosen], test[0]))
    inside, outside = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (inside, outside))
    truth = np.eye(CLASSES)[labels[:TRAIN][chosen]]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(24, CLASSES)
        logits = inside @ weights
        high = logits.max(1, keepdims=True)
        log_sum = high[:, 0] + np.log(np.exp(logits - high).sum(1))
        shares = np.exp(logits - log_sum[:, None])
        penalty = 0.00025 / len(inside)
        value = (log_sum - (logits * truth).sum(1)).mean() + penalty / 2 * (flat**2).sum()
        return value, (inside.T @ (shares - truth) / len(inside) + penalty * weights).ravel()

    best = minimize(loss, np.zeros(24 * CLASSES), jac=True, method="L-BFGS-B", options={"maxiter": 3000, "ftol": 1e-14})
    predicted = (outside @ best.x.reshape(24, CLASSES)).argmax(1)
    assert found[0.4].accuracies[1] == pytest.approx((predicted == test[1]).mean(), abs=0.011)


def test_sgd_equals_torchs() -> None:
    vectors, labels = embeddings()
    vectors, labels = vectors[:300] * np.sqrt(24), labels[:300]
    weights, biases = train_layers(vectors, labels, CLASSES, (0.01, 0.1), 40, 5)
    for place, rate in enumerate((0.01, 0.1)):
        generator = np.random.default_rng(5)
        layer = torch.nn.Linear(24, CLASSES, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(generator.normal(scale=0.01, size=(24, CLASSES)).T))
            layer.bias.zero_()
        order = np.concatenate([generator.permutation(300) for _ in range(40)])
        optimiser = torch.optim.SGD(layer.parameters(), lr=rate * 128 / 256, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 40)
        for step in range(40):
            rows = order[step * 128 : (step + 1) * 128]
            optimiser.zero_grad()
            answers = layer(torch.from_numpy(vectors[rows]))
            torch.nn.functional.cross_entropy(answers, torch.from_numpy(labels[rows])).backward()
            optimiser.step()
            schedule.step()
        assert weights[place] == pytest.approx(layer.weight.detach().numpy().T, abs=1e-9)
        assert biases[place] == pytest.approx(layer.bias.detach().numpy(), abs=1e-9)


def test_the_probe_chooses_on_what_it_was_not_trained_on_and_then_uses_all() -> None:
    vectors, labels = embeddings()
    train, truth = vectors[:TRAIN], labels[:TRAIN]
    probe = linear_probe(train, truth, vectors[TRAIN:], steps=60, seed=2)
    inside = stratified(truth, 0.9, 2)
    scale = np.sqrt(24)
    weights, biases = train_layers(scale * train[inside], truth[inside], CLASSES, RATES, 60, 2)
    held_out = [
        float(((scale * train[~inside] @ w + b).argmax(1) == truth[~inside]).mean())
        for w, b in zip(weights, biases, strict=True)
    ]
    assert list(probe.held_out.values()) == pytest.approx(held_out)
    assert probe.chosen == RATES[int(np.argmax(held_out))]
    weights, biases = train_layers(scale * train, truth, CLASSES, (probe.chosen,), 60, 2)
    assert (probe.predicted == (scale * vectors[TRAIN:] @ weights[0] + biases[0]).argmax(1)).all()


def test_logistic_regression_equals_a_direct_minimum() -> None:
    vectors, labels = embeddings()
    train, truth = vectors[:TRAIN] * np.sqrt(24), labels[:TRAIN]
    probe = logistic_probe(vectors[:TRAIN], truth, vectors[TRAIN:], strengths=(1e-4, 1e-2, 1.0))
    onehot = np.eye(CLASSES)[truth]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[:-CLASSES].reshape(24, CLASSES), flat[-CLASSES:]
        logits = train @ weights + bias
        high = logits.max(1, keepdims=True)
        log_sum = high[:, 0] + np.log(np.exp(logits - high).sum(1))
        residual = np.exp(logits - log_sum[:, None]) - onehot
        value = probe.chosen * (log_sum - (logits * onehot).sum(1)).sum() + (weights**2).sum() / 2
        gradient = np.concatenate(
            [(probe.chosen * train.T @ residual + weights).ravel(), probe.chosen * residual.sum(0)]
        )
        return value, gradient

    best = minimize(loss, np.zeros(25 * CLASSES), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15})
    weights, bias = best.x[:-CLASSES].reshape(24, CLASSES), best.x[-CLASSES:]
    wanted = (np.sqrt(24) * vectors[TRAIN:] @ weights + bias).argmax(1)
    assert (probe.predicted == wanted).mean() >= 0.99  # both stop near the minimum, at slightly different points
    assert probe.held_out[probe.chosen] == max(probe.held_out.values())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_split_takes_its_share_of_every_class_and_leaves_some(drawn: list[int], share: float, seed: int) -> None:
    labels = np.array(drawn)
    first = stratified(labels, share, seed)
    assert (first == stratified(labels, share, seed)).all()
    for label in np.unique(labels):
        count, mine = (labels == label).sum(), first[labels == label].sum()
        assert mine == 1 if count == 1 else 1 <= mine <= count - 1
        assert abs(mine - share * count) <= 1


@pytest.mark.parametrize("task", TASKS)
def test_every_task_measures_and_names_its_protocol(task: str) -> None:
    vectors, labels = (values[:260] for values in embeddings())
    names = [f"c{label}" for label in range(CLASSES)]
    choices = ProtocolOptions(draws=3, low_shot_draws=2, steps=40, shots=(1, 2))
    for train in (None, stratified(labels, 0.5, 1)):
        found = measure(task, Labelled(vectors, labels, names, train), choices)
        assert found.protocol
        assert len(found.rows) == len(found.predicted)
        json.dumps(found.metrics)
        shares = [value for value in found.metrics.values() if isinstance(value, float)]
        assert all(0 <= value <= 1 for value in shares)
        assert figures(task, found.metrics)


def test_transfer_has_all_the_shots_that_there_are() -> None:
    vectors, labels = embeddings()
    names = [f"c{label}" for label in range(CLASSES)]
    train = np.zeros(len(labels), np.bool_)
    for label in range(CLASSES):
        train[np.flatnonzero(labels == label)[:5]] = True
    choices = ProtocolOptions(draws=2, steps=20)
    found = measure("transfer", Labelled(vectors, labels, names, train), choices)
    assert list(found.metrics["shots"]) == list(
        measure("fewshot", Labelled(vectors, labels, names, train), replace(choices, shots=(1, 5))).metrics["shots"]
    )


def test_too_few_images_are_named() -> None:
    vectors, labels = embeddings()
    labels = labels.copy()
    lonely = np.flatnonzero(labels == 4)[1:]
    keep = np.setdiff1d(np.arange(len(labels)), lonely)
    names = [f"c{label}" for label in range(CLASSES)]
    data = Labelled(vectors[keep], labels[keep], names)
    for task in ("linear", "fewshot", "low-shot", "transfer"):
        with pytest.raises(MasslError, match=r"class 'c4' has fewer than 2 images .* --min-images 2"):
            measure(task, data, ProtocolOptions(steps=20, draws=2))
    measure("knn", data, ProtocolOptions())
    assert measure("retrieval", data, ProtocolOptions()).metrics["queries_without_match"] == 1
    with pytest.raises(MasslError, match="at least two classes"):
        measure("knn", Labelled(vectors, np.zeros(len(vectors), int), ["all"]), ProtocolOptions())
    with pytest.raises(MasslError, match="'c4' has test images but no training image"):
        measure("knn", Labelled(vectors, labels, names, labels != 4), ProtocolOptions())


def test_evaluation_needs_no_torch() -> None:
    code = "import sys, massl.evaluation, massl.evaluation.tasks; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_rankme_tells_collapse_from_spread() -> None:
    generator = np.random.default_rng(0)
    assert rankme(np.ones((64, 16))) == pytest.approx(1, abs=1e-3)
    assert rankme(np.eye(16)) == pytest.approx(16, rel=1e-3)
    assert 12 < rankme(generator.normal(size=(640, 16))) <= 16


def test_two_shares_that_are_the_same_few_images_are_one_row() -> None:
    told = {"mean": 0.5, "ci95": 0.01, "images": 30}
    metrics = {"shares": {"0.01": told, "0.1": told, "0.5": {**told, "images": 150}}, "draws": 10}
    assert [figure.name for figure in figures("low-shot", metrics)] == [
        "0.01 or 0.1 of the labels (30)",
        "0.5 of the labels (150)",
    ]
