"""A folder that was never indexed, served: as the person sees it who has just typed `massl serve`."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from app.progress import describe, duration
from app.screens.find import FindScreen
from app.screens.map import MapScreen
from app.server import serve
from app.session import Session
from indexer import Collection, Encoder
from indexer.ingest.background_update import BackgroundUpdate, Update
from indexer.ingest.indexing import IndexReport
from tests.app.conftest import Visit, answered
from tests.forked import Forks
from tests.indexer.tiny import write_encoder

IMAGES = 320


@pytest.fixture
def many(tmp_path: Path, pictures: Path) -> Path:
    """Pictures that are no copies of each other, made of real ones, of which an encoder needs a few seconds."""
    root = tmp_path / "many"
    root.mkdir()
    originals = [np.asarray(Image.open(file).convert("RGB")) for file in sorted(pictures.rglob("*.jpg"))[:30]]
    for number in range(IMAGES):
        turned = np.roll(originals[number % 30], number, axis=number % 2)
        Image.fromarray(turned).save(root / f"{number:03}.jpg", quality=80)
    return root


class Massl:
    """`massl` in a process of its own, with a folder for temporary files of its own."""

    def __init__(self, forks: Forks, folder: Path, *arguments: object) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir(exist_ok=True)
        self.log = folder / "log.txt"
        environment = {**os.environ, "TMPDIR": str(self.temporary), "NO_COLOR": "1"}
        with self.log.open("w") as log, open(os.devnull, "w") as nothing:
            self.process = forks.start(arguments, [nothing.fileno(), log.fileno()], environment=environment)

    def said(self) -> str:
        return self.log.read_text("utf-8")

    def until(self, pattern: str) -> str:
        """Waits until it says this; what it said."""
        deadline = time.monotonic() + 120
        while not (found := re.search(pattern, self.said())):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        return found[0]

    def end(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        code = self.process.wait(60)
        assert "Traceback" not in self.said()
        return code


@pytest.fixture
def started() -> Iterator[list[Massl]]:
    """What is stopped at the end, whatever happens."""
    running: list[Massl] = []
    yield running
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_results_show_from_the_first_batch_and_an_interrupted_index_goes_on(
    forks: Forks, many: Path, visit: Visit, started: list[Massl]
) -> None:
    running = Massl(forks, many.parent, "serve", many, "--port", 0)
    started.append(running)
    # One core, so that there is time to look on a fast machine too; and behind the browser on a busy one.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(running.process.pid, {min(os.sched_getaffinity(0))})
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, running.process.pid, 10)
    # Gradio's words where it is stopped while an answer is under way.
    foreseen = ("Server stopped unexpectedly",)
    with visit(running.until(r"http://\S+"), foreseen=foreseen) as tab:
        tab.wait_for_selector("#massl-find .tile")
        strip = tab.locator(".massl-progress")
        tab.wait_for_function("() => /Indexed .* of 320 new/.test(document.querySelector('.massl-progress').innerText)")
        assert "can be searched" in strip.inner_text()
        # What is there can be searched already.
        tab.locator("#massl-find .picture").first.click()
        tab.wait_for_selector("#massl-find .score")
        assert running.end(signal.SIGINT) == 0
    assert "Run the command again" in running.said()
    assert list(running.temporary.glob("massl-*")) == []
    collection = Collection.open(many)
    kept = len(collection)
    assert 0 < kept < IMAGES
    assert kept % 32 == 0

    again = Massl(forks, many.parent, "serve", many, "--port", 0)
    started.append(again)
    with visit(again.until(r"http://\S+")) as tab:
        strip = tab.locator(".massl-progress")
        strip.get_by_text("Indexing is done: 320 pictures").wait_for()
        assert f"({IMAGES - kept} added)" in strip.inner_text()
        tab.locator("#massl-find").get_by_text(re.compile(r"\b320 pictures")).first.wait_for()  # by itself
        strip.get_by_role("button", name="Close").click()
        assert strip.inner_text() == ""
        # What comes later is indexed too.
        with Image.open(many / "000.jpg") as first:
            first.rotate(90).save(many / "later.jpg")
        again.until(rf"\(1 added, {IMAGES} unchanged\)")
    assert f"{IMAGES} images indexed ({IMAGES - kept} added, {kept} unchanged)" in again.said()
    assert again.end(signal.SIGTERM) == 0
    assert list(again.temporary.glob("massl-*")) == []


@pytest.fixture
def tiny(photos: Path, tmp_path: Path) -> Collection:
    """Real pictures, and an encoder that takes no time."""
    shutil.copytree(photos / "flag", tmp_path / "flags")
    return Collection.create(tmp_path / "flags", Encoder.load(write_encoder(tmp_path / "tiny.onnx"), threads=1))


def test_a_second_indexer_is_a_sentence_in_the_page_and_its_pictures_appear(tiny: Collection, visit: Visit) -> None:
    updating = BackgroundUpdate(tiny)
    with serve(tiny, "127.0.0.1", 0, None, updating) as address:
        assert updating.wait(60)
    updating = BackgroundUpdate(tiny)
    with (
        filelock.FileLock(tiny.folder / "lock") as lock,
        serve(tiny, "127.0.0.1", 0, None, updating) as address,
        visit(str(address)) as tab,
    ):
        tab.wait_for_function("() => document.querySelector('.massl-progress').innerText.includes('being indexed by')")
        assert "shows what is indexed so far" in tab.locator(".massl-progress").inner_text()
        assert tab.locator("#massl-find .tile").count() == len(tiny)
        extra = next(iter(tiny.root.parent.rglob("*.jpg")))
        Image.open(extra).rotate(90).save(tiny.root / "a new one.jpg")
        lock.release()
        tab.wait_for_function("() => document.querySelector('.massl-progress').innerText.includes('1 added')")
        tab.wait_for_function("() => document.querySelector('#massl-find').textContent.includes('a new one.jpg')")


def test_the_page_notices_what_happens_in_a_terminal_without_a_click(tiny: Collection, visit: Visit) -> None:
    updating = BackgroundUpdate(tiny)
    with contextlib.ExitStack() as serving:
        address = serving.enter_context(serve(tiny, "127.0.0.1", 0, None, updating))
        assert updating.wait(60)
        with visit(str(address)) as tab:
            strip = tab.locator(".massl-progress")
            strip.get_by_text("Indexing is done: 9 pictures (9 added).").wait_for()
            with tab.expect_response(lambda answer: "component_server" in answer.url) as asked:
                tab.reload()
            assert "Indexing is done" in asked.value.text()
            answered(tab, "Search")
            assert strip.inner_text() == ""  # it was told already
            extra = next(iter(tiny.root.rglob("*.jpg")))
            Image.open(extra).rotate(90).save(tiny.root / "a new one.jpg")
            tiny.update()  # massl index
            tab.evaluate(LOOKED_AT_AGAIN)
            tab.wait_for_function("() => document.querySelector('#massl-find').textContent.includes('a new one.jpg')")
            assert strip.inner_text() == ""  # nine pictures are no longer all
            serving.close()  # massl serve is stopped
            tab.evaluate(LOOKED_AT_AGAIN)
            strip.get_by_text("Is massl still running?").wait_for()


def test_what_comes_into_the_folder_later_appears(tiny: Collection, visit: Visit) -> None:
    updating = BackgroundUpdate(tiny, follow=True)
    with serve(tiny, "127.0.0.1", 0, None, updating) as address, visit(str(address)) as tab:
        tab.locator(".massl-progress").get_by_text("Indexing is done: 9 pictures (9 added).").wait_for()
        Image.open(next(iter(tiny.root.rglob("*.jpg")))).rotate(90).save(tiny.root / "later.jpg")
        tab.locator(".massl-progress").get_by_text("Indexing is done: 10 pictures (1 added).").wait_for()
        tab.wait_for_function("() => document.querySelector('#massl-find').textContent.includes('later.jpg')")


LOOKED_AT_AGAIN = "() => document.dispatchEvent(new Event('visibilitychange'))"  # instead of waiting ten seconds


def test_the_collection_deleted_or_indexed_anew_while_the_page_is_open_is_a_sentence(
    tiny: Collection, visit: Visit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.update()
    count = len(tiny)
    # Thumbnails may have been asked for that are no longer there.
    foreseen = ("status of 404", "status of 403")
    with serve(tiny, "127.0.0.1", 0, None) as address, visit(str(address), foreseen=foreseen) as tab:
        tab.wait_for_selector("#massl-find .tile")
        while tiny.folder.exists():  # thumbnails are still being written into it
            shutil.rmtree(tiny.folder, ignore_errors=True)
        tab.locator("#massl-find .picture").first.click()
        tab.wait_for_function(
            "() => document.querySelector('#massl-find .message').innerText.includes('no longer there')"
        )
        assert tab.locator("#massl-find .tile").count() == count  # what was there stays in sight
        tab.evaluate("document.querySelector('#massl-find .message').replaceChildren()")
        tab.locator("#massl-find .picture").first.click()  # and whoever tries again is answered
        tab.wait_for_function(
            "() => document.querySelector('#massl-find .message').innerText.includes('no longer there')"
        )
        tab.get_by_role("tab", name="Map").click()
        tab.wait_for_function(
            "() => document.querySelector('#massl-map .message')?.innerText.includes('no longer there')"
        )

        # Made anew, by another encoder: the page begins anew, and searches with that one.
        wider = Encoder.load(write_encoder(tmp_path / "wider.onnx", "wider", dim=24), threads=1)
        Collection.create(tiny.root, wider).update()
        tab.get_by_role("tab", name="Search").click()
        tab.wait_for_function("() => document.querySelector('#massl-find .message').innerText.includes('from scratch')")
        tab.locator("#massl-find .picture").first.click()
        tab.wait_for_selector("#massl-find .score")
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_a_busy_port_is_noticed_before_anything_is_done(forks: Forks, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "flag", tmp_path / "flags")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments in (("serve", tmp_path / "flags"), ("demo", "--dir", tmp_path / "demo")):
            running = Massl(forks, tmp_path, *arguments, "--port", port)
            assert running.process.wait(60) == 1
            assert running.said().startswith(f"massl: port {port} of 127.0.0.1 is in use")
    assert not (tmp_path / "flags" / ".massl").exists()
    assert not (tmp_path / "demo").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal here")
def test_a_closed_terminal_leaves_nothing_of_the_demo_behind(
    forks: Forks, tmp_path: Path, started: list[Massl]
) -> None:
    running = Massl(forks, tmp_path, "demo", "--port", 0)
    started.append(running)
    deadline = time.monotonic() + 60
    while not list(running.temporary.glob("massl-demo-*/pictures/*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert running.end(signal.SIGHUP) == 130
    assert list(running.temporary.glob("massl*")) == []


def test_where_there_is_nothing_to_show_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.jpg").write_bytes(b"no picture")
    collection = Collection.create(tmp_path / "broken", Encoder.load(write_encoder(tmp_path / "tiny.onnx"), threads=1))
    collection.updating = True
    for kind in (FindScreen, MapScreen):
        assert "appear here in a few seconds" in kind(collection, tmp_path).do(Session(), {"do": "start"})["empty"]
    collection.update()
    for kind in (FindScreen, MapScreen):
        assert "massl info says why" in kind(collection, tmp_path).do(Session(), {"do": "start"})["empty"]
    (tmp_path / "broken" / "1.jpg").unlink()
    collection.update()
    for kind in (FindScreen, MapScreen):
        assert "Add some" in kind(collection, tmp_path).do(Session(), {"do": "start"})["empty"]


@pytest.mark.parametrize(
    ("update", "text"),
    [
        (Update("looking"), "Looking for new pictures …"),
        (Update("looking", 1_500), "Looking for new pictures: 1,500 files so far."),
        (Update("comparing", 3, 10), "Comparing touched files with the index: 3 of 10."),
        (
            Update("indexing", 96, 4_000, seconds=4.0),
            "Indexed 96 of 4,000 new or changed pictures, 24 a second, about 3 minutes left. "
            "7 can be searched and labelled already.",
        ),
        (
            Update("indexing", 9, 9, seconds=4.0),
            "Indexed 9 of 9 new or changed pictures. 7 can be searched and labelled already.",
        ),
        (
            Update("indexing", 0, 1),
            "Indexed 0 of 1 new or changed picture. 7 can be searched and labelled already.",
        ),
        (Update("preparing", 5, 9), "Preparing the search index: 5 of 9."),
        (Update("done", report=IndexReport(indexed=9, unchanged=9)), ""),
        (Update("done", report=IndexReport(indexed=9, added=2)), "Indexing is done: 9 pictures (2 added)."),
        (Update("failed", message="the disk is full"), "The disk is full."),
    ],
)
def test_how_far_it_is_in_words(update: Update, text: str) -> None:
    assert describe(update, 7) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "5 seconds"), (44, "45 seconds"), (55, "1 minute"), (100, "2 minutes"), (7_300, "2 hours"), (9e5, "10 days")],
)
def test_a_duration_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == f"about {text}"
