"""`massl search` without a query: the pictures themselves, by filters and in an order."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.search import Sort
from indexer.store.ordering import ORDERS
from tests.cli.conftest import failed

pytestmark = pytest.mark.usefixtures("indexed")


def test_the_orders_are_those_of_the_catalog() -> None:
    assert {order.value for order in Sort} == {"similarity", *ORDERS}


def test_pictures_are_listed_in_an_order_without_a_query(massl, photos: Path) -> None:
    sizes = {str(path.relative_to(photos)): path.stat().st_size for path in photos.rglob("*.jpg")}
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))
    ran = massl("search", photos, "--sort", "size", "--paths")
    assert ran.output.splitlines() == largest  # all of them
    told = massl("search", photos, "--sort", "size", "-k", "3", "--json").json["results"]
    assert [(row["rank"], row["path"], row["value"]) for row in told] == [
        (rank, name, sizes[name]) for rank, name in enumerate(largest[:3], 1)
    ]
    assert {row["score"] for row in told} == {row["match"] for row in told} == {None}
    plain = massl("search", photos, "--sort", "size", "-k", "3")
    assert [line.split() for line in plain.output.splitlines()] == [
        [str(rank), f"{sizes[name]:,}", name] for rank, name in enumerate(largest[:3], 1)
    ]
    assert f"3 of {len(sizes)} images" in plain.error
    nul = massl("search", photos, "--sort", "size", "-k", "2", "-0", "--absolute").output
    assert nul == "".join(f"{(photos / name).absolute()}\0" for name in largest[:2])


def test_filters_alone_list_what_passes_by_path_and_tags_are_an_order(massl, photos: Path) -> None:
    one, two, three = sorted(f"fruit/{path.name}" for path in photos.glob("fruit/*"))[:3]
    massl("tag", "add", photos, "sweet", one, three)
    massl("tag", "add", photos, "green", two, three)
    assert massl("search", photos, "--tag", "sweet", "--paths").output.split() == [one, three]
    assert "1 of 2 that pass, of " in massl("search", photos, "--tag", "sweet", "-k", "1").error
    assert massl("search", photos, "--under", "fruit", "--paths").output.splitlines()[:3] == [one, two, three]
    rows = massl("search", photos, "--sort", "tag", "--json").json["results"]
    assert [(row["path"], row["value"]) for row in rows[:3]] == [(two, "green"), (three, "green"), (one, "sweet")]
    assert {row["value"] for row in rows[3:]} == {None}
    lines = massl("search", photos, "--sort", "tag", "-k", "4").output.splitlines()
    assert [line.split()[1] for line in lines] == ["green", "green", "sweet", "-"]
    assert "no image has the tag 'blue'" in failed(massl("search", photos, "--tag", "blue"))
    assert "no image passes the filters" in failed(massl("search", photos, "--tag", "sweet", "--under", "flag"))


def test_a_quality_order_is_also_one_of_results(massl, photos: Path) -> None:
    listed = massl("search", photos, "--sort", "dark", "--json").json["results"]
    values = [row["value"] for row in listed]
    assert values == sorted(values)
    query = photos / listed[0]["path"]
    found = massl("search", photos, query, "-k", "5", "--sort", "dark", "--json").json["results"]
    order = [row["path"] for row in listed]
    assert [row["path"] for row in found] == sorted((row["path"] for row in found), key=order.index)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "name an example image after the folder, or list the images themselves"),
        (("--sort", "size", "--crop", "0,0,9,9"), "--crop is about a query"),
        (("--sort", "size", "--exact"), "--exact is about a query"),
        (("--sort", "random"), "random"),
    ],
)
def test_what_is_no_listing_says_what_to_do(massl, photos: Path, options: tuple[str, ...], said: str) -> None:
    ran = massl("search", photos, *options)
    assert ran.code == 2
    assert said in " ".join(ran.error.split())
