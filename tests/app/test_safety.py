"""What others learnt the hard way about pages that serve pictures: each of it held against a running server."""

from __future__ import annotations

import http.client
import importlib.util
import io
import json
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.server import AT_ONCE, WAITING, serve
from indexer import Collection
from indexer.fewshot.classification import Classification
from indexer.fewshot.label_state import CollectionFewshot
from indexer.store.catalog import Catalog
from tests.app.test_server import BROWSER, _call, _file, _left_over, _upload

CANARY = secrets.token_hex(16)
MOST_READ = 1 << 20  # bytes of an answer that are looked at
PATIENCE = 0.5  # seconds; some of Gradio's routes keep a connection open for as long as one listens


# No path outside the thumbnails --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(photos: Path, collection: Collection, site: str) -> Iterator[tuple[str, list[str], list[bytes]]]:
    """The page, paths that nobody may have, and bytes by which each of them would be known."""
    hidden = [
        photos / "secret.txt",
        photos.parent / "secret.txt",
        collection.folder / "secret.txt",
        collection.folder / "thumbnails-old" / "secret.txt",
        Path(tempfile.gettempdir()) / f"{secrets.token_hex(8)}-secret.txt",
        Path(os.environ["GRADIO_TEMP_DIR"]) / "somebody" / "secret.txt",
    ]
    for path in hidden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CANARY)
    originals = [photos / path for _, path in collection.images.ready(5)]
    own = [collection.folder / "catalog.sqlite", *collection.folder.glob("encoder-*.onnx")]
    paths = [*hidden, *originals, *own, Path("/etc/passwd"), Path(__file__), Path("/proc/self/environ")]
    known = [CANARY.encode(), b"SQLite format 3", b"root:x:0:", b"held against a running server"]
    known += [path.read_bytes()[100:200] for path in originals] + [own[1].read_bytes()[1000:1100]]
    yield site, [str(path) for path in paths], known
    for path in hidden:
        path.unlink(missing_ok=True)  # Gradio clears its folder of what is older than five minutes


def routes() -> list[str]:
    """Every route of the Gradio that is installed, and ours."""
    source = (Path(str(importlib.util.find_spec("gradio").origin)).parent / "routes.py").read_text("utf-8")  # type: ignore[union-attr]
    found = re.findall(r'@\w+\.(?:get|post|head|put|delete|patch|api_route)\(\s*f?"([^"]+)"', source)
    assert len(found) > 20
    own = ["/thumbnail/{id}", "/", "/gradio_api/file={path}", "/gradio_api/info", "//{path}", "/../{path}"]
    return sorted({*own, *found, *(f"/gradio_api{route}" for route in found)})


ROUTES = routes()
TAKING_PATHS = [route for route in ROUTES if "path" in route]
# A third of them where Gradio serves files by path, as there is most to be had.
ROUTE = st.one_of(
    st.sampled_from(["/gradio_api/file={path}", "/file={path}"]), st.sampled_from(TAKING_PATHS), st.sampled_from(ROUTES)
)
ESCAPES = st.sampled_from(
    [
        str,
        quote,
        lambda path: quote(path, safe=""),
        lambda path: quote(quote(path, safe=""), safe=""),
        lambda path: path.replace("/", "\\"),
        lambda path: path.replace("/", "%5c"),
        lambda path: path.replace("/", "//"),
        lambda path: path.replace("/", "/./"),
        lambda path: "../" * 12 + path.lstrip("/"),
        lambda path: "..%2f" * 12 + quote(path.lstrip("/"), safe=""),
        lambda path: "%2e%2e/" * 12 + path.lstrip("/"),
        lambda path: f"file://{path}",
        lambda path: f"{path}%00.webp",
        lambda path: f"1/../../{path}",
        lambda path: f"x/..;/{path}",
        lambda path: f"{path}?path={quote(path)}&file={quote(path)}",
    ]
)


def ask(site: str, method: str, target: str, body: bytes | None, kind: str) -> tuple[int, str, bytes]:
    """Status, where it sends one on to, and what it answers; the target goes out as it is, with no tidying."""
    url = urlsplit(site)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=PATIENCE)
    answer = b""
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        if body is not None:
            connection.putheader("Content-Type", kind)
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        status, location = response.status, response.headers.get("Location", "")
        while len(answer) < MOST_READ and (more := response.read1(65536)):
            answer += more
    except (TimeoutError, http.client.HTTPException, ConnectionError):
        status, location = 0, ""  # it listens on, or refused to talk: what came so far is looked at
    finally:
        connection.close()
    return status, location, answer


