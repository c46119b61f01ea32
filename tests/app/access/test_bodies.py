"""What is sent to the page is bounded before it reaches memory or disk, and forgotten when nobody comes back for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.access import request_filter
from app.access.pace import SLOWEST, in_time
from app.access.retention import IDLE, LOOKS, SESSIONS, UNFETCHED_OF_ONE, Lifetime
from app.access.upload_folder import EXPIRES, MAX_FILE, MAX_FILES, MAX_WAITING, MOST_OF_ONE, Inbox, Refused
from app.screens.find import Finding, FindScreen
from app.server import serve
from app.session import Session
from app.uploads import Remembered, Upload
from indexer import Collection, Query
from massl.core.errors import MasslError
from tests.app.test_server import BROWSER, _left_over, _upload

BORDER = "border"
FORM = f"multipart/form-data; boundary={BORDER}"
FIELD = f'--{BORDER}\r\nContent-Disposition: form-data; name="files"\r\n\r\n'.encode()
FILE = f'--{BORDER}\r\nContent-Disposition: form-data; name="files"; filename="x.jpg"\r\n\r\n'.encode()
END = f"\r\n--{BORDER}--\r\n".encode()


def left_over() -> list[Path]:
    """Everything in the folder of uploads, empty folders and half a file of a parser too."""
    return list(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*"))


def announce(site: str, path: str, kind: str, length: int, begin: bytes) -> tuple[int, int]:
    """Says that a body of so many bytes comes, and sends it for as long as anybody listens: status, bytes sent."""
    url = urlsplit(site)
    sent = 0
    with socket.create_connection((str(url.hostname), url.port), timeout=20) as connection:
        head = (
            f"POST /{path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        )
        connection.sendall(head.encode() + begin)
        piece = b"a" * 65_536
        answer = b""
        connection.setblocking(False)
        deadline = time.monotonic() + 20
        while not answer and time.monotonic() < deadline:
            try:
                if sent < length:
                    sent += connection.send(piece)
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
            try:
                answer = connection.recv(200)
            except BlockingIOError:
                continue
            except OSError:
                break
    return (int(answer.split()[1]) if answer else 0), sent


@pytest.fixture(scope="module")
def closed(site: str, collection: Collection) -> Iterator[str]:
    """A page that asks for a password, beside the open one."""
    with serve(collection, "127.0.0.1", 0, ("ada", "secret")) as address:
        yield str(address)


@pytest.mark.parametrize(
    ("path", "kind", "begin"),
    [
        ("login", "application/x-www-form-urlencoded", b"username="),
        ("login/", "application/x-www-form-urlencoded", b"username="),
        ("login", FORM, FIELD.replace(b"files", b"username")),
        ("gradio_api/upload", FORM, FIELD),
        ("gradio_api/upload", FORM, FILE),
        ("gradio_api/queue/join", "application/json", b'"'),
        ("gradio_api/component_server", FORM, FILE),
        ("gradio_api/component_server", "application/json", b'"'),
        ("gradio_api/call/search", "application/json", b'"'),
        ("gradio_api/process_recording", FORM, FILE),
    ],
)
@pytest.mark.parametrize("door", [False, True])
def test_a_body_without_end_is_refused_before_it_is_read(
    site: str, closed: str, path: str, kind: str, begin: bytes, door: bool
) -> None:
    before = left_over()
    status, sent = announce(closed if door else site, path, kind, 400 << 20, begin)
    assert status in (0, 400, 401, 403, 404, 413, 415)
    assert sent < 16 << 20  # what the machine's own buffers hold
    assert left_over() == before


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("a field", FIELD + b"x" * 2_000 + END, 400),
        ("many fields", FIELD + b"x\r\n" + (FIELD + b"y\r\n") * 10 + FIELD + b"z" + END, 400),
        ("too many files", (FILE + b"x\r\n") * (MAX_FILES + 1) + FILE + b"x" + END, 400),
        ("no file", FIELD + b"x" + END, 400),
        ("nothing", b"", 400),
        ("no form", b"\0" * 500, 400),
        ("a part without a name", FILE.replace(b'; name="files"', b"") + b"x" + END, 400),
        ("a very long header", FILE.replace(b"x.jpg", b"x" * 100_000) + b"x" + END, 400),
        ("one file too large", FILE + b"x" * (MAX_FILE + 1) + END, 413),
        ("many files too large", (FILE + b"x" * (MAX_FILE // 2) + b"\r\n") * 3 + END, 413),
    ],
)
@pytest.mark.parametrize("told", [True, False])
def test_a_form_that_is_none_of_ours_leaves_nothing_behind(
    site: str, name: str, body: bytes, status: int, told: bool
) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    before = left_over()
    try:
        answer = httpx.post(
            f"{site}gradio_api/upload", content=body if told else pieces(), headers={"Content-Type": FORM}, **BROWSER
        )
        assert answer.status_code == status, answer.text
    except (httpx.WriteError, httpx.ReadError):
        assert status == 413  # it hung up in the middle, which is a refusal too
    assert left_over() == before


def test_an_upload_that_is_cut_off_leaves_nothing_behind(site: str) -> None:
    url = urlsplit(site)
    before = left_over()
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: {FORM}\r\n"
    head += f"Content-Length: {40 << 20}\r\n\r\n"
    with socket.create_connection((str(url.hostname), url.port), timeout=20) as connection:
        connection.sendall(head.encode() + FILE + b"x" * (20 << 20))
    for _ in range(100):
        if left_over() == before:
            break
        time.sleep(0.05)
    assert left_over() == before
    assert _upload(site, "x.jpg", b"x")  # and takes no room from others
    for path in _left_over():
        path.unlink()


def answered(connection: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):  # of one who goes on sending into a closed connection
        while piece := connection.recv(4_096):
            answer += piece
    return answer


@pytest.mark.parametrize("stall", ["quiet", "drip"])
def test_a_sender_that_stalls_is_let_go_and_what_was_reserved_is_free_again(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, stall: str
) -> None:
    limits = {"quiet": 2.0, "grace": 60.0} if stall == "quiet" else {"quiet": 60.0, "grace": 2.0}
    monkeypatch.setattr(request_filter, "in_time", partial(in_time, **limits))
    with serve(collection, "127.0.0.1", 0, None) as address, contextlib.ExitStack() as stack:
        url = urlsplit(str(address))
        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: {FORM}\r\n"
        head += f"Content-Length: {MAX_FILE}\r\n\r\n"

        def begun() -> socket.socket:
            connection = socket.create_connection((str(url.hostname), url.port), timeout=30)
            stack.enter_context(connection).sendall(head.encode() + FILE)
            return connection

        before = left_over()
        slow = [begun() for _ in range(MOST_OF_ONE // MAX_FILE)]  # they reserve all that one sender may
        for connection in slow:
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(30)
        assert answered(begun()).startswith(b"HTTP/1.1 429")
        with contextlib.suppress(OSError):
            for _ in range(30 if stall == "drip" else 0):
                time.sleep(0.1)
                for connection in slow:
                    connection.sendall(b"a")
        for connection in slow:
            answer = answered(connection)
            assert answer.startswith(b"HTTP/1.1 408") or (stall == "drip" and not answer)
        assert left_over() == before
        upload = httpx.post(f"{address}gradio_api/upload", files={"files": ("x", b"small")}, **BROWSER)
        assert upload.status_code == 200


def test_a_slow_network_has_the_time_that_it_needs() -> None:
    now = 0.0
    pieces = [b"a" * (8 * SLOWEST)] * 20 + [b""]

    async def receive() -> dict[str, Any]:
        nonlocal now
        now += 9.0 if pieces[0] else 1e6  # what follows the body, as that somebody has gone, may take any time
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": len(pieces) > 1}

    async def read() -> int:
        timely = in_time(receive, clock=lambda: now)
        count = 1
        while (await timely())["more_body"]:
            count += 1
        assert (await timely())["body"] == b""
        return count

    assert asyncio.run(read()) == 20


def test_only_so_many_uploads_wait_to_be_read(collection: Collection) -> None:
    with serve(collection, "127.0.0.1", 0, None) as address:
        paths = [_upload(str(address), "x.jpg", b"x") for _ in range(MAX_WAITING)]
        assert len(set(paths)) == MAX_WAITING  # the same picture twice is two uploads
        files = {"files": ("x.jpg", b"x")}
        assert httpx.post(f"{address}gradio_api/upload", files=files, **BROWSER).status_code == 429
        Path(paths[0]).unlink()  # it is read
        assert _upload(str(address), "x.jpg", b"x")


class Sent:
    """A request with an upload in it, as the server hands it on."""

    def __init__(self, size: int) -> None:
        body = FILE + b"x" * size + END
        headers = [(b"content-type", FORM.encode()), (b"content-length", str(len(body)).encode())]
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": headers,
            "query_string": b"",
        }
        self.message = {"type": "http.request", "body": body, "more_body": False}

    async def receive(self) -> dict[str, Any]:
        return self.message


def test_one_sender_leaves_room_for_others_and_what_nobody_reads_goes(tmp_path: Path) -> None:
    now = 0.0
    inbox = Inbox(tmp_path, lambda: now)
    large = Sent(40 << 20)

    def take(sender: str) -> list[str]:
        return asyncio.run(inbox.take(large.scope, large.receive, sender))

    for _ in range(MOST_OF_ONE // (40 << 20)):
        take("greedy")
    with pytest.raises(Refused) as refused:
        take("greedy")
    assert refused.value.status == 429
    (kept,) = take("modest")
    now = EXPIRES / 2
    inbox.sweep()
    assert Path(kept).exists()
    now = 2 * EXPIRES
    inbox.sweep()
    assert list(tmp_path.iterdir()) == []
    take("greedy")


def test_a_length_beside_chunks_is_not_believed(tmp_path: Path) -> None:
    """Such a request may send as much as it likes, whatever length it tells."""
    inbox, sent = Inbox(tmp_path), Sent(10)
    told = [header for header in sent.scope["headers"] if header[0] != b"content-length"]
    told += [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]
    scope = {**sent.scope, "headers": told}

    async def many() -> list[int]:
        async def never() -> Any:
            await asyncio.sleep(3600)

        waiting = [asyncio.create_task(inbox.take(scope, never, "greedy")) for _ in range(10)]
        done, left = await asyncio.wait(waiting, timeout=0.2)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return [task.exception().status for task in done]

    assert asyncio.run(many()) == [429] * (10 - MOST_OF_ONE // MAX_FILE)


def test_uploads_stop_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Sent(10)
    monkeypatch.setattr("app.access.upload_folder.SPARE", 1 << 60)  # more than any disk has left
    with pytest.raises(Refused, match="is full") as refused:
        asyncio.run(Inbox(tmp_path).take(small.scope, small.receive, "a"))
    assert refused.value.status == 507
    assert list(tmp_path.iterdir()) == []


# What is remembered -----------------------------------------------------------------------------------------------


@pytest.fixture
def application(collection: Collection, tmp_path: Path) -> Any:
    """Gradio's application of a page that nobody serves."""
    from gradio.routes import App

    from app import page

    blocks = page.build(collection, tmp_path)
    blocks.queue()
    blocks.state_session_capacity = SESSIONS
    return App.create_app(blocks)


