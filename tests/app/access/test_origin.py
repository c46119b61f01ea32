"""Web pages of somebody else, in a real browser: they read no picture and write no label, and the page itself works."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from app.access.origin import client_of, foreign
from app.server import serve
from indexer import Collection
from tests.app.conftest import WAIT, answered
from tests.app.test_server import BROWSER

EVIL = """<!doctype html><title>evil</title><body><script>
const site = SITE, event = EVENT, done = [];
const tell = (what, how) => done.push(what + ": " + how);
const image = (what, path) => new Promise((go) => {
  const shown = new Image();
  shown.onload = () => go(tell(what, "shown " + shown.naturalWidth));
  shown.onerror = () => go(tell(what, "no"));
  shown.src = site + path;
});
async function pixels(credentials) {
  try {
    const picture = await createImageBitmap(await (await fetch(site + "preview/1", { credentials })).blob());
    tell("pixels", "read " + picture.width);
  } catch (error) { tell("pixels", "no"); }
}
async function write(options) {
  try {
    const answer = await fetch(site + "gradio_api/queue/join", { method: "POST", credentials: "include", ...options });
    tell("write", "answered " + answer.status + " " + answer.type);
  } catch (error) { tell("write", "no"); }
}
function form(type) {
  return new Promise((go) => {
    const frame = document.createElement("iframe"), sent = document.createElement("form");
    frame.name = "f" + type.length;
    frame.onload = () => go(tell("form", "sent"));
    document.body.append(frame, sent);
    Object.assign(sent, { method: "post", action: site + "gradio_api/queue/join", target: frame.name, enctype: type });
    const field = document.createElement("input"), text = JSON.stringify(event);
    field.name = text.slice(0, -1) + ', "x": "';
    field.value = '"}';
    sent.append(field);
    sent.submit();
    setTimeout(go, 3000);
  });
}
function embedded() {
  return new Promise((go) => {
    const frame = document.createElement("iframe");
    frame.onload = () => { setTimeout(() => go(tell("frame", "parts " + frame.contentWindow.length)), 500); };
    frame.src = site;
    document.body.append(frame);
  });
}
(async () => {
  await pixels("include");
  await pixels("omit");
  await image("picture", "thumbnail/1");
  await image("picture", "preview/1");
  await image("picture", "full/1");
  const body = JSON.stringify(event);
  await write({ headers: { "content-type": "application/json" }, body });
  await write({ headers: { "content-type": "text/plain" }, body });
  await write({ mode: "no-cors", headers: { "content-type": "text/plain" }, body });
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) await form(type);
  await embedded();
  window.done = done;
})();
</script>"""


@contextmanager
def elsewhere(host: str, page: str) -> Iterator[int]:
    """A web site of somebody else, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def event_that_labels(site: str, client: httpx.Client, image: int) -> dict[str, Any]:
    """What the screen "Search" sends when somebody labels a picture."""
    config = client.get(f"{site}config").json()
    board = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "massl-find")
    number = next(event["id"] for event in config["dependencies"] if [board, "act"] in event["targets"])
    sent = {"do": "label", "images": [image], "label": "evil"}
    return {"data": [None], "fn_index": number, "trigger_id": board, "session_hash": "evil", "event_data": sent}


# Where the page is, by which name the browser has it, the name of the other site, and whether there is a password.
PLACES = [
    ("127.0.0.1", "127.0.0.1", "127.0.0.1", False),
    ("127.0.0.1", "127.0.0.1", "evil.localhost", False),
    ("localhost", "localhost", "localhost", False),  # the same "site" to a browser, which is why that isn't enough
    ("127.0.0.2", "127.0.0.2", "127.0.0.1", False),
    ("::1", "[::1]", "evil.localhost", False),
    ("::1", "[::1]", "[::1]", False),
    ("0.0.0.0", "localhost", "localhost", True),
    ("0.0.0.0", "127.0.0.1", "evil.localhost", True),
]


