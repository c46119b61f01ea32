"""The page's scripts: how they are served, and that they and the screens in Python know each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app import scripts
from app.progress import ProgressStrip
from app.screens import SCREENS
from app.server import serve
from indexer import Collection
from tests.app.access.test_origin import proxy
from tests.app.conftest import WAIT, Visit
from tests.app.test_server import BROWSER

FOLDER = Path(scripts.__file__).parent / "script"
SOURCES = {file.name: file.read_text("utf-8") for file in FOLDER.iterdir()}


def _address(name: str) -> str:
    """Where the page fetches a script, relative to itself."""
    found = re.search(r'new URL\("([^"]+)"', scripts.starting(name))
    assert found
    return found[1]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_script_is_served_as_it_is_written(site: str, name: str) -> None:
    answer = httpx.get(site + _address(name.removesuffix(".js")), **BROWSER)
    assert answer.status_code == 200
    assert answer.text == SOURCES[name]
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_nothing_else_lies_where_the_scripts_are(site: str) -> None:
    folder = _address("find").rpartition("/")[0]
    for path in ("page.py", "../page.py", "..%2fpage.py", "%2e%2e/page.py", "nothing.js", "", "find.js%00"):
        answer = httpx.get(f"{site}{folder}/{path}", **BROWSER)
        assert answer.status_code == 404, path
    older = httpx.get(f"{site}script/0123456789abcdef/find.js", **BROWSER)
    assert (older.status_code, older.text) == (404, "the page is older than the program; reload it")


def test_no_script_is_served_before_the_login(collection: Collection) -> None:
    with serve(collection, "127.0.0.1", 0, ("ada", "secret")) as address, httpx.Client(**BROWSER) as client:
        wanted = f"{address}{_address('find')}"
        assert client.get(wanted).status_code == 401
        assert client.post(f"{address}login", data={"username": "ada", "password": "secret"}).status_code == 200
        assert client.get(wanted).status_code == 200


def test_a_proxy_may_put_the_scripts_below_a_path(site: str, browser: Any) -> None:
    context = browser.new_context()
    with proxy(site, "pictures.localhost:PORT", below="/shared/pictures") as port:
        try:
            tab = context.new_page()
            tab.set_default_timeout(WAIT)
            fetched: list[str] = []
            tab.on("response", lambda answer: fetched.append(urlsplit(answer.url).path) if answer.ok else None)
            tab.goto(f"http://pictures.localhost:{port}/shared/pictures/")
            tab.wait_for_selector("#massl-find .massl-board > .head", state="attached")  # which only the script makes
        finally:
            context.close()
    assert f"/shared/pictures/{_address('find')}" in fetched
    assert f"/shared/pictures/{_address('elements')}" in fetched


def test_a_script_that_can_t_be_fetched_is_told_in_a_sentence(visit: Visit, site: str, unlabelled: Collection) -> None:
    with visit(site) as tab:
        tab.route("**/script/**/map.js", lambda route: route.abort())
        tab.get_by_role("tab", name="Map", exact=True).click()
        tab.wait_for_selector("#massl-map .message[role=alert] >> text=could not be loaded. Is massl still running?")


@pytest.mark.parametrize("name", ["progress", *(kind.key for kind in SCREENS)])
def test_whatever_the_page_starts_exports_what_opens_it(name: str) -> None:
    assert "export function open(page)" in SOURCES[f"{name}.js"]


def test_what_a_script_imports_is_there() -> None:
    imported = {name: re.findall(r'^(?:import|\}) .*from "(.+)";', source, re.M) for name, source in SOURCES.items()}
    assert sum(map(len, imported.values())) > len(SCREENS)
    for name, paths in imported.items():
        assert {path.removeprefix("./") for path in paths} <= SOURCES.keys(), name


def test_large_numbers_are_written_alike_in_every_browser() -> None:
    """As the server writes them, `1,805`: not as the language of a browser has it, which may be `1.805`."""
    for name, source in SOURCES.items():
        assert set(re.findall(r"toLocaleString\(.*?\)", source)) <= {'toLocaleString("en")'}, name


def test_the_server_knows_whatever_the_scripts_send(collection: Collection, tmp_path: Path) -> None:
    screens = [kind(collection, tmp_path) for kind in SCREENS]
    text = "\n".join(SOURCES.values())
    does, asks = (set(re.findall(pattern, text)) for pattern in (r'\bdo: "(\w+)"', r'\.ask\("(\w+)"'))
    assert "label" in does
    assert "points" in asks
    assert does <= {"start", "look"}.union(
        *(screen.actions for screen in screens), *(screen.asides for screen in screens)
    )
    functions = {function.__name__ for screen in screens for function in screen.functions}
    assert asks == functions | {ProgressStrip.progress.__name__}
