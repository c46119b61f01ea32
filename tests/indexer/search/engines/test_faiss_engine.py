"""Every search engine beside brute force: what it finds, what filters let through, and what it keeps in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.search.engines.engine_selection import LEAST, Ladder
from indexer.search.engines.faiss_engine import LADDER, Cells, Exact, FastScan, candidates_in_cells
from indexer.search.engines.interface import Engine, VectorIndex
from indexer.store.vectors import unit
from tests.indexer.vectors import Array, NumpyKind, clustered

DIM = 48
ENGINES = (Exact(), FastScan(), Cells(), NumpyKind())


def quiet(step: str, done: int, total: int) -> None: ...


def recall(index: VectorIndex, source: Array, queries: np.ndarray, among: np.ndarray) -> float:
    """Recall at ten among these ids, by brute force."""
    vectors = source.vectors[np.isin(source.ids, among)].astype(np.float32)
    tenth = np.sort(queries @ vectors.T, 1)[:, -10]
    _, found = index.search(queries, 20, among)
    scores = np.stack([source.vectors[np.searchsorted(source.ids, ids)].astype(np.float32) for ids in found])
    hits = (np.einsum("qkd,qd->qk", scores, queries) >= tenth[:, None] - 1e-5).sum(1)
    return float(np.minimum(hits, 10).mean()) / 10


@pytest.fixture(scope="module")
def source() -> Array:
    """8,000 embeddings, as it were."""
    return Array(clustered(8_100, DIM)[:8_000])


@pytest.fixture(scope="module")
def strangers() -> np.ndarray:
    """100 queries of the same kinds that are not among them."""
    return unit(clustered(8_100, DIM)[8_000:])


@pytest.fixture(scope="module")
def built(source: Array) -> dict[str, VectorIndex]:
    """An index of each engine, looking as hard as it can."""
    indexes = {}
    for engine in ENGINES:
        indexes[engine.name] = engine.build(source, quiet)
        indexes[engine.name].effort = engine.efforts[-1]
    return indexes


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_filters_and_counts_are_kept_to_the_letter(engine: Engine, built, source: Array, data) -> None:
    """Whatever passes: nothing else comes back, nothing twice, in order; all of it, where all is asked for."""
    among = None
    if data.draw(st.booleans(), "filtered"):
        size = data.draw(st.sampled_from([0, 1, 5, 79, 400, 801, 3000, 8000]), "passing")
        draw = np.random.default_rng(data.draw(st.integers(0, 9), "seed"))
        # Some of them are stored nowhere.
        among = np.sort(draw.choice(3 * len(source) + 10, size, replace=False))
    k = data.draw(st.integers(0, 60), "k")
    rows = data.draw(st.lists(st.integers(0, len(source) - 1), min_size=1, max_size=20), "queries")
    queries = unit(source.vectors[rows])
    scores, ids = built[engine.name].search(queries, k, among)
    passing = np.arange(len(source)) if among is None else np.flatnonzero(np.isin(source.ids, among))
    truth = queries @ source.vectors[passing].astype(np.float32).T
    for best, found, true in zip(scores, ids, truth, strict=True):
        assert len(found) == min(k, len(passing))
        assert len(set(found.tolist())) == len(found)
        assert np.isin(found, source.ids[passing]).all()
        assert (np.diff(best) <= 1e-6).all()
        np.testing.assert_allclose(best, true[np.searchsorted(source.ids[passing], found)], atol=0.02)
        if engine.exact:
            np.testing.assert_allclose(best, np.sort(true)[::-1][: len(found)], atol=2e-5)


@pytest.mark.parametrize("share", [0.002, 0.03, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_filters_cost_no_recall(engine: Engine, built, source: Array, strangers: np.ndarray, share: float) -> None:
    draw = np.random.default_rng(0)
    among = np.sort(draw.choice(source.ids, int(share * len(source)), replace=False))
    assert recall(built[engine.name], source, strangers, among) >= 0.985


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_an_index_comes_back_from_its_file_as_it_was(engine: Engine, built, source: Array, tmp_path: Path) -> None:
    queries = unit(source.vectors[:30])
    engine.write(built[engine.name], tmp_path / "file")
    again = engine.read(tmp_path / "file", DIM)
    again.effort = built[engine.name].effort
    (tmp_path / "file").unlink()  # mapped: whoever has it open goes on reading it
    for one, other in zip(built[engine.name].search(queries, 10), again.search(queries, 10), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(OSError, match="file"):
        engine.read(tmp_path / "file", DIM)


@pytest.mark.parametrize("dim", [1, 7, 100])
def test_any_width_of_embedding_will_do(dim: int) -> None:
    source = Array(clustered(5_000, dim))
    for engine in ENGINES:
        index = engine.build(source, quiet)
        index.effort = engine.efforts[-1]
        _, found = index.search(unit(source.vectors[:3]), 3)
        assert found.shape == (3, 3)
        assert index.holds(np.array([5, 6, 8])).tolist() == [True, False, True]


def test_several_queries_give_what_each_gives_alone(built, source: Array) -> None:
    queries = unit(source.vectors[:40])  # enough for several threads
    for index in built.values():
        together = index.search(queries, 5)[1]
        np.testing.assert_array_equal(together, np.concatenate([index.search(query[None], 5)[1] for query in queries]))


def test_cells_rank_as_many_candidates_again_as_a_fast_scan_can() -> None:
    """Among ten million, what 800 candidates missed was missed in however many cells; cells were built in vain."""
    assert candidates_in_cells(Cells.efforts[0]) == 800
    assert candidates_in_cells(Cells.efforts[-1]) >= FastScan.efforts[-1]


def test_the_engine_is_chosen_by_size() -> None:
    assert [(least, engine.name) for least, engine in LADDER.steps] == [
        (0, "exact"), (100_000, "fast scan"), (4_000_000, "cells"),
    ]  # fmt: skip
    ladder = Ladder(((0, Exact()), (LEAST, FastScan()), (6_000, Cells())), floor=0.9)
    for count, name in ((0, "exact"), (10, "exact"), (LEAST - 1, "exact"), (LEAST, "fast scan"), (6_000, "cells")):
        engine, index, measured = ladder.build(Array(clustered(count, DIM)), quiet)
        assert (engine.name, measured.engine, measured.vectors, len(index)) == (name, name, count, count)


@pytest.mark.parametrize("dim", [32, 256])
def test_the_recall_that_is_claimed_is_the_recall_that_others_see(dim: int) -> None:
    """The effort is chosen, and the recall measured, on the vectors themselves; here by queries it never saw."""
    vectors = clustered(10_300, dim)
    source, queries = Array(vectors[:10_000]), unit(vectors[10_000:])
    _, index, measured = Ladder(((0, Exact()), (LEAST, FastScan()))).build(source, quiet)
    assert measured.engine == "fast scan"
    assert measured.recall >= 0.99
    assert abs(recall(index, source, queries, source.ids) - measured.recall) < 0.02


def test_an_engine_that_misses_the_floor_is_passed_over() -> None:
    class Blind(FastScan):
        name = "blind"
        efforts: tuple[int, ...] = (21,)

    noise = np.random.default_rng(0).standard_normal((12_000, 96))  # no structure to learn codes from
    source = Array((noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float16))
    engine, _, measured = Ladder(((0, Exact()), (0, Blind()))).build(source, quiet)
    assert (engine.name, measured.recall) == ("exact", 1.0)
    assert measured.passed_over["blind"] < 0.99
    # More effort mends it, and as little as will do is taken.
    _, index, measured = Ladder(((0, Exact()), (0, FastScan()))).build(source, quiet)
    assert (measured.engine, measured.passed_over) == ("fast scan", {})
    assert measured.recall >= 0.99
    assert FastScan.efforts[0] < index.effort < FastScan.efforts[-1]


def test_copies_by_the_hundred_count_as_found() -> None:
    """With more equals than places, any ten of them are the ten nearest."""
    vectors = np.repeat(clustered(50, DIM), 100, axis=0)
    assert Ladder(((0, Exact()), (0, FastScan()))).build(Array(vectors), quiet)[2].recall > 0.99


def test_embeddings_with_a_few_strong_components_are_found_as_well() -> None:
    """As those of an encoder that is whitened by half are, whose components come in order of their spread."""
    draw = np.random.default_rng(0)
    vectors = unit((draw.standard_normal((10_100, DIM)) * np.geomspace(1, 0.02, DIM)).astype(np.float32))
    stored = Array(vectors[:10_000])
    index = FastScan().build(stored, quiet)
    index.effort = 200
    assert recall(index, stored, vectors[10_000:], stored.ids) > 0.95  # 0.75 were they not turned