def check(site: str, status: int, location: str, answer: bytes, known: list[bytes]) -> None:
    for mark in known:
        assert mark not in answer
    assert status < 500
    target = urlsplit(location)
    assert target.netloc in ("", urlsplit(site).netloc), location


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_no_file_but_thumbnails_can_be_had_by_any_route(guarded: tuple[str, list[str], list[bytes]], data: Any) -> None:
    site, paths, known = guarded
    route = data.draw(ROUTE)
    secret = data.draw(ESCAPES)(data.draw(st.sampled_from(paths)))
    target = re.sub(r"\{[^}]*\}", lambda match: secret, route)
    if data.draw(st.booleans()) and "{" not in route:
        target += ("" if data.draw(st.booleans()) else "/") + secret
    target = quote(target, safe="/%=?&:.;\\~@+,!$'()*[]|^`")
    method = data.draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PUT", "OPTIONS"]))
    check(site, *ask(site, method, target, b"{}" if method in ("POST", "PUT") else None, "application/json"), known)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_no_file_can_be_had_by_what_is_sent(guarded: tuple[str, list[str], list[bytes]], data: Any) -> None:
    site, paths, known = guarded
    path = data.draw(st.sampled_from(paths))
    file = data.draw(
        st.sampled_from(
            [
                _file(path),
                {"path": path},
                {"path": "/x", "url": f"file://{path}", "meta": {"_type": "gradio.FileData"}},
                {"path": f"/tmp/../{path}", "is_stream": True, "meta": {"_type": "gradio.FileData"}},
                path,
                {"do": "upload", "path": path},
            ]
        )
    )
    number = data.draw(st.integers(0, 12))
    session = secrets.token_hex(6)
    body = {
        "data": data.draw(st.sampled_from([[file, 3], [file], [None, file], [{}, file]])),
        "fn_index": number,
        "session_hash": session,
        "event_data": file,
        "trigger_id": number,
        "path": path,
        "file": path,
    }
    routes = ["call/search", "call/classify", "queue/join", "api/predict", "run/search", "component_server", "reset"]
    route = f"/gradio_api/{data.draw(st.sampled_from(routes))}"
    status, location, answer = ask(site, "POST", route, json.dumps(body).encode(), "application/json")
    check(site, min(status, 499), location, answer, known)  # a malformed body may be Gradio's own error, told to nobody
    if status == 200 and (event := json.loads(answer).get("event_id")):
        for after in (f"{route}/{event}", f"/gradio_api/queue/data?session_hash={session}"):
            check(site, 200, "", ask(site, "GET", after, None, "")[2], known)


# The door -------------------------------------------------------------------------------------------------------------


