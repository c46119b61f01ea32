"""The page below a path of a reverse proxy: nginx and Caddy with the files of deploy/, and a small proxy in Python."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.server import check_root_path, serve
from indexer import Collection
from massl.core.errors import MasslError
from tests.app.access.test_origin import proxy
from tests.app.conftest import WAIT, answered
from tests.app.test_server import BROWSER, _call, _file, _upload

DEPLOY = Path(__file__).parents[3] / "deploy"
PATH = "/photos"  # that of the files in deploy/
LOGIN = ("ada", "secret")


@contextmanager
def nginx(site: str, folder: Path) -> Iterator[int]:
    """The real server with deploy/nginx.conf, included as its first lines say."""
    port = _free_port()
    (folder / "massl.conf").write_text(_pointed_at(site, "nginx.conf"))
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port}; include {folder}/massl.conf; }} }}\n"
    )
    with _running(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], port, folder):
        yield port


@contextmanager
def caddy(site: str, folder: Path) -> Iterator[int]:
    """The real server with deploy/Caddyfile, on a port of this machine in place of a name with a certificate."""
    port = _free_port()
    text = _pointed_at(site, "Caddyfile")
    assert text.count("\nexample.org {") == 1
    own = text.replace("\nexample.org {", f"\nhttp://127.0.0.1:{port} {{")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tgrace_period 1s\n}\n" + own)
    with _running(["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"], port, folder):
        yield port


@contextmanager
def python(site: str, folder: Path) -> Iterator[int]:
    """A proxy that takes the path off."""
    with proxy(site.removesuffix(f"{PATH}/"), "127.0.0.1:PORT", below=PATH) as port:
        yield port


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _pointed_at(site: str, name: str) -> str:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    assert text.count("127.0.0.1:7860") == 1
    assert f"--root-path {PATH}\n" in text
    return text.replace("127.0.0.1:7860", urlsplit(site).netloc)


@contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    environment = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("w") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 60
            while not _listens(port):
                assert started.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.05)
            yield
        finally:
            started.terminate()
            started.wait(60)


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def needs(program: str) -> Any:
    """Skips where a server isn't installed; the proxy in Python is always there."""
    reason = f"{program} is not installed; on Debian: apt-get install {program}"
    return pytest.mark.skipif(not shutil.which(program), reason=reason)


behind = pytest.mark.parametrize(
    "server", [python, pytest.param(nginx, marks=needs("nginx")), pytest.param(caddy, marks=needs("caddy"))]
)


@behind
def test_all_of_the_page_works_below_a_path(
    server: Any, unlabelled: Collection, browser: Any, photos: Path, tmp_path: Path
) -> None:
    with (
        serve(unlabelled, "127.0.0.1", 0, LOGIN, root_path=PATH) as address,
        server(str(address), tmp_path) as port,
        browser.new_context() as context,
    ):
        site = f"http://127.0.0.1:{port}"
        trouble: list[str] = []
        fetched: set[str] = set()
        context.on("weberror", lambda error: trouble.append(str(error.error)))
        context.on("response", lambda answer: answer.ok or trouble.append(f"{answer.status} {answer.url}"))
        context.on("request", lambda request: fetched.add(request.url))
        tab = context.new_page()
        tab.set_default_timeout(WAIT)

        tab.goto(site + PATH + "/" * (server is python))  # nginx and Caddy know what is meant without the slash
        assert tab.url == f"{site}{PATH}/"
        tab.get_by_label("username").fill(LOGIN[0])
        tab.get_by_label("password").fill(LOGIN[1])
        tab.get_by_role("button", name="Login").click()
        answered(tab, "Search")
        tab.wait_for_function("document.querySelector('#massl-find .tile img').naturalWidth > 0")

        tab.locator("#massl-find input[type=file]").set_input_files(photos / "flag" / "brazil.jpg")
        tab.wait_for_function("document.querySelectorAll('.chip').length === 1")
        tab.wait_for_function("document.querySelector('#massl-find .tile .name').title === 'flag/brazil.jpg'")
        tab.get_by_role("button", name="Remove brazil.jpg from the search").click()
        tab.wait_for_function("document.querySelectorAll('.chip').length === 0")

        tile = "#massl-find .tile:has(.caption .name[title='flag/brazil.jpg']) .picture"
        tab.locator(tile).press("i")
        tab.wait_for_function("document.querySelector('dialog.details img[src*=preview]')?.naturalWidth > 0")
        tab.keyboard.press("Escape")
        tab.locator(tile).click()
        tab.wait_for_function("location.search.startsWith('?like=')")
        assert tab.url.startswith(f"{site}{PATH}/?like=")
        other = context.new_page()
        other.goto(tab.url)
        other.wait_for_function("document.querySelectorAll('.chip').length === 1")

        tab.goto(f"{site}{PATH}/logout")
        tab.get_by_label("username").wait_for()
        assert tab.url == f"{site}{PATH}/"
        its = [url for url in fetched if not url.startswith(("data:", "blob:"))]
        assert any("/queue/data" in url for url in its)
        assert [url for url in its if not url.startswith(site + PATH)] == []
        assert [text for text in trouble if not text.startswith(("3", "401"))] == []


