#!/usr/bin/env python3
"""A collection of millions of vectors: what it takes to build, open, search and bring up to date.

    benchmarks/large.py FOLDER --like EMBEDDINGS.parquet [--vectors 10000000] [--queries 200] [--clients N …]

The vectors are drawn by `benchmarks/likeness.py` after those of EMBEDDINGS.parquet, which `massl embed` wrote; images
are names alone. What FOLDER has already is used: a run that was interrupted is run again. Then the index is built, if
there is none yet, and opened in this process; queries, drawn in the same way, are compared with exact search. Last,
20,000 vectors are added three times and a thousand images removed, and the search goes on. Printed are seconds by the
clock and of processor time, and the most memory that was in use.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from likeness import Likeness
from numpy.typing import NDArray

from indexer import Collection, Encoder
from indexer.search.engines.interface import CurrentIndex
from indexer.search.engines.recall import AT, MARGIN, nearest
from indexer.store.vectors import CatalogVectors, unit

BLOCK = 50_000  # vectors that are drawn and written at a time
EVERY = 1_000  # images a folder


def add(collection: Collection, likeness: Likeness, first: int, count: int) -> None:
    """Images of these numbers, as if they had been indexed."""
    vectors = likeness.draw(count, first)
    with collection.catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, hash, width, height, state, embedding) "
            "VALUES (?, 1, 1, ?, 96, 96, 'ready', ?)",
            (
                (b"%06d/%09d.jpg" % (row // EVERY, row), row.to_bytes(32, "big"), vector.tobytes())
                for row, vector in enumerate(vectors, first)
            ),
        )


@contextmanager
def told(what: str) -> Iterator[None]:
    """Prints what it took: seconds by the clock, processor seconds of all threads, and memory."""
    began, begun = time.perf_counter(), time.process_time()
    yield
    process = psutil.Process().memory_full_info()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{what:44} {time.perf_counter() - began:9.1f} s, {time.process_time() - begun:8.1f} core s; "
        f"now {process.uss / 2**30:.2f} GiB of its own, at most {most:.2f} GiB with what is mapped",
        flush=True,
    )


class Steps:
    """Prints how far building is, a line a step and then one each ten per cent."""

    def __init__(self) -> None:
        self._said = ("", -1)

    def __call__(self, step: str, done: int, total: int) -> None:
        """A `Preparing`."""
        now = step, 10 * done // max(1, total)
        if now != self._said:
            self._said = now
            print(f"    {time.strftime('%X')} {step} {done:,}; {time.process_time():.0f} core s", flush=True)


def timed(index: CurrentIndex, queries: NDArray[np.float32], clients: int, searches: int) -> str:
    """Searches of 20 results, one query each, by so many threads."""
    wall: list[float] = []
    processor: list[float] = []

    def search(number: int) -> None:
        began, begun = time.perf_counter(), time.thread_time()
        index.search(queries[number % len(queries)][None], 20)
        wall.append(time.perf_counter() - began)
        processor.append(time.thread_time() - begun)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(search, range(2 * clients)))
        wall.clear()
        processor.clear()
        began = time.perf_counter()
        list(pool.map(search, range(searches)))
        seconds = time.perf_counter() - began
    median, late = (1000 * float(np.quantile(wall, share)) for share in (0.5, 0.95))
    return (
        f"{clients:3} clients: median {median:6.1f} ms, 95 % below {late:6.1f} ms, {searches / seconds:6.0f} "
        f"searches/s; processor time {1000 * float(np.median(processor)):.2f} ms a search"
    )


def recall(found: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    """Share of the true nearest among those found, of which the catalog's own vectors would choose the first."""
    return float(np.mean([len(set(one) & set(other)) for one, other in zip(found, true, strict=True)])) / AT


def searched(collection: Collection, queries: NDArray[np.float32], clients: list[int], what: str) -> None:
    """Opens or brings up to date, searches, and compares with exact search of the catalog."""
    steps = Steps()
    with told(f"{what}: ready to be searched"):
        index = collection.searcher.index(steps)
    with told("    exact search, all queries"):
        _, true = nearest(CatalogVectors(collection.catalog).blocks(), queries, AT)
    found = np.stack([index.search(query[None], AT + MARGIN)[1][0] for query in queries])
    print(f"    {len(index):,} vectors; recall at ten {recall(found, true):.4f} of {len(queries)} queries")
    print(f"    measured by itself: {collection.searcher.measured()}")
    for number in clients:
        print(f"    {timed(index, queries, number, 200 if number == 1 else 1_000)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--like", type=Path, required=True)
    parser.add_argument("--vectors", type=float, default=10_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32])
    given = parser.parse_args()
    count = int(given.vectors)
    likeness = Likeness(given.like)
    queries = unit(likeness.draw(given.queries, 2**40))
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "one.png").touch()
    there = (given.folder / ".massl" / "catalog.sqlite").exists()
    collection = Collection.open(given.folder) if there else Collection.create(given.folder, Encoder.load())
    ((first,),) = collection.catalog.read("SELECT count(*) FROM images")
    with told(f"{count:,} vectors are drawn and written"):
        for start in range(first, count, BLOCK):
            add(collection, likeness, start, min(BLOCK, count - start))
    searched(collection, queries, given.clients, "as they are")
    size = sum(file.stat().st_size for file in collection.folder.glob("vectors-*.faiss")) / 2**30
    catalog = (collection.folder / "catalog.sqlite").stat().st_size / 2**30
    print(f"    the index takes {size:.2f} GiB, the catalog {catalog:.2f} GiB")
    with told("opened again, its checksum checked"):
        Collection.open(given.folder).searcher.index()
    for more in range(3):
        ((last,),) = collection.catalog.read("SELECT max(id) FROM images")
        with told("20,000 vectors more"):
            add(collection, likeness, int(last), 20_000)
        searched(collection, queries, [1], f"after {more + 1} times 20,000 more")
    with collection.catalog.writing() as connection:
        connection.execute("UPDATE images SET state = 'gone' WHERE id % 10000 = 1")
    searched(collection, queries, [1], "after a ten thousandth was removed")


if __name__ == "__main__":
    main()
