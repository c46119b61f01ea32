"""The screen "Duplicates": what a person sees and decides, and what is remembered."""

from __future__ import annotations

import csv
import io
import os
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.screens.duplicates import DuplicatesScreen
from app.server import serve
from app.session import Session
from indexer import Collection, Encoder
from indexer.duplicates.collection_duplicates import CollectionDuplicates
from indexer.duplicates.detection import Duplicates
from indexer.duplicates.plan import action
from indexer.jobs.background import BackgroundJob
from tests.app.conftest import DAY, HOSTILE, Visit, lines, show
from tests.forked import Forks
from tests.indexer.copies import copy_of
from tests.indexer.tiny import picture, write_encoder


@pytest.fixture(scope="module")
def copied(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """30 pictures; one has an exact copy of a hostile name, another a smaller copy."""
    root = tmp_path_factory.mktemp("copied")
    for kind in ("antique", "bug", "space"):
        for file in sorted((pictures / kind).glob("*.jpg"))[:10]:
            shutil.copy(file, root / f"{kind}-{file.name}")
    first, second = sorted(root.glob("antique-*.jpg"))[:2]
    (root / "other").mkdir()
    shutil.copy(first, root / "other" / HOSTILE)
    copy_of(second, "smaller", root / "other")
    made = Collection.create(root)
    made.update()
    return made


@pytest.fixture
def undecided(copied: Collection) -> Collection:
    """The same without any decision."""
    copied.decisions.forget()
    return copied


@pytest.fixture(scope="module")
def found(copied: Collection) -> Duplicates:
    """What is found in it."""
    return copied.duplicates.find()


def screen_of(collection: Collection, found: Duplicates | None = None) -> DuplicatesScreen:
    """The screen once it has looked; with what was found before, as that takes seconds."""
    screen = DuplicatesScreen(collection, Path())
    if found is not None:
        screen._finding = BackgroundJob(lambda report: found)
    screen.do(Session(), {"do": "find"})
    screen._finding.wait(60)
    return screen


def files(drawn: dict[str, Any]) -> list[dict[str, str]]:
    """Path to role, a group each."""
    return [{file["path"]: file["role"] for file in group["files"]} for group in drawn["groups"]]


def contents(collection: Collection) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in collection.root.rglob("*.jpg")}


def test_groups_are_decided_remembered_and_taken_away_as_a_plan(undecided: Collection, found: Duplicates) -> None:
    before = contents(undecided)
    screen, session = screen_of(undecided, found), Session()
    drawn = screen.do(session, {"do": "start"})
    assert [sorted(group.values()) for group in files(drawn)] == [["copy", "suggested"]] * 2
    assert [entry["count"] for entry in drawn["filters"]] == [2, 0, 0]
    exact, near = drawn["groups"]
    assert HOSTILE in {file["name"] for file in exact["files"]}
    assert exact["files"][1]["note"] == "Same content"
    assert near["files"][0]["note"] == "Most pixels"

    copy = near["files"][1]
    drawn = screen.do(session, {"do": "choose", "image": copy["id"]})
    assert copy["path"] in drawn["message"]["text"]
    assert files(drawn) == files({"groups": [exact]})
    drawn = screen.do(session, {"do": "filter", "filter": "decided"})
    assert files(drawn) == [{copy["path"]: "chosen", near["files"][0]["path"]: "copy"}]

    # The plan tells what somebody decided from what is merely suggested.
    rows = list(csv.DictReader(io.StringIO(screen.do(session, {"do": "csv"})["download"]["text"])))
    told = {row["path"]: (row["action"], row["decided"], row["reason"]) for row in rows}
    assert told[copy["path"]] == ("keep", "yes", "chosen")
    assert told[near["files"][0]["path"]][:2] == ("remove", "yes")
    assert told[exact["files"][0]["path"]][:2] == ("keep", "no")
    assert told[exact["files"][0]["path"]][2] == exact["files"][0]["note"].lower()
    assert told[exact["files"][1]["path"]] == ("remove", "no", "same content")

    screen.do(session, {"do": "filter", "filter": "open"})
    drawn = screen.do(session, {"do": "both", "image": exact["image"]})
    assert (drawn["groups"], drawn["empty"]) == ([], "Every group is decided.")
    assert [entry["count"] for entry in drawn["filters"]] == [0, 1, 1]

    # Another session, another start of the page: the decisions are there, and so is the plan.
    later = screen_of(Collection.open(undecided.root)).do(Session(), {"do": "csv"})
    assert [entry["count"] for entry in later["filters"]] == [0, 1, 1]
    rows = list(csv.DictReader(io.StringIO(later["download"]["text"])))
    assert [(row["path"], row["action"]) for row in rows] == [
        (copy["path"], "keep"),
        (near["files"][0]["path"], "remove"),
    ]
    assert contents(undecided) == before

    # Step by step back to where it began.
    for _ in range(2):
        drawn = screen.do(session, {"do": "undo"})
    assert files(drawn) == files({"groups": [exact, near]})
    assert screen.do(session, {"do": "undo"})["message"]["text"] == "There is nothing to undo."


