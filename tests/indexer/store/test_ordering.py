"""Orders of a collection's images, on real files with real dates."""

from __future__ import annotations

import os

import pytest

from indexer import Collection, Encoder
from indexer.store.filters import Filter
from indexer.store.ordering import ORDERS
from indexer.store.quality import HINTS
from massl.core.errors import MasslError
from tests.indexer.tiny import picture

NOON = {"2020-05-01": 1_588_334_400, "2021-07-01": 1_625_140_800, "2019-01-01": 1_546_344_000}  # UTC


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Encoder) -> Collection:
    """Four files: three with a date of the file, of which the oldest says that it was taken last; one without any."""
    root = tmp_path_factory.mktemp("dated")
    for number, (day, seconds) in enumerate(NOON.items()):
        file = root / "ba"[number % 2] / f"{day}.bmp"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture(number) + b" " * number)
        os.utime(file, (seconds, seconds))
    (root / "undated.bmp").write_bytes(picture(9))
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    taken, undated = (collection.images.id_of(path) for path in ("b/2019-01-01.bmp", "undated.bmp"))
    with collection.catalog.writing() as connection:
        connection.execute("UPDATE file_metadata SET taken = '2022-02-02' WHERE image = ?", [taken])
        connection.execute("UPDATE images SET mtime_ns = -1 WHERE id = ?", [undated])
    return collection


def test_the_day_taken_counts_before_that_of_the_file_and_none_comes_last(dated: Collection) -> None:
    newest = dated.images.ordered("newest")
    assert [each.path for each in newest] == ["b/2019-01-01.bmp", "a/2021-07-01.bmp", "b/2020-05-01.bmp", "undated.bmp"]
    assert [each.moment[:10] for each in newest] == ["2022-02-02", "2021-07-01", "2020-05-01", ""]
    assert [each.path for each in dated.images.ordered("oldest")] == [each.path for each in newest[2::-1]] + [
        "undated.bmp"
    ]


def test_an_order_is_of_those_that_pass_or_are_named(dated: Collection) -> None:
    assert [each.path for each in dated.images.ordered("folder", Filter(folders=("b",)))] == [
        "b/2019-01-01.bmp",
        "b/2020-05-01.bmp",
    ]
    largest = dated.images.ordered("size")
    assert [each.size for each in largest] == sorted((each.size for each in largest), reverse=True)
    named = [each.image for each in largest[1:3]]
    assert [each.image for each in dated.images.ordered("size", images=named)] == named
    assert dated.images.ordered("size", images=[]) == []
    assert len(dated.images.ordered("newest", limit=2)) == 2
    for order in ORDERS:
        assert sorted(each.image for each in dated.images.ordered(order)) == sorted(dict(dated.images.ready()))


def test_pictures_are_ordered_by_tag_by_the_day_taken_alone_by_rating_and_by_quality(dated: Collection) -> None:
    ids = {path: image for image, path in dated.images.ready()}
    one, two = ids["undated.bmp"], ids["a/2021-07-01.bmp"]
    dated.tags.give([(one, "sea"), (two, "sea"), (two, "beach")], "me")
    by_tag = dated.images.ordered("tag")
    assert [(each.image, each.value) for each in by_tag[:2]] == [(two, "beach"), (one, "sea")]
    assert [each.value for each in by_tag[2:]] == [None, None]
    assert [each.path for each in by_tag[2:]] == sorted(each.path for each in by_tag[2:])

    taken = dated.images.ordered("taken")
    assert [each.value for each in taken] == ["2022-02-02", None, None, None]
    assert (taken[0].path, taken[1].path) == ("b/2019-01-01.bmp", "a/2021-07-01.bmp")

    with dated.catalog.writing() as connection:
        for image, rating in ((one, -1), (two, 5)):
            connection.execute("UPDATE file_metadata SET rating = ? WHERE image = ?", [rating, image])
    rated = dated.images.ordered("rating")
    assert [(each.image, each.value) for each in rated[:2]] == [(two, 5), (one, -1)]
    assert [each.value for each in rated[2:]] == [None, None]

    for name, hint in HINTS.items():
        with dated.catalog.writing() as connection:
            connection.execute("DELETE FROM pixel_measures WHERE image = ?", [two])
        values = [each.value for each in dated.images.ordered(name)]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=not hint.below)
        of_pixels = name not in ("tiny", "elongated")
        assert values.count(None) == of_pixels
        assert values[-1] is None or not of_pixels  # what was not measured comes last


def test_months_count_the_pictures_that_pass_and_only_where_days_are_known(dated: Collection) -> None:
    assert dated.images.months(Filter()) == {"2020-05": 1, "2021-07": 1, "2022-02": 1}
    assert dated.images.months(Filter(folders=("b",))) == {"2020-05": 1, "2022-02": 1}
    assert dated.images.months(Filter(folders=("a",))) == {}  # its file says when it was copied


def test_an_unknown_order_is_refused(dated: Collection) -> None:
    with pytest.raises(
        MasslError, match="there is no order 'random'; choose one of newest, oldest, taken, folder, tag"
    ):
        dated.images.ordered("random")
