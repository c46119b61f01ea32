#!/usr/bin/env python3
"""Takes the screenshots of docs/reference/page.md anew: every screen, light and dark, on the bundled pictures.

    python docs/screenshots.py

Needs `pip install -e '.[dev]'` and a Chromium (on the path, or `playwright install chromium`).
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from app.server import serve
from indexer import Collection

OUT = Path(__file__).parent / "screens"
PICTURES = Path(__file__).parents[1] / "cli" / "pictures"
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LABELLED = 5  # of each kind
SIZE: ViewportSize = {"width": 1240, "height": 800}
PATIENCE = 300_000  # milliseconds: a busy machine takes its time


def settled(page: Page, screen: str) -> None:
    """Waits until a screen has its answer and the pictures in sight are there."""
    page.wait_for_selector(f"#massl-{screen} .massl-board:not([aria-busy])")
    in_sight = "image.checkVisibility() && image.getBoundingClientRect().top < innerHeight"
    pictures = f"[...document.querySelectorAll('#massl-{screen} img')].filter((image) => {in_sight})"
    page.wait_for_function(f"() => {pictures}.every((image) => image.complete)")
    page.wait_for_timeout(700)


def take(page: Page, name: str) -> None:
    """Writes what is in sight as WebP, a quarter of the PNG."""
    OUT.mkdir(exist_ok=True)
    Image.open(io.BytesIO(page.screenshot())).save(OUT / f"{name}.webp", quality=82, method=6)


def tour(page: Page, theme: str) -> None:
    """Every screen, as someone would see it who has labelled five pictures of each kind."""
    page.wait_for_selector("#massl-find .tile")
    page.locator("#massl-find .picture[title*='fruit']").nth(3).click()
    page.wait_for_selector("#massl-find .score")
    page.mouse.move(0, 0)
    settled(page, "find")
    take(page, f"search-{theme}")
    page.locator("#massl-find .picture").nth(1).focus()
    page.keyboard.press("i")
    page.wait_for_timeout(2_000)
    take(page, f"details-{theme}")
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Label", exact=True).click()
    # What it begins with depends on whether its check of the labels is done, which has no tiles.
    page.locator("#massl-label").get_by_role("button", name="Uncertain").click()
    page.wait_for_selector("#massl-label .tile .picture")
    settled(page, "label")
    take(page, f"label-{theme}")
    page.get_by_role("tab", name="Map", exact=True).click()
    page.wait_for_selector("#massl-map progress.hidden", state="attached")
    settled(page, "map")
    page.wait_for_timeout(2_000)
    take(page, f"map-{theme}")
    page.get_by_role("tab", name="Duplicates", exact=True).click()
    page.wait_for_selector("#massl-duplicates img")
    settled(page, "duplicates")
    take(page, f"duplicates-{theme}")
    page.get_by_role("tab", name="Health", exact=True).click()
    page.wait_for_selector("#massl-health .card")
    settled(page, "health")
    take(page, f"health-{theme}")


def main() -> None:
    """Indexes a copy of the bundled pictures, serves it, and walks through the page."""
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "Pictures"
        shutil.copytree(PICTURES, photos)
        for picture in sorted(photos.glob("fruit/*.jpg"))[:3]:  # something for the screen Duplicates
            with Image.open(picture) as opened:
                half: Any = opened.resize((opened.width // 2, opened.height // 2))
                half.save(picture.with_name(f"{picture.stem}-small.jpg"), quality=60)
        collection = Collection.create(photos)
        collection.update()
        for kind in sorted(path for path in photos.iterdir() if path.is_dir()):
            ids = [collection.images.id_of(f"{kind.name}/{file.name}") for file in sorted(kind.glob("*.jpg"))[::6]]
            collection.labels.add(kind.name, ids[:LABELLED], "docs")
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        with serve(collection, "127.0.0.1", 0, None) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for theme in THEMES:
                context = browser.new_context(viewport=SIZE, color_scheme=theme)
                page = context.new_page()
                page.set_default_timeout(PATIENCE)
                page.goto(str(address))
                tour(page, theme)
                context.close()
            browser.close()


if __name__ == "__main__":
    main()
