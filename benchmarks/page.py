#!/usr/bin/env python3
"""How fast the page is on a large collection: through a headless Chromium, and with many people at once.

    benchmarks/page.py IMAGES [--count 100000] [--people 20] [--seconds 60] [--folder FOLDER]

IMAGES: a folder of pictures. A collection of `--count` images is made of them in FOLDER (kept, and used again): each
picture stands there many times under different names, as a hard link to one copy, and is embedded once; its repetitions
get its embedding with normal noise of a tenth of its length added, and a date of their own. So files, thumbnails and
embeddings are real, and all else (catalog, index, calibration) is what `massl index` would have made of so many.

Printed: from choosing a picture to upload to the first results drawn; from scrolling to the next page's tiles being
drawn, many times; a picture clicked in the results; a picture's details; the server's memory beyond the vectors; and
what people wait who search at once through `gradio_client`, each again as soon as the answer is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from indexer import Collection, Encoder
from indexer.search import calibration
from indexer.store.meta import Meta
from massl.core.files.scan import find_images
from massl.core.images.decoding import open_image

EVERY = 200  # images a folder
NOISE = 0.1  # of an embedding's length, in all its numbers together
SOURCES = 2_000  # pictures that are embedded; the others are these again


def make(images: Path, root: Path, count: int) -> Collection:
    """A collection of `count` images, or the one that is there."""
    if (root / ".massl" / "ready").exists():
        return Collection.open(root)
    shutil.rmtree(root, ignore_errors=True)
    (root / "sources").mkdir(parents=True)
    names = find_images(images)[0]
    names = [names[at] for at in np.unique(np.linspace(0, len(names) - 1, SOURCES).astype(int))]
    for number, name in enumerate(names):
        shutil.copyfile(images / name, root / "sources" / f"{number:06}{Path(name).suffix.lower()}")
    encoder = Encoder.load()
    collection = Collection.create(root, encoder)
    collection.update()
    rows = list(
        collection.catalog.read(
            "SELECT path, size, ctime_ns, hash, width, height, embedding FROM images WHERE state = 'ready' "
            "ORDER BY path"
        )
    )
    draw = np.random.default_rng(0)
    with collection.catalog.writing() as connection:
        for number in range(count - len(rows)):
            path, size, ctime, digest, width, height, packed = rows[number % len(rows)]
            vector = np.frombuffer(packed, np.float16).astype(np.float32)
            vector = vector + NOISE * draw.standard_normal(len(vector)) / len(vector) ** 0.5
            name = f"{number // EVERY % 7:02}/{number // EVERY:05}/{number:08}{Path(os.fsdecode(path)).suffix}"
            target = root / name
            if number % EVERY == 0:
                target.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / os.fsdecode(path), target)
            connection.execute(
                "INSERT INTO images (path, size, mtime_ns, ctime_ns, hash, width, height, state, embedding) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, 'ready', ?)",
                [
                    os.fsencode(name),
                    size,
                    (1_600_000_000 + 1_000 * number) * 10**9,
                    ctime,
                    digest,
                    width,
                    height,
                    (vector / np.linalg.norm(vector)).astype(np.float16).tobytes(),
                ],
            )
    fitted = calibration.of_collection(root, collection.catalog, encoder)
    collection.catalog.set_meta(Meta.calibration.to(fitted.to_json()))
    collection.searcher.index()
    (root / ".massl" / "ready").touch()
    return collection


def serve(root: Path) -> tuple[subprocess.Popen[str], str]:
    """The page in a process of its own, and where it is."""
    code = (
        "import sys\nfrom app.server import serve\nfrom indexer import Collection\n"
        "with serve(Collection.open(sys.argv[1]), '127.0.0.1', 0, None) as address:\n"
        "    print(address, flush=True)\n    address.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


def resident(process: subprocess.Popen[str], collection: Collection) -> float:
    """MiB that the server holds beyond the vectors."""
    info = psutil.Process(process.pid).memory_info()
    vectors = sum(file.stat().st_size for file in collection.folder.glob("vectors-*.faiss"))
    # The vectors are mapped; they count as shared file pages once they have been looked at.
    return (info.rss - min(vectors, info.shared)) / 2**20


def told(name: str, seconds: list[float]) -> None:
    if not seconds:
        print(f"{name:44} no answer")
        return
    middle, late = np.quantile(seconds, [0.5, 0.95]) * 1e3
    print(f"{name:44} {len(seconds):5} times   p50 {middle:7.0f} ms   p95 {late:7.0f} ms", flush=True)


def through_the_browser(url: str, uploads: list[Path], rounds: int) -> None:
    """One person: uploads, scrolls, clicks, looks."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    uploaded, paged, clicked, looked = [], [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        tab.set_default_timeout(120_000)
        began = time.perf_counter()
        tab.goto(url)
        tab.wait_for_selector("#massl-find .tile")
        told("the page opened, until pictures stand there", [time.perf_counter() - began])
        for upload in uploads[:rounds]:
            before = tab.locator("#massl-find .chip .name").all_inner_texts()
            began = time.perf_counter()
            tab.locator("#massl-find input[type=file]").set_input_files(upload)
            tab.wait_for_function(
                "(before) => { const name = document.querySelector('#massl-find .chip .name');"
                "return name && !before.includes(name.innerText) && document.querySelector('#massl-find .score'); }",
                arg=before,
            )
            uploaded.append(time.perf_counter() - began)
            # From the request for a page, as it is sent, to its tiles in the document and a frame drawn.
            paged += tab.evaluate(
                """async (rounds) => {
                    const times = [];
                    const count = () => document.querySelectorAll('#massl-find .tile').length;
                    const frame = () => new Promise(requestAnimationFrame);
                    for (let round = 0; round < rounds; round++) {
                        // From rest: the pages that come by themselves, as the end is near, are there.
                        for (let last = -1; last !== count(); ) {
                            last = count();
                            await new Promise((done) => setTimeout(done, 500));
                        }
                        const before = count();
                        const began = performance.now();
                        document.querySelector('#massl-find .more').click();
                        while (count() === before) await frame();
                        await frame();
                        times.push((performance.now() - began) / 1000);
                    }
                    return times;
                }""",
                rounds,
            )
            began = time.perf_counter()
            tab.evaluate("() => document.querySelectorAll('#massl-find .tools button:last-child')[3].click()")
            tab.wait_for_selector("dialog.details canvas", state="attached")
            looked.append(time.perf_counter() - began)
            tab.keyboard.press("Escape")
            name = tab.locator("#massl-find .tile .name").nth(3).inner_text()
            began = time.perf_counter()
            tab.locator("#massl-find .picture").nth(3).click()
            tab.wait_for_function(
                "(name) => document.querySelector('#massl-find .chip .name').innerText === name", arg=name
            )
            clicked.append(time.perf_counter() - began)
        browser.close()
    told("a picture uploaded, until its results stand there", uploaded)
    told("the next page, until it is drawn", paged)
    told("a picture clicked, until its results stand there", clicked)
    told("details with the heat map", looked)


