"""The screen "Search": its story in a real browser, and its answers without one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from app.formatting import readable
from app.screens.find import PAGE, FindScreen
from app.screens.listings import time_line
from app.screens.match_texts import among, chance, chance_short, heat_words, levels, match_tile
from app.server import serve
from app.session import Session
from indexer import LADDER, Collection, Encoder, Query, Result
from indexer.search.calibration import Calibration
from indexer.search.query import Ranking
from indexer.search.searcher import Searcher
from indexer.store import quality
from indexer.store.filters import Filter
from indexer.store.labels import ACCEPTED
from indexer.store.ordering import ORDERS
from tests.app.conftest import DAY, DESKTOP, PHONE, Visit, answered, lines, narrowed
from tests.indexer.tiny import picture, write_encoder

OLD = 1_577_880_000  # noon of 2020-01-01, UTC


@pytest.fixture
def tab(visit: Visit, site: str, unlabelled: Collection) -> Iterator[Any]:
    """The page, opened."""
    with visit(site, **DESKTOP, permissions=["clipboard-read", "clipboard-write"]) as tab:
        yield tab


def _paths(tab: Any) -> list[str]:
    """The paths of the pictures that can be seen, in their order, once the last answer is there."""
    tab.wait_for_selector("#massl-find .massl-board:not([aria-busy])")
    tiles = tab.locator("#massl-find .tile:not([hidden]) .caption .name")
    return [str(path) for path in tiles.evaluate_all("names => names.map(name => name.title)")]


def _until(tab: Any, condition: str) -> None:
    tab.wait_for_function(f"() => {condition}")


def _asked(tab: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(tab.url).query)


def _picture(tab: Any, path: str) -> Any:
    return tab.locator(f"#massl-find .tile:has(.caption .name[title='{path}'])")


def test_a_search_is_narrowed_shared_and_taken_back(
    tab: Any, visit: Visit, site: str, unlabelled: Collection, photos: Path
) -> None:
    # One picture clicked: the address says which, by its content.
    _picture(tab, "flag/brazil.jpg").locator(".picture").click()
    _until(tab, "document.querySelectorAll('.chip').length === 1")
    brazil = unlabelled.images.facts(unlabelled.images.id_of("flag/brazil.jpg"))
    _until(tab, f"document.querySelectorAll('#massl-find .tile').length === {len(unlabelled) - 1}")
    assert _asked(tab) == {"like": [brazil.content[:16]]}
    alone = _paths(tab)
    assert alone == [r.path for r in unlabelled.search([Query(image=brazil.image)], 100)]

    # Another one added by key, a third steered away from by its button.
    first, second = alone[0], alone[-1]
    _picture(tab, first).locator(".picture").focus()
    tab.keyboard.press("+")
    _until(tab, "document.querySelectorAll('.chip').length === 2")
    tab.get_by_label("Size of the pictures").press("End")  # small tiles have no room for it
    _picture(tab, second).hover()
    _picture(tab, second).locator(".tools button").nth(1).click()
    tab.get_by_label("Size of the pictures").press("Home")
    _until(tab, "document.querySelectorAll('.chip.minus').length === 1")
    queries = [
        Query(image=brazil.image),
        Query(image=unlabelled.images.id_of(first)),
        Query(image=unlabelled.images.id_of(second), weight=-1.0),
    ]
    _until(tab, f"document.querySelectorAll('#massl-find .tile').length === {len(unlabelled) - 3}")
    assert _paths(tab) == [r.path for r in unlabelled.search(queries, 100)]

    # A folder; everything that is shown lies in it, and the address can be given to somebody else.
    narrowed(tab, "folders", "flag")
    _until(tab, "location.search.includes('under=flag')")
    shown = _paths(tab)
    assert {path.split("/")[0] for path in shown} == {"flag"}
    assert len(_asked(tab)["like"]) == 2
    assert len(_asked(tab)["unlike"]) == 1
    with visit(tab.url) as other:
        other.wait_for_selector(".chip.minus")
        assert _paths(other) == shown
        assert other.get_by_label("Only these folders: flag").is_visible()

    # A chip taken off, then back step by step, and forward again.
    tab.get_by_role("button", name=f"Remove {second} from the search").click()
    _until(tab, "document.querySelectorAll('.chip').length === 2")
    tab.go_back()
    _until(tab, "document.querySelectorAll('.chip').length === 3")
    assert _paths(tab) == shown
    tab.go_back()
    _until(tab, f"document.querySelectorAll('#massl-find .tile').length === {len(unlabelled) - 3}")
    for chips in (2, 1):
        tab.go_back()
        _until(tab, f"document.querySelectorAll('.chip').length === {chips}")
    _until(tab, f"document.querySelectorAll('#massl-find .tile').length === {len(unlabelled) - 1}")
    assert _paths(tab) == alone
    tab.go_back()
    _until(tab, "document.querySelectorAll('.chip').length === 0")
    assert _asked(tab) == {}
    tab.go_forward()
    _until(tab, "document.querySelectorAll('.chip').length === 1")

    # An address whose picture is gone is a sentence, and all pictures stay.
    tab.goto(f"{site}?like=0123456789abcdef")
    tab.wait_for_selector("#massl-find .message:not(:empty)")
    assert "no longer in the collection" in tab.locator("#massl-find .message").inner_text()
    assert len(_paths(tab)) >= PAGE


def test_a_part_is_drawn_or_typed(tab: Any, unlabelled: Collection, photos: Path) -> None:
    tab.locator("#massl-find input[type=file]").set_input_files(photos / "flag" / "brazil.jpg")
    tab.wait_for_selector(".chip")
    assert "can't be shared" in tab.locator("#massl-find .ask").inner_text()
    assert _asked(tab) == {}
    assert _paths(tab)[0] == "flag/brazil.jpg"
    tab.locator(".chip").get_by_role("button", name="Search by a part").click()
    stage = tab.locator(".region .stage")
    _until(tab, "document.querySelector('.region .stage img').naturalWidth > 0")
    around = stage.bounding_box()
    tab.mouse.move(around["x"] + 0.25 * around["width"], around["y"] + 0.25 * around["height"])
    tab.mouse.down()
    tab.mouse.move(around["x"] + 0.75 * around["width"], around["y"] + 0.5 * around["height"], steps=3)
    tab.mouse.up()
    typed = [field.input_value() for field in tab.locator(".region input").all()]
    assert [abs(int(text) - wanted) <= 1 for text, wanted in zip(typed, (25, 25, 50, 25), strict=True)] == [True] * 4
    tab.get_by_role("button", name="Search by this part").click()
    tab.wait_for_selector(".chip .box")
    drawn = _paths(tab)

    # The same of the collection's own copy, by the keyboard alone: exact to the pixel, and in the address.
    _picture(tab, "flag/brazil.jpg").locator(".picture").focus()
    tab.keyboard.press("i")
    tab.get_by_role("button", name="Search by a part", exact=True).press("Enter")
    for number in ("25", "25", "50", "25"):
        tab.keyboard.type(number)
        tab.keyboard.press("Tab")
    tab.get_by_role("button", name="Search by this part").press("Enter")
    _until(tab, "location.search.includes('like=')")
    image = unlabelled.images.id_of("flag/brazil.jpg")
    facts = unlabelled.images.facts(image)
    assert _asked(tab) == {"like": [f"{facts.content[:16]}@0.25,0.25,0.5,0.25"]}
    left, top = int(0.25 * facts.width), int(0.25 * facts.height)
    box = (left, top, round(0.75 * facts.width) - left, round(0.5 * facts.height) - top)
    expected = [r.path for r in unlabelled.search([Query(image=image, crop=box)], 100)]
    assert _paths(tab)[:PAGE] == expected[:PAGE]
    assert len(set(drawn[:12]) & {*expected[:12], "flag/brazil.jpg"}) >= 8  # the upload's part is nearly the same
    tab.reload()
    tab.wait_for_selector(".chip .box")
    tab.wait_for_selector("#massl-find .score")  # until then all pictures are listed
    assert _paths(tab)[:PAGE] == expected[:PAGE]


def test_the_details_keep_the_focus_when_their_facts_arrive(tab: Any, unlabelled: Collection) -> None:
    _picture(tab, "flag/brazil.jpg").locator(".picture").focus()
    # Within one task of the browser, so that no answer comes between the key and the focus.
    focused = """() => {
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "i", bubbles: true }));
        [...document.querySelectorAll("dialog[open] button")].find((b) => b.textContent === "Search by a part").focus();
        return document.querySelectorAll("dialog[open] dd").length;
    }"""
    assert tab.evaluate(focused) == 0
    tab.wait_for_selector("dialog[open] dd")
    assert tab.evaluate("document.activeElement.textContent") == "Search by a part"


def test_the_minimum_similarity_says_what_to_expect_and_selects_what_is_seen(tab: Any, unlabelled: Collection) -> None:
    _picture(tab, "flag/brazil.jpg").locator(".picture").click()
    _until(tab, f"document.querySelectorAll('#massl-find .tile').length === {len(unlabelled) - 1}")
    slider = tab.get_by_label("Show only pictures at least this similar")
    said = tab.locator("#massl-find .cut output")
    assert "All results are shown" in said.text_content()
    assert not said.is_visible()  # it says nothing that the pictures don't
    scores = [r.score for r in unlabelled.search([Query(image=unlabelled.images.id_of("flag/brazil.jpg"))], 100)]
    slider.focus()
    for _ in range(200):
        tab.keyboard.press("ArrowRight")
        if len(_paths(tab)) <= 9:
            break
    cut = float(said.inner_text().split("similarity of ")[1].split(" ")[0])
    kept = sum(score >= cut for score in scores)
    assert len(_paths(tab)) == kept
    assert said.inner_text().startswith(f"{kept} picture")
    assert "common in this folder" in said.inner_text()  # nine flags among flags
    note = tab.locator("#massl-find .content header .note")
    assert note.inner_text() == f"{kept} pictures above the minimum"
    tab.get_by_role("button", name=f"Select all {kept}").click()
    assert tab.locator("#massl-find .tile.chosen").count() == kept
    _until(tab, "location.search.includes('cut=')")
    assert _asked(tab)["cut"] == [f"{cut:.2f}"]
    tab.reload()
    tab.wait_for_selector("#massl-find .cut output", state="attached")
    _until(tab, f"document.querySelectorAll('#massl-find .tile:not([hidden])').length === {kept}")
    slider.press("Home")
    assert "All results are shown" in said.text_content()
    assert len(_paths(tab)) > kept
    assert note.inner_text() == f"{len(unlabelled)} pictures"


def test_all_that_is_shown_is_selected_and_what_is_not_fetched_yet_is_not(
    visit: Visit, site: str, unlabelled: Collection
) -> None:
    with visit(site, **PHONE) as tab:  # narrow: the end of the first page is far below
        shown = len(_paths(tab))
        assert 0 < shown < len(unlabelled)
        tab.get_by_role("button", name=f"Select {shown}", exact=True).click()
        assert tab.locator("#massl-find .tile.chosen").count() == shown
        assert tab.locator("#massl-find .bar").get_by_text(f"{shown} selected").count() == 1
        assert tab.locator("#massl-find .tile").count() == shown


def test_no_further_pages_are_offered_below_the_cut_off(visit: Visit, site: str, unlabelled: Collection) -> None:
    with visit(site, **PHONE) as tab:  # narrow: the end of the first page is far below
        _picture(tab, "flag/brazil.jpg").locator(".picture").click()
        tab.wait_for_selector("#massl-find .score")
        more = tab.get_by_role("button", name="Show more")
        assert more.is_visible()
        tab.get_by_label("Show only pictures at least this similar").press("End")
        assert len(_paths(tab)) < 5
        assert not more.is_visible()
        assert tab.locator("#massl-find .tile").count() == PAGE  # none were fetched to be hidden at once
        tab.get_by_label("Show only pictures at least this similar").press("Home")
        more.wait_for()


def test_details_say_where_what_and_why(tab: Any, unlabelled: Collection) -> None:
    flags = [unlabelled.images.id_of(f"flag/{name}.jpg") for name in ("argentina", "brazil")]
    unlabelled.labels.add("<b>banner</b>", flags, "somebody")
    _picture(tab, "flag/brazil.jpg").locator(".picture").click()
    tab.wait_for_selector(".chip")
    path = _paths(tab)[0]
    facts = unlabelled.images.facts(unlabelled.images.id_of(path))
    _picture(tab, path).hover()
    _picture(tab, path).get_by_role("button", name="About this picture").click()
    dialog = tab.locator("dialog.details")
    tab.wait_for_selector("dialog.details canvas")
    said = dialog.inner_text()
    assert f"{facts.width} by {facts.height} pixels" in said
    assert "similarity 0." in said
    assert "Bright parts are most similar" in said
    assert set(dialog.locator(".neighbours .name").all_inner_texts()) == {"<b>banner</b>"}  # as text
    assert set(lines(tab, "dialog.details", DAY)) == {1}  # no day is broken at one of its hyphens
    dialog.get_by_role("button", name="Copy path").click()
    _until(tab, "document.querySelector('dialog.details .path button').innerText === 'Copied'")
    assert tab.evaluate("() => navigator.clipboard.readText()") == str(unlabelled.root / path)
    # The overlay is as clear as the indexer says, on the part that the encoder saw.
    heat = unlabelled.searcher.heat([Query(image=flags[1])], facts.image)
    alphas = dialog.locator("canvas").evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
        ".filter((_, at) => at % 4 === 3)"
    )
    assert alphas.index(0) == heat.cosines.argmax()
    assert alphas.index(max(alphas)) == heat.cosines.argmin()
    sheet, canvas = dialog.locator(".sheet").bounding_box(), dialog.locator("canvas").bounding_box()
    assert canvas["width"] == pytest.approx(heat.part[2] * sheet["width"], abs=1)
    dialog.get_by_label("Why it matched").uncheck()
    assert dialog.locator("canvas").count() == 0
    # The next picture by the arrow key, and more like it.
    second, third = _paths(tab)[1:3]
    for following in (second, third):
        tab.keyboard.press("ArrowRight")
        _until(tab, f"document.querySelector('dialog.details h2').innerText === {following!r}")
    following = dialog.locator("h2").inner_text()
    dialog.get_by_role("button", name="More like this").click()
    assert not dialog.is_visible()
    _until(tab, f"document.querySelector('.chip .name').title === {following!r}")


def test_a_picture_whose_file_is_gone_or_was_changed_says_so(browser: Any, photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "flags"
    shutil.copytree(photos / "flag", root)
    collection = Collection.create(root, Encoder.load(write_encoder(tmp_path / "tiny.onnx"), threads=1))
    collection.update()
    # Not by visit(): the browser's own complaint of a picture that can't be had is what this is about.
    with serve(collection, "127.0.0.1", 0, None) as address, browser.new_page(**DESKTOP) as tab:
        tab.goto(str(address))
        answered(tab, "Search")
        _until(tab, "[...document.querySelectorAll('#massl-find .tile img')].every(image => image.naturalWidth)")
        (root / "brazil.jpg").unlink()
        (root / "argentina.jpg").write_bytes((root / "canada.jpg").read_bytes())
        dialog = tab.locator("dialog.details")
        for name, said in (("brazil.jpg", "The file is missing"), ("argentina.jpg", "The file has changed")):
            _picture(tab, name).locator(".picture").press("i")
            dialog.get_by_text(said).wait_for()
            _until(tab, "!document.querySelector('dialog.details .look img')")  # no broken one over the small one
            dialog.get_by_role("button", name="Search by a part").click()
            region = tab.get_by_role("dialog", name="Search by a part of the picture")
            region.get_by_text("This picture can't be shown").wait_for()
            assert region.get_by_label("Width, in percent").is_disabled()
            region.get_by_role("button", name="Cancel").click()
        _picture(tab, "canada.jpg").locator(".picture").press("i")
        dialog.get_by_role("heading", name="canada.jpg").wait_for()
        assert dialog.locator(".trouble").count() == 0


def test_dates_narrow_all_pictures_too(tab: Any, unlabelled: Collection) -> None:
    narrowed(tab, "days")
    tab.get_by_label("Until this day").fill("2001-01-01")
    tab.wait_for_selector("#massl-find .message:not(:empty)")
    assert "no picture was taken until 2001-01-01" in tab.locator("#massl-find .message").inner_text().lower()
    last = unlabelled.images.outline().last
    tab.get_by_label("From this day").fill(str(last))
    _until(tab, f"location.search.includes('since={last}')")
    tab.get_by_role("button", name="Clear filters").click()
    _until(tab, "location.search === ''")


# Without a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """130 pictures in three folders; every tenth is old. Its encoder has no patch tokens."""
    root = tmp_path_factory.mktemp("many")
    for number in range(130):
        file = root / "abc"[number % 3] / f"{number:03}.bmp"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture(number))
        if number % 10 == 0:
            os.utime(file, (OLD, OLD))
    encoder = Encoder.load(write_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx"), threads=1)
    collection = Collection.create(root, encoder)
    collection.update()
    return collection


def test_several_folders_and_labels_are_searched_at_once(tab: Any, visit: Visit, unlabelled: Collection) -> None:
    of = {
        kind: [i for i, path in unlabelled.images.ready() if path.startswith(f"{kind}/")]
        for kind in ("flag", "space", "bug")
    }
    unlabelled.labels.add("odd", [ids[0] for ids in of.values()], "me")
    unlabelled.labels.add("even", [ids[1] for ids in of.values()], "me")
    unlabelled.labels.add("other", [ids[2] for ids in of.values()], "me")
    tab.reload()
    narrowed(tab, "folders", "flag", "space")
    _until(tab, "location.search === '?under=flag&under=space'")
    assert {path.split("/")[0] for path in _paths(tab)} == {"flag", "space"}
    narrowed(tab, "labels", "odd", "even")
    _until(tab, "new URLSearchParams(location.search).getAll('label').length === 2")
    four = sorted(dict(unlabelled.images.ready())[ids[place]] for ids in (of["flag"], of["space"]) for place in (0, 1))
    assert sorted(_paths(tab)) == four
    assert tab.get_by_label("Only these folders: 2 folders").is_visible()

    # The search is inside the filters, and the address carries them to somebody else.
    tab.locator("#massl-find .tile .picture").first.click()
    tab.wait_for_selector("#massl-find .score")
    shown = _paths(tab)
    assert len(shown) == 3
    assert set(shown) < set(four)
    _until(tab, "new URLSearchParams(location.search).has('like')")
    with visit(tab.evaluate("location.href")) as other:  # Playwright's own word on it comes a little later
        other.wait_for_selector("#massl-find .score")
        assert _paths(other) == shown

        # By the keyboard alone: one is taken off, and the focus is still at its box.
        box = other.get_by_role("checkbox", name="space (")
        box.focus()
        other.keyboard.press("Space")
        _until(other, "location.search.split('under=').length === 2")
        answered(other, "Search")
        assert box.evaluate("box => box === document.activeElement && !box.checked")

    # What was chosen is given up from within, or all at once.
    tab.get_by_role("button", name="All labels").click()
    _until(tab, "!location.search.includes('label=')")
    tab.get_by_role("button", name="Clear filters").click()
    _until(tab, "!location.search.includes('under=')")


def test_boxes_that_are_ticked_faster_than_the_server_answers_all_count(tab: Any, unlabelled: Collection) -> None:
    kinds = ["antique", "bug", "flag", "fruit", "painting", "space"]
    narrowed(tab, "folders", *kinds)
    narrowed(tab, "folders", *kinds[::2])  # off again
    _until(tab, "new URLSearchParams(location.search).getAll('under').join() === 'bug,fruit,space'")
    answered(tab, "Search")
    ticked = tab.locator(".filters input:checked").evaluate_all("boxes => boxes.map(box => box.value)")
    assert ticked == kinds[1::2]
    assert {path.split("/")[0] for path in _paths(tab)} == set(kinds[1::2])


def test_pictures_are_tagged_filtered_by_tags_and_it_is_undone(tab: Any, visit: Visit, unlabelled: Collection) -> None:
    def said(text: str) -> None:
        tab.wait_for_function(f"() => document.querySelector('#massl-find .bar')?.innerText.includes({text!r})")

    def tags() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for item in unlabelled.tags.every():
            found.setdefault(item.path, []).append(item.tag)
        return found

    one, two = (_picture(tab, f"flag/{name}.jpg") for name in ("brazil", "argentina"))
    for each in (one, two):
        each.locator(".picture").focus()
        tab.keyboard.press("Space")
    bar = tab.locator("#massl-find .bar")
    bar.get_by_role("textbox").fill("cloth, of wind")
    bar.get_by_role("button", name="Tag", exact=False).click()
    said("Tagged 2 pictures “cloth”, “of wind”")
    both = ["cloth", "of wind"]
    assert tags() == {"flag/argentina.jpg": both, "flag/brazil.jpg": both}

    # T gives the same again; Undo takes back what was new.
    _picture(tab, "fruit/apple.jpg").locator(".picture").focus()
    tab.keyboard.press("Space")
    tab.keyboard.press("t")
    said("Tagged 1 picture")
    assert tags()["fruit/apple.jpg"] == both
    bar.get_by_role("button", name="Undo").click()
    said("Undone: tagged 1 picture")
    assert "fruit/apple.jpg" not in tags()

    # The details: one goes, one comes, what is no tag is refused there; each step can be undone.
    one.locator(".picture").focus()
    tab.keyboard.press("i")
    dialog = tab.locator("dialog.details")
    dialog.get_by_role("button", name="Remove the tag of wind").click()
    _until(tab, "document.querySelectorAll('dialog.details .tag').length === 1")
    dialog.get_by_label("Tags to add").fill("x" * 101)
    dialog.get_by_label("Tags to add").press("Enter")
    assert "1 to 100 printable characters" in dialog.get_by_role("alert").inner_text()
    dialog.get_by_label("Tags to add").fill("green")
    dialog.get_by_label("Tags to add").press("Enter")
    _until(tab, "document.querySelectorAll('dialog.details .tag').length === 2")
    assert tags()["flag/brazil.jpg"] == ["cloth", "green"]
    tab.keyboard.press("Escape")

    # Pictures with all of the ticked tags; the address has them.
    tab.get_by_role("button", name="Filters").click()
    tab.locator(".filters").get_by_label("cloth (2)").check()
    _until(tab, "document.querySelectorAll('#massl-find .tile').length === 2")
    tab.locator(".filters").get_by_label("green (1)").check()
    _until(tab, "document.querySelectorAll('#massl-find .tile').length === 1")
    assert _asked(tab)["tag"] == ["cloth", "green"]
    tab.locator(".filters").get_by_label("Which of these tags").select_option("with any of these")
    _until(tab, "document.querySelectorAll('#massl-find .tile').length === 2")
    assert (_asked(tab)["tag"], _asked(tab)["tagging"]) == (["cloth", "green"], ["any"])
    with visit(tab.url) as other:
        _until(other, "document.querySelectorAll('#massl-find .tile').length === 2")
    tab.locator(".filters").get_by_label("Which of these tags").select_option("with none of these")
    _until(tab, f"document.querySelector('#massl-find .note').innerText.startsWith('{len(unlabelled) - 2} of')")
    assert tab.get_by_role("button", name="Propose more").count() == 0
    tab.get_by_role("button", name="Clear filters").click()
    _until(tab, "location.search === ''")
    for text in ("Undone: tagged 1 picture “green”", "Undone: took “of wind” off 1 picture"):
        bar.get_by_role("button", name="Undo").click()
        said(text)
    assert tags() == {"flag/argentina.jpg": both, "flag/brazil.jpg": both}


def test_proposals_of_a_tag_are_accepted_refused_and_undone(tab: Any, visit: Visit, unlabelled: Collection) -> None:
    def ids(kind: str) -> list[int]:
        return [image for image, path in unlabelled.images.ready() if path.startswith(f"{kind}/")]

    flags, others = ids("flag"), ids("fruit")
    unlabelled.tags.add("cloth", flags[:4], "somebody")
    unlabelled.tags.add("food", others[:4], "somebody")
    tab.goto(tab.url + "?tag=cloth")
    _until(tab, "document.querySelectorAll('#massl-find .tile').length === 4")
    tab.get_by_role("button", name="Propose more").click()
    heading = tab.get_by_role("heading", name="Probably “cloth” too")
    heading.wait_for()
    found = [image for image, _ in unlabelled.tag_proposals.of("cloth").likely(0.5)]
    assert _paths(tab) == unlabelled.images.paths_of(found)
    assert set(found) & set(flags)

    # One by its button, two by keys of the selection; each leaves the list, which keeps its order.
    first, second, third, *rest = _paths(tab)
    _picture(tab, first).locator(".picture").focus()
    _picture(tab, first).hover()
    tab.get_by_label("Size of the pictures").press("End")
    _picture(tab, first).get_by_role("button", name="Accept “cloth”").click()
    _until(tab, f"document.querySelectorAll('#massl-find .tile').length === {len(found) - 1}")
    for path, key in ((second, "r"), (third, "a")):
        _picture(tab, path).locator(".picture").focus()
        tab.keyboard.press("Space")
        tab.keyboard.press(key)
        tab.wait_for_selector(f"#massl-find .tile:has(.name[title='{path}'])", state="detached")
    assert _paths(tab) == rest
    accepted = {unlabelled.images.id_of(first), unlabelled.images.id_of(third)}
    assert unlabelled.tags.by_author("cloth", ACCEPTED) == accepted
    refused = unlabelled.images.id_of(second)
    assert unlabelled.rejected_tags.of_tag("cloth") == {refused}

    # The address opens the list for others, with what these answers taught; Undo brings each picture back.
    with visit(tab.url) as other:
        other.get_by_role("heading", name="Probably “cloth” too").wait_for()
        assert second not in _paths(other)
    for path in (third, second, first):
        tab.locator("#massl-find .bar").get_by_role("button", name="Undo").click()
        tab.wait_for_selector(f"#massl-find .tile:has(.name[title='{path}'])")
    assert _paths(tab) == [first, second, third, *rest]
    assert unlabelled.rejected_tags.of_tag("cloth") == frozenset()
    assert unlabelled.tags.counts()["cloth"] == 4
    tab.get_by_role("button", name="Pictures with “cloth”").click()
    _until(tab, "document.querySelectorAll('#massl-find .tile').length === 4")


def test_the_details_propose_tags_to_say_yes_or_no_to(tab: Any, unlabelled: Collection) -> None:
    def ids(kind: str) -> list[int]:
        return [image for image, path in unlabelled.images.ready() if path.startswith(f"{kind}/")]

    flags, others = ids("flag"), ids("fruit")
    unlabelled.tags.add("cloth", flags[:4], "somebody")
    unlabelled.tags.add("striped", flags[:3], "somebody")
    unlabelled.tags.add("food", others[:4], "somebody")
    image, refused = flags[-1], flags[-2]
    names = [tag for tag, _ in unlabelled.tag_proposals.for_image(image, 0.5, 4)]
    assert names[0] in ("cloth", "striped")
    assert "food" not in names
    (path,) = unlabelled.images.paths_of([image])
    _picture(tab, path).locator(".picture").focus()
    tab.keyboard.press("i")
    proposed = tab.get_by_role("group", name="Tags that it probably has too")
    proposed.get_by_role("button", name=f"Yes, {names[0]}").wait_for()
    assert proposed.locator(".tag").count() == len(names)
    proposed.get_by_role("button", name=f"Yes, {names[0]}").click()
    tab.get_by_role("button", name=f"Remove the tag {names[0]}").wait_for()
    assert unlabelled.tags.by_author(names[0], ACCEPTED) == {image}
    tab.keyboard.press("Escape")

    (path,) = unlabelled.images.paths_of([refused])
    first = unlabelled.tag_proposals.for_image(refused, 0.5, 4)[0][0]
    _picture(tab, path).locator(".picture").focus()
    tab.keyboard.press("i")
    proposed.get_by_role("button", name=f"Not {first}").click()
    proposed.get_by_role("button", name=f"Not {first}").wait_for(state="detached")
    tab.wait_for_selector("#massl-find .massl-board:not([aria-busy])")
    assert unlabelled.rejected_tags.of_image(refused) == (first,)
    assert first not in [tag for tag, _ in unlabelled.tag_proposals.for_image(refused, 0, 4)]
    tab.keyboard.press("Escape")
    tab.locator("#massl-find .bar").get_by_role("button", name="Undo").click()
    tab.wait_for_selector("#massl-find .massl-board:not([aria-busy])")
    _until(tab, "document.querySelector('#massl-find .bar').innerText.includes('Undone')")
    assert unlabelled.rejected_tags.of_image(refused) == ()


def test_a_tag_with_too_few_examples_says_what_is_missing(unlabelled: Collection, tmp_path: Path) -> None:
    unlabelled.tags.add("lone", [unlabelled.images.ready(1)[0][0]], "somebody")
    find, session = FindScreen(unlabelled, tmp_path), Session()
    with_tag = find.do(session, {"do": "ask", "tags": ["lone"]})
    screen = find.do(session, {"do": "ask", "tags": ["lone"], "proposed": True})
    assert "2 of each are needed: give it to more images" in screen["message"]["text"]
    assert screen["sections"] == with_tag["sections"]
    for payload in ({"proposed": True}, {"proposed": "yes", "tags": ["lone"]}, {"proposed": 1, "tags": ["lone"]}):
        assert find.do(session, {"do": "ask", **payload})["listing"] == {"sort": "", "proposed": False}


def test_the_filters_fold_and_a_reload_leaves_them_as_they_were(tab: Any) -> None:
    panel = tab.get_by_role("complementary", name="Filters")
    assert not panel.is_visible()
    for open_ in (True, False):
        tab.get_by_role("button", name="Filters", exact=True).click()
        assert panel.is_visible() is open_
        assert (
            tab.get_by_role("button", name="Filters", exact=True).get_attribute("aria-expanded") == str(open_).lower()
        )
        tab.reload()
        answered(tab, "Search")
        assert panel.is_visible() is open_


def test_size_shape_and_names_of_the_tiles_are_chosen_and_remembered(tab: Any, unlabelled: Collection) -> None:
    tile = _picture(tab, "flag/brazil.jpg")
    facts = unlabelled.images.facts(unlabelled.images.id_of("flag/brazil.jpg"))

    def shape() -> float:
        box = tile.locator(".frame").bounding_box()
        return float(box["width"] / box["height"])

    assert shape() == pytest.approx(facts.width / facts.height, rel=0.02)  # whole, nothing is cut away
    before = tile.bounding_box()["height"]
    slider = tab.get_by_label("Size of the pictures")
    slider.press("End")
    assert tile.bounding_box()["height"] > 2 * before
    # All are sharp at that size, those that come later too.
    tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    _until(tab, f"document.querySelectorAll('#massl-find .tile').length === {len(unlabelled)}")
    _until(tab, "[...document.querySelectorAll('.tile img')].every(image => image.src.includes('/preview/'))")
    tab.get_by_role("button", name="Squares").click()
    tab.get_by_role("button", name="Names").click()
    for _ in range(2):
        assert shape() == pytest.approx(1, rel=0.02)
        assert tile.locator(".name").is_visible()
        tab.reload()
        answered(tab, "Search")
    tab.get_by_label("Size of the pictures").press("Home")
    tab.get_by_role("button", name="Squares").click()
    tab.get_by_role("button", name="Names").click()
    assert not tile.locator(".name").is_visible()
    assert tile.bounding_box()["height"] < before


@pytest.mark.parametrize(
    ("width", "height", "searching", "begins", "whole"),
    [
        (1440, 900, False, 140, 40),
        (1440, 900, True, 150, 36),
        (1024, 768, False, 140, 20),
        (390, 844, False, 130, 11),
        (390, 844, True, 245, 8),
    ],
)
def test_a_window_is_full_of_pictures(
    visit: Visit,
    site: str,
    unlabelled: Collection,
    width: int,
    height: int,
    searching: bool,
    begins: int,
    whole: int,
) -> None:
    with visit(site, viewport={"width": width, "height": height}, has_touch=width < 500) as tab:
        if searching:
            tab.locator("#massl-find .picture").nth(2).click()
            tab.get_by_role("button", name="All pictures").wait_for()
            answered(tab, "Search")
        boxes = tab.locator("#massl-find .tile").evaluate_all(
            "tiles => tiles.map(tile => { const at = tile.getBoundingClientRect(); return [at.top, at.bottom]; })"
        )
        assert min(top for top, _ in boxes) < begins
        assert sum(bottom <= height for _, bottom in boxes) >= whole


def test_on_a_phone_the_filters_are_a_sheet_below_the_pictures(visit: Visit, site: str, unlabelled: Collection) -> None:
    with visit(site, **PHONE) as tab:
        panel = tab.get_by_role("complementary", name="Filters")
        opener = tab.locator("#massl-find .narrowing").get_by_role("button", name=re.compile("^Filters"))
        before = tab.locator("#massl-find .tile").nth(0).bounding_box()
        opener.tap()
        box = panel.bounding_box()
        assert tab.locator("#massl-find .tile").nth(0).bounding_box() == before  # nothing moves
        assert box["y"] > before["y"] + before["height"]  # what the filters leave is seen above them
        assert box["y"] + box["height"] == pytest.approx(844, abs=1)
        narrowed(tab, "folders", "flag")
        note = tab.locator("#massl-find .content header .note")
        note.get_by_text(f"9 of {len(unlabelled)} pictures", exact=True).wait_for()
        tab.get_by_role("button", name="Show the pictures").tap()
        assert not panel.is_visible()
        # A link with filters, or a reload, begins with the pictures.
        tab.reload()
        answered(tab, "Search")
        opener.and_(tab.get_by_text("Filters (1)", exact=True)).wait_for()
        assert not panel.is_visible()
        opener.tap()
        panel.get_by_role("button", name="Clear").tap()
        note.get_by_text(f"{len(unlabelled)} pictures", exact=True).wait_for()
        tab.keyboard.press("Escape")
        assert not panel.is_visible()


def test_in_a_narrow_window_a_button_opens_how_the_pictures_are_shown(
    visit: Visit, site: str, unlabelled: Collection
) -> None:
    with visit(site, **PHONE) as tab:
        squares = tab.get_by_role("button", name="Squares")
        assert not squares.is_visible()
        tab.get_by_role("button", name="View", exact=True).tap()
        box = tab.locator("#massl-find .view .choices").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        squares.tap()
        assert tab.locator("#massl-find .massl-board").get_attribute("data-grid") == "squares"
        tab.touchscreen.tap(200, 800)  # beside it
        assert not squares.is_visible()
        tab.set_viewport_size({"width": 1280, "height": 900})
        assert squares.is_visible()


def test_a_picture_is_looked_at_as_large_as_the_window_and_two_side_by_side(tab: Any, unlabelled: Collection) -> None:
    first, second = _paths(tab)[3:5]
    viewer = tab.get_by_role("dialog", name="Full-size view")
    _picture(tab, first).locator(".picture").focus()
    tab.keyboard.press("Enter")
    viewer.get_by_text(first).first.wait_for()
    image = viewer.locator("img")
    assert image.get_attribute("src") == f"full/{unlabelled.images.id_of(first)}"
    facts = unlabelled.images.facts(unlabelled.images.id_of(first))
    _until(tab, f"document.querySelector('.viewer img').naturalWidth === {facts.width}")  # no pixel is lost
    assert _asked(tab) == {}  # it was looked at, not searched with
    tab.keyboard.press("+")
    assert image.evaluate("image => new DOMMatrix(getComputedStyle(image).transform).a") == 2
    tab.keyboard.press("0")
    assert image.evaluate("image => new DOMMatrix(getComputedStyle(image).transform).a") == 1
    image.click()
    assert image.evaluate("image => new DOMMatrix(getComputedStyle(image).transform).a") > 2
    tab.keyboard.press("ArrowRight")
    viewer.get_by_text(second).first.wait_for()
    tab.keyboard.press("i")
    tab.locator("dialog.details").get_by_role("heading", name=second).wait_for()
    tab.keyboard.press("Enter")
    viewer.get_by_text(second).first.wait_for()
    tab.keyboard.press("Escape")
    assert not viewer.is_visible()
    for path in (first, second):
        _picture(tab, path).locator(".picture").click(modifiers=["Control"])
    tab.get_by_role("button", name="Side by side").click()
    assert viewer.locator("figcaption").all_inner_texts() == [first, second]
    tab.keyboard.press("+")  # both come closer
    assert len(set(viewer.locator("img").evaluate_all("all => all.map(each => each.style.transform)"))) == 1
    viewer.get_by_role("button", name="Close").click()
    _picture(tab, _paths(tab)[6]).locator(".picture").click(modifiers=["Control"])
    assert tab.get_by_role("button", name="Side by side").count() == 0  # of three


def test_a_rectangle_drawn_around_pictures_selects_them_and_searches_for_nothing(tab: Any) -> None:
    first, second = (tab.locator("#massl-find .tile").nth(place).bounding_box() for place in (0, 1))
    tab.mouse.move(first["x"] + 30, first["y"] + first["height"] - 6)
    tab.mouse.down()
    tab.mouse.move(second["x"] + 40, second["y"] + 50, steps=4)
    tab.mouse.up()
    assert tab.locator("#massl-find .tile.chosen").count() == 2
    assert tab.locator(".chip").count() == 0


def test_a_double_click_looks_at_the_picture_that_was_clicked(tab: Any, unlabelled: Collection) -> None:
    _picture(tab, "flag/brazil.jpg").locator(".picture").dblclick()
    viewer = tab.get_by_role("dialog", name="Full-size view")
    viewer.get_by_text("flag/brazil.jpg").first.wait_for()
    # Back closes it, and leads nowhere else; so does Escape, and Back leads on from there.
    tab.go_back()
    viewer.wait_for(state="hidden")
    assert tab.locator(".chip").count() == 0  # the first of the two clicks was no search
    _picture(tab, "flag/brazil.jpg").locator(".picture").click()
    _until(tab, "document.querySelectorAll('.chip').length === 1")
    tab.locator("#massl-find .picture").first.focus()
    tab.keyboard.press("Enter")
    viewer.wait_for()
    tab.keyboard.press("Escape")
    viewer.wait_for(state="hidden")
    _until(tab, "document.querySelectorAll('.chip').length === 1")
    tab.go_back()
    _until(tab, "document.querySelectorAll('.chip').length === 0")


def test_a_small_picture_is_not_blown_up(tab: Any) -> None:
    _picture(tab, "flag/brazil.jpg").locator(".picture").dblclick()
    tab.get_by_role("dialog", name="Full-size view").locator("img").wait_for()
    style = "getComputedStyle(document.querySelector('.viewer[open] .shot img')).objectFit"
    assert tab.evaluate(style) == "scale-down"


def test_pictures_are_filtered_by_quality_hints(unlabelled: Collection, tmp_path: Path) -> None:
    counts = quality.counts(unlabelled.catalog)
    assert counts
    find, session = FindScreen(unlabelled, tmp_path), Session()
    for hint, (count, _) in counts.items():
        screen = find.do(session, {"do": "ask", "quality": [hint]})
        assert screen["filters"]["quality"] == [hint]
        assert len(screen["sections"][0]["tiles"]) == count
        wanted = Filter(quality=quality.bounds(unlabelled.catalog, [hint]))
        paths = {path for _, path, _ in unlabelled.images.browse(wanted)}
        assert {tile["path"] for tile in screen["sections"][0]["tiles"]} == {readable(path) for path in paths}
    assert "there is no hint" in find.do(session, {"do": "ask", "quality": ["ugly"]})["message"]["text"].lower()
    assert find.do(session, {"do": "ask"})["filters"]["quality"] == []


def test_pictures_are_filtered_by_what_their_files_say(unlabelled: Collection, tmp_path: Path) -> None:
    find, session = FindScreen(unlabelled, tmp_path), Session()

    def ask(**wanted: object) -> dict[str, Any]:
        return find.do(session, {"do": "ask", **wanted})

    drawn = ask(named="FLAG jpg", orientation="landscape")
    paths = {tile["path"] for tile in drawn["sections"][0]["tiles"]}
    assert paths
    assert all(path.startswith("flag/") for path in paths)
    assert (drawn["filters"]["named"], drawn["filters"]["orientation"]) == ("FLAG jpg", "landscape")
    for wanted, said in (
        ({"orientation": "round"}, "there are: landscape, portrait, square"),
        ({"rating": 9}, "A rating is 1 to 5 stars"),
        ({"rating": "x"}, "A rating is 1 to 5 stars"),
        ({"rating": 3}, "no picture has a rating"),
        ({"cameras": ["Zorki"]}, "no picture says which camera took it"),
        ({"named": "atlantis"}, "'atlantis' in its path"),
        ({"named": 7}, "something unexpected"),
    ):
        assert said in ask(**wanted)["message"]["text"], wanted


def test_unusual_pictures_are_those_that_are_so_now(
    unlabelled: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, session = FindScreen(unlabelled, tmp_path), Session()
    monkeypatch.setattr("app.screens.find.PATIENCE", 0.0)
    ids, scores = unlabelled.anomalies.by_image()
    monkeypatch.setattr(quality, "_FAR", replace(quality._FAR, limits=(0, float(np.sort(scores)[-3]))))
    drawn = find.do(session, {"do": "ask", "quality": ["unusual"]})
    while drawn["waiting"]:
        assert drawn["empty"] == "All pictures are being compared for this."
        drawn = find.do(session, {"do": "look"})
    bound = unlabelled.images.quality_bounds(["unusual"])[0].bound
    assert {tile["id"] for tile in drawn["sections"][0]["tiles"]} == set(ids[scores > bound].tolist()) != set()
    monkeypatch.setattr(quality, "_FAR", replace(quality._FAR, limits=(2, 2)))
    drawn = find.do(session, {"do": "ask", "quality": ["unusual"], "folders": ["flag"]})
    while drawn["waiting"]:
        drawn = find.do(session, {"do": "look"})
    assert drawn["empty"] == "No picture that passes the other filters is unusual. Remove one."


def test_words_of_the_path_are_typed_in_the_filters_and_stand_in_the_address(tab: Any, visit: Visit) -> None:
    narrowed(tab, "quality hints")
    tab.get_by_text("More filters", exact=True).click()
    assert not tab.get_by_label("At least so many stars").is_visible()  # no picture has any
    words = tab.get_by_label("Words that the path of a picture has, such as a place")
    words.fill("flag brazil")
    words.press("Enter")
    _until(tab, "document.querySelectorAll('#massl-find .tile').length === 1")
    _until(tab, "location.search.includes('named=flag+brazil')")
    with visit(tab.url) as other:
        _until(other, "document.querySelectorAll('#massl-find .tile').length === 1")
        assert other.get_by_text("More filters (1)").is_visible()


def test_a_quality_hint_is_chosen_in_the_filters_and_stands_in_the_address(
    tab: Any, visit: Visit, unlabelled: Collection
) -> None:
    hint, (count, _) = next(iter(quality.counts(unlabelled.catalog).items()))
    narrowed(tab, "quality hints")
    tab.locator("summary[aria-label^='Only these quality hints']").click()
    tab.get_by_role("checkbox", name=hint, exact=True).check()
    _until(tab, f"document.querySelectorAll('#massl-find .tile').length === {count}")
    _until(tab, f"location.search.includes('quality={hint}')")
    with visit(tab.url) as other:
        _until(other, f"document.querySelectorAll('#massl-find .tile').length === {count}")


def test_the_keys_are_listed_behind_a_question_mark(tab: Any) -> None:
    tab.locator("#massl-find .picture").first.focus()
    tab.keyboard.press("?")
    sheet = tab.get_by_role("dialog", name="Keys")
    assert "more like the picture" in sheet.inner_text()
    tab.keyboard.press("Escape")
    tab.locator("#massl-find").get_by_role("button", name="Keys").click()
    sheet.get_by_role("button", name="Close").click()
    assert not sheet.is_visible()


def test_among_five_hundred_folders_one_types_to_find_some(visit: Visit, tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / "many" / f"year {number:03}").mkdir(parents=True)
        (tmp_path / "many" / f"year {number:03}" / "a.bmp").write_bytes(picture(number))
    made = Collection.create(tmp_path / "many", Encoder.load(write_encoder(tmp_path / "tiny.onnx")))
    made.update()
    size = {"width": 390, "height": 800}
    with serve(made, "127.0.0.1", 0, None) as address, visit(str(address), viewport=size) as tab:
        narrowed(tab, "folders")
        _until(tab, "document.querySelectorAll('details[open] li').length === 500")
        tab.get_by_label("Search the folders").fill("YEAR 49")
        assert tab.locator("details[open] li:visible").count() == 10
        box = tab.locator("details[open] .panel").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        for name in ("year 491", "year 499"):
            tab.get_by_role("checkbox", name=f"{name} (1)").check()
        _until(tab, "document.querySelectorAll('#massl-find .tile').length === 2")
        assert _paths(tab) == ["year 491/a.bmp", "year 499/a.bmp"]


@pytest.mark.parametrize("examples", [0, 1])
@pytest.mark.parametrize("filters", [{}, {"folders": ["a", "b"]}, {"until": "2020-01-02"}, {"since": "2020-01-03"}])
def test_pages_follow_each_other_without_gap_or_repetition(
    many: Collection, tmp_path: Path, examples: int, filters: dict[str, Any]
) -> None:
    find, session = FindScreen(many, tmp_path), Session()
    image = many.images.ready(1)[0][0]
    screen = find.do(session, {"do": "ask", "examples": [{"image": image}] * examples, **filters})
    tiles, more = screen["sections"][0]["tiles"], screen["sections"][0]["more"]
    pages = 1
    while more:
        answer = find.do(session, {"do": "more", "from": len(tiles), "serial": screen["serial"]})
        again = find.do(session, {"do": "more", "from": len(tiles), "serial": screen["serial"]})
        assert again["tiles"] == answer["tiles"]  # asked twice, as after an answer that was lost
        tiles, more = tiles + answer["tiles"], answer["more"]
        pages += 1
    assert pages == -(-len(tiles) // PAGE)
    old = {path for path in (path for _, path in many.images.ready()) if int(Path(path).stem) % 10 == 0}
    expected = {
        path
        for _, path in many.images.ready()
        if ("folders" not in filters or path[0] in "ab")
        and ("until" not in filters or path in old)
        and ("since" not in filters or path not in old)
    } - ({many.images.ready(1)[0][1]} if examples else set())
    assert {tile["path"] for tile in tiles} == expected
    assert len(tiles) == len(expected)
    # Drawn anew, as after a label was given, it is all there still.
    assert [tile["id"] for tile in find.do(session, {"do": "start"})["sections"][0]["tiles"]] == [
        t["id"] for t in tiles
    ]


def _all(find: FindScreen, session: Session, **asked: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The screen as it is drawn for a question, and the pictures of all of its pages."""
    screen = find.do(session, {"do": "ask", **asked})
    tiles, more = screen["sections"][0]["tiles"], screen["sections"][0]["more"]
    while more:
        page = find.do(session, {"do": "more", "from": len(tiles), "serial": screen["serial"]})
        tiles, more = tiles + page["tiles"], page["more"]
    return screen, tiles


