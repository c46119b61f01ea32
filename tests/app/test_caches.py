"""A disk that can't be written: the page shows every picture all the same, and says once what it can't keep."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.progress import ProgressStrip
from app.server import serve
from indexer import Collection, Encoder
from indexer.store.thumbnails import Thumbnails
from massl.core.images.rendering import Rendering
from tests.app.test_server import BROWSER
from tests.indexer.tiny import write_encoder

SERVE = "from cli import main; main()"


@pytest.fixture
def few(pictures: Path, tmp_path: Path) -> Collection:
    """Six pictures, indexed by an encoder that takes no time; for a test to do with as it likes."""
    root = tmp_path / "few"
    root.mkdir()
    for file in sorted((pictures / "flag").glob("*.jpg"))[:6]:
        shutil.copy(file, root)
    made = Collection.create(root, Encoder.load(write_encoder(tmp_path / "tiny.onnx")))
    made.update()
    return made


@contextmanager
def served(root: Path, mount: str, *arguments: str) -> Iterator[str]:
    """The page of a folder on a disk of its own, made by `mount`; gives its address."""
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root, to mount a disk")
    command = f'{mount} && exec "$0" -c "$1" serve "$2" --port 0 {" ".join(arguments)}'
    running = subprocess.Popen(
        ["unshare", "-m", "bash", "-c", command, sys.executable, SERVE, str(root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr
    said: list[str] = []
    try:
        for line in running.stderr:
            said.append(line)
            if found := re.search(r"Open (\S+) in a browser", line):
                threading.Thread(target=running.stderr.read, daemon=True).start()
                yield found[1]
                break
        else:
            if "mount" in "".join(said):
                pytest.skip("no mounts may be made here")
            raise AssertionError("".join(said))
    finally:
        running.terminate()
        running.wait(30)


def test_a_read_only_folder_shows_its_pictures(few: Collection) -> None:
    image = few.images.ready()[0][0]
    few.catalog.close()
    mount = 'mount --bind "$2" "$2" && mount -o remount,bind,ro "$2"'
    with served(few.root, mount) as address:
        for kind, side in (("thumbnail", 256), ("preview", 1024)):
            answer = httpx.get(f"{address}{kind}/{image}", **BROWSER)
            assert answer.status_code == 200
            with Image.open(io.BytesIO(answer.content)) as picture:
                assert picture.format == "WEBP"
                assert max(picture.size) <= side
    assert not (few.folder / "thumbnails").exists()


def test_pictures_in_memory_ask_for_the_login_too(few: Collection) -> None:
    image = few.images.ready()[0][0]
    (few.folder / "thumbnails").write_bytes(b"in the way")
    with serve(few, "127.0.0.1", 0, ("name", "a long password")) as address:
        assert httpx.get(f"{address}thumbnail/{image}", **BROWSER).status_code == 401
        assert httpx.get(f"{address}thumbnail/999999", **BROWSER).status_code == 401  # nor what there is
        with httpx.Client(**BROWSER) as client:
            entered = client.post(f"{address}login", data={"username": "name", "password": "a long password"})
            assert entered.status_code == 200
            answer = client.get(f"{address}thumbnail/{image}")
    assert answer.status_code == 200
    assert answer.content[:4] == b"RIFF"


def test_the_page_says_what_it_cant_keep(few: Collection) -> None:
    strip = ProgressStrip(few, None)
    assert strip.progress(None)["text"] == ""
    (few.folder / "thumbnails").write_bytes(b"in the way")
    image, _ = few.images.ready()[0]
    first = few.images.thumbnail(image)
    assert first is not None
    assert few.images.thumbnail(image) is first  # from memory
    text = strip.progress(None)["text"]
    assert text.startswith("Thumbnails can't be stored on the disk")
    assert "choose another place with --index-dir" in text
    (few.folder / "thumbnails").unlink()
    other, _ = few.images.ready()[1]
    assert few.images.thumbnail(other) is not None
    assert strip.progress(None)["text"] == ""


def test_those_in_memory_take_no_more_than_their_room(few: Collection) -> None:
    (few.folder / "thumbnails").write_bytes(b"in the way")
    kept = few.images.thumbnails = Thumbnails(few.folder, room=40_000)
    for image, _ in few.images.ready():
        made = few.images.thumbnail(image)
        assert made
        assert kept._bytes == sum(map(len, kept._kept.values())) <= 40_000
    assert len(kept._kept) > 1


def test_those_in_memory_are_found_again_whatever_the_range(few: Collection) -> None:
    (few.folder / "thumbnails").write_bytes(b"in the way")
    _, path = few.images.ready()[0]
    shown = Rendering(fixed=(0.0, 255.0))
    digest = hashlib.sha256((few.root / path).read_bytes()).hexdigest()
    made = [few.images.thumbnails.get(few.root / path, digest, rendering=shown) for _ in range(2)]
    assert made[0] is not None
    assert made[1] is made[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_in_the_place_of_a_thumbnail_is_not_waited_for_nor_a_huge_file_read(few: Collection) -> None:
    image, _ = few.images.ready()[0]
    made = few.images.thumbnail(image)
    (file,) = (few.folder / "thumbnails").rglob("*.webp")
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert few.images.thumbnail(image) == made
    assert file.stat().st_size < 1 << 20  # made anew
    file.unlink()
    os.mkfifo(file)
    assert few.images.thumbnail(image) == made


def test_a_damaged_thumbnail_is_made_anew(few: Collection) -> None:
    image, _ = few.images.ready()[0]
    whole = few.images.thumbnail(image)
    (file,) = (few.folder / "thumbnails").rglob("*.webp")
    with Image.open(file) as picture:  # what stands behind its end is in nobody's way
        picture.load()
    data = file.read_bytes()
    for place in range(0, len(data), len(data) // 25):
        damaged = bytearray(data)
        damaged[place] ^= 8
        file.write_bytes(damaged)
        assert few.images.thumbnail(image) == whole, place
        assert file.read_bytes() == data
    for cut in (0, 3, 11, len(data) // 2, len(data) - 4):
        file.write_bytes(data[:cut])
        assert few.images.thumbnail(image) == whole, cut
    assert whole
    file.write_bytes(whole)  # as earlier versions wrote it
    assert few.images.thumbnail(image) == whole