def test_sessions_are_forgotten_when_their_tab_is_closed_or_there_are_too_many(
    application: Any, tmp_path: Path
) -> None:
    lifetime, holder = Lifetime(application, Inbox(tmp_path)), application.state_holder
    for number in range(SESSIONS + 20):
        holder[f"s{number}"]
    assert len(holder.session_data) == len(holder.time_last_used) == SESSIONS
    latest, other = f"s{SESSIONS + 19}", f"s{SESSIONS + 18}"
    for session in holder.time_last_used:
        holder.time_last_used[session] -= 2 * IDLE
    with lifetime.open(latest):  # a tab that lies open behind others all day
        lifetime.tidy()
        assert list(holder.session_data) == [latest]
    holder[other]
    holder.time_last_used[other] -= IDLE - timedelta(minutes=1)
    lifetime.tidy()
    assert list(holder.session_data) == [other]


def test_a_session_holds_no_second_copy_of_the_page(application: Any, tmp_path: Path) -> None:
    state = application.state_holder["a"]
    (session,) = [block for block in application.get_blocks().blocks.values() if type(block).__name__ == "State"]
    state[session._id] = "what somebody did"
    assert len(state.config_values) > 5
    Lifetime(application, Inbox(tmp_path)).tidy()
    assert state.config_values == {}
    assert state[session._id] == "what somebody did"
    board = next(block for block in application.get_blocks().blocks.values() if block.elem_id == "massl-find")
    state._update_value_in_config(board._id, {"a": 1})  # as Gradio does with each answer
    assert len(state.config_values) == 1


