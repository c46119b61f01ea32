"""The order in which unlabelled images are looked at, and groups to begin with."""

from __future__ import annotations

import numpy as np
import pytest

from indexer import Collection
from indexer.fewshot.classification import classify
from indexer.fewshot.clusters import TYPICAL, find_groups
from indexer.fewshot.sampling import SAMPLE, least_sure, most_different, most_sure
from tests.indexer.kinds import kinds, labels_of


def test_queues_hold_each_unlabelled_image_once_in_order() -> None:
    ids, vectors, targets = kinds(200, 3, seed=0, spread=1.5)
    rejected = {int(ids[-1]): frozenset("abc")}
    result = classify(ids, vectors, labels_of(ids[:-1], targets[:-1], 5), rejected)
    sure, unsure = most_sure(result), least_sure(result)
    assert (np.diff(result.probability[sure]) <= 0).all()
    assert (np.diff(result.probability[unsure]) >= 0).all()
    assert unsure[0] == len(ids) - 1  # of which nothing can be proposed any more
    assert set(unsure) == set(np.flatnonzero(~result.labelled))
    assert set(sure) == set(np.flatnonzero(~result.labelled & result.familiar)) - {len(ids) - 1}


def test_different_images_cover_the_kinds_that_nobody_labelled() -> None:
    _, vectors, targets = kinds(600, 8, seed=1, spread=0.3)
    labelled = np.isin(targets, [0, 1, 2]) & (np.arange(600) % 2 == 0)
    chosen = most_different(vectors, labelled, 10)
    assert len(set(chosen.tolist())) == 10
    assert not labelled[chosen].any()
    assert set(targets[chosen[:5]]) == {3, 4, 5, 6, 7}
    assert (chosen == most_different(vectors, labelled, 10)).all()
    assert set(targets[most_different(vectors, np.zeros(600, bool), 16)]) == set(range(8))


@pytest.mark.parametrize("count", [0, 1, 5, 50])
def test_copies_and_small_collections_give_what_there_is(count: int) -> None:
    _, vectors, _ = kinds(8, 2, seed=2)
    labelled = np.zeros(16, bool)
    labelled[:3] = True
    chosen = most_different(np.concatenate([vectors, vectors]), labelled, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, 13)
    assert len(most_different(vectors, np.ones(8, bool), count)) == 0


def test_different_images_come_from_a_sample_where_there_are_many() -> None:
    _, vectors, _ = kinds(SAMPLE + 2_000, 4, seed=3, dim=4)
    chosen = most_different(vectors, np.zeros(len(vectors), bool), 5)
    assert len(chosen) == 5


def test_groups_are_of_one_kind_each_where_kinds_are_clear() -> None:
    ids, vectors, targets = kinds(300, 5, seed=4, spread=0.3)
    kind = dict(zip(ids.tolist(), targets.tolist(), strict=True))
    groups = find_groups(ids, vectors, 5)
    assert sorted({kind[image] for group in groups for image in group.typical}) == [0, 1, 2, 3, 4]
    assert all(len({kind[image] for image in group.typical}) == 1 for group in groups)
    assert sum(group.size for group in groups) == 300
    assert all(len(set(group.typical)) == TYPICAL for group in groups)
    closeness = [group.closeness for group in groups]
    assert closeness == sorted(closeness, reverse=True)


def test_large_collections_are_grouped_in_batches() -> None:
    ids, vectors, targets = kinds(12_000, 3, seed=5, dim=8, spread=0.2)
    kind = dict(zip(ids.tolist(), targets.tolist(), strict=True))
    groups = find_groups(ids, vectors, 6)
    assert {kind[image] for group in groups for image in group.typical} == {0, 1, 2}


def test_a_handful_of_images_makes_no_groups() -> None:
    ids, vectors, _ = kinds(7, 1, seed=6)
    assert find_groups(ids, vectors) == []
    assert find_groups(ids[:0], vectors[:0]) == []


def test_only_what_nobody_labelled_is_grouped_and_queued(collection: Collection) -> None:
    labelled = [image for image, _ in collection.images.ready()][:10]
    collection.labels.add("done", labelled, "me")
    groups = collection.fewshot.groups(3)
    assert sum(group.size for group in groups) == 14
    assert not {image for group in groups for image in group.typical} & set(labelled)
    assert not set(collection.fewshot.different(24)) & set(labelled)
    assert len(collection.fewshot.different(24)) == 14
