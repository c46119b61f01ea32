"""The map: where images lie in it, how it follows the collection, what its file survives."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.projection import layout
from indexer.projection.collection_map import CollectionMap, Map
from indexer.store.catalog import Catalog
from tests.indexer.vectors import Array

DIM = 24
KINDS = 6


def grouped(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a few centres, float16 `[count, DIM]`, and which centre each belongs to."""
    draw = np.random.default_rng(seed)
    kinds = draw.integers(0, KINDS, count)
    vectors = draw.standard_normal((KINDS, DIM))[kinds] + 0.4 * draw.standard_normal((count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16), kinds


def together(points: np.ndarray, kinds: np.ndarray, k: int = 8) -> float:
    """The share of the points' nearest others that are of their own kind."""
    far = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(far, np.inf)
    return float((kinds[np.argsort(far, 1)[:, :k]] == kinds[:, None]).mean())


@pytest.mark.parametrize("most", [10_000, 150])  # all laid out, or a sample, with the others placed by it
def test_like_images_lie_together(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "LAID_OUT", most)
    vectors, kinds = grouped(400)
    told: list[tuple[str, float]] = []
    ids, points, laid_out = layout.by_neighbours(Array(vectors), lambda step, done: told.append((step, done)))
    assert laid_out == min(most, 400)
    np.testing.assert_array_equal(ids, Array(vectors).ids)
    assert points.dtype == np.float32
    assert np.abs(points).max() <= 1
    assert together(points, kinds) > 0.95
    assert len(np.unique(points, axis=0)) == len(points)
    steps = ["comparing", "arranging", *(["placing"] if most < 400 else [])]
    assert list(dict.fromkeys(step for step, _ in told)) == steps
    assert [done for _, done in told] == sorted(done for _, done in told)


def test_an_earlier_map_is_where_the_next_one_sets_out() -> None:
    vectors, _ = grouped(300)
    source = Array(vectors)
    ids, points, _ = layout.by_neighbours(source)
    turned = points @ np.array([[0, 1], [-1, 0]], np.float32)
    _, again, _ = layout.by_neighbours(source, before=(ids[::2], turned[::2]))
    moved = np.linalg.norm(again - turned, axis=1)
    assert np.median(moved) < np.median(np.linalg.norm(again - points, axis=1)) / 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_every_image_has_a_point_however_few_or_alike(count: int, seed: int, alike: bool) -> None:
    vectors, _ = grouped(count, seed)
    if alike:
        vectors[:] = vectors[:1]
    source = Array(vectors)
    for ids, points in (layout.principal(source), layout.by_neighbours(source)[:2]):
        np.testing.assert_array_equal(ids, source.ids)
        assert points.shape == (count, 2)
        assert np.isfinite(points).all()
        assert (np.abs(points) <= 1).all()


@pytest.mark.parametrize("count", [12, 13, 20, 25, 30, 54])
def test_few_images_do_not_fall_into_one_point(count: int) -> None:
    """With as much early attraction as for many, they did: each is drawn to most of the others."""
    for seed in range(3):
        vectors = np.random.default_rng(seed).standard_normal((count, 32)) + 2
        _, points, _ = layout.by_neighbours(Array(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
        apart = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(count)
        assert points.std(0).min() > 0.1
        assert np.median(apart.min(1)) > 0.02


def catalog_of(folder: Path, vectors: np.ndarray) -> Catalog:
    """A catalog of so many images."""
    about = {"dim": str(DIM), "generation": "0", "encoder_sha256": "a" * 64}
    catalog = Catalog.create(folder / "catalog.sqlite", about)
    add(catalog, vectors)
    return catalog


def add(catalog: Catalog, vectors: np.ndarray) -> None:
    ((first,),) = catalog.read("SELECT count(*) FROM images")
    with catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, state, hash, embedding) VALUES (?, 1, 1, 'ready', ?, ?)",
            [
                (b"%d" % row, np.random.default_rng(row).bytes(32), vector.tobytes())
                for row, vector in enumerate(vectors, first)
            ],
        )
        connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")


def change(catalog: Catalog, statement: str) -> None:
    with catalog.writing() as connection:
        connection.execute(statement)
        connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")


def finished(shown: CollectionMap) -> Map:
    """The map once nothing goes on in the background."""
    shown.get()
    assert shown.wait(60)
    return shown.get()


def test_it_is_rough_at_once_then_by_neighbours_and_kept_for_the_next_time(tmp_path: Path) -> None:
    vectors, kinds = grouped(200)
    catalog = catalog_of(tmp_path, vectors)
    shown = CollectionMap(catalog, tmp_path)
    rough = shown.get()
    assert (rough.kind, rough.missing, len(rough.ids)) == ("principal", 0, 200)
    making = shown.making()
    assert making is not None
    assert 0 <= making.done <= 1
    better = finished(shown)
    assert better.kind == "neighbours"
    assert better.version != rough.version
    assert together(better.points, kinds) > 0.95
    assert shown.making() is None

    again = CollectionMap(catalog, tmp_path)
    assert again.get().version == better.version
    assert again.making() is None  # nothing to do
    assert len(list(tmp_path.glob("map-*.npz"))) == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "another's"])