def test_answers_that_nobody_fetches_are_thrown_away(application: Any, tmp_path: Path) -> None:
    lifetime, queue = Lifetime(application, Inbox(tmp_path)), application.get_blocks()._queue
    for session in ("left", "fetched"):
        queue.pending_messages_per_session[session] = asyncio.Queue()
        queue.pending_event_ids_session[session] = {"an event"}
    for _ in range(UNFETCHED_OF_ONE):
        assert not lifetime.full("left")
        queue.pending_messages_per_session["left"].put_nowait("an answer")
    assert lifetime.full("left")
    assert not lifetime.full("fetched")
    for look in range(LOOKS):
        assert "left" in queue.pending_messages_per_session, look
        fetched = queue.pending_messages_per_session["fetched"]
        if look % 2:
            fetched.put_nowait("an answer")
        lifetime.tidy()
        if look % 2:
            fetched.get_nowait()
    assert list(queue.pending_messages_per_session) == ["fetched"]
    assert list(queue.pending_event_ids_session) == ["fetched"]


def test_a_program_that_fetches_no_answer_is_told_so(collection: Collection) -> None:
    with serve(collection, "127.0.0.1", 0, None) as address:
        codes = []
        for _ in range(2 * UNFETCHED_OF_ONE):
            body = {"data": [], "session_hash": "forgetful"}
            codes.append(httpx.post(f"{address}gradio_api/call/classify", json=body, **BROWSER).status_code)
            if codes[-1] != 200:
                break
            time.sleep(0.03)
        assert codes[-1] == 503
        body = {"data": [], "session_hash": "other"}
        assert httpx.post(f"{address}gradio_api/call/classify", json=body, **BROWSER).status_code == 200