def test_all_pictures_are_ordered_with_a_heading_for_each_month_and_folder(many: Collection, tmp_path: Path) -> None:
    find, session = FindScreen(many, tmp_path), Session()
    for sort in ORDERS:
        screen, tiles = _all(find, session, sort=sort)
        assert [tile["id"] for tile in tiles] == [each.image for each in many.images.ordered(sort)]
        assert screen["listing"]["sort"] == sort
        assert sort in {order["key"] for order in screen["orders"]}
    _, oldest = _all(find, session, sort="oldest")
    headings = [(place, tile["heading"]) for place, tile in enumerate(oldest) if "heading" in tile]
    assert headings[0] == (0, "January 2020")
    assert headings[1][0] == 13  # all that are old; headings go on over the pages
    assert len(headings) == 2
    _, folders = _all(find, session, sort="folder", folders=["a", "c"])
    assert [tile["heading"] for tile in folders if "heading" in tile] == ["a", "c"]
    many.tags.give([(tile["id"], "sea") for tile in folders[:2]], "me")
    _, tagged = _all(find, session, sort="tag")
    assert [(place, tile["heading"]) for place, tile in enumerate(tagged) if "heading" in tile] == [
        (0, "sea"),
        (2, "No tag"),
    ]
    many.tags.remove([(tile["id"], "sea") for tile in folders[:2]])
    _, taken = _all(find, session, sort="taken")
    assert [tile["heading"] for tile in taken if "heading" in tile] == ["Date not known"]
    _all(find, session, sort="folder")
    refused = find.do(session, {"do": "ask", "sort": "random"})
    assert refused["message"]["kind"] == "error"
    assert refused["listing"]["sort"] == "folder"


