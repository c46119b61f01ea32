"""A real collection, a real server and a real browser for the tests of the page."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.screens import SCREENS
from app.server import serve
from indexer import Collection

HOSTILE = "<img src=x onerror=alert(1)>.jpg"
FOLDER = "photos ${alert(2)} {{x}} <img src=x onerror=alert(3)>"
PER_KIND = 9
DAY = r"\d{4}-\d\d-\d\d( \d\d:\d\d)?"
WAIT = 60_000  # milliseconds; a test that waits longer has failed
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "accept_downloads": True}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}
PICTURES = Path(__file__).parents[2] / "cli" / "pictures"
# Of several the first: the shell, which draws no window, opens the page in two thirds of the time.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",  # the tests may run as root, in a container
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-gpu",
    "--process-per-site",  # a process that has the page's scripts compiled already opens it in half the time
]


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The bundled pictures, a folder a kind."""
    return PICTURES


@pytest.fixture(scope="session")
def photos(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some fifty pictures or more, one of them with a file name that wants to be a script."""
    root = tmp_path_factory.mktemp("page") / FOLDER
    for kind in sorted(path for path in pictures.iterdir() if path.is_dir()):
        (root / kind.name).mkdir(parents=True)
        for file in sorted(kind.glob("*.jpg"))[:PER_KIND]:
            shutil.copy(file, root / kind.name)
    shutil.copy(sorted((pictures / "fruit").glob("*.jpg"))[PER_KIND], root / HOSTILE)
    return root


@pytest.fixture(scope="session")
def collection(photos: Path) -> Collection:
    """The pictures, indexed."""
    found = Collection.create(photos)
    found.update()
    return found


@pytest.fixture
def unlabelled(collection: Collection) -> Collection:
    """The collection without any label or tag: every test starts from there."""
    ids = [image for image, _ in collection.images.ready()]
    collection.labels.remove(ids)
    collection.tags.remove([(image, tag) for image, tags in collection.tags.of(ids).items() for tag in tags])
    return collection


@pytest.fixture(scope="session")
def site(collection: Collection) -> Iterator[str]:
    """The address of the running page, with a slash at its end."""
    with serve(collection, "127.0.0.1", 0, None) as address:
        yield str(address)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium: the machine's own, else Playwright's."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        _without_browser("playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except Error as error:
            _without_browser(str(error).splitlines()[0])
        yield started
        started.close()


Visit = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def visit(browser: Any) -> Visit:
    """Opens a page as a person does who was never there, in a browser context that has the options.

    Used as `with visit(address, "Map") as tab`. The screen has had its answer when it begins. When it ends, nothing has
    left the machine, failed in a script, been complained of in the console or popped up; but for complaints that hold
    one of the words that a test has `foreseen`.

    A tab is used again by a later test, emptied of what it remembers: the scripts are compiled there already, and so
    the page opens in half the time of a core.
    """
    left: dict[str, list[Any]] = {}  # tabs that no test uses, by the options of their contexts

    @contextmanager
    def visited(address: str, screen: str = "Search", foreseen: tuple[str, ...] = (), **options: Any) -> Iterator[Any]:
        options = options or DESKTOP
        tabs = left.setdefault(json.dumps(options, sort_keys=True), [])
        tab = tabs.pop() if tabs else browser.new_context(**options).new_page()
        tab.set_default_timeout(WAIT)
        trouble: list[str] = []
        hosts: set[str | None] = set()
        listeners = {
            "pageerror": lambda error: None if _harmless(str(error)) else trouble.append(str(error)),
            "dialog": lambda dialog: (trouble.append(dialog.message), dialog.dismiss()),
            "console": lambda said: trouble.append(said.text) if _complaint(said) else None,
            "request": lambda request: hosts.add(_host(request.url)),
        }
        for event, listener in listeners.items():
            tab.on(event, listener)
        try:
            tab.goto(address)
            answered(tab, "Search")
            if screen != "Search":
                show(tab, screen)
            yield tab
            for event, listener in listeners.items():
                tab.remove_listener(event, listener)
            if _emptied(tab, address, options):
                tabs.append(tab)
        finally:
            if tab not in tabs:
                tab.context.close()
        assert [text for text in trouble if not any(words in text for words in foreseen)] == []
        assert hosts <= {"127.0.0.1", None}

    return visited


def _emptied(tab: Any, address: str, options: dict[str, Any]) -> bool:
    """Takes back what a test did to a tab and its context; False if that can't be done."""
    from playwright.sync_api import Error

    context = tab.context
    try:
        for other in context.pages:
            if other != tab:
                other.close()
        tab.unroute_all(behavior="wait")
        # Another page of the same site, so that it stays in its process; it has no scripts.
        tab.goto(f"{address.partition('?')[0]}robots.txt")
        tab.evaluate("localStorage.clear(); sessionStorage.clear()")
        tab.mouse.move(0, 0)
        tab.set_viewport_size(options["viewport"])
        context.clear_cookies()
        context.clear_permissions()
        context.grant_permissions(options.get("permissions", []))
    except Error:  # as where the test has ended the server
        return False
    return True


def show(tab: Any, screen: str) -> None:
    """Clicks on the tab of a screen and waits until it is drawn."""
    tab.get_by_role("tab", name=screen, exact=True).click()
    answered(tab, screen)


def narrowed(tab: Any, kind: str, *names: str) -> None:
    """Ticks these folders or labels in the filters of the screen "Search"."""
    panel = tab.get_by_role("complementary", name="Filters")
    if not panel.is_visible():
        tab.locator("#massl-find").get_by_role("button", name=re.compile("^Filters")).click()
    chooser = panel.locator(f".choice:has(summary[aria-label^='Only these {kind}'])")
    for name in names:
        chooser.get_by_role("checkbox", name=re.compile(rf"^{re.escape(name)} \(")).click()


def answered(tab: Any, screen: str) -> None:
    """Waits until a screen has had its first answer and none is outstanding."""
    (key,) = (kind.key for kind in SCREENS if kind.title == screen)
    tab.wait_for_selector(f"#massl-{key} .massl-board:not([aria-busy]) > :is(.head, .content):not(:empty)")


def lines(tab: Any, within: str, pattern: str) -> list[int]:
    """In how many lines each text in an element stands that matches a pattern of JavaScript, of those that are seen."""
    found: list[int] = tab.evaluate(
        """([within, pattern]) => {
            const found = [];
            const texts = document.createTreeWalker(document.querySelector(within), NodeFilter.SHOW_TEXT);
            for (let node = texts.nextNode(); node; node = texts.nextNode()) {
                for (const match of node.data.matchAll(new RegExp(pattern, "g"))) {
                    const range = document.createRange();
                    range.setStart(node, match.index);
                    range.setEnd(node, match.index + match[0].length);
                    const tops = [...range.getClientRects()].map((box) => Math.round(box.top));
                    if (tops.length) found.push(new Set(tops).size);
                }
            }
            return found;
        }""",
        [within, pattern],
    )
    return found


def _complaint(said: Any) -> bool:
    return said.type == "error" and not _harmless(said.text)


# What a browser says of answers that were under way when a test stopped massl or left the page.
_CUT_OFF = ("net::ERR_", "status of 503", "AbortError", "Failed to fetch", "network error", "Connection errored out")


def _harmless(text: str) -> bool:
    return any(words in text for words in _CUT_OFF)


def _host(url: str) -> str | None:
    return None if url.startswith(("data:", "blob:")) else urlsplit(url).hostname


def _without_browser(reason: str) -> None:
    message = f"no browser to test the page with ({reason}); run: playwright install chromium"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
