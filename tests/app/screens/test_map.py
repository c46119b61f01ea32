"""The map as a person meets it, in a real browser."""

from __future__ import annotations

import base64
import itertools
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.screens.map import MapScreen
from app.scripts import _VERSION
from app.server import serve
from app.session import Session
from indexer import Collection, Encoder
from massl.core.errors import MasslError
from tests.app.conftest import PHONE, WAIT, Visit, show
from tests.indexer.tiny import write_encoder

READY = "#massl-map .massl-board[data-version]:not([data-version=''])"
BETTER = "() => document.querySelector('#massl-map .about .note').innerText.includes('similar ones lie together')"


@pytest.fixture(scope="module")
def collection(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The pictures, by an encoder that takes no time."""
    folder = tmp_path_factory.mktemp("map")
    made = Collection.create(photos, Encoder.load(write_encoder(folder / "tiny.onnx"), threads=1), folder / "index")
    made.update()
    return made


@pytest.fixture(scope="module")
def site(collection: Collection) -> Iterator[str]:
    """The address of its page."""
    with serve(collection, "127.0.0.1", 0, None) as address:
        yield str(address)


@pytest.fixture
def page(visit: Visit, site: str, unlabelled: Collection) -> Iterator[Any]:
    """The map, opened."""
    with visit(site, "Map", viewport={"width": 1280, "height": 1000}, reduced_motion="reduce") as tab:
        tab.wait_for_selector(READY)
        yield tab


def _places(tab: Any, collection: Collection) -> dict[int, tuple[float, float]]:
    """Where each picture is, in pixels from the map's corner: by the map's own rule, from the server's map."""
    shown = collection.map.get(improve=False)
    box = tab.locator("canvas.plane").bounding_box()
    scale = 0.94 * min(box["width"], box["height"] * 1.35)
    tall = min(scale, box["height"] * 0.94)
    left, top = (box["width"] - scale) / 2, (box["height"] - tall) / 2
    return {
        int(image): (left + scale * (x + 1) / 2, top + tall * (1 - (y + 1) / 2))
        for image, (x, y) in zip(shown.ids, shown.points.astype(float), strict=True)
    }


def _in_window(tab: Any, x: float, y: float) -> tuple[float, float]:
    canvas = tab.locator("canvas.plane")
    canvas.evaluate("(canvas) => canvas.scrollIntoView({block: 'center'})")
    box = canvas.bounding_box()
    return box["x"] + x, box["y"] + y


def _lasso(tab: Any, x: float, y: float, radius: float) -> None:
    tab.get_by_role("button", name="Lasso").click()
    x, y = _in_window(tab, x, y)
    tab.mouse.move(x + radius, y)
    tab.mouse.down()
    for step in range(1, 25):
        turn = step / 24 * 2 * math.pi
        tab.mouse.move(x + radius * math.cos(turn), y + radius * math.sin(turn))
    tab.mouse.up()


def _selected(tab: Any) -> set[int]:
    """The pictures that are selected, once all of them are drawn: their number is written first."""
    tab.wait_for_function(
        """() => {
            const number = document.querySelector('#massl-map .picked h2')?.innerText.split(' ')[0];
            return document.querySelectorAll('#massl-map .strip .picture').length === Number(number);
        }"""
    )
    return {int(each.get_attribute("data-image")) for each in tab.locator("#massl-map .strip .picture").all()}


def test_the_selected_pictures_stand_beside_each_other(page: Any) -> None:
    page.get_by_role("button", name="Select all in view").click()
    page.wait_for_function("() => document.querySelectorAll('#massl-map .strip .picture').length > 12")
    pictures = page.locator("#massl-map .strip .picture")
    boxes = [picture.bounding_box() for picture in pictures.all()]
    for place, box in enumerate(boxes):
        for other in boxes[place + 1 :]:
            apart = abs(box["x"] - other["x"]) >= box["width"] or abs(box["y"] - other["y"]) >= box["height"]
            assert apart


def test_the_selection_stands_beside_the_map_and_below_it_in_a_narrow_window(page: Any) -> None:
    before = page.locator("canvas.plane").bounding_box()
    page.get_by_role("button", name="Select all in view").click()
    page.wait_for_selector("#massl-map .strip .picture")
    assert page.locator("canvas.plane").bounding_box()["width"] == before["width"]  # no point moves away from the hand
    canvas, list_ = page.locator("canvas.plane").bounding_box(), page.locator("#massl-map .picked").bounding_box()
    assert list_["x"] >= canvas["x"] + canvas["width"]
    assert abs(list_["y"] - canvas["y"]) <= 2
    first = page.locator("#massl-map .strip .picture").first.bounding_box()
    assert first["y"] + first["height"] < 1000  # seen without scrolling
    page.set_viewport_size({"width": 1024, "height": 768})
    page.wait_for_function("() => document.querySelector('canvas.plane').getBoundingClientRect().width > 900")
    canvas, list_ = page.locator("canvas.plane").bounding_box(), page.locator("#massl-map .picked").bounding_box()
    assert list_["y"] >= canvas["y"] + canvas["height"]


def test_points_are_round(page: Any) -> None:
    """No disc has a pixel on an axis that stands out, by which it would look like a diamond."""
    rows = page.evaluate(
        """async () => {
            const { Raster } = await import(new URL("script/VERSION/raster.js", document.baseURI));
            return [1.3, 2, 2.9, 3.3, 3.66, 4, 5.2, 6].map(radius => {
                const raster = new Raster(new ImageData(32, 32));
                raster.stamp(raster.disc(radius), 16, 16, 0xff0000ff);
                const rows = [];
                for (let y = 0; y < 32; y += 1) {
                    const row = raster.words.slice(32 * y, 32 * y + 32);
                    rows.push(row.filter(word => word !== 0).length);
                }
                return rows.filter(count => count > 0);
            });
        }""".replace("VERSION", _VERSION)
    )
    for widths in rows:
        assert widths == widths[::-1]
        assert widths[0] >= 3  # the topmost row


def test_large_numbers_are_written_alike(page: Any) -> None:
    said = page.evaluate(
        """async () => {
            const { Selection, drawAll } = await import(new URL("script/VERSION/selection.js", document.baseURI));
            const selection = new Selection(document.createElement("div"));
            for (let image = 0; image < 1805; image += 1) selection.put(image, true);
            return [selection.said, drawAll(1805).map(part => part.textContent ?? part).join("")];
        }""".replace("VERSION", _VERSION)
    )
    assert said == ["1,805 selected", "Select all 1,805 shown"]


def test_two_selected_pictures_are_looked_at_side_by_side(page: Any, unlabelled: Collection) -> None:
    places = _places(page, unlabelled)
    first, second = sorted(places, key=lambda image: places[image])[:: len(places) - 1]
    page.mouse.click(*_in_window(page, *places[first]))
    page.keyboard.down("Control")
    page.mouse.click(*_in_window(page, *places[second]))
    page.keyboard.up("Control")
    page.wait_for_function("() => document.querySelectorAll('#massl-map .strip .picture').length === 2")
    page.get_by_role("button", name="Side by side").click()
    images = page.get_by_role("dialog", name="Full-size view").locator("img")
    sources = images.evaluate_all("all => all.map(image => image.getAttribute('src'))")
    assert set(sources) == {f"full/{image}" for image in _selected(page)}
    assert len(sources) == 2


def test_a_person_looks_around_draws_a_lasso_labels_and_searches(page: Any, unlabelled: Collection) -> None:
    page.wait_for_function(BETTER)  # rough at first, then the better one by itself
    shown = unlabelled.map.get()
    assert shown.kind == "neighbours"
    page.wait_for_selector(f"#massl-map .massl-board[data-version='{shown.version}']")
    assert f"{len(unlabelled)} pictures" in page.locator("#massl-map .about .note").inner_text()

    # Without labels it is coloured by folder.
    legend = page.locator("#massl-map .legend")
    page.wait_for_selector("#massl-map .legend .kind")
    assert page.locator("#massl-map .by select").input_value() == "folder"
    assert "not in a folder" in legend.inner_text()
    assert "flag" in legend.locator(".name").all_inner_texts()

    # Its groups have hues that repeat, and each of them is in the legend.
    page.locator("#massl-map .by select").select_option("group")
    page.locator("#massl-map .legend").get_by_text(re.compile("^(Group 1|between groups)$")).first.wait_for()
    clusters = unlabelled.map.clusters(shown)
    counts = [int(text) for text in legend.locator(".count").all_inner_texts()]
    assert sum(counts) == len(unlabelled)
    assert len(counts) == len(set(clusters.tolist()))
    page.locator("#massl-map .by select").select_option("folder")
    page.get_by_text("not in a folder").wait_for()

    # A picture shows under the pointer.
    places = _places(page, unlabelled)
    x, y = next(iter(places.values()))
    page.mouse.move(*_in_window(page, x, y))
    page.wait_for_selector("#massl-map .card:not(.hidden) img")
    over = page.locator("#massl-map .card strong").inner_text()
    near = [other for other, (ox, oy) in places.items() if math.hypot(ox - x, oy - y) < 14]
    assert over in {path.split("/")[-1] for path in unlabelled.images.paths_of(near)}

    # A lasso selects what it encloses, and nothing else.
    middle = np.median(np.array(list(places.values())), 0)
    _lasso(page, *middle, 150)
    page.wait_for_selector("#massl-map .picked h2")
    far = {other: math.hypot(ox - middle[0], oy - middle[1]) for other, (ox, oy) in places.items()}
    surely = {other for other, distance in far.items() if distance < 145}
    maybe = {other for other, distance in far.items() if distance < 155}
    chosen = _selected(page)
    nearest = min(far, key=lambda other: far[other])
    assert 0 < len(surely) < len(places)
    assert surely <= chosen <= maybe

    # They are named at one stroke, the map takes their colour, and it can be undone.
    page.locator("#massl-map .bar input").fill("middle")
    page.locator("#massl-map .bar input").press("Enter")
    page.wait_for_function("() => document.querySelector('#massl-map .bar').innerText.includes('Labelled')")
    given = unlabelled.labels.every()
    assert {item.label for item in given} == {"middle"}
    assert {unlabelled.images.id_of(item.path) for item in given} == chosen
    page.locator("#massl-map .by select").select_option("label")
    page.wait_for_function("() => document.querySelector('#massl-map .legend').innerText.includes('unlabelled')")
    assert legend.locator(".name").all_inner_texts() == ["middle", "unlabelled"]
    page.locator("#massl-map .bar").get_by_role("button", name="Undo").click()
    page.wait_for_function("() => !document.querySelector('#massl-map .legend').innerText.includes('middle')")
    assert unlabelled.labels.every() == []

    # A key names what is selected, as elsewhere.
    unlabelled.labels.add("first", [max(places)], "test")
    show(page, "Search")
    show(page, "Map")
    page.wait_for_function("() => document.querySelector('#massl-map .legend').innerText.includes('first')")
    _lasso(page, *places[nearest], 60)
    page.wait_for_selector("#massl-map .picked h2")
    page.keyboard.press("1")
    page.wait_for_function("() => document.querySelector('#massl-map .bar').innerText.includes('Labelled')")
    assert {item.label for item in unlabelled.labels.every()} == {"first"}
    assert nearest in {unlabelled.images.id_of(item.path) for item in unlabelled.labels.every()}

    # And they can be searched with.
    _lasso(page, *places[nearest], 60)
    page.wait_for_selector("#massl-map .picked h2")
    page.get_by_role("button", name="Search with these").click()
    page.wait_for_selector("#massl-find .score")
    assert page.locator("#massl-find .massl-board").is_visible()
    page.get_by_role("tab", name="Map").click()
    page.wait_for_function("() => document.querySelector('#massl-map .legend').innerText.includes('best matches')")


def test_back_leads_from_a_search_to_the_map_that_it_began_on(page: Any, unlabelled: Collection) -> None:
    page.get_by_role("button", name="Select all in view").click()
    page.get_by_role("button", name="Search with these").click()
    page.wait_for_selector("#massl-find .score")
    assert f"the 16 most typical of {len(unlabelled)} pictures" in page.locator("#massl-find .ask").inner_text()
    page.go_back()
    page.locator("canvas.plane").wait_for()
    page.wait_for_selector("#massl-find .massl-board:not([aria-busy])", state="attached")
    page.go_forward()
    page.locator("#massl-find .score").first.wait_for()
    page.locator("#massl-find .chip").first.get_by_role("button", name="Remove").click()
    page.wait_for_function("() => document.querySelectorAll('#massl-find .chip').length === 15")
    assert "most typical" not in page.locator("#massl-find .ask").inner_text()


def test_a_subset_of_the_selection_is_selected_on_the_map(page: Any, unlabelled: Collection) -> None:
    page.get_by_role("button", name="Select all in view").click()
    page.locator("#massl-map").get_by_text("Take a subset…").click()
    number = page.locator("#massl-map").get_by_label("Number of pictures in the subset")
    assert number.input_value() == str(math.ceil(len(unlabelled) / 2))
    number.fill("5")
    page.get_by_role("button", name="Select them").click()
    page.wait_for_function("() => document.querySelector('#massl-map .picked h2').innerText === '5 pictures selected'")
    chosen = unlabelled.subsets.choose(5, images=[image for image, _ in unlabelled.images.ready()])
    assert _selected(page) == {item.image for item in chosen.images}


def test_it_can_be_moved_zoomed_and_selected_from_by_keys_and_buttons(page: Any, unlabelled: Collection) -> None:
    canvas = page.locator("canvas.plane")
    canvas.focus()
    before = canvas.screenshot()
    for key in ("+", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    assert canvas.screenshot() != before
    page.keyboard.press("0")
    page.get_by_role("button", name="Select all in view").click()
    page.wait_for_selector("#massl-map .picked h2")
    assert page.locator("#massl-map .picked h2").inner_text() == f"{len(unlabelled)} pictures selected"
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('#massl-map .picked h2')")
    for _ in range(5):
        page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Select all in view").click()
    page.wait_for_timeout(300)
    few = page.locator("#massl-map .picked h2").all_inner_texts()
    assert few != [f"{len(unlabelled)} pictures selected"]
    # A picture that was selected is taken out again.
    page.keyboard.press("Escape")
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Select all in view").click()
    page.wait_for_selector("#massl-map .strip .picture")
    page.locator("#massl-map .strip .picture").first.press("Enter")
    page.wait_for_function(
        f"() => document.querySelector('#massl-map .picked h2').innerText === '{len(unlabelled) - 1} pictures selected'"
    )


def test_the_legend_shows_a_folder_alone_and_pictures_can_be_shown(page: Any) -> None:
    page.wait_for_selector("#massl-map .legend .kind")
    canvas = page.locator("canvas.plane")
    before = canvas.screenshot()
    page.locator("#massl-map .legend .kind").first.click()
    assert page.locator("#massl-map .legend .kind").first.get_attribute("aria-pressed") == "true"
    alone = canvas.screenshot()
    assert alone != before
    page.get_by_role("button", name="Pictures", exact=True).click()
    page.mouse.move(0, 0)
    deadline = time.monotonic() + WAIT / 1000
    while canvas.screenshot() == alone:  # until the first picture is there
        assert time.monotonic() < deadline


def test_its_buttons_can_be_read_and_lie_beside_each_other(page: Any) -> None:
    """Every screen has its own style sheet, and all of them are in the page: one must not reach into another."""
    boxes = [button.bounding_box() for button in page.locator("#massl-map .tool").all()]
    assert len(boxes) >= 5
    assert all(box["width"] >= 30 and box["height"] >= 30 for box in boxes)
    for one, other in itertools.combinations(boxes, 2):
        beside = one["x"] + one["width"] <= other["x"] + 2 or other["x"] + other["width"] <= one["x"] + 2
        assert beside or one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]


def test_the_menu_of_colours_has_its_arrow_and_works(page: Any) -> None:
    menu, legend = page.get_by_label("Colour by"), page.locator("#massl-map .legend")
    assert menu.evaluate("menu => getComputedStyle(menu).appearance") == "auto"
    legend.get_by_text("not in a folder").wait_for()
    menu.select_option("Label")
    legend.get_by_text("unlabelled").wait_for()
    assert legend.get_by_text("not in a folder").count() == 0
    menu.select_option("Unusualness")
    legend.get_by_text("the most unusual 1 %").wait_for()
    legend.get_by_text("all others").wait_for()


def test_colours_tell_how_unusual_each_picture_is(collection: Collection, tmp_path: Path) -> None:
    screen = MapScreen(collection, tmp_path)
    drawn = screen.do(Session(), {"do": "by", "by": "unusual"})
    assert drawn["by"] == "unusual"
    found = screen.kinds({"by": "unusual"})
    ids = np.frombuffer(base64.b64decode(screen.points(None)["ids"]), "<u4")
    of = np.frombuffer(base64.b64decode(found["of"]), np.uint8)
    known, scores = collection.anomalies.by_image()
    least_usual = known[int(scores.argmax())]
    assert of[ids.tolist().index(least_usual)] == 0
    assert sum(entry["count"] for entry in found["legend"]) == len(ids)
    assert [entry["name"] for entry in found["legend"]][-1] == "all others"


def test_it_fits_a_phone(visit: Visit, site: str, unlabelled: Collection) -> None:
    with visit(site, "Map", **PHONE) as tab:
        tab.wait_for_selector(READY)
        assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
        tab.get_by_role("button", name="Select all in view").tap()
        tab.wait_for_selector("#massl-map .picked h2")
        assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
        bar, canvas = tab.locator("#massl-map .bar").bounding_box(), tab.locator("canvas.plane").bounding_box()
        assert bar["height"] < 160  # three lines, with however many classes
        assert bar["y"] - canvas["y"] > 400  # what is left of the map
        assert tab.get_by_label("Colour by").bounding_box()["x"] < 300


def test_points_go_to_the_browser_once_and_packed(unlabelled: Collection, tmp_path: Path) -> None:
    screen = MapScreen(unlabelled, tmp_path)
    drawn = screen.do(Session(), {"do": "start"})
    assert len(str(drawn)) < 3_000  # nothing in it grows with the collection
    points = screen.points(None)
    ids = np.frombuffer(base64.b64decode(points["ids"]), "<u4")
    places = np.frombuffer(base64.b64decode(points["places"]), "<u2").reshape(-1, 2)
    shown = unlabelled.map.get(improve=False)
    np.testing.assert_array_equal(ids, shown.ids)
    np.testing.assert_allclose(places / 65_535 * 2 - 1, shown.points, atol=2e-5)
    of = np.frombuffer(base64.b64decode(screen.kinds({"by": "folder"})["of"]), np.uint8)
    assert len(of) == len(ids)


@pytest.mark.parametrize("data", [None, {}, {"images": "all"}, {"images": [True]}, {"images": list(range(49))}, [1]])
def test_what_no_page_asks_for_is_refused(unlabelled: Collection, tmp_path: Path, data: Any) -> None:

    with pytest.raises(MasslError, match="unexpected"):
        MapScreen(unlabelled, tmp_path).pictures(data)


def test_a_map_that_can_t_be_fetched_is_not_asked_for_again_and_again(
    visit: Visit, site: str, unlabelled: Collection
) -> None:
    with visit(site) as tab:
        asked: list[str] = []

        def cut_off(route: Any) -> None:
            if '"points"' not in (route.request.post_data or ""):
                route.continue_()
                return
            asked.append(route.request.url)
            route.abort()

        tab.route("**/component_server/**", cut_off)
        tab.get_by_role("tab", name="Map", exact=True).click()
        tab.wait_for_selector("#massl-map .message:not(:empty)")
        tab.wait_for_timeout(500)
        assert len(asked) == 1
