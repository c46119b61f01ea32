"""A real collection, a real server and a real browser for the tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.server import serve
from indexer import Collection

HOSTILE = "<img src=x onerror=alert(1)>.jpg"
FOLDER = "photos ${alert(2)} {{x}} <img src=x onerror=alert(3)>"
PER_KIND = 9
PICTURES = Path(__file__).parents[2] / "cli" / "pictures"
FLAGS = [
    "--no-sandbox",  # the tests may run as root, in a container
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-gpu",
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
    """The collection without any label: every test starts from there."""
    collection.remove_labels([image for image, _ in collection.images()])
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
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except Error as error:
            _without_browser(str(error).splitlines()[0])
        yield started
        started.close()


def _without_browser(reason: str) -> None:
    message = f"no browser to test the page with ({reason}); run: playwright install chromium"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