@pytest.mark.parametrize(("host", "name", "other", "door"), PLACES)
def test_another_site_reads_no_picture_and_writes_no_label_and_the_page_works(
    unlabelled: Collection, browser: Any, host: str, name: str, other: str, door: bool
) -> None:
    image = unlabelled.images.ready(1)[0][0]
    login = ("ada", "secret") if door else None
    try:
        running = serve(unlabelled, host, 0, login)
        address = running.__enter__()
    except Exception as error:
        if ":" in host:
            pytest.skip(f"no IPv6 here: {error}")
        raise
    try:
        site = f"http://{name}:{urlsplit(str(address)).port}/"
        with httpx.Client(**BROWSER) as client:
            if login:
                client.post(f"{site}login", data={"username": "ada", "password": "secret"})
            event = event_that_labels(site, client, image)
        context = browser.new_context()
        try:
            own = context.new_page()
            own.set_default_timeout(WAIT)
            own.goto(site)
            if login:
                own.get_by_label("username").fill("ada")
                own.get_by_label("password").fill("secret")
                own.get_by_role("button", name="Login").click()
            answered(own, "Search")
            assert {cookie["sameSite"] for cookie in context.cookies()} <= {"Strict"}
            assert all(cookie["httpOnly"] for cookie in context.cookies())
            page = EVIL.replace("SITE", json.dumps(site)).replace("EVENT", json.dumps(event))
            with elsewhere("::1" if ":" in other else "127.0.0.1", page) as port:
                evil = context.new_page()
                evil.set_default_timeout(WAIT)
                evil.goto(f"http://{other}:{port}/")
                evil.wait_for_function("window.done")
                told = evil.evaluate("window.done")
                # A link that somebody follows leads to the page, logged in as before.
                evil.evaluate("site => { const a = document.createElement('a'); a.href = site; a.click(); }", site)
                evil.wait_for_selector("#massl-find .tile")
            assert [text for text in told if "read" in text or "shown" in text or "answered 200" in text] == []
            assert "frame: parts 0" in told
            assert len(told) >= 8, told
            assert unlabelled.labels.every() == []
            # The page itself still does all of it.
            own.wait_for_function("document.querySelector('#massl-find .tile img').naturalWidth > 0")
            answer = own.evaluate(
                "event => fetch('gradio_api/queue/join', {method: 'POST', body: JSON.stringify(event), "
                "headers: {'content-type': 'application/json'}}).then(answer => answer.status)",
                event,
            )
            assert answer == 200
            for _ in range(100):
                if unlabelled.labels.every():
                    break
                own.wait_for_timeout(50)
            assert [item.label for item in unlabelled.labels.every()] == ["evil"]
        finally:
            context.close()
    finally:
        running.__exit__(None, None, None)


# Without a browser ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Site": "anything"},
    ],
)
def test_no_method_is_open_to_another_site(
    site: str, unlabelled: Collection, method: str, headers: dict[str, str]
) -> None:
    image = unlabelled.images.ready(1)[0][0]
    for path in ("", "config", f"thumbnail/{image}", "gradio_api/queue/join", "gradio_api/upload", "logout"):
        answer = httpx.request(method, f"{site}{path}", headers=headers, **BROWSER)
        assert answer.status_code == 403, path
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_preflight_is_refused_and_no_answer_gives_leave_to_another_site(site: str, unlabelled: Collection) -> None:
    port = urlsplit(site).port
    asked = {"Origin": f"http://127.0.0.1:{port}", "Access-Control-Request-Method": "POST"}
    assert httpx.options(f"{site}gradio_api/queue/join", headers=asked, **BROWSER).status_code == 405
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    for path in ("", "config", f"thumbnail/{unlabelled.images.ready(1)[0][0]}", "theme.css", "gradio_api/info"):
        answer = httpx.get(f"{site}{path}", headers=own, **BROWSER)
        assert answer.status_code == 200, path
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_link_leads_to_the_page_and_to_nothing_else(site: str, unlabelled: Collection) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert httpx.get(f"{site}?folders=flag", headers=link, **BROWSER).status_code == 200
    image = unlabelled.images.ready(1)[0][0]
    for path in (f"thumbnail/{image}", f"preview/{image}", f"full/{image}", "config", "logout", "gradio_api/info"):
        assert httpx.get(f"{site}{path}", headers=link, **BROWSER).status_code == 403
    typed = link | {"Sec-Fetch-Site": "none"}
    assert httpx.get(f"{site}preview/{image}", headers=typed, **BROWSER).status_code == 200


