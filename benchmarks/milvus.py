"""A Milvus server of its own kind, tried: filled, searched with filters, killed, started again, beside FAISS.

    benchmarks/milvus.py [--vectors 20000] [--dim 384 | --like EMBEDDINGS.parquet] [--server PYTHON]
                         [--address http://HOST:19530] [--clients N …] [--rounds 1]

The server is that of the PyPI package `milvus` (2.3.5), which needs an environment of its own:

    python -m venv /tmp/milvus-server && /tmp/milvus-server/bin/pip install milvus==2.3.5 'setuptools<80'
    python benchmarks/milvus.py --server /tmp/milvus-server/bin/python

With `--address` a server that runs already is measured, and is not killed. With `--clients 1 8 32` both engines are
asked by so many threads of one process at a time, in turns, `--rounds` times: what else the machine does then slows
both. What is found is compared with the catalog; a difference ends the run with 1. Vectors are drawn by `likeness.py`
after those of EMBEDDINGS.parquet, which `massl embed` wrote, or are in groups within groups; images are names alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from likeness import Likeness
from numpy.typing import NDArray

from indexer import LADDER
from indexer.search.engines.interface import CurrentIndex, OpenedEngine
from indexer.search.engines.milvus_engine import MilvusEngine, MilvusIndex
from indexer.search.engines.milvus_server import Away, MilvusServer
from indexer.search.engines.recall import nearest
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter, among
from indexer.store.vectors import CatalogVectors, unit
from tests.indexer.search.engines.standalone import Server

ASKED = 200
MORE = 4_000  # images that are sent when the server is killed
BLOCK = 50_000  # vectors that are drawn and written at a time

Draw = Callable[[int, int], NDArray[np.float16]]


def vectors(count: int, dim: int) -> NDArray[np.float16]:
    """Unit vectors in groups within groups, float16 `[count, dim]`."""
    draw = np.random.default_rng(0)
    kinds = draw.standard_normal((200, dim), np.float32)
    groups = kinds[draw.integers(0, 200, count // 8 + 1)] + 0.8 * draw.standard_normal(
        (count // 8 + 1, dim), np.float32
    )
    made = groups[draw.integers(0, len(groups), count)] + 0.6 * draw.standard_normal((count, dim), np.float32)
    return unit(made.astype(np.float16)).astype(np.float16)


def catalog_of(folder: Path, count: int, dim: int, draw: Draw) -> Catalog:
    """Images in seven folders, a minute apart."""
    facts = {"dim": str(dim), "generation": "0", "encoder_sha256": "0" * 64, "checked": "then"}
    catalog = Catalog.create(folder / "catalog.sqlite", facts)
    for start in range(0, count, BLOCK):
        add(catalog, draw(min(BLOCK, count - start), start), start)
    return catalog


def drawing(told: argparse.Namespace) -> tuple[int, Draw]:
    """How many numbers a vector has, and what draws some, others for another start."""
    if told.like:
        likeness = Likeness(told.like)
        return likeness.dim, likeness.draw
    rows = vectors(told.vectors + ASKED + MORE, told.dim)
    return told.dim, lambda count, start: rows[start : start + count]


def processor(server: Server | None) -> tuple[float, float]:
    """Core seconds of this process and of the server's so far."""
    theirs = [process.cpu_times() for process in server.processes()] if server else []
    return time.process_time(), sum(times.user + times.system for times in theirs)


def add(catalog: Catalog, rows: NDArray[np.float16], first: int) -> None:
    """Adds these."""
    with catalog.writing() as connection:
        connection.executemany(
            "INSERT INTO images (path, size, mtime_ns, state, embedding) VALUES (?, 1, ?, 'ready', ?)",
            [(b"%d/%d" % (row % 7, row), row * 60 * 10**9, one.tobytes()) for row, one in enumerate(rows, first)],
        )


