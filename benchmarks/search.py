#!/usr/bin/env python3
"""What a search takes, beside bare FAISS on the same vectors, in one run.

    benchmarks/search.py VECTORS.npy [COUNT…] [--queries QUERIES.npy] [--folder FOLDER] [--engines NAME…]

VECTORS: float16 or float32 [N, D], embeddings of unit length; QUERIES: 200 others or more, the first of VECTORS if left
out. For each COUNT a collection is made of the first so many, through the library, in FOLDER (kept, to time `massl
search` from cold; its images are names alone). Measured are the engines that a collection of that size tries, or those
named: to see where each begins to pay. Times are medians of single queries, of the processor time of one
thread, as wall time says little on a shared machine; wall time is the fastest quarter's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the product has it, which is imported after FAISS here

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer import Collection, Encoder
from indexer.search.engines.engine_selection import Ladder
from indexer.search.engines.faiss_engine import LADDER, FaissIndex, candidates_in_cells
from indexer.search.engines.recall import AT, MARGIN, nearest
from indexer.store.filters import Filter, among
from indexer.store.vectors import CatalogVectors, unit
from massl.core.machine import cores

EVERY = 100  # images a folder


def make(root: Path, vectors: NDArray[np.float16], encoder: Encoder) -> Collection:
    """A collection of these embeddings, as if its images had been indexed; one folder in ten is labelled."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "one.png").touch()
    collection = Collection.create(root, encoder)
    with collection.catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, hash, width, height, state, embedding) "
            "VALUES (?, 1, 1, ?, 96, 96, 'ready', ?)",
            (
                (b"%04d/%08d.jpg" % (row // EVERY, row), os.urandom(32), vector.tobytes())
                for row, vector in enumerate(vectors)
            ),
        )
    return collection


def timed(search: Callable[[NDArray[np.float32]], Any], queries: NDArray[np.float32]) -> tuple[float, float]:
    """Milliseconds a query: the median of processor time, and wall time."""
    for query in queries[:3]:
        search(query[None])
    processor, wall = [], []
    for query in queries:
        begun, began = time.thread_time(), time.perf_counter()
        search(query[None])
        processor.append(time.thread_time() - begun)
        wall.append(time.perf_counter() - began)
    return float(np.median(processor)) * 1e3, float(np.quantile(wall, 0.25)) * 1e3


def recall(found: list[NDArray[np.int64]], truth: NDArray[np.int64]) -> float:
    """Share of the true nearest among those found."""
    return float(np.mean([len(set(ids) & set(true)) / len(true) for ids, true in zip(found, truth, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors")
    parser.add_argument("counts", nargs="*", type=float)
    parser.add_argument("--queries")
    parser.add_argument("--folder")
    parser.add_argument("--engines", nargs="+", choices=[engine.name for _, engine in LADDER.steps])
    given = parser.parse_args()
    everything = np.load(given.vectors, mmap_mode="r")
    queries = unit(np.load(given.queries)[:200]) if given.queries else None
    base = everything if queries is not None else everything[200:]
    queries = unit(np.asarray(everything[:200])) if queries is None else queries
    encoder = Encoder.load()
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        for count in map(int, given.counts or [len(base)]):
            report(Path(given.folder or temporary) / str(count), base[:count], queries, encoder, given.engines)


def report(
    root: Path, vectors: NDArray[Any], queries: NDArray[np.float32], encoder: Encoder, names: list[str] | None
) -> None:
    count, dim = vectors.shape
    collection = make(root, np.asarray(vectors, np.float16), encoder)
    source = CatalogVectors(collection.catalog)
    _, truth = nearest(source.blocks(), queries, AT)
    print(f"\n{count:,} vectors of {dim} numbers; {len(queries)} queries, one at a time on one thread; {cores()} cores")
    print(f"{'':34}{'recall@10':>10}{'ms':>9}{'wall ms':>9}{'of Flat':>9}{'build s':>9}{'bytes':>7}")

    def row(name: str, share: float, milliseconds: tuple[float, float], seconds: float, size: float) -> None:
        ratio = milliseconds[0] / flat_time[0]
        print(
            f"{name:34}{share:10.4f}{milliseconds[0]:9.2f}{milliseconds[1]:9.2f}{ratio:9.3f}{seconds:9.1f}{size:7.0f}",
            flush=True,
        )

    began = time.perf_counter()
    flat = faiss.IndexFlatIP(dim)
    for _, packed in source.blocks():
        flat.add(unit(packed))
    flat_seconds = time.perf_counter() - began
    flat_time = timed(lambda query: flat.search(query, AT), queries)
    row("bare FAISS, Flat", 1.0, flat_time, flat_seconds, 4 * dim)

    chosen = [step for step in LADDER.steps if step[0] <= count][-1][1]
    for _, engine in LADDER.steps:
        if engine.name not in (names or [engine.name for least, engine in LADDER.steps if least <= count]):
            continue
        own = Ladder(((0, LADDER.steps[0][1]), (0, engine)) if not engine.exact else ((0, engine),))
        began, begun = time.perf_counter(), time.process_time()
        built, index, measured = own.build(source, lambda step, done, total: None)
        seconds, processor = time.perf_counter() - began, time.process_time() - begun
        if built is not engine:  # its recall is too low, or there are too few vectors for it
            print(f"{engine.name}: passed over, recall {measured.passed_over or 'not measured'}")
            continue
        engine.write(index, root / "index.tmp")
        size = (root / "index.tmp").stat().st_size / count
        index = engine.read(root / "index.tmp", source.dim)
        index.effort = measured.effort
        found = [index.search(query[None], AT + MARGIN)[1][0] for query in queries]
        star = "*" if engine is chosen else " "
        mapped = timed(partial(index.search, k=AT + MARGIN), queries)
        row(f"{star}{engine.name}, effort {index.effort}, mapped", recall(found, truth), mapped, seconds, size)
        print(f"{'':34}measured on its own vectors: {measured.recall}; {processor:.1f} core seconds to build")
        for share in (0.5, 0.05, 0.001):
            some = np.sort(np.random.default_rng(0).choice(np.arange(1, count + 1), max(AT, int(share * count)), False))
            _, exact = nearest(source.blocks_of(some), queries[:50], AT)
            found = [index.search(query[None], AT + MARGIN, some)[1][0] for query in queries[:50]]
            milliseconds = timed(partial(index.search, k=AT + MARGIN, among=some), queries[:50])
            row(f"   among {share:.1%} of them", recall(found, exact), milliseconds, 0, 0)
        if not engine.exact:
            assert isinstance(index, FaissIndex)
            inner = faiss.downcast_index(index.stored.index)
            scan = faiss.SearchParametersIVF(nprobe=index.effort if engine.name == "cells" else 1)
            candidates = candidates_in_cells(index.effort) if engine.name == "cells" else index.effort
            bare = faiss.IndexRefineSearchParameters(k_factor=candidates / AT, base_index_params=scan)
            found = [index.ids[inner.search(query[None], AT, params=bare)[1][0]] for query in queries]
            milliseconds = timed(partial(inner.search, k=AT, params=bare), queries)
            row("   bare FAISS, the same file", recall(found, truth), milliseconds, 0, size)
        (root / "index.tmp").unlink()
        del index

    began = time.perf_counter()
    collection.searcher.index()
    print(f"the collection builds, measures, writes and opens its index in {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    Collection.open(root).searcher.index()
    print(f"opened again, its checksum checked, in {time.perf_counter() - began:.3f} s")
    began = time.perf_counter()
    nearest(source.blocks(), queries[:1], AT)
    print(f"--exact from the catalog: {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    passing = among(collection.catalog, Filter(folders=("0001", "0002")))
    assert passing is not None
    print(f"two folders of {EVERY} found in {(time.perf_counter() - began) * 1e3:.1f} ms ({len(passing)} images)")


if __name__ == "__main__":
    main()
