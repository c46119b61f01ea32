"""Brought up to date in the background: searched meanwhile, stopped, kept out by another process."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from indexer import Collection, Encoder, Query
from indexer.ingest import background_update, watching
from indexer.ingest.background_update import BackgroundUpdate, Update
from indexer.ingest.indexing import BATCH
from tests.indexer.tiny import picture

IMAGES = 400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(IMAGES):
        (tmp_path / "photos" / f"{number:03}.bmp").write_bytes(picture(number))
    return tmp_path / "photos"


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_is_committed_can_be_searched_while_the_rest_comes_in(folder: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(folder, tiny_encoder)
    go_on = threading.Semaphore(0)
    told: list[Update] = []

    def tell(update: Update) -> None:
        told.append(update)
        if update.stage == "indexing" and update.done:
            assert go_on.acquire(timeout=30)

    running = BackgroundUpdate(collection, tell)
    running.start()
    until(lambda: running.state().done == BATCH and running.state().stage == "indexing")
    assert running.state().running
    assert len(collection) == BATCH
    assert collection.search([Query(data=picture(0))], 5)[0].path == "000.bmp"
    for _ in range(IMAGES):
        go_on.release()
    assert running.wait(60)
    last = running.state()
    assert (last.stage, last.running) == ("done", False)
    assert last.report
    assert (last.report.indexed, last.report.added) == (IMAGES, IMAGES)
    assert {update.total for update in told if update.stage == "indexing"} == {IMAGES}
    assert list(dict.fromkeys(update.stage for update in told))[:2] == ["looking", "indexing"]
    assert len(collection) == IMAGES


def test_stopped_it_keeps_whole_batches_and_the_next_one_goes_on(folder: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(folder, tiny_encoder)
    reached = threading.Event()
    running = BackgroundUpdate(collection, lambda update: reached.set() if update.done >= 2 * BATCH else None)
    running.start()
    assert reached.wait(30)
    running.stop()
    assert running.state().stage == "stopped"
    kept = len(collection)
    assert 0 < kept < IMAGES
    assert kept % BATCH == 0
    again = BackgroundUpdate(collection)
    again.start()
    assert again.wait(60)
    report = again.state().report
    assert report
    assert (report.unchanged, report.added, report.indexed) == (kept, IMAGES - kept, IMAGES)


def test_while_another_process_indexes_it_says_so_and_follows(
    folder: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_update, "AGAIN", 0.01)
    collection = Collection.create(folder, tiny_encoder)
    with filelock.FileLock(folder / ".massl" / "lock"):
        running = BackgroundUpdate(collection)
        running.start()
        until(lambda: running.state().stage == "busy")
        assert "is being indexed by" in running.state().message
        assert running.state().running
    assert running.wait(60)
    assert running.state().stage == "done"


def test_it_can_be_stopped_while_it_waits_for_another_process(folder: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(folder, tiny_encoder)
    with filelock.FileLock(folder / ".massl" / "lock"):
        running = BackgroundUpdate(collection)
        running.start()
        until(lambda: running.state().stage == "busy")
        running.stop()
    assert running.state().stage == "stopped"


def test_a_folder_that_has_gone_is_a_sentence(folder: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(folder, tiny_encoder, folder.parent / "index")
    shutil.rmtree(folder)
    running = BackgroundUpdate(collection)
    running.start()
    assert running.wait(30)
    assert running.state().stage == "failed"
    assert str(folder) in running.state().message


def test_what_comes_into_the_folder_later_is_indexed_until_it_is_stopped(tmp_path: Path, tiny_encoder: Encoder) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.bmp").write_bytes(picture(number))
    collection = Collection.create(tmp_path / "photos", tiny_encoder)
    told: list[Update] = []
    following = BackgroundUpdate(collection, told.append, follow=True)

    def news() -> list[tuple[int, int]]:
        done = [update.report for update in told if update.stage == "done" and update.report]
        return list(dict.fromkeys((report.added, report.removed) for report in done))

    following.start()
    until(lambda: news() == [(3, 0)])
    assert not following.wait(0)
    (tmp_path / "photos" / "later.bmp").write_bytes(picture(9))
    until(lambda: news() == [(3, 0), (1, 0)])
    assert collection.search([Query(data=picture(9))], 1)[0].path == "later.bmp"
    (tmp_path / "photos" / "1.bmp").touch()
    time.sleep(2.5)  # for a look that finds nothing new, and tells nobody
    (tmp_path / "photos" / "0.bmp").unlink()
    until(lambda: news() == [(3, 0), (1, 0), (0, 1)])
    assert (len(collection), following.state().running) == (3, False)
    following.stop()
    assert following.wait(0)
    assert following.state().stage == "stopped"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have no such names")
def test_a_name_that_is_not_utf_8_does_not_end_the_watch(
    tmp_path: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watchfiles gives up on one: the folder is then looked through again and again. Nor does a folder that is away."""
    monkeypatch.setattr(watching, "WITHOUT_NOTICE", 0.5)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "first.bmp").write_bytes(picture(0))
    collection = Collection.create(tmp_path / "photos", tiny_encoder, tmp_path / "index")
    following = BackgroundUpdate(collection, follow=True)
    following.start()
    until(lambda: following.state().stage == "done")
    with open(os.fsencode(tmp_path / "photos") + b"/bad\xfe.bmp", "wb") as file:
        file.write(picture(1))
    until(lambda: len(collection) == 2)
    (tmp_path / "photos").rename(tmp_path / "away")  # as a drive that is taken off
    until(lambda: following.state().stage == "failed")
    assert len(collection) == 2
    (tmp_path / "away").rename(tmp_path / "photos")
    until(lambda: following.state().stage == "done")
    (tmp_path / "photos" / "later.bmp").write_bytes(picture(2))
    until(lambda: len(collection) == 3)
    assert not following.wait(0)
    following.stop()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have no such names")
def test_a_folder_whose_own_name_is_not_utf_8_is_watched(
    tmp_path: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WITHOUT_NOTICE", 0.2)
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff\xfe"))
    folder.mkdir()
    (folder / "first.bmp").write_bytes(picture(0))
    collection = Collection.create(folder, tiny_encoder)
    following = BackgroundUpdate(collection, follow=True)
    following.start()
    until(lambda: following.state().stage == "done")
    (folder / "later.bmp").write_bytes(picture(1))
    until(lambda: len(collection) == 2)
    following.stop()
    said: list[str] = []
    next(watching.watch(folder, collection.folder, said.append))
    assert "its name is not UTF-8" in said[0]
