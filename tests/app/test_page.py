"""The page as a person meets it, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer import Collection
from tests.app.conftest import HOSTILE, PHONE, Visit, answered, narrowed, show


@pytest.fixture
def page(visit: Visit, site: str, unlabelled: Collection) -> Iterator[Any]:
    """The page, opened."""
    with visit(site) as tab:
        yield tab


def _names(board: Any) -> list[str]:
    return board.locator(".tile .caption .name").all_text_contents()  # also of what is not in sight


def _all_fetched(tab: Any, collection: Collection) -> None:
    """Waits until further pages have come, as they do by themselves."""
    tab.wait_for_function(f"() => document.querySelectorAll('#massl-find .tile').length === {len(collection)}")


def _ask(tab: Any, file: Path) -> Any:
    tab.locator("#massl-find input[type=file]").set_input_files(file)
    return tab.locator("#massl-find")


def _select(board: Any, first: int, last: int) -> None:
    board.locator(".tick").nth(first).click()
    if last > first:
        board.locator(".tick").nth(last).click(modifiers=["Shift"])


def test_a_person_searches_and_labels(page: Any, photos: Path, unlabelled: Collection) -> None:
    board = page.locator("#massl-find")
    _all_fetched(page, unlabelled)  # never empty, before any question
    assert HOSTILE in _names(board)  # as text
    assert page.locator("h1").inner_text() == photos.name
    assert page.title().startswith(photos.name)
    assert page.locator("img[src='x']").count() == 0
    page.wait_for_function("() => document.querySelector('#massl-find .picture img').naturalWidth > 100")
    assert board.locator(".picture img").nth(0).get_attribute("alt") == HOSTILE

    # An upload finds its own copy first.
    _ask(page, photos / "flag" / "brazil.jpg")
    page.wait_for_selector("#massl-find .score")
    _all_fetched(page, unlabelled)
    found = _names(board)
    assert found[0] == "brazil.jpg"
    assert board.locator(".score").nth(0).inner_text() == "1.00"
    assert board.locator(".band").nth(0).text_content() == "Same\u00a0· unlikely by chance"

    # A click on a picture asks with that one.
    other = found[3]
    board.locator(".picture").nth(3).click()
    page.wait_for_function(f"() => document.querySelector('#massl-find .ask .name').innerText.endsWith('{other}')")
    assert other not in _names(board)
    assert _names(board) != found
    board.get_by_role("button", name="All pictures").click()
    page.wait_for_function("() => !document.querySelector('#massl-find .score')")
    _all_fetched(page, unlabelled)

    # Two classes: one by a range and Enter, one by single pictures and the button.
    names = _names(board)
    fruit, flags = names.index("apple.jpg"), names.index("argentina.jpg")
    _select(board, fruit, fruit + 3)
    assert board.locator(".tile.chosen").count() == 4
    board.locator(".bar input").fill("fruit")
    board.locator(".bar input").press("Enter")
    page.wait_for_function("() => document.querySelectorAll('#massl-find .badge').length === 4")
    for position in range(3):
        board.locator(".picture").nth(flags + position).click(modifiers=["Control"])
    board.locator(".bar input").fill("flag")
    board.get_by_role("button", name="Label", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#massl-find .badge').length === 7")
    # A third step by its key, taken back again.
    board.locator(".picture").nth(flags + 4).focus()
    page.keyboard.press(" ")
    page.keyboard.press("1")
    page.wait_for_function("() => document.querySelectorAll('#massl-find .badge').length === 8")
    board.get_by_role("button", name="Undo").click()
    page.wait_for_function("() => document.querySelectorAll('#massl-find .badge').length === 7")
    given = {item.path: item.label for item in unlabelled.labels.every()}
    assert sorted(given.values()) == ["flag"] * 3 + ["fruit"] * 4
    assert given["flag/argentina.jpg"] == "flag"
    assert {item.author for item in unlabelled.labels.every()} == {"page"}


def test_a_query_that_is_no_picture_gets_a_sentence(page: Any, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture at all")
    board = _ask(page, tmp_path / "text.jpg")
    page.wait_for_selector("#massl-find .message:not(:empty)")
    message = board.locator(".message").inner_text()
    assert message == "“text.jpg” can't be used as a picture: not an image, or of a format that is not supported."
    assert HOSTILE in _names(board)  # what was there stays
    (tmp_path / "empty.png").touch()
    _ask(page, tmp_path / "empty.png")
    page.wait_for_function("() => document.querySelector('#massl-find .message').innerText.includes('0 bytes')")


def test_a_picture_can_be_dropped_and_pasted(page: Any, photos: Path) -> None:
    name = "brazil.jpg"
    data = list((photos / "flag" / name).read_bytes())
    give = """([kind, data, name]) => {
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(data)], name, {type: 'image/jpeg'}));
        const event = kind === 'drop'
            ? new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true})
            : new ClipboardEvent('paste', {clipboardData: files, bubbles: true, cancelable: true});
        document.querySelector('#massl-find .ask').dispatchEvent(event);
    }"""
    board = page.locator("#massl-find")
    for kind in ("drop", "paste"):
        page.evaluate(give, [kind, data, f"{kind}.jpg"])
        page.wait_for_function(f"() => document.querySelector('#massl-find .ask').innerText.includes('{kind}.jpg')")
        assert _names(board)[0] == name


def test_two_people_don_t_see_each_other_s_search(
    page: Any, visit: Visit, site: str, photos: Path, unlabelled: Collection
) -> None:
    with visit(site) as other:
        _all_fetched(other, unlabelled)
        before = _names(other.locator("#massl-find"))
        _ask(page, photos / "flag" / "brazil.jpg")
        page.wait_for_selector("#massl-find .score")
        narrowed(other, "folders", "space")
        other.wait_for_function("() => document.querySelectorAll('#massl-find .tile').length === 9")
        assert set(_names(other.locator("#massl-find"))) < set(before)
        assert other.locator(".score").count() == 0
        _all_fetched(page, unlabelled)
        assert other.get_by_role("button", name="Undo").count() == 0


def test_the_page_fits_a_phone(visit: Visit, site: str, unlabelled: Collection) -> None:
    with visit(site, **PHONE) as tab:
        tab.locator("#massl-find .tick").nth(0).tap()
        tab.wait_for_selector("#massl-find .tile.chosen")
        assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
        box = tab.locator("#massl-find .bar").bounding_box()
        assert box["y"] + box["height"] <= 845  # the bar that labels is in sight without scrolling


def test_pictures_are_reached_and_selected_from_the_keyboard(page: Any, unlabelled: Collection) -> None:
    board = page.locator("#massl-find")
    _all_fetched(page, unlabelled)
    board.locator(".picture").nth(0).focus()
    for key in ("ArrowRight", "ArrowDown", " ", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert board.locator(".tile.chosen").count() == 2
    page.keyboard.press("Escape")
    assert board.locator(".tile.chosen").count() == 0
    page.keyboard.press("Control+a")
    assert board.locator(".tile.chosen").count() == len(unlabelled)
    board.locator(".bar input").fill("everything")
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => document.querySelectorAll('#massl-find .badge').length === {len(unlabelled)}")
    answered(page, "Search")
    board.locator(".picture").nth(0).focus()
    page.keyboard.press("Control+a")
    page.keyboard.press("i")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert board.locator(".tile.chosen").count() == len(unlabelled)  # the key was the details' own
    board.get_by_role("button", name="Remove label").click()
    page.wait_for_function("() => document.querySelectorAll('#massl-find .badge').length === 0")
    assert unlabelled.labels.every() == []


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_every_screen_has_its_tab_in_sight(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_function("() => document.querySelectorAll('.massl-tabs [role=tab]').length === 5")
    tabs = page.get_by_role("tab")
    for place in range(5):
        box = tabs.nth(place).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert tabs.nth(place).evaluate("tab => tab.scrollWidth <= tab.clientWidth")  # its name in full
    assert page.get_by_role("button", name="More tabs").count() == 0
    page.get_by_role("tab", name="Health").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#massl-health .card")
    assert page.evaluate("() => document.documentElement.scrollWidth") == width


def test_a_narrow_window_with_a_keyboard_shows_the_keys_and_their_button_whole(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    show(page, "Label")
    opens = page.locator("#massl-label").get_by_role("button", name="Keys")
    opens.wait_for()
    box = opens.bounding_box()
    assert box["width"] == box["height"]  # round, and not as wide as the window
    opens.click()
    keys = page.locator("#massl-label dialog.keys kbd")
    assert keys.count() > 5
    assert all(keys.nth(place).is_visible() for place in range(keys.count()))
