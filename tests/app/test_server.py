"""What the server lets through, and what the actions do, without a browser."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.formatting import moment, readable, size
from app.screens.find import FindScreen
from app.server import _environment, check_address, serve
from app.session import Session
from indexer import Collection
from massl.core.errors import MasslError

BROWSER = {"trust_env": False, "timeout": 20}


def _upload(site: str, name: str, data: bytes) -> str:
    answer = httpx.post(f"{site}gradio_api/upload", files={"files": (name, data)}, **BROWSER)
    answer.raise_for_status()
    return answer.json()[0]


def _call(site: str, endpoint: str, *arguments: Any) -> tuple[str, Any]:
    """Event and data that an endpoint answers with."""
    asked = httpx.post(f"{site}gradio_api/call/{endpoint}", json={"data": arguments}, **BROWSER)
    asked.raise_for_status()
    answer = httpx.get(f"{site}gradio_api/call/{endpoint}/{asked.json()['event_id']}", **BROWSER).text
    event, _, data = answer.strip().partition("\n")
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def _file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def _left_over() -> list[Path]:
    return [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2"])
def test_the_own_machine_needs_no_password(host: str) -> None:
    assert check_address(host, None) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", ""])
def test_an_address_that_others_reach_needs_a_password(host: str) -> None:
    with pytest.raises(MasslError, match="--auth USER:PASSWORD"):
        check_address(host, None)
    assert check_address(host, "ada:se:cret") == ("ada", "se:cret")


@pytest.mark.parametrize("auth", ["ada", "ada:", ":secret", ":", ""])
def test_a_malformed_login_is_explained(auth: str) -> None:
    with pytest.raises(MasslError, match="ada:secret"):
        check_address("127.0.0.1", auth)


def test_a_busy_port_is_named_with_the_flag_that_helps(collection: Collection) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MasslError, match=f"port {port} .*--port 0"), serve(collection, "127.0.0.1", port, None):
            pass


def test_the_page_opens_where_the_machine_is_too_busy_to_answer_itself(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)  # as after the 3 s that Gradio waits
    with serve(collection, "127.0.0.1", 0, None) as address:
        assert httpx.get(str(address), **BROWSER).status_code == 200


def test_importing_the_room_is_light_and_never_loads_torch_or_the_commands() -> None:
    code = (
        "import sys, app, app.server; assert not {'gradio', 'torch', 'cli'} & set(sys.modules);"
        "import app.page; assert not {'torch', 'cli'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_servers_of_one_process_may_end_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server._ENVIRONMENTS", [])  # beside those of the pages that other tests have open
    monkeypatch.setattr("app.server._BEFORE", {})
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    before = dict(os.environ) | {"HF_HUB_OFFLINE": "1"}
    for order in ((0, 1), (1, 0)):
        servers = [_environment("127.0.0.1", uploads) for uploads in ("first", "second")]
        for server in servers:
            server.__enter__()
        assert os.environ["GRADIO_TEMP_DIR"] == "second"
        ended, left = order
        servers[ended].__exit__(None, None, None)
        assert os.environ["GRADIO_TEMP_DIR"] == ("first", "second")[left]
        assert os.environ["NO_PROXY"].startswith("intranet,127.0.0.1")
        servers[left].__exit__(None, None, None)
        assert dict(os.environ) == before


def test_only_thumbnails_are_served(site: str, collection: Collection, photos: Path) -> None:
    image = collection.images.id_of("flag/brazil.jpg")
    answer = httpx.get(f"{site}thumbnail/{image}", **BROWSER)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert "max-age" in answer.headers["cache-control"]
    thumbnail = next((collection.folder / "thumbnails").rglob("*.webp"))
    secrets = [
        str(photos / "flag" / "brazil.jpg"),
        str(collection.folder / "catalog.sqlite"),
        *map(str, collection.folder.glob("encoder-*.onnx")),
        str(thumbnail),
        f"{thumbnail.parent}/../../catalog.sqlite",
        f"{thumbnail.parent}/%2e%2e/%2e%2e/catalog.sqlite",
        f"{thumbnail.parent}/..%2f..%2fcatalog.sqlite",
        "/etc/passwd",
        "../../../../etc/passwd",
        "https://example.org/",
        os.environ["GRADIO_TEMP_DIR"],
    ]
    for secret in secrets:
        for route in ("gradio_api/file=", "gradio_api/file/", "gradio_api/proxy=", "file=", "thumbnail/", "//", ""):
            status = httpx.get(f"{site}{route}{secret}", **BROWSER).status_code
            assert status in (403, 404, 405), (route, secret, status)
    assert httpx.get(f"{site}thumbnail/999999", **BROWSER).status_code == 404
    assert httpx.get(f"{site}thumbnail/{'9' * 18}", **BROWSER).status_code == 404


@pytest.mark.parametrize("name", [b"two\nlines", b"caf\xe9", b"\x1b[31m", b"a%2e%2e?b#c"], ids=ascii)
def test_pictures_are_shown_whatever_the_folder_is_called(tmp_path: Path, photos: Path, name: bytes) -> None:
    root = Path(shutil.copytree(photos / "flag", tmp_path / os.fsdecode(name)))
    collection = Collection.create(root)
    collection.update()
    with serve(collection, "127.0.0.1", 0, None) as address:
        assert httpx.get(str(address), **BROWSER).status_code == 200
        for kind in ("thumbnail", "preview"):
            answer = httpx.get(f"{address}{kind}/{collection.images.ready(1)[0][0]}", **BROWSER)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")


def test_a_page_on_this_machine_answers_to_this_machine_s_names_only(site: str) -> None:
    assert httpx.get(site, headers={"Host": "evil.example"}, **BROWSER).status_code == 403
    assert httpx.get(site, headers={"Host": "127.0.0.1.evil.example:80"}, **BROWSER).status_code == 403
    crossed = {"Sec-Fetch-Site": "cross-site"}
    assert httpx.post(f"{site}gradio_api/queue/join", headers=crossed, json={}, **BROWSER).status_code == 403
    policy = httpx.get(site, **BROWSER).headers["content-security-policy"]
    assert "default-src 'self'" in policy


def test_a_page_with_a_password_shows_nothing_before_it(collection: Collection) -> None:
    image = collection.images.ready(1)[0][0]
    with serve(collection, "127.0.0.1", 0, ("ada", "secret")) as address, httpx.Client(**BROWSER) as client:
        assert client.get(f"{address}thumbnail/{image}").status_code == 401
        assert client.post(f"{address}gradio_api/call/classify", json={"data": []}).status_code == 401
        assert client.post(f"{address}login", data={"username": "ada", "password": "wrong"}).status_code == 400
        assert client.post(f"{address}login", data={"username": "ada", "password": "secret"}).status_code == 200
        assert client.get(f"{address}thumbnail/{image}").status_code == 200


def test_the_endpoint_search_finds_and_leaves_no_upload_behind(site: str, photos: Path) -> None:
    before = _left_over()  # of other tests, which nobody has read yet
    path = _upload(site, "brazil.jpg", (photos / "flag" / "brazil.jpg").read_bytes())
    event, data = _call(site, "search", _file(path), 3)
    assert event == "complete"
    results = data[0]["results"]
    assert [item["rank"] for item in results] == [1, 2, 3]
    assert results[0]["path"] == "flag/brazil.jpg"
    assert results[0]["score"] == pytest.approx(1, abs=2e-3)
    assert _left_over() == before


def test_the_endpoint_search_reads_uploads_only(site: str, photos: Path) -> None:
    before = _left_over()
    for path in (str(photos / "flag" / "brazil.jpg"), "/etc/passwd", "\0", "", 7, None):
        event, _ = _call(site, "search", {"path": path}, 3)
        assert event == "error", path
    broken = _upload(site, "x.jpg", b"not a picture")
    assert _call(site, "search", _file(broken), 3)[0] == "error"
    assert _left_over() == before


def test_no_address_is_fetched_for_anybody(site: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.5)
        link = f"http://127.0.0.1:{listener.getsockname()[1]}/x.jpg"
        asked = httpx.post(f"{site}gradio_api/call/search", json={"data": [_file(link), 3]}, **BROWSER)
        assert asked.status_code == 403
        with pytest.raises(TimeoutError):
            listener.accept()


def test_an_upload_beyond_the_limit_is_refused(site: str) -> None:
    answer = httpx.post(f"{site}gradio_api/upload", files={"files": ("big.jpg", bytes(51 << 20))}, **BROWSER)
    assert answer.status_code == 413


def test_the_endpoint_classify_says_what_is_missing_and_then_predicts(site: str, unlabelled: Collection) -> None:
    event, data = _call(site, "classify")
    assert event == "error"
    assert "at least two classes" in str(data)
    images = [image for image, _ in unlabelled.images.ready()]
    unlabelled.labels.add("one", images[:3], "test")
    unlabelled.labels.add("two", images[-3:], "test")
    event, data = _call(site, "classify")
    assert event == "complete"
    assert data[0]["labels"] == {"one": 3, "two": 3}
    assert len(data[0]["predictions"]) == len(images)


def test_a_step_is_undone_to_what_was_there_before(unlabelled: Collection, tmp_path: Path) -> None:
    find, session = FindScreen(unlabelled, tmp_path), Session()
    first, second, third = [image for image, _ in unlabelled.images.ready(3)]
    unlabelled.labels.add("old", [first], "cli")
    find.do(session, {"do": "label", "images": [first, second, third], "label": "new"})
    assert [item.label for item in unlabelled.labels.every()] == ["new"] * 3
    unlabelled.labels.add("other", [third], "somebody else")  # since then: must stay
    screen = find.do(session, {"do": "undo"})
    left = sorted((item.label, item.author) for item in unlabelled.labels.every())
    assert left == [("old", "cli"), ("other", "somebody else")]
    assert screen["undo"] is None
    assert "others have changed 1 since" in screen["message"]["text"]


def test_a_step_is_undone_whole_although_one_of_its_pictures_has_gone(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "few"
    shutil.copytree(photos / "flag", root)
    collection = Collection.create(root)
    collection.update()
    find, session = FindScreen(collection, tmp_path), Session()
    images = [image for image, _ in collection.images.ready(5)]
    collection.labels.add("old", images[:2], "cli")
    find.do(session, {"do": "label", "images": images, "label": "new"})
    gone = root / collection.images.paths_of(images[:1])[0]
    gone.rename(tmp_path / "gone.jpg")
    collection.update()
    screen = find.do(session, {"do": "undo"})
    assert screen["message"]["text"] == "Undone: labelled 5 pictures “new”"
    assert screen["undo"] is None
    assert [(item.label, item.author) for item in collection.labels.every()] == [("old", "cli")]
    (tmp_path / "gone.jpg").rename(gone)  # it comes back, on a disk that was unplugged perhaps: undone there as well
    collection.update()
    assert [(item.label, item.author) for item in collection.labels.every()] == [("old", "cli")] * 2


def test_a_step_that_cannot_be_undone_now_can_be_later(unlabelled: Collection, tmp_path: Path) -> None:
    find, session = FindScreen(unlabelled, tmp_path), Session()
    first, second = [image for image, _ in unlabelled.images.ready(2)]
    unlabelled.labels.add("old", [first], "cli")
    find.do(session, {"do": "label", "images": [first, second], "label": "new"})
    with unlabelled.catalog.writing() as connection:
        connection.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON labels BEGIN SELECT RAISE(ABORT, 'full'); END")
    try:
        screen = find.do(session, {"do": "undo"})
    finally:
        with unlabelled.catalog.writing() as connection:
            connection.execute("DROP TRIGGER full")
    assert screen["message"]["kind"] == "error"
    assert screen["undo"] == "labelled 2 pictures “new”"
    assert unlabelled.labels.counts() == {"new": 2}  # no half of it
    find.do(session, {"do": "undo"})
    assert unlabelled.labels.counts() == {"old": 1}


def test_two_sessions_share_labels_and_nothing_else(unlabelled: Collection, tmp_path: Path) -> None:
    find, ada, bob = FindScreen(unlabelled, tmp_path), Session(), Session()
    image = unlabelled.images.ready(1)[0][0]
    find.do(ada, {"do": "similar", "image": image})
    find.do(ada, {"do": "label", "images": [image], "label": "hers"})
    seen = find.do(bob, {"do": "start"})
    assert seen["asked"] is None
    assert seen["undo"] is None
    assert seen["classes"] == [{"name": "hers", "count": 1}]
    assert seen["sections"][0]["tiles"][0]["label"] == "hers"


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"do": "nonsense"},
        {"do": "label", "images": "all", "label": "x"},
        {"do": "label", "images": [True], "label": "x"},
        {"do": "label", "images": [10**30], "label": "x"},
        {"do": "label", "images": [987654], "label": "x"},
        {"do": "label", "images": [], "label": "x"},
        {"do": "label", "images": [1], "label": "  "},
        {"do": "label", "images": [1], "label": "y" * 101},
        {"do": "similar", "image": "1; DROP TABLE images"},
        {"do": "similar", "image": 987654},
        {"do": "upload", "path": "/etc/passwd"},
        {"do": "upload", "path": None},
        {"do": "ask", "examples": "all"},
        {"do": "ask", "examples": [7]},
        {"do": "ask", "examples": [{}]},
        {"do": "ask", "examples": [{"image": 1}] * 17},
        {"do": "ask", "examples": [{"image": 1, "part": [0, 0, 0, 0]}]},
        {"do": "ask", "examples": [{"image": 1, "part": [0, 0, "a", 1]}]},
        {"do": "ask", "examples": [{"image": 1, "part": [0, float("nan"), 1, 1]}]},
        {"do": "ask", "examples": [{"image": 1, "weight": -1}]},
        {"do": "ask", "examples": [{"upload": "../../etc/passwd"}]},
        {"do": "ask", "examples": [{"content": "%"}]},
        {"do": "ask", "examples": [{"content": "0" * 16}]},
        {"do": "ask", "folders": ["nowhere"]},
        {"do": "ask", "folders": ["\0"]},
        {"do": "ask", "labels": ["y" * 5000]},
        {"do": "ask", "labels": {}},
        {"do": "ask", "since": "yesterday"},
        {"do": "ask", "since": "2001-01-01", "until": "2000-01-01"},
        {"do": "ask", "until": "1900-01-01"},
        {"do": "undo"},
    ],
)
def test_whatever_a_browser_sends_the_answer_is_a_sentence(
    unlabelled: Collection, tmp_path: Path, payload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    screen = FindScreen(unlabelled, tmp_path).do(Session(), payload)
    assert screen["message"]["kind"] == "error"
    assert screen["message"]["text"].endswith(".")
    assert len(screen["sections"][0]["tiles"]) == 48
    assert unlabelled.labels.every() == []
    assert caplog.records == []  # foreseen, not merely survived


class Broken(FindScreen):
    """A screen that can't be drawn, for a reason that nobody foresaw."""

    def draw(self, session: Session) -> dict[str, Any]:
        """See `Screen.draw`."""
        raise ValueError("year 10000 is out of range")