def test_uploads_that_are_remembered_make_room_for_others() -> None:
    remembered = Remembered(1_000)
    tokens = [
        remembered.put(str(number), Upload(Query(b"x" * 100), "y" * 100, b"z" * 100, (1, 1))) for number in range(9)
    ]
    assert remembered.get(tokens[-1])[0] == "8"
    assert remembered.get(tokens[-3])[0] == "6"
    with pytest.raises(MasslError, match="choose it again"):
        remembered.get(tokens[0])
    remembered.forget(tokens[-1])
    large = remembered.put("large", Upload(Query(b"x" * 5_000), "", b"", (1, 1)))  # alone too large, and yet there
    assert remembered.get(large)[0] == "large"
    with pytest.raises(MasslError, match="choose it again"):
        remembered.get(tokens[-2])


def test_a_search_by_a_picture_that_was_forgotten_begins_anew(
    unlabelled: Collection, photos: Path, tmp_path: Path
) -> None:
    find, session = FindScreen(unlabelled, tmp_path), Session()
    upload = tmp_path / "one" / "picture"
    upload.parent.mkdir()
    upload.write_bytes((photos / "flag" / "brazil.jpg").read_bytes())
    assert find.do(session, {"do": "upload", "path": str(upload)})["asked"]
    (token,) = session.of(Finding).uploads
    find._uploads.forget(token)  # others asked with very many
    drawn = find.do(session, {"do": "start"})
    assert drawn["asked"] is None
    assert "choose it again" in drawn["message"]["text"]
    assert len(drawn["sections"][0]["tiles"]) == 48


def test_very_large_steps_are_remembered_only_as_far_back_as_there_is_room(
    unlabelled: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.screens.label_actions._MOST_REMEMBERED", 10)
    find, session = FindScreen(unlabelled, tmp_path), Session()
    images = [image for image, _ in unlabelled.images.ready(12)]
    for name in ("a", "b", "c"):
        find.do(session, {"do": "label", "images": images[:4], "label": name})
    assert [step.text for step in session.steps] == ["labelled 4 pictures “b”", "labelled 4 pictures “c”"]
    find.do(session, {"do": "label", "images": images, "label": "d"})
    assert [step.text for step in session.steps] == ["labelled 12 pictures “d”"]