def test_all_exact_copies_are_accepted_at_once_and_near_ones_are_left_to_decide(
    undecided: Collection, found: Duplicates
) -> None:
    screen, session = screen_of(undecided, found), Session()
    drawn = screen.do(session, {"do": "start"})
    exact, near = drawn["groups"]
    assert drawn["exact"] == 1
    drawn = screen.do(session, {"do": "exact"})
    assert "1 group; 1 file of the same content" in drawn["message"]["text"]
    assert files(drawn) == files({"groups": [near]})
    assert drawn["exact"] == 0
    rows = list(csv.DictReader(io.StringIO(screen.do(session, {"do": "csv"})["download"]["text"])))
    decided = {row["path"]: row["decided"] for row in rows}
    assert {decided[file["path"]] for file in exact["files"]} == {"yes"}
    assert {decided[file["path"]] for file in near["files"]} == {"no"}
    assert "no group left" in screen.do(session, {"do": "exact"})["message"]["text"]
    assert files(screen.do(session, {"do": "undo"})) == files({"groups": [exact, near]})


def test_what_the_plan_asks_to_look_at_says_so_on_the_picture(undecided: Collection, found: Duplicates) -> None:
    screen = screen_of(undecided, found)
    (near,) = (group[1] for group in found.groups if group[1].kind == "near")
    surely = replace(near, edit="", score=0.99)
    for item, tags in (
        (surely, []),
        (replace(near, edit="mirrored", score=0.99), ["Mirrored", "Please look"]),
        (replace(near, edit="", score=0.8), ["Please look"]),
        (replace(surely, kind="exact"), []),
    ):
        assert screen._file(item, 1, False, "")["tags"] == tags
        assert ("Please look" in tags) is (action(item) == "look")  # as the plan says


def test_a_copy_that_came_after_the_choice_brings_its_group_back(undecided: Collection, found: Duplicates) -> None:
    screen, session = screen_of(undecided, found), Session()
    near = next(group for group in found.groups if group[1].kind == "near")
    undecided.decisions.choose(near[0].image, [])  # the copy was not there yet
    drawn = screen.do(session, {"do": "start"})
    assert [entry["count"] for entry in drawn["filters"]] == [2, 0, 0]
    (group,) = (group for group in drawn["groups"] if group["image"] == near[0].image)
    assert (group["files"][0]["role"], group["files"][0]["note"]) == ("suggested", "You chose it; copies came since")
    drawn = screen.do(session, {"do": "choose", "image": near[0].image})
    assert [entry["count"] for entry in drawn["filters"]] == [1, 1, 0]


def test_a_file_that_is_no_copy_leaves_its_group(undecided: Collection, found: Duplicates) -> None:
    screen, session = screen_of(undecided, found), Session()
    (near,) = [group for group in screen.draw(session)["groups"] if any(file["apart"] for file in group["files"])]
    (copy,) = [file for file in near["files"] if file["apart"]]
    exact = [
        file for group in screen.draw(session)["groups"] for file in group["files"] if file["note"] == "Same content"
    ]
    assert not any(file["apart"] for file in exact)
    drawn = screen.do(session, {"do": "apart", "image": copy["id"]})
    assert copy["path"] not in [path for group in files(drawn) for path in group]
    drawn = screen.do(session, {"do": "undo"})
    assert copy["path"] in [path for group in files(drawn) for path in group]