def test_a_websocket_is_refused(site: str) -> None:
    url = urlsplit(site)
    with socket.create_connection((str(url.hostname), url.port), timeout=20) as connection:
        lines = ["GET /gradio_api/queue/join HTTP/1.1", f"Host: 127.0.0.1:{url.port}", "Upgrade: websocket"]
        lines += ["Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
        connection.sendall("\r\n".join([*lines, "Origin: http://evil.example", "", ""]).encode())
        assert connection.recv(64).split()[1] in (b"403", b"404")


LOOPBACK = st.sampled_from(["127.0.0.1", "localhost", "[::1]", "127.0.0.2", "127.255.3.4"])
PORT = st.integers(1, 65_535)


@given(LOOPBACK, PORT, st.sampled_from(["GET", "POST", "OPTIONS"]))
def test_an_address_of_this_machine_is_its_own_origin(host: str, port: int, method: str) -> None:
    headers = Headers({"host": f"{host}:{port}", "origin": f"http://{host}:{port}"})
    assert foreign(method, "/config", headers, local=True) is None


@given(LOOPBACK, PORT, LOOPBACK, PORT, st.sampled_from(["http", "https", "ftp", "file", "null"]))
def test_an_origin_of_another_host_or_port_is_foreign(host: str, port: int, other: str, its: int, scheme: str) -> None:
    same = (host, port) == (other, its) and scheme in ("http", "https")
    headers = Headers({"host": f"{host}:{port}", "origin": "null" if scheme == "null" else f"{scheme}://{other}:{its}"})
    assert (foreign("POST", "/config", headers, local=True) is None) == same


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://pictures.example.org", "pictures.example.org", True),
        ("https://pictures.example.org", "pictures.example.org:443", True),
        ("https://pictures.example.org", "pictures.example.org:80", False),
        ("http://pictures.example.org", "pictures.example.org", True),
        ("http://pictures.example.org.evil.example", "pictures.example.org", False),
        ("http://pictures.example.org:x", "pictures.example.org", False),
        ("", "pictures.example.org", False),
        ("http://", "", False),
        ("http://evil.example", "evil.example/x", False),
    ],
)
def test_an_origin_behind_a_proxy_is_told_by_its_host(origin: str, host: str, same: bool) -> None:
    assert (foreign("POST", "/login", Headers({"host": host, "origin": origin}), local=False) is None) == same


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_stands_in_the_headers_gets_an_answer(origin: str, host: str) -> None:
    headers = Headers(raw=[(b"origin", origin.encode()), (b"host", host.encode())])
    foreign("POST", "/", headers, local=True)
    foreign("POST", "/", headers, local=False)


def test_a_household_of_ipv6_addresses_is_one_sender() -> None:
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1") != client_of("2001:db8:0:1::1")
    assert client_of("::ffff:192.0.2.7") == client_of("192.0.2.7") == "192.0.2.7"
    assert client_of("nonsense") == "nonsense"
    assert client_of(None) == ""


# Behind a proxy ---------------------------------------------------------------------------------------------------


@contextmanager
def proxy(site: str, forwarded: str | None, below: str = "") -> Iterator[int]:
    """A proxy as one puts before a page: names the page by its own address, and says what the browser named.

    It serves the page `below` a path, and nothing beside that.
    """
    page = urlsplit(site)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # an answer ends with its connection

        def forward(self) -> None:
            if not self.path.startswith(f"{below}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            headers |= {"Host": page.netloc, "X-Forwarded-Proto": "http", "X-Forwarded-For": "192.0.2.1"}
            if forwarded:
                headers["X-Forwarded-Host"] = forwarded.replace("PORT", str(self.server.server_port))  # type: ignore[attr-defined]
            connection = http.client.HTTPConnection(str(page.hostname), page.port, timeout=30)
            connection.request(self.command, self.path.removeprefix(below), body, headers)
            answer = connection.getresponse()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                while piece := answer.read1(65536):
                    self.wfile.write(piece)
                    self.wfile.flush()
            connection.close()

        do_GET = do_POST = do_HEAD = do_OPTIONS = forward  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_the_page_works_behind_a_proxy_and_other_sites_stay_out(unlabelled: Collection, browser: Any) -> None:
    with (
        serve(unlabelled, "127.0.0.1", 0, ("ada", "secret")) as address,
        proxy(str(address), "pictures.localhost:PORT") as port,
    ):
        site = f"http://pictures.localhost:{port}/"
        context = browser.new_context()
        try:
            tab = context.new_page()
            tab.set_default_timeout(WAIT)
            tab.goto(site)
            tab.get_by_label("username").fill("ada")
            tab.get_by_label("password").fill("secret")
            tab.get_by_role("button", name="Login").click()
            answered(tab, "Search")
            tab.wait_for_function("document.querySelector('#massl-find .tile img').naturalWidth > 0")
            page = EVIL.replace("SITE", json.dumps(site)).replace("EVENT", "{}")
            with elsewhere("127.0.0.1", page) as its:
                evil = context.new_page()
                evil.set_default_timeout(WAIT)
                evil.goto(f"http://evil.localhost:{its}/")
                evil.wait_for_function("window.done")
                told = evil.evaluate("window.done")
            assert [text for text in told if "read" in text or "shown" in text or "answered 200" in text] == []
        finally:
            context.close()


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Gradio-Server"])
@pytest.mark.parametrize("value", ["evil.example/x", "a b", "http://evil.example", "\x7f", "[::", "a:b:c", ""])
def test_what_a_proxy_says_is_passed_on_only_where_it_can_be_read(site: str, name: str, value: str) -> None:
    answer = httpx.get(f"{site}config", headers={name: value}, **BROWSER)
    assert answer.status_code == 200
    assert answer.json()["root"] + "/" == site


@pytest.mark.parametrize("host", ["a b", "a/b", "", "[", "[::1", "x:y", "127.0.0.1:999999", "127.0.0.1@evil.example"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    for local in (True, False):
        assert foreign("GET", "/", Headers({"host": host}), local=local) is not None