def test_a_screen_that_cannot_be_drawn_is_told_in_a_sentence(unlabelled: Collection, tmp_path: Path) -> None:
    drawn = Broken(unlabelled, tmp_path).do(Session(), {"do": "start"})
    assert drawn["message"]["kind"] == "error"
    assert drawn["message"]["text"].startswith("Something went wrong")
    assert drawn["gone"]  # what was drawn before stays


def test_sizes_and_times_are_said_alike_everywhere(unlabelled: Collection, tmp_path: Path) -> None:
    assert [size(number) for number in (999, 12_345, 234_567, 2_345_678_901)] == [
        "999 bytes",
        "12.3 kB",
        "235 kB",
        "2.3 GB",
    ]
    image, path = unlabelled.images.ready(1)[0]
    file = (unlabelled.root / path).stat()
    told = dict(FindScreen(unlabelled, tmp_path).do(Session(), {"do": "details", "image": image})["facts"])
    assert told["File"] == size(file.st_size)
    assert told["Modified"] == moment(datetime.fromtimestamp(file.st_mtime).astimezone().isoformat())
    assert told["Taken"] == "not known"


def test_names_that_are_no_utf8_can_be_shown() -> None:
    assert readable(os.fsdecode(b"caf\xe9.jpg")) == "caf\\udce9.jpg"
    readable(os.fsdecode(b"\xff")).encode()