def test_the_best_of_a_search_are_put_in_another_order_with_their_scores(
    many: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.screens.listings.BEST", 60)
    find, session = FindScreen(many, tmp_path), Session()
    image = many.images.ready(1)[0][0]
    best = {result.image: f"{result.score:z.2f}" for result in many.search([Query(image=image)], 60)}
    screen, tiles = _all(find, session, examples=[{"image": image}], sort="newest")
    assert [tile["id"] for tile in tiles] == [each.image for each in many.images.ordered("newest", images=list(best))]
    assert {tile["id"]: tile["score"] for tile in tiles} == best
    assert screen["sections"][0]["title"] == "Newest first, of the 60 most similar pictures"
    assert screen["levels"] == []  # a least score cuts off the end of a list by scores alone


def test_an_order_is_chosen_and_stands_in_the_address(tab: Any, visit: Visit, unlabelled: Collection) -> None:
    tab.get_by_label("Order of the pictures").select_option("By folder")
    _until(tab, "location.search === '?sort=folder'")
    tab.get_by_role("heading", name="flag", exact=True).wait_for(state="attached")
    folders = [str(Path(each.path).parent) for each in unlabelled.images.ordered("folder")][: len(_paths(tab))]
    shown = tab.locator("#massl-find .tiles .heading").all_inner_texts()
    assert shown == [readable(name) if name != "." else "In no folder" for name in dict.fromkeys(folders)]
    with visit(tab.url) as other:
        other.locator("#massl-find .tiles .heading").first.wait_for()
        assert other.get_by_label("Order of the pictures").input_value() == "folder"
        assert _paths(other)[: len(shown)] == _paths(tab)[: len(shown)]
    tab.go_back()
    _until(tab, "document.querySelectorAll('#massl-find .tiles .heading').length === 0")
    assert tab.get_by_label("Order of the pictures").input_value() == ""


def test_a_time_line_goes_by_months_or_where_there_are_many_by_years() -> None:
    months = {"2019-12": 3, "2020-02": 1, "0000-01": 9, "2020-1x": 9}
    assert [(step.since, step.until, step.name, step.count) for step in time_line(months)] == [
        ("2019-12-01", "2019-12-31", "December 2019", 3),
        ("2020-02-01", "2020-02-29", "February 2020", 1),
    ]
    many = {f"{year}-{month:02}": month for year in range(2001, 2009) for month in range(1, 13)}
    assert [(step.since, step.until, step.name, step.count) for step in time_line(many)][::7] == [
        ("2001-01-01", "2001-12-31", "2001", 78),
        ("2008-01-01", "2008-12-31", "2008", 78),
    ]
    assert time_line({"2019-12": 3}) == time_line({}) == ()


@pytest.fixture
def dated(unlabelled: Collection) -> Iterator[Collection]:
    """The collection, of which the flags say that they were taken in two months."""
    flags = [image for image, path in unlabelled.images.ready() if path.startswith("flag/")]

    def say(taken: str | None, images: list[int]) -> None:
        with unlabelled.catalog.writing() as connection:
            for image in images:
                connection.execute("UPDATE file_metadata SET taken = ? WHERE image = ?", [taken, image])

    say("2019-05-02T10:00:00", flags[:3])
    say("2021-08-02", flags[3:])
    yield unlabelled
    say(None, flags)


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_time_line_leads_to_a_month_and_back(
    visit: Visit, site: str, dated: Collection, size: dict[str, Any]
) -> None:
    with visit(site, **size) as tab:
        line = tab.get_by_role("group", name="Months and years with pictures")
        bars = line.get_by_role("button")
        today = len(dated) - 9  # by the date of the file
        names = [str(bar.get_attribute("title")) for bar in bars.all()]
        assert names[:2] == ["May 2019: 3 pictures", "August 2021: 6 pictures"]
        assert names[2].endswith(f": {today} pictures")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        line.get_by_role("button", name="May 2019").click()
        _until(tab, "location.search === '?since=2019-05-01&until=2019-05-31'")
        assert _paths(tab) == [each.path for each in dated.images.ordered("oldest")][:3]
        assert not tab.get_by_role("complementary", name="Filters").is_visible()  # the line says it
        assert [bar.get_attribute("aria-pressed") for bar in bars.all()] == ["true", "false", "false"]
        assert tab.locator(".time-line .said").inner_text() == "May 2019: 3 pictures"
        bars.first.focus()
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("Enter")
        _until(tab, "location.search === '?since=2021-08-01&until=2021-08-31'")
        assert len(_paths(tab)) == 6
        line.get_by_role("button", name="August 2021").click()
        _until(tab, "location.search === ''")
        assert len(bars.all()) == 3


def test_no_time_line_is_drawn_where_no_picture_says_when_it_was_taken(tab: Any) -> None:
    _paths(tab)
    assert tab.locator(".time-line").count() == 0


def test_a_subset_is_chosen_of_what_is_listed_or_selected(many: Collection, tmp_path: Path) -> None:
    find, session = FindScreen(many, tmp_path), Session()
    find.do(session, {"do": "ask", "folders": ["a"]})
    screen = find.do(session, {"do": "subset", "n": 12, "by": "typical"})
    wanted = many.subsets.choose(12, "typical", wanted=Filter(folders=("a",)))
    assert [tile["id"] for tile in screen["sections"][0]["tiles"]] == [item.image for item in wanted.images]
    assert screen["message"]["text"].startswith(f"Selected {len(wanted.images)} pictures: typical, of 44 pictures")
    assert screen["subset"]["shown"]
    assert screen["filters"]["folders"] == ["a"]

    chosen = [image for image, _ in many.images.ready(90)]
    screen = find.do(session, {"do": "subset", "n": 60, "by": "diverse", "images": chosen})
    ids = [tile["id"] for tile in screen["sections"][0]["tiles"]]
    assert ids == [item.image for item in many.subsets.choose(60, images=chosen).images]
    assert set(ids) <= set(chosen)
    assert not screen["sections"][0]["more"]  # all of it is there to be selected

    # Nothing is labelled: folders are balanced. What is no number, way or picture leaves all as it was.
    screen = find.do(session, {"do": "subset", "n": 9, "by": "balanced", "images": None})
    assert "balanced over folders" in screen["message"]["text"]
    before = screen["sections"]
    for payload in (
        {"n": 0, "by": "diverse"},
        {"n": 1001, "by": "diverse"},
        {"n": 5, "by": "worst"},
        {"by": "diverse"},
    ):
        refused = find.do(session, {"do": "subset", **payload})
        assert refused["message"]["kind"] == "error"
        assert refused["sections"] == before
    assert not find.do(session, {"do": "ask"})["subset"]["shown"]


def test_a_person_takes_a_subset_and_it_is_selected(tab: Any, unlabelled: Collection) -> None:
    tab.locator("#massl-find .taking summary").click()
    tab.get_by_label("Number of pictures in the subset").fill("5")
    tab.get_by_label("How the subset is chosen").select_option("diverse")
    tab.get_by_role("button", name="Select them").click()
    tab.get_by_role("heading", name="A subset of 5 pictures").wait_for()
    _until(tab, "document.querySelector('#massl-find .bar')?.innerText.includes('5 selected')")
    first = [item.path for item in unlabelled.subsets.choose(5).images]
    assert _paths(tab) == first

    # Of these five, two: what is selected is what is chosen from.
    tab.locator("#massl-find .taking summary").click()
    assert "Of the 5 selected" in tab.locator("#massl-find .taking").inner_text()
    tab.keyboard.press("Escape")  # closes the menu, and leaves the selection
    assert not tab.get_by_label("Number of pictures in the subset").is_visible()
    assert "5 selected" in tab.locator("#massl-find .bar").inner_text()
    tab.locator("#massl-find .taking summary").click()
    tab.get_by_label("Number of pictures in the subset").fill("2")
    tab.get_by_label("Number of pictures in the subset").press("Enter")
    _until(tab, "document.querySelector('#massl-find .bar')?.innerText.includes('2 selected')")
    assert set(_paths(tab)) < set(first)


def test_an_answer_to_an_earlier_question_brings_nothing(many: Collection, tmp_path: Path) -> None:
    find, session = FindScreen(many, tmp_path), Session()
    first = find.do(session, {"do": "ask", "examples": []})
    find.do(session, {"do": "similar", "image": many.images.ready(1)[0][0]})
    late = find.do(session, {"do": "more", "from": PAGE, "serial": first["serial"]})
    assert (late["tiles"], late["serial"]) == ([], None)  # so that it is not taken for the end of the new one's
    for payload in ({"do": "more"}, {"do": "details", "image": 10**6}, {"do": "details", "image": "x"}):
        assert find.do(session, payload)["error"].endswith(".")


class Busy(Searcher):
    """A search during which something happens."""

    meanwhile: Callable[[], Any] | None = None

    def describe(self, *asked: Any) -> Any:
        """See `Searcher.describe`."""
        found = super().describe(*asked)
        happens, self.meanwhile = self.meanwhile, None
        if happens:
            happens()
        return found


def test_a_page_and_a_new_question_at_the_same_time_don_t_mix(many: Collection, tmp_path: Path) -> None:
    busy = Busy(many.root, many.folder, many.catalog, LADDER, lambda: many.encoder)
    collection = Collection.open(many.root)
    collection.searcher = busy
    find, session = FindScreen(collection, tmp_path), Session()
    first, second = (image for image, _ in many.images.ready(2))
    serial = find.do(session, {"do": "similar", "image": first})["serial"]
    busy.meanwhile = lambda: find.do(session, {"do": "similar", "image": second})
    late = find.do(session, {"do": "more", "from": PAGE, "serial": serial})
    assert (late["tiles"], late["serial"]) == ([], None)

    # And while the screen is drawn, a page that is fetched changes nothing of what is drawn.
    serial = find.do(session, {"do": "start"})["serial"]
    busy.meanwhile = lambda: find.do(session, {"do": "more", "from": PAGE, "serial": serial})
    drawn = find.do(session, {"do": "start"})["sections"][0]
    assert (len(drawn["tiles"]), drawn["more"]) == (PAGE, True)


def test_an_encoder_that_can_t_say_why_says_so(many: Collection, tmp_path: Path) -> None:
    find, session = FindScreen(many, tmp_path), Session()
    first, second = (image for image, _ in many.images.ready(2))
    find.do(session, {"do": "similar", "image": first})
    answer = find.do(session, {"do": "why", "image": second})
    assert "cosines" not in answer
    assert answer["said"].startswith("The encoder tiny describes pictures only as a whole, not part by part")


def test_a_collection_that_grows_is_searched_as_it_is_now(many: Collection, tmp_path: Path) -> None:
    find, session = FindScreen(many, tmp_path), Session()
    image = many.images.ready(1)[0][0]
    find.do(session, {"do": "similar", "image": image})
    twin = many.root / "twin.bmp"
    twin.write_bytes(picture(0) + b" ")
    many.update()
    tiles = find.do(session, {"do": "start"})["sections"][0]["tiles"]
    assert tiles[0]["path"] == "twin.bmp"
    twin.unlink()
    many.update()
    assert "twin.bmp" not in {tile["path"] for tile in find.do(session, {"do": "start"})["sections"][0]["tiles"]}


def test_own_pictures_are_forgotten_in_the_end_but_not_those_in_use(
    many: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.screens.find.MOST_UPLOADS", 3)
    find, session = FindScreen(many, tmp_path), Session()
    for number in range(5):
        (tmp_path / "u").mkdir(exist_ok=True)
        (tmp_path / "u" / "x").write_bytes(picture(number, "PNG"))
        screen = find.do(session, {"do": "upload", "path": str(tmp_path / "u" / "x"), "name": "x", "add": number == 1})
        if number == 0:
            first = screen["asked"]["examples"]
    assert screen["asked"]["examples"][0]["upload"] != first[0]["upload"]
    gone = find.do(session, {"do": "ask", "examples": first})
    assert "choose it again" in gone["message"]["text"]
    assert gone["asked"] == screen["asked"]  # what was there stays


def test_a_picture_of_the_same_kind_is_not_called_as_good_as_nothing() -> None:
    # Other red roses score as much as many pictures of the folder do: that is no copy, and yet what was looked for.
    told = [chance_short(8.0, 3), chance(8.0, 3), among(8.0, 3)]
    assert not any(word in " ".join(told).lower() for word in ("chance", "weak", "unrelated"))
    assert "same kind" in chance(8.0, 3)
    assert chance_short(0.01, 1) == "unlikely by chance"
    good = Result(3, 7, "roses/red.jpg", 0.71, "weak", 8.0, None)
    assert not {"band", "bandName", "chance"} & set(match_tile(good))  # no tag that says nothing
    assert match_tile(replace(good, match="same", false_matches=0.001))["bandName"] == "Same"
    assert among(2.0, 10) == "about 2 of them by chance"


def test_a_similarity_of_nothing_has_no_sign() -> None:
    """As of pictures that have nothing in common with the example, whose cosine is a little below 0."""
    scores = np.array([0.018, -0.001, -0.0049, -0.021], np.float32)
    ranking = Ranking(np.arange(4), scores, Calibration(), None, 4)
    results = [Result(rank, rank, "a.jpg", score, "weak", 9.0, None) for rank, score in enumerate(scores.tolist(), 1)]
    assert [match_tile(result)["score"] for result in results] == ["0.02", "0.00", "0.00", "-0.02"]
    assert [f"{level['score']:.2f}" for level in levels(ranking)] == ["-0.02", "-0.01", "0.00", "0.01"]
    assert "-0.00" not in heat_words(scores[1:3].reshape(1, 2), (0.0, 0.0, 1.0, 1.0))


def test_the_least_usual_pictures_come_first_and_show_where(tab: Any, unlabelled: Collection) -> None:
    tab.get_by_label("Order of the pictures").select_option("unusual")
    tab.wait_for_selector("#massl-find .tile .score")
    ids, scores = unlabelled.anomalies.by_image()
    order = unlabelled.images.paths_of(ids[np.argsort(-scores, kind="stable")].tolist())
    shown = _paths(tab)
    assert shown == list(order[: len(shown)])
    _picture(tab, shown[0]).hover()
    _picture(tab, shown[0]).get_by_role("button", name="About this picture").click()
    tab.wait_for_selector("dialog.details canvas")
    assert "Where it is unusual" in tab.locator("dialog.details .why").inner_text()


def test_the_order_by_unusualness_waits_for_the_comparison_and_keeps_filters(
    unlabelled: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, session = FindScreen(unlabelled, tmp_path), Session()
    monkeypatch.setattr("app.screens.find.PATIENCE", 0.0)
    drawn = find.do(session, {"do": "ask", "sort": "unusual", "folders": ["flag"]})
    while drawn["waiting"]:
        assert drawn["empty"] == "All pictures are being compared for this."
        drawn = find.do(session, {"do": "look"})
    tiles = drawn["sections"][0]["tiles"]
    ids, scores = unlabelled.anomalies.by_image()
    kept = dict(zip(ids.tolist(), scores.tolist(), strict=True))
    assert {tile["path"].split("/")[0] for tile in tiles} == {"flag"}
    assert len(tiles) == unlabelled.images.count(Filter(folders=("flag",)))
    assert [kept[tile["id"]] for tile in tiles] == sorted((kept[tile["id"]] for tile in tiles), reverse=True)
    best = find.do(session, {"do": "ask", "examples": [{"image": tiles[0]["id"]}], "sort": "unusual"})
    assert tiles[0]["id"] not in {tile["id"] for tile in best["sections"][0]["tiles"]}
