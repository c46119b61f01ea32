"""Killed, read while it is written, damaged: the catalog always opens, and a further run always completes it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from indexer import Collection, Encoder, Query
from indexer.ingest.indexing import BATCH, IndexProgress
from indexer.store.migrations import VERSION
from massl.core.errors import MasslError
from tests.forked import Forks
from tests.indexer.former import write_as_format
from tests.indexer.ingest.test_changes import assert_same_answers
from tests.indexer.kills import killed_while_forgetting
from tests.indexer.tiny import picture, write_encoder

KILLS = int(os.environ.get("MASSL_TEST_KILLS", "6"))  # 100 takes a few minutes
IMAGES = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(IMAGES):
        path = tmp_path / "photos" / f"{number % 7}" / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return tmp_path / "photos"


def index(folder: Path, encoder: Encoder) -> list[object]:
    """The arguments of massl."""
    # OpenVINO may compute in bfloat16, and then embeds a little otherwise than the run that this is compared with.
    return ["index", folder, "--json", "--encoder", encoder.path, "--runtime", "onnxruntime"]


def ready(folder: Path) -> int:
    """How many images the catalog says can be searched; 0 where there is no catalog yet."""
    file = folder / ".massl" / "catalog.sqlite"
    if not file.exists():
        return 0
    connection = sqlite3.connect(file, timeout=30)
    try:
        return connection.execute("SELECT count(*) FROM images WHERE state = 'ready'").fetchone()[0]
    except sqlite3.OperationalError as error:
        assert "no such table" in str(error)  # being made
        return 0
    finally:
        connection.close()


def test_killed_at_random_moments_it_loses_at_most_a_batch(forks: Forks, folder: Path, tiny_encoder: Encoder) -> None:
    chance = random.Random(os.environ.get("MASSL_TEST_SEED", "0"))
    number, before, killed = IMAGES, 0, 0
    longest = 1.0  # seconds: about as long as a run takes, so that kills fall into all of it
    while killed < KILLS:
        wanted = len(list(folder.rglob("*.bmp")))
        with open(os.devnull, "w") as nothing:
            running = forks.start(index(folder, tiny_encoder), [nothing.fileno()] * 2)
        moment = chance.uniform(0.0, longest)
        if chance.random() < 0.5:  # half of the kills fall among the batches, which are a small part of a run
            moment = chance.uniform(0.0, 0.4)
            while running.poll() is None and ready(folder) <= before:
                time.sleep(0.005)
        deadline = time.monotonic() + moment
        while running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        seen = ready(folder)
        finished = running.poll() is not None
        running.kill()
        running.wait()
        killed += not finished
        longest *= 0.9 if finished else 1.1

        after = ready(folder)
        if (folder / ".massl" / "catalog.sqlite").exists() and after:
            collection = Collection.open(folder)
            assert list(collection.catalog.read("PRAGMA integrity_check")) == [("ok",)]
            assert collection.search([Query(data=picture(0))], 5) != []
            collection.catalog.close()
        assert after >= seen  # nothing that could be seen was lost
        assert after in (before, wanted) or (after - before) % BATCH == 0  # whole batches, so at most one was lost
        before = after
        if after == wanted:  # there must be something to do
            for _ in range(300):
                (folder / f"{number}.bmp").write_bytes(picture(number))
                number += 1
            shutil.move(folder / "1", folder / f"{number}")
            (folder / f"{number}").rename(folder / "1")

    told = json.loads(forks.run(index(folder, tiny_encoder)).stdout)
    assert told["indexed"] == len(list(folder.rglob("*.bmp")))
    assert told["unchanged"] == before
    fresh = Collection.create(folder, tiny_encoder, folder.parent / "fresh", runtime="onnxruntime")
    fresh.update()
    assert_same_answers(Collection.open(folder), fresh, picture(0))


def test_a_search_while_it_is_written_sees_whole_batches(folder: Path, tiny_encoder: Encoder) -> None:
    writing = Collection.create(folder, tiny_encoder)
    counts: set[int] = set()
    stop = threading.Event()

    def read() -> None:
        reading = Collection.open(folder)
        while not stop.is_set():
            counts.add(len(reading))
        reading.catalog.close()

    reader = threading.Thread(target=read)
    reader.start()
    found: list[int] = []

    def search(progress: IndexProgress) -> None:
        if progress.stage == "embed" and progress.done and progress.done % (8 * BATCH) == 0:
            results = Collection.open(folder).search([Query(data=picture(0))], IMAGES)
            found.append(len(results) - progress.done)
            deadline = time.monotonic() + 60
            while progress.done not in counts and time.monotonic() < deadline:
                time.sleep(0.001)  # for the reader's turn

    try:
        writing.update(search)
    finally:
        stop.set()
        reader.join()
    assert found == [0, 0, 0]
    assert all(count % BATCH == 0 or count == IMAGES for count in counts)
    assert {8 * BATCH, 16 * BATCH, 24 * BATCH} <= counts


def test_a_vectors_file_with_any_byte_flipped_is_noticed_and_rebuilt(folder: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(folder, tiny_encoder)
    collection.update()
    wanted = [(result.path, result.score) for result in collection.search([Query(data=picture(0))], 20)]
    (file,) = (folder / ".massl").glob("vectors-*")
    whole = file.read_bytes()
    chance = random.Random(0)
    positions = {*range(80), len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(60))}
    for position in sorted(positions):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        again = Collection.open(folder)
        assert [(result.path, result.score) for result in again.search([Query(data=picture(0))], 20)] == wanted
        again.catalog.close()
        (file,) = (folder / ".massl").glob("vectors-*")
        assert file.read_bytes() != damaged


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_index_of_an_earlier_format_is_brought_along(folder: Path, tiny_encoder: Encoder, version: int) -> None:
    collection = Collection.create(folder, tiny_encoder)
    collection.update()
    collection.labels.add("a", [1], "me")
    collection.catalog.close()
    write_as_format(collection.catalog.path, version)
    migrated = Collection.open(folder)
    report = migrated.update()
    assert (report.unchanged, report.embedded, len(migrated.labels.every())) == (IMAGES, 0, 1)
    assert list(migrated.catalog.read("PRAGMA user_version")) == [(VERSION,)]
    assert list(migrated.catalog.read("SELECT count(*) FROM images WHERE ctime_ns = -1")) == [(0,)]


def test_an_index_that_was_killed_while_it_was_made_is_made_anew(folder: Path, tiny_encoder: Encoder) -> None:
    code = f"""if True:
        import os, signal, sqlite3
        from indexer import Collection, Encoder; from indexer.store import catalog
        class Killed(sqlite3.Connection):
            def executemany(self, *arguments):  # after the tables, before the commit
                os.kill(os.getpid(), signal.SIGKILL)
        connect = sqlite3.connect
        catalog.sqlite3.connect = lambda *a, **k: connect(*a, factory=Killed, **k)
        Collection.create({str(folder)!r}, Encoder.load({str(tiny_encoder.path)!r}))"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert Collection.create(folder, tiny_encoder).update().added == IMAGES


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rebuild_that_is_killed_leaves_the_old_encoder_or_the_new_one(
    folder: Path, tiny_encoder: Encoder, tmp_path: Path, moment: str
) -> None:
    root = folder / "0"
    Collection.create(root, tiny_encoder).update()
    wider = Encoder.load(write_encoder(tmp_path / "wider.onnx", "wider", dim=24), threads=1)
    rebuild = f"Collection.create({str(root)!r}, Encoder.load({str(wider.path)!r}), rebuild=True)"
    killed_while_forgetting(moment, rebuild)
    found = Collection.open(root)
    assert found.encoder.sha256 == (tiny_encoder if moment == "before" else wider).sha256
    assert found.update().embedded == (0 if moment == "before" else 143)
    rebuilt = Collection.create(root, wider, rebuild=True)
    assert rebuilt.update().embedded == 143
    assert len(list(rebuilt.folder.glob("encoder*"))) == 1