def recall(
    index: CurrentIndex, catalog: Catalog, queries: NDArray[np.float32], wanted: Filter | None = None
) -> tuple[float, float]:
    """The share of the ten nearest that are found, and milliseconds a query, one after another.

    Twenty are asked for, as the product does: the catalog's own vectors choose the ten.
    """
    source = CatalogVectors(catalog)
    passing = among(catalog, wanted) if wanted else None
    true = nearest(source.blocks() if passing is None else source.blocks_of(passing), queries, 10)[1]
    started = time.perf_counter()
    found = [index.search(query[None], 20, wanted)[1][0] for query in queries]
    took = (time.perf_counter() - started) / len(queries) * 1000
    if passing is not None and not all(np.isin(ids[ids >= 0], passing).all() for ids in found):
        sys.exit("a filter let something else through")
    return float(np.mean([len(set(a) & set(b)) for a, b in zip(found, true, strict=True)])) / 10, took


def asked_by(
    index: CurrentIndex, queries: NDArray[np.float32], clients: int, server: Server | None, searches: int = 1_000
) -> str:
    """What searches of 20 results take while so many clients search: in words."""
    took: list[float] = []

    def search(number: int) -> None:
        started = time.perf_counter()
        index.search(queries[number % len(queries)][None], 20)
        took.append(time.perf_counter() - started)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(search, range(2 * clients)))  # connections are made
        took.clear()
        before = processor(server)
        _, seconds = timed(lambda: list(pool.map(search, range(searches))))
        ours, theirs = (1000 * (now - then) / searches for now, then in zip(processor(server), before, strict=True))
    median, late = (1000 * float(np.quantile(took, share)) for share in (0.5, 0.95))
    return (
        f"{clients:3} clients: median {median:6.1f} ms, 95 % below {late:6.1f} ms, {searches / seconds:6.0f} "
        f"searches/s; processor time a search {ours:.2f} ms here, {theirs:.2f} ms in the server"
    )


def quiet(step: str, done: int, total: int) -> None:
    """Says nothing of how far it is."""


def answers(address: str) -> bool:
    """Whether a server can be asked."""
    try:
        MilvusServer(address).check()
    except Away:
        return False
    return True


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and seconds."""
    started = time.perf_counter()
    return act(), time.perf_counter() - started


def ready(
    engine: OpenedEngine, catalog: Catalog, queries: NDArray[np.float32], what: str, server: Server | None = None
) -> CurrentIndex:
    """Has an engine be brought up to date, and prints what it then does."""
    before = processor(server)
    index, seconds = timed(lambda: engine.get(quiet, tidy=True))
    ours, theirs = (now - then for now, then in zip(processor(server), before, strict=True))
    share, took = recall(index, catalog, queries)
    filtered, took_filtered = recall(index, catalog, queries, Filter(folders=("3", "5")))
    print(
        f"{what:34} {seconds:7.1f} s to be ready, {ours:.0f} core s here and {theirs:.0f} in the server; "
        f"recall at ten {share:.4f}, {took:6.1f} ms a search; "
        f"of two folders in seven {filtered:.4f}, {took_filtered:6.1f} ms",
        flush=True,
    )
    if min(share, filtered) < 0.95:
        sys.exit("it misses too much")
    return index


def killed_and_back(
    catalog: Catalog, folder: Path, server: Server, queries: NDArray[np.float32], more: NDArray[np.float16]
) -> None:
    """Kills the server while images are sent, searches meanwhile, and starts it again."""
    add(catalog, more, 10**8)
    engine = MilvusEngine(server.address).open(catalog, folder)

    def strike(step: str, done: int, total: int) -> None:
        server.kill()

    index, seconds = timed(lambda: engine.get(strike))
    share, took = recall(index, catalog, queries[:5])
    print(
        f"{f'killed while {MORE:,} were sent':34} {seconds:7.1f} s; "
        f"from the catalog {share:.4f}, {took:.1f} ms a search"
    )
    _, seconds = timed(server.start)
    print(f"{'started again':34} {seconds:7.1f} s", flush=True)
    again = MilvusEngine(server.address).open(catalog, folder)
    for _ in range(300):  # it takes in what it had written down before it searches
        if isinstance(again.get(quiet), MilvusIndex):
            break
        again = MilvusEngine(server.address).open(catalog, folder)
        time.sleep(2)
    if not isinstance(ready(again, catalog, queries, "Milvus, after the kill", server), MilvusIndex):
        sys.exit("the server is not searched again")


def held_when_opened(folder: Path, queries: NDArray[np.float32]) -> tuple[float, float]:
    """MiB that a process has in memory more, of its own and with what is mapped, once FAISS has searched."""
    before = psutil.Process().memory_full_info()
    index = LADDER.open(Catalog.open(folder / "catalog.sqlite"), folder).get(quiet)
    for query in queries:
        index.search(query[None], 20)
    after = psutil.Process().memory_full_info()
    return (after.uss - before.uss) / 2**20, (after.rss - before.rss) / 2**20


def disk(folder: Path, pattern: str = "*") -> float:
    """MiB of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file()) / 2**20


