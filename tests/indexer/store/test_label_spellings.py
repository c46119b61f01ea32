"""Labels that look the same are the same, however they were typed."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from indexer import Collection, Encoder
from indexer.store.filters import Filter, in_order
from indexer.store.labels import NONE_OF_THESE
from tests.indexer.tiny import write_encoder

COMPOSED = "café"
APART = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(4):
        Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(root / f"{number}.png")
    made = Collection.create(root, Encoder.load(write_encoder(tmp_path / "tiny.onnx"), threads=1))
    made.update()
    return made


def test_an_accent_of_its_own_is_the_same_label_and_the_reserved_one_has_no_case(collection: Collection) -> None:
    ids = [image for image, _ in collection.images.ready()]
    collection.labels.add(APART, ids[:1], "ada")
    collection.labels.give({ids[1]: COMPOSED, ids[2]: "None of These "}, "ada")
    assert collection.labels.counts() == {COMPOSED: 2, NONE_OF_THESE: 1}
    assert collection.labels.classes() == [COMPOSED, NONE_OF_THESE]
    # An undo knows the label as it was typed.
    assert collection.labels.restore({ids[0]: (APART, "ada")}, {ids[0]: APART}) == 0
    assert collection.labels.counts() == {COMPOSED: 2, NONE_OF_THESE: 1}
    with pytest.raises(Exception, match="1 to 100 printable characters"):
        collection.labels.add("́" * 101, ids[:1], "ada")


def test_labels_of_an_earlier_version_are_found_and_joined_by_the_next_one_that_is_given(
    collection: Collection,
) -> None:
    ids = [image for image, _ in collection.images.ready()]
    collection.labels.give({ids[0]: COMPOSED, ids[1]: COMPOSED}, "ada")
    collection.rejections.add({ids[2]: COMPOSED, ids[3]: "other"})
    with collection.catalog.writing() as connection:  # as earlier versions did
        connection.execute("UPDATE labels SET label = ? WHERE image = ?", (APART, ids[0]))
        connection.execute("UPDATE rejected_labels SET label = ? WHERE image = ?", (APART, ids[2]))
    for typed in (COMPOSED, APART):
        assert [image for image, *_ in in_order(collection.catalog, Filter(labels=(typed,)))] == ids[:2]
    collection.labels.add("tea", ids[3:], "ada")
    assert collection.labels.counts() == {COMPOSED: 2, "tea": 1}
    assert collection.rejections.by_image() == {ids[2]: {COMPOSED}, ids[3]: {"other"}}
    assert {label.author for label in collection.labels.every()} == {"ada"}