def test_what_a_killed_process_left_of_a_catalog_that_was_deleted_is_not_in_a_new_one(
    folder: Path, tiny_encoder: Encoder
) -> None:
    code = f"""if True:
        import os, signal
        from indexer import Collection, Encoder
        collection = Collection.create({str(folder / "0")!r}, Encoder.load({str(tiny_encoder.path)!r}))
        collection.update()
        collection.labels.add("a", [1], "me")
        os.kill(os.getpid(), signal.SIGKILL)"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    (folder / "0" / ".massl" / "catalog.sqlite").unlink()
    assert (folder / "0" / ".massl" / "catalog.sqlite-wal").stat().st_size > 0
    collection = Collection.create(folder / "0", tiny_encoder)
    assert (len(collection), collection.labels.every()) == (0, [])
    assert list(collection.catalog.read("PRAGMA integrity_check")) == [("ok",)]


def test_deleted_while_it_is_open_it_says_so_and_indexed_anew_it_goes_on(folder: Path, tiny_encoder: Encoder) -> None:
    looking = Collection.create(folder, tiny_encoder)
    looking.update()
    assert len(looking.search([Query(data=picture(0))], 5)) == 5
    shutil.rmtree(folder / ".massl")
    for ask in (looking.search, lambda queries: len(looking), lambda queries: looking.labels.add("a", [1], "me")):
        with pytest.raises(MasslError, match="no longer there"):
            ask([Query(data=picture(0))])
    assert not (folder / ".massl").exists()  # nothing was put in its place
    with pytest.raises(MasslError, match="no longer there"):
        looking.update()

    for file in (folder / "0").iterdir():
        file.unlink()
    Collection.create(folder, tiny_encoder).update()
    assert len(looking) == len(list(folder.rglob("*.bmp")))
    assert [result.path for result in looking.search([Query(data=picture(1))], 1)] == ["1/1.bmp"]


def test_indexed_anew_with_another_encoder_while_it_is_open_it_takes_that_one(
    folder: Path, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    for file in sorted(folder.rglob("*.bmp"))[200:]:
        file.unlink()
    (first,) = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.bmp"))[:1])
    looking = Collection.create(folder, tiny_encoder)
    looking.update()
    looking.search([Query(data=picture(0))], 5)
    assert looking.map.get(improve=False).kind == "principal"
    wider = Encoder.load(write_encoder(tmp_path / "wider.onnx", "wider", dim=24), threads=1)
    other = Collection.create(folder, wider, rebuild=True)
    assert looking.search([Query(data=picture(0))], 5) == []  # nothing is embedded at this moment
    other.update()
    query = [Query(data=(folder / first).read_bytes())]
    assert looking.search(query, 20) == other.search(query, 20)
    assert looking.search(query, 1)[0].path == first
    assert len(looking.map.get(improve=False).ids) == 200


def test_leaving_while_a_thread_reads_waits_for_it(tmp_path: Path) -> None:
    # What Ctrl-C did while pictures were being read: the connection went under the thread's feet, a segmentation fault.
    leave = (
        "import sys, threading, time\n"
        "from pathlib import Path\n"
        "from indexer.store.catalog import Catalog\n"
        "catalog = Catalog.create(Path(sys.argv[1]) / 'catalog.sqlite', {})\n"
        "numbers = 'SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 3000000'\n"
        "count = f'WITH RECURSIVE c(x) AS ({numbers}) SELECT max(x) FROM c'\n"
        "found, begun = [], threading.Event()\n"
        "with catalog.reading_from_threads() as read:\n"
        "    thread = threading.Thread(target=lambda: (begun.set(), found.extend(read(count, ()))))\n"
        "    thread.start()\n"
        "    begun.wait()\n"
        "    time.sleep(0.05)\n"
        "    assert not found\n"
        "thread.join()\n"
        "print(found)\n"
    )
    done = subprocess.run([sys.executable, "-c", leave, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(3000000,)]\n", "")