def test_a_group_that_was_kept_whole_can_be_decided_again(undecided: Collection, found: Duplicates) -> None:
    screen, session = screen_of(undecided, found), Session()
    image = screen.do(session, {"do": "start"})["groups"][0]["image"]
    screen.do(session, {"do": "both", "image": image})
    drawn = screen.do(session, {"do": "filter", "filter": "kept"})
    (group,) = files(drawn)
    assert list(group.values()) == ["both", "both"]
    drawn = screen.do(session, {"do": "forget", "image": drawn["groups"][0]["image"]})
    assert drawn["groups"] == []
    assert len(screen.do(session, {"do": "filter", "filter": "open"})["groups"]) == 2


def test_what_one_looks_at_is_one_s_own_and_what_was_decided_everybody_s(
    undecided: Collection, found: Duplicates
) -> None:
    screen, ada, bob = screen_of(undecided, found), Session(), Session()
    screen.do(ada, {"do": "filter", "filter": "decided"})
    seen = screen.do(bob, {"do": "start"})
    assert (seen["filter"], len(seen["groups"]), seen["undo"]) == ("open", 2, False)
    screen.do(bob, {"do": "choose", "image": seen["groups"][0]["image"]})
    hers = screen.do(ada, {"do": "start"})
    assert (hers["filter"], len(hers["groups"]), hers["undo"]) == ("decided", 1, False)


def test_looking_is_shown_stopped_and_begun_again(undecided: Collection) -> None:
    screen, session = DuplicatesScreen(undecided, Path()), Session()
    reached, go = threading.Event(), threading.Event()
    find = screen._find_all

    def slowly(report: Any) -> Any:
        def told(step: str, done: int, total: int) -> None:
            reached.set()
            go.wait(20)
            report(step, done, total)

        return find(told)

    screen._finding = BackgroundJob(slowly)
    drawn = screen.do(session, {"do": "start"})  # a small collection is looked through unasked
    assert drawn["running"] is not None
    assert reached.wait(20)
    screen._finding.stop()
    go.set()
    screen._finding.wait(20)
    drawn = screen.do(session, {"do": "look"})
    assert drawn["running"] is None
    assert "Stopped" in drawn["problem"]
    screen.do(session, {"do": "find"})
    screen._finding.wait(60)
    assert len(screen.do(session, {"do": "look"})["groups"]) == 2


def test_the_plan_names_files_where_they_are_now(undecided: Collection, found: Duplicates) -> None:
    screen, session = screen_of(undecided, found), Session()
    group = next(group for group in found.groups if group[1].kind == "near")
    keep, other = (undecided.root / item.path for item in group)
    for one, another in ((keep, keep.with_name("x")), (other, keep), (keep.with_name("x"), other)):
        one.rename(another)
    undecided.update()
    rows = csv.DictReader(io.StringIO(screen.do(session, {"do": "csv"})["download"]["text"]))
    actions = {row["path"]: row["action"] for row in rows}
    assert actions[str(other.relative_to(undecided.root))] == "keep"
    assert actions[str(keep.relative_to(undecided.root))] == "remove"
    for one, another in ((keep, keep.with_name("x")), (other, keep), (keep.with_name("x"), other)):
        one.rename(another)
    undecided.update()


def test_the_command_on_the_page_does_what_the_downloaded_plan_says(tmp_path: Path, forks: Forks) -> None:
    root, saved = tmp_path / "my photos", tmp_path / "downloads"
    root.mkdir()
    saved.mkdir()
    for name in ("a.bmp", "b.bmp"):
        (root / name).write_bytes(picture(1))
    os.utime(root / "a.bmp", (1, 1))
    os.utime(root / "b.bmp", (5, 5))
    (root / "c.bmp").write_bytes(picture(2))
    made = Collection.create(root, Encoder.load(write_encoder(tmp_path / "tiny.onnx")), tmp_path / "the index")
    made.update()
    screen, session = screen_of(made), Session()
    drawn = screen.do(session, {"do": "csv"})
    (group,) = drawn["groups"]
    # Both are of one day: only the time tells which is the oldest.
    assert group["files"][0]["note"] == "Oldest"
    one, other = (file["date"] for file in group["files"])
    assert one[:-1] == other[:-1]
    assert (one[-1], other[-1]) == ("1", "5")
    (saved / drawn["download"]["name"]).write_text(drawn["download"]["text"], "utf-8")
    command, *arguments = shlex.split(drawn["apply"])
    assert command == "massl"
    done = forks.run(arguments, cwd=saved, environment=os.environ | {"XDG_DATA_HOME": str(tmp_path / "data")})
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in root.iterdir()) == ["a.bmp", "c.bmp"]