def many_people(url: str, pictures: list[Path], people: int, seconds: float) -> None:
    """People who search at once, each a client of its own with an upload a search."""
    from gradio_client import Client, handle_file

    waited: list[float] = []
    errors: list[str] = []
    lock = threading.Lock()
    start, stop = threading.Barrier(people + 1), threading.Event()

    def person(number: int) -> None:
        client = Client(url, verbose=False, download_files=False)  # paths in the answer are no files to fetch
        start.wait()
        turn = number
        while not stop.is_set():
            began = time.perf_counter()
            try:
                answer = client.predict(handle_file(str(pictures[turn % len(pictures)])), 20, api_name="/search")
                problem = None if len(answer["results"]) == 20 else f"{len(answer['results'])} results"
            except Exception as error:  # whatever it is, it is what a person would have met
                problem = f"{type(error).__name__}: {error}"
            with lock:
                errors.extend([problem] if problem else [])
                waited.append(time.perf_counter() - began)
            turn += people

    threads = [threading.Thread(target=person, args=(number,), daemon=True) for number in range(people)]
    for thread in threads:
        thread.start()
    start.wait()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join(120)
    told(f"{people} people at once for {seconds:.0f} s, a search", waited)
    print(f"{'errors among them':44} {len(errors):5}" + (f"   {sorted(set(errors))[:3]}" if errors else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="on the disk of IMAGES' copies; a temporary one if left out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = given.folder or Path(temporary) / "collection"
        began = time.monotonic()
        collection = make(given.images, root, given.count)
        measured = collection.searcher.measured()
        print(f"{len(collection):,} images, made in {time.monotonic() - began:.0f} s; search: {measured}")
        uploads = Path(temporary) / "uploads"
        uploads.mkdir()
        asked = []
        for number, file in enumerate(sorted((root / "sources").iterdir())[:: SOURCES // 100]):
            picture = open_image(file)
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(uploads / f"{number:03}.jpg", quality=90)
            asked.append(uploads / f"{number:03}.jpg")
        process, url = serve(root)
        try:
            through_the_browser(url, asked, given.rounds)
            print(f"{'memory of the server beyond the vectors':44} {resident(process, collection):5.0f} MiB")
            many_people(url, asked, given.people, given.seconds)
            print(f"{'memory of the server beyond the vectors':44} {resident(process, collection):5.0f} MiB")
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
