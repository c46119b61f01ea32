"""Images by label and by folder, in a few kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from indexer.projection import categories
from indexer.projection.categories import NONE, OTHERS, Kinds
from indexer.store.catalog import Catalog
from indexer.store.labels import Labels


def catalog_of(folder: Path, paths: list[str]) -> tuple[Catalog, np.ndarray]:
    catalog = Catalog.create(folder / "catalog.sqlite", {"dim": "2", "generation": "0"})
    with catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, state) VALUES (?, 1, 1, 'ready')",
            [(path.encode(),) for path in paths],
        )
    return catalog, np.arange(1, len(paths) + 1)


@given(st.lists(st.sampled_from([None, "a", "b", "c", "d", "e"])), st.integers(1, 6))
def test_the_most_frequent_kinds_have_a_name_and_every_image_is_counted_once(given: list, most: int) -> None:
    found = Kinds.count(given, most)
    counts = [given.count(name) for name in found.names]
    assert list(found.counts) == counts == sorted(counts, reverse=True)
    assert sum(counts) + found.others[1] + given.count(None) == len(given)
    assert found.others[0] != 1  # a name takes no more room than "1 other"
    for kind, of in zip(given, found.of.tolist(), strict=True):
        assert of == (NONE if kind is None else found.names.index(kind) if kind in found.names else OTHERS)
        if of == OTHERS:
            assert given.count(kind) <= min(counts)


def test_folders_are_told_apart_by_the_first_in_which_they_differ(tmp_path: Path) -> None:
    catalog, ids = catalog_of(tmp_path, ["all/set/a/1.jpg", "all/set/a/deep/2.jpg", "all/set/b/3.jpg", "all/set/4.jpg"])
    found = categories.by_folder(catalog, ids, 9)
    assert dict(zip(found.names, found.counts, strict=True)) == {"all/set/a": 2, "all/set/b": 1, "all/set": 1}
    assert found.of[0] == found.of[1] != found.of[2]


def test_without_folders_all_are_of_one_kind_and_unknown_images_of_none(tmp_path: Path) -> None:
    catalog, _ = catalog_of(tmp_path, ["1.jpg", "2.jpg"])
    found = categories.by_folder(catalog, np.array([1, 2, 99]), 9)
    assert (found.names, found.of.tolist()) == (("",), [0, 0, NONE])


def test_labels_are_kinds_and_unlabelled_images_are_of_none(tmp_path: Path) -> None:
    catalog, ids = catalog_of(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    Labels(catalog).add("cat", [2, 3], "test")
    found = categories.by_label(catalog, ids, 9)
    assert (found.names, found.counts, found.of.tolist()) == (("cat",), (2,), [NONE, 0, 0])


def test_a_class_keeps_its_place_and_so_its_colour_whatever_is_labelled(tmp_path: Path) -> None:
    catalog, ids = catalog_of(tmp_path, [f"{number}.jpg" for number in range(9)])
    Labels(catalog).add("zebra", [1], "test")
    Labels(catalog).add("cat", [2, 3, 4], "test")
    before = categories.by_label(catalog, ids, 9)
    Labels(catalog).add("zebra", [4, 5, 6, 7], "test")
    Labels(catalog).add("ant", [8, 9], "test")
    after = categories.by_label(catalog, ids, 9)
    assert (before.names, before.counts) == (("zebra", "cat"), (1, 3))
    assert (after.names, after.counts) == (("zebra", "cat", "ant"), (5, 2, 2))


@given(st.lists(st.sampled_from("abcdef")), st.permutations("abcdef"), st.integers(1, 6))
def test_with_an_order_the_same_kinds_have_names_and_early_ones_their_own_place(
    given: list, order: list, most: int
) -> None:
    plain, placed = Kinds.count(given, most), Kinds.count(given, most, [kind for kind in order if kind in given])
    assert sorted(zip(plain.names, plain.counts, strict=True)) == sorted(zip(placed.names, placed.counts, strict=True))
    assert plain.others == placed.others
    assert [placed.names[of] if of != OTHERS else None for of in placed.of] == [
        plain.names[of] if of != OTHERS else None for of in plain.of
    ]
    for place, kind in enumerate([kind for kind in order if kind in given][: len(placed.names)]):
        assert kind not in placed.names or placed.names[place] == kind


def test_typical_ones_are_nearest_to_the_middle() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    assert categories.typical(vectors, 2).tolist() == [1, 0]