def beside_faiss(
    told: argparse.Namespace,
    folder: Path,
    catalog: Catalog,
    queries: NDArray[np.float32],
    milvus: CurrentIndex,
    server: Server | None,
) -> None:
    """Has FAISS index the same vectors, in a catalog of its own, and searches both in turns."""
    other = folder / "faiss"
    other.mkdir()
    with sqlite3.connect(folder / "catalog.sqlite") as connection:
        connection.execute("VACUUM INTO ?", (str(other / "catalog.sqlite"),))
    opened = LADDER.open(Catalog.open(other / "catalog.sqlite"), other)
    faiss = ready(opened, catalog, queries, "FAISS, the same vectors")
    print(f"{'':34} measured by itself: {opened.measured()}; {disk(other, '*.faiss'):,.0f} MiB on disk")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        own, mapped = pool.submit(held_when_opened, other, queries).result()
    print(f"{'':34} memory of a process that opens it: {own:,.0f} MiB of its own, {mapped:,.0f} with what is mapped")
    for turn in range(told.rounds):
        for clients in told.clients:
            for name, index in (("Milvus", milvus), ("FAISS", faiss)):
                print(f"{f'{turn + 1}: {name}':34} {asked_by(index, queries, clients, server)}", flush=True)


def main() -> None:
    """Prints a line a stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--like", type=Path, metavar="EMBEDDINGS")
    parser.add_argument("--server", metavar="PYTHON")
    parser.add_argument("--address")
    parser.add_argument("--clients", type=int, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    told = parser.parse_args()
    if not (told.server or told.address):
        parser.error("name a server that runs, or a Python that can start one")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dim, draw = drawing(told)
        queries = unit(draw(ASKED, told.vectors))
        catalog = catalog_of(folder, told.vectors, dim, draw)
        server = None
        if not told.address:
            server, seconds = timed(lambda: Server(told.server, folder / "server"))
            print(f"{'the server starts':34} {seconds:7.1f} s", flush=True)
        try:
            address = server.address if server else told.address
            while server and not answers(address):
                time.sleep(1)
            engine = MilvusEngine(address).open(catalog, folder)
            index = ready(engine, catalog, queries, f"Milvus, {told.vectors:,} vectors", server)
            print(f"{'':34} measured by itself: {engine.measured()}")
            if server:
                memory, stored = server.memory(), disk(folder / "server")
                print(f"{'':34} the server has {memory:,.0f} MiB in memory and {stored:,.0f} MiB on disk", flush=True)
            beside_faiss(told, folder, catalog, queries, index, server)
            ready(MilvusEngine(address).open(catalog, folder), catalog, queries, "Milvus, another process", server)
            with catalog.writing() as connection:
                connection.execute("DELETE FROM images WHERE id % 10 = 1")
            ready(engine, catalog, queries, "Milvus, a tenth removed", server)
            if server:
                killed_and_back(catalog, folder, server, queries, draw(MORE, told.vectors + ASKED))
            MilvusEngine(address).open(catalog, folder).forget()
        finally:
            if server:
                server.kill()


if __name__ == "__main__":
    main()