def test_variables_of_gradio_open_no_other_door(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "GRADIO_SHARE": "True",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_ALLOWED_PATHS": f"/etc,{collection.root}",
        "GRADIO_ROOT_PATH": "https://evil.example",
        "GRADIO_MCP_SERVER": "True",
        "GRADIO_SSR_MODE": "True",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with serve(collection, "127.0.0.1", 0, None) as address:
        assert urlsplit(str(address)).hostname == "127.0.0.1"
        port = urlsplit(str(address)).port
        for path in ("/etc/passwd", str(collection.root / "flag" / "brazil.jpg")):
            assert httpx.get(f"{address}gradio_api/file={path}", **BROWSER).status_code == 403
        assert httpx.get(f"{address}gradio_api/mcp/sse", **BROWSER).status_code in (403, 404)
        listening = Path("/proc/net/tcp")
        if listening.exists():  # where the system tells who listens: nobody on every address
            assert f"00000000:{port:04X}" not in listening.read_text()


# Uploads --------------------------------------------------------------------------------------------------------------


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    with io.BytesIO() as buffer:
        Image.radial_gradient("L").convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()


def animated() -> bytes:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    with io.BytesIO() as buffer:
        frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
        return buffer.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/><script>alert(1)</script></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file 99 string readstring\n%%EOF\n"


def bomb() -> bytes:
    """A PNG of 900 megapixels in a few kilobytes."""
    with io.BytesIO() as buffer:
        Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
        return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("drawing.svg", SVG, "not an image, or of a format that is not supported"),
        ("drawing.jpg", SVG, "not an image, or of a format that is not supported"),
        ("page.eps", EPS, "not an image, or of a format that is not supported"),
        ("page.jpg", EPS, "not an image, or of a format that is not supported"),
        ("nothing.jpg", b"", "empty"),
        ("text.png", b"hello", "not an image"),
        ("cut.jpg", picture("JPEG")[:300], ""),
        ("bomb.png", bomb, "too large"),  # made by the test: it takes seconds
    ],
)
def test_what_is_no_picture_gets_a_reason_and_is_not_left_on_the_disk(
    site: str, name: str, data: bytes | Callable[[], bytes], reason: str, collection: Collection
) -> None:
    before = _left_over()
    event, answer = _call(site, "search", _file(_upload(site, name, data() if callable(data) else data)), 3)
    assert event == "error"
    assert reason in json.dumps(answer)
    assert _left_over() == before


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("moving.gif", animated()),
        ("print.jpg", picture("JPEG", "CMYK")),
        ("clear.png", picture("PNG", "RGBA")),
        ("old.tif", picture("TIFF", "L")),
        ("x" * 200 + ".png", picture("PNG", "LA")),
        ("<img src=x onerror=alert(1)>.png", picture("PNG")),
        ("../../../../etc/passwd.png", picture("PNG")),
    ],
)
def test_unusual_pictures_are_searched_with_and_not_left_on_the_disk(site: str, name: str, data: bytes) -> None:
    before = _left_over()
    event, answer = _call(site, "search", _file(_upload(site, name, data)), 3)
    assert event == "complete"
    assert len(answer[0]["results"]) == 3
    assert _left_over() == before


def test_an_upload_of_200_megabytes_is_refused_and_not_left_on_the_disk(site: str) -> None:
    before = _left_over()
    boundary = "border"

    def body() -> Iterator[bytes]:
        yield (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="big.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        ).encode()
        for _ in range(200):
            yield bytes(1 << 20)
        yield f"\r\n--{boundary}--\r\n".encode()

    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    try:
        answer = httpx.post(f"{site}gradio_api/upload", content=body(), headers=headers, **BROWSER)
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # it hung up in the middle, which is a refusal too
    assert _left_over() == before


def test_what_was_uploaded_goes_with_the_page(collection: Collection) -> None:
    with serve(collection, "127.0.0.1", 0, None) as address:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        _upload(str(address), "forgotten.jpg", picture("JPEG"))
        assert _left_over() != []
        assert folder.stat().st_mode & 0o077 == 0  # nobody else on this machine reads it
    assert not folder.exists()


# Queues and people ----------------------------------------------------------------------------------------------------


class Slow(CollectionFewshot):
    """A classification that waits to be let go."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(catalog)
        self.entered, self.go = threading.Semaphore(0), threading.Event()

    def classify(self) -> Classification:
        self.entered.release()
        self.go.wait(60)
        return super().classify()


def test_more_events_than_may_wait_are_told_that_the_page_is_busy(photos: Path, collection: Collection) -> None:
    held = Collection.open(photos)
    held.fewshot = slow = Slow(held.catalog)
    with serve(held, "127.0.0.1", 0, None) as site:

        def join(number: int) -> httpx.Response:
            return httpx.post(f"{site}gradio_api/call/classify", json={"data": []}, **BROWSER)

        try:
            first = join(0)
            assert first.status_code == 200
            assert slow.entered.acquire(timeout=30)  # one is at work, the others wait
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(join, range(WAITING + 6)))
        finally:
            slow.go.set()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 6
    assert {answer.status_code for answer in refused} == {503}
    assert AT_ONCE < WAITING


def test_people_who_search_at_once_get_their_own_answers(site: str, photos: Path, collection: Collection) -> None:
    names = [path for _, path in collection.images.ready() if "/" in path][:24]

    def search(name: str) -> str:
        event, data = _call(site, "search", _file(_upload(site, "same-name.jpg", (photos / name).read_bytes())), 1)
        assert event == "complete"
        return data[0]["results"][0]["path"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(search, names)) == names