def test_a_damaged_file_is_not_read_and_the_map_is_made_anew(tmp_path: Path, damage: str) -> None:
    catalog = catalog_of(tmp_path, grouped(60)[0])
    version = finished(CollectionMap(catalog, tmp_path)).version
    (file,) = tmp_path.glob("map-*.npz")
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "another's":
        np.savez(file, ids=np.arange(3), hashes=np.arange(3, dtype=np.uint64), points=np.zeros((3, 2)))
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data if damage == "flipped" else data[:-9])
    shown = CollectionMap(catalog, tmp_path)
    assert shown.get().kind == "principal"
    assert finished(shown).version == version


def test_it_follows_the_collection(tmp_path: Path) -> None:
    vectors, kinds = grouped(230)
    catalog = catalog_of(tmp_path, vectors[:200])
    shown = CollectionMap(catalog, tmp_path)
    first = finished(shown)

    # A few more: the others stay where they are, and the new ones come among their like.
    add(catalog, vectors[200:210])
    meanwhile = shown.get(improve=False)
    assert (meanwhile.missing, len(meanwhile.ids), shown.making()) == (10, 200, None)
    more = finished(shown)
    assert (more.missing, len(more.ids)) == (0, 210)
    np.testing.assert_array_equal(more.points[:200], first.points)
    assert together(more.points, kinds[:210]) > 0.95

    # One has gone, one has another content.
    change(catalog, "UPDATE images SET state = 'gone' WHERE id = 3")
    change(catalog, "UPDATE images SET hash = randomblob(32) WHERE id = 5")
    less = shown.get(improve=False)
    assert 3 not in less.ids
    assert 5 not in less.ids
    assert less.missing == 1
    assert finished(shown).missing == 0

    # Another encoder: nothing of it holds.
    change(catalog, f"UPDATE meta SET value = '{'b' * 64}' WHERE key = 'encoder_sha256'")
    assert shown.get().kind == "principal"
    assert finished(shown).kind == "neighbours"


def test_so_many_new_images_that_all_are_laid_out_again(tmp_path: Path) -> None:
    vectors, kinds = grouped(200)
    catalog = catalog_of(tmp_path, vectors[:150])
    shown = CollectionMap(catalog, tmp_path)
    finished(shown)
    add(catalog, vectors[150:])
    better = finished(shown)
    assert (better.laid_out, better.missing) == (200, 0)
    assert together(better.points, kinds) > 0.95


def test_it_stops_when_it_is_told_to(tmp_path: Path) -> None:
    shown = CollectionMap(catalog_of(tmp_path, grouped(2_000)[0]), tmp_path)
    shown.get()
    shown.stop()
    assert shown.wait(0)
    assert shown.get().kind == "principal"
    assert list(tmp_path.glob("map*")) == []
    assert not any(thread.name == "map" for thread in threading.enumerate())


def test_without_opentsne_the_rough_map_stays_and_a_sentence_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openTSNE", None)
    shown = CollectionMap(catalog_of(tmp_path, grouped(60)[0]), tmp_path)
    assert finished(shown).kind == "principal"
    assert "pip install openTSNE" in (shown.trouble() or "")
    shown.get()
    assert shown.making() is None  # it does not try again and again


def test_a_folder_that_can_t_be_written_costs_the_file_alone(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, grouped(60)[0])
    shown = CollectionMap(catalog, tmp_path / "gone")
    assert finished(shown).kind == "neighbours"