def test_pictures_that_came_since_make_the_page_say_so(undecided: Collection) -> None:
    screen, session = screen_of(undecided), Session()
    assert not screen.do(session, {"do": "start"})["stale"]
    new = undecided.root / "another.jpg"
    shutil.copy(sorted(undecided.root.glob("bug-*.jpg"))[0], new)
    undecided.update()
    drawn = screen.do(session, {"do": "start"})
    assert drawn["stale"]
    assert len(drawn["groups"]) == 2  # what was found is still there
    screen.do(session, {"do": "find"})
    screen._finding.wait(60)
    assert len(screen.do(session, {"do": "look"})["groups"]) == 3
    new.unlink()
    drawn = screen_of(undecided).do(Session(), {"do": "look"})
    assert len(drawn["groups"]) == 2
    assert "1 file has changed or gone since this folder was indexed, and left out." in drawn["summary"]
    undecided.update()
    assert len(screen.do(session, {"do": "start"})["groups"]) == 2


@pytest.mark.parametrize(
    "payload",
    [
        {"do": "choose"},
        {"do": "choose", "image": "1"},
        {"do": "choose", "image": 987654},
        {"do": "both", "image": None},
        {"do": "forget", "image": True},
        {"do": "undo"},
        {"do": "delete", "image": 1},
    ],
)
def test_whatever_a_browser_sends_nothing_is_decided(
    undecided: Collection, found: Duplicates, payload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    screen = screen_of(undecided, found)
    drawn = screen.do(Session(), payload)
    assert drawn["message"]["kind"] == "error"
    assert drawn["message"]["text"].endswith(".")
    assert [entry["count"] for entry in drawn["filters"]] == [2, 0, 0]
    assert caplog.records == []


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tab(visit: Visit, undecided: Collection) -> Iterator[Any]:
    """The screen, opened."""
    with serve(undecided, "127.0.0.1", 0, None) as address, visit(str(address), "Duplicates") as tab:
        yield tab


def test_a_person_decides_about_duplicates(tab: Any, undecided: Collection, tmp_path: Path) -> None:
    before = contents(undecided)
    board = tab.locator("#massl-duplicates")
    tab.wait_for_selector("#massl-duplicates .group")
    assert board.locator(".group").count() == 2
    assert "2 groups among 32 pictures" in board.locator(".words").inner_text()
    tab.wait_for_function("() => document.querySelector('#massl-duplicates .file img').naturalWidth > 100")
    assert board.get_by_text(HOSTILE).count() == 1  # as text
    assert tab.locator("img[src='x']").count() == 0

    first, second = (board.locator(".group").nth(place).bounding_box() for place in (0, 1))
    assert first["y"] == second["y"]  # beside each other: a desktop has room for several
    assert second["y"] + second["height"] < 900
    tab.set_viewport_size({"width": 1440, "height": 900})
    first, second = (board.locator(".group").nth(place).bounding_box() for place in (0, 1))
    assert first["y"] == second["y"]
    assert 4 * first["width"] + 3 * 12 <= 1440 - 2 * 24  # four beside each other,
    assert first["y"] + 2 * first["height"] + 12 <= 900  # and two rows of them: eight groups
    assert set(lines(tab, "#massl-duplicates", DAY)) == {1}  # no day is broken at one of its hyphens
    tab.set_viewport_size({"width": 1280, "height": 900})

    # A copy is looked at beside the file to keep.
    board.get_by_role("button", name="Look at ").first.click()
    viewer = tab.get_by_role("dialog", name="Full-size view")
    assert viewer.locator("figure").count() == 2
    tab.keyboard.press("Escape")

    near = board.locator(".group").nth(1)
    copy = near.locator(".file").nth(1)
    path = copy.locator(".path").inner_text()
    assert near.locator(".role").inner_text() == "Suggested to keep"
    copy.get_by_role("button", name="Keep this one").click()
    tab.wait_for_function("() => document.querySelectorAll('#massl-duplicates .group').length === 1")
    assert path in board.locator(".done").inner_text()
    board.get_by_role("button", name="Keep all").click()
    tab.wait_for_selector("#massl-duplicates .empty")
    assert board.locator(".empty").inner_text() == "Every group is decided."
    board.get_by_role("button", name="Decided 1").click()
    tab.wait_for_selector("#massl-duplicates .file.chosen")
    assert board.locator(".file.chosen .path").inner_text() == path

    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    board.get_by_role("button", name="Copy", exact=True).click()
    board.get_by_role("button", name="Copied").wait_for()
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied == board.locator(".command code").inner_text()
    assert shlex.split(copied)[-4:] == ["--apply", "duplicates.csv", "--by", "trash"]

    with tab.expect_download() as waiting:
        board.get_by_role("button", name="Download the plan as CSV").click()
    assert waiting.value.suggested_filename == "duplicates.csv"
    waiting.value.save_as(tmp_path / "plan.csv")
    rows = list(csv.DictReader((tmp_path / "plan.csv").open(encoding="utf-8")))
    assert (rows[0]["path"], rows[0]["action"]) == (path, "keep")
    assert contents(undecided) == before

    tab.reload()
    show(tab, "Duplicates")
    tab.wait_for_selector("#massl-duplicates .empty")
    board.get_by_role("button", name="Kept all 1").click()
    board.get_by_role("button", name="Decide again").click()
    board.get_by_role("button", name="To decide 1").click()
    tab.wait_for_selector("#massl-duplicates .file.suggested")
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
    assert set(lines(tab, "#massl-duplicates", DAY)) == {1}
    where, command = (board.locator(f".apply .{part}").bounding_box() for part in ("note", "command"))
    assert 0 <= command["y"] - where["y"] - where["height"] < 12  # nothing stands between a command and where to run it

    # What comes in meanwhile is told, and what was found stays until somebody searches again.
    assert board.locator(".behind").count() == 0
    new = undecided.root / "another.jpg"
    shutil.copy(undecided.root / path, new)
    undecided.update()
    try:
        tab.evaluate("document.dispatchEvent(new Event('massl-indexed'))")
        board.get_by_text("The index has changed since the groups were found.").wait_for()
        assert board.locator(".file.suggested").count() == 1
        assert board.get_by_role("button", name="Search again").is_visible()
    finally:
        new.unlink()
        undecided.update()


def test_without_duplicates_there_is_no_plan_to_take_away(visit: Visit, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for kind in ("antique", "bug", "fruit", "space"):
        shutil.copy(min((pictures / kind).glob("*.jpg")), tmp_path / "few" / f"{kind}.jpg")
    unlike = Collection.create(tmp_path / "few")
    unlike.update()
    with serve(unlike, "127.0.0.1", 0, None) as address, visit(str(address), "Duplicates") as tab:
        board = tab.locator("#massl-duplicates")
        board.get_by_text("No duplicates among 4 pictures").wait_for()
        assert board.get_by_role("button", name="plan").count() == 0


class Endless(CollectionDuplicates):
    """Looking for duplicates that never ends by itself."""

    def find(self, *, report: Any, **options: Any) -> Duplicates:
        """See `CollectionDuplicates.find`."""
        while True:
            report("pairs", 30, 100)
            time.sleep(0.02)


def test_looking_can_be_stopped_in_the_page_while_its_progress_is_drawn(visit: Visit, undecided: Collection) -> None:
    endless = Collection.open(undecided.root)
    endless.duplicates = Endless(endless.root, endless.catalog, endless.searcher.index)
    with serve(endless, "127.0.0.1", 0, None) as address, visit(str(address), "Duplicates") as tab:
        board = tab.locator("#massl-duplicates")
        for _ in range(2):
            tab.wait_for_function("() => document.querySelector('#massl-duplicates progress')?.value === 30")
            board.get_by_role("button", name="Stop").click()
            board.get_by_text("Stopped. Nothing was lost").wait_for()
            board.get_by_role("button", name="Find duplicates").click()
        board.get_by_role("button", name="Stop").click()
        board.get_by_text("Stopped. Nothing was lost").wait_for()
