"""The pictures that the page serves: decoded copies of a bounded size without metadata, never the files themselves."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.access.request_filter import FULL
from app.server import serve
from indexer import Collection, Encoder
from tests.app.test_server import BROWSER
from tests.indexer.tiny import write_encoder

SECRET = b"where this was taken"
LONG = (4_000, 300)
SMALL = (900, 400)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A large photograph that says where it was taken and lies on its side, and a small one."""
    root = tmp_path_factory.mktemp("album") / "photos"
    root.mkdir()
    tags = Image.Exif()
    tags[0x010E] = SECRET.decode()
    tags[0x0112] = 6  # to be turned by a quarter
    Image.linear_gradient("L").resize(LONG).save(root / "large.jpg", exif=tags, quality=95)
    Image.linear_gradient("L").resize(SMALL).save(root / "small.jpg", exif=tags, quality=95)
    made = Collection.create(root, Encoder.load(write_encoder(root.parent / "tiny.onnx"), threads=1))
    made.update()
    return made


def test_a_picture_that_fills_the_window_is_bounded_upright_and_says_nothing_else(album: Collection) -> None:
    with serve(album, "127.0.0.1", 0, None) as address:
        for name, (width, height) in (("large.jpg", LONG), ("small.jpg", SMALL)):
            image = album.images.id_of(name)
            answer = httpx.get(f"{address}full/{image}", **BROWSER)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/webp"
            assert SECRET not in answer.content
            assert answer.content != (album.root / name).read_bytes()
            with Image.open(io.BytesIO(answer.content)) as picture:
                assert (picture.format, dict(picture.getexif())) == ("WEBP", {})
                shrunk = min(1.0, FULL / max(width, height))
                assert picture.size == pytest.approx((height * shrunk, width * shrunk), abs=1)
        small = album.images.id_of("small.jpg")
        # A small one is the same as its preview, and lies on the disk once.
        assert httpx.get(f"{address}preview/{small}", **BROWSER).content == answer.content
    digest = album.images.facts(small).content
    kept = [path.name for path in (album.folder / "thumbnails").rglob(f"{digest}*")]
    assert kept == [f"{digest}-1024.webp"]


@pytest.mark.parametrize("kind", ["thumbnail", "preview", "full"])
def test_no_size_is_served_before_the_login_or_of_what_is_not_there(album: Collection, kind: str) -> None:
    image = album.images.id_of("small.jpg")
    with serve(album, "127.0.0.1", 0, ("ada", "secret")) as address, httpx.Client(**BROWSER) as client:
        assert client.get(f"{address}{kind}/{image}").status_code == 401
        assert client.post(f"{address}login", data={"username": "ada", "password": "secret"}).status_code == 200
        assert client.get(f"{address}{kind}/{image}").status_code == 200
        for wrong in ("999999", "0", f"{image}/..", f"{image}.jpg", "-1", "large.jpg", "1" * 19):
            assert client.get(f"{address}{kind}/{wrong}").status_code == 404, wrong
        assert client.get(f"{address}{kind}/{image}", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_file_that_was_changed_since_it_was_indexed_is_not_shown(album: Collection) -> None:
    image = album.images.id_of("large.jpg")
    file: Path = album.root / "large.jpg"
    before = file.read_bytes()
    with serve(album, "127.0.0.1", 0, None) as address:
        for copy in (album.folder / "thumbnails").rglob("*.webp"):
            copy.unlink()
        try:
            file.write_bytes((album.root / "small.jpg").read_bytes())
            assert httpx.get(f"{address}full/{image}", **BROWSER).status_code == 404
        finally:
            file.write_bytes(before)
        assert httpx.get(f"{address}full/{image}", **BROWSER).status_code == 200


def test_a_picture_s_number_is_written_in_the_digits_of_ascii(album: Collection) -> None:
    with serve(album, "127.0.0.1", 0, None) as address:
        assert httpx.get(f"{address}thumbnail/1", **BROWSER).status_code == 200
        for digit in ("\u0661", "\uff11"):
            assert httpx.get(f"{address}thumbnail/{digit}", **BROWSER).status_code != 200