@behind
def test_programs_ask_below_a_path_and_events_come_as_they_happen(
    server: Any, unlabelled: Collection, photos: Path, tmp_path: Path
) -> None:
    with (
        serve(unlabelled, "127.0.0.1", 0, None, root_path=PATH) as address,
        server(str(address), tmp_path) as port,
        httpx.Client(**BROWSER) as client,
    ):
        below = f"http://127.0.0.1:{port}{PATH}/"
        big = (photos / "flag" / "brazil.jpg").read_bytes() + bytes(5 << 20)  # more than servers take by default
        event, found = _call(below, "search", _file(_upload(below, "big.jpg", big)), 3)
        assert (event, found[0]["results"][0]["path"]) == ("complete", "flag/brazil.jpg")
        # The stream never ends by itself, so its first event came through before the end.
        with client.stream("GET", f"{below}gradio_api/heartbeat/below") as stream:
            assert "ALIVE" in next(stream.iter_text())
        assert client.get(f"{below}photos/config").json()["root"].endswith(PATH)
        for path in ("", "photos/", "photos/photos/"):
            answer = client.get(f"{below}{path}gradio_api/file=/etc/passwd")
            assert (answer.status_code, answer.text) == (403, "not served")


def test_the_page_answers_at_its_own_address_too(unlabelled: Collection, visit: Any) -> None:
    with serve(unlabelled, "127.0.0.1", 0, None, root_path="/a/b") as address:
        assert urlsplit(str(address)).path == "/a/b/"
        with visit(str(address)) as tab:
            tab.wait_for_function("document.querySelector('#massl-find .tile img').naturalWidth > 0")
        plain = str(address).removesuffix("a/b/")
        with visit(plain) as tab:
            tab.wait_for_function("document.querySelector('#massl-find .tile img').naturalWidth > 0")
        sent_on = httpx.get(f"{plain}a/b?like=x%0d%0aSet-Cookie:y", **BROWSER)
        assert (sent_on.status_code, sent_on.headers["location"]) == (307, "/a/b/?like=x%0d%0aSet-Cookie:y")
        assert "set-cookie" not in sent_on.headers
        for path in ("a/bc/config", "a/config"):
            assert httpx.get(f"{plain}{path}", **BROWSER).status_code == 404


@given(st.lists(st.from_regex(r"[A-Z0-9][A-Z0-9._~-]{0,8}", fullmatch=True), max_size=4), st.booleans())
def test_a_path_is_taken_with_or_without_its_last_slash(parts: list[str], slash: bool) -> None:
    assert check_root_path("/" + "/".join(parts) + "/" * slash) == "".join(f"/{part}" for part in parts)


@pytest.mark.parametrize(
    "path",
    [
        "photos",
        "",
        "https://example.org/photos",
        "/../x",
        "/a/../b",
        "/a//b",
        "/a b",
        "/ä",
        "/a%2fb",
        "/a?b",
        "/.a",
        "/a\n",
    ],
)
def test_what_is_no_path_is_refused_with_an_example(path: str) -> None:
    with pytest.raises(MasslError, match="as in /photos"):
        check_root_path(path)


def test_a_path_may_not_hide_an_address_of_the_page(unlabelled: Collection) -> None:
    from gradio.routes import App

    made: list[Any] = []
    create = App.create_app

    def noting(*arguments: Any, **options: Any) -> Any:
        made.append(create(*arguments, **options))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(App, "create_app", noting)
        with serve(unlabelled, "127.0.0.1", 0, None):
            routes = [str(getattr(route, "path", "/")) for app in made for route in app.routes]
    first = {path.split("/")[1] for path in routes} | {"thumbnail", "preview", "download", "gradio_api"}
    assert {"config", "script", "assets"} < first
    for name in first - {""}:
        with pytest.raises(MasslError, match=f"can't begin with /{name}"):
            check_root_path(f"/{name}/photos")
