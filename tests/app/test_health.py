"""The screen "Health": what a person is told about the collection."""

from __future__ import annotations

import csv
import io
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.screens.health import HealthScreen
from app.server import serve
from app.session import Session
from indexer import Collection
from tests.app.conftest import Visit, show

BROKEN = "<img src=x onerror=alert(1)> broken.jpg"


@pytest.fixture(scope="module")
def grown(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Fruits and paintings; then flags came, and two files that are no pictures."""
    root = tmp_path_factory.mktemp("grown") / "my photos"
    for kind in ("fruit", "painting"):
        shutil.copytree(pictures / kind, root / kind)
    made = Collection.create(root)
    made.update()
    shutil.copytree(pictures / "flag", root / "flag")
    (root / BROKEN).write_text("no picture")
    (root / "empty.png").touch()
    made.update()
    return made


def settled(screen: HealthScreen, session: Session, do: str = "start") -> dict[str, Any]:
    """The screen once all is found out."""
    screen.do(session, {"do": do})
    screen._examining.wait(60)
    return screen.do(session, {"do": "look"})


def facts(drawn: dict[str, Any]) -> dict[str, str]:
    return {fact["name"]: fact["value"] for card in drawn["cards"] for fact in card["facts"]}


def test_the_screen_says_what_the_collection_is(grown: Collection) -> None:
    drawn = settled(HealthScreen(grown, Path()), Session())
    told = facts(drawn)
    assert told["Pictures"] == f"{len(grown):,}"
    assert told["Passed over"] == "2 files"
    assert told["Name"] == "massl-builtin-1"
    assert "168,222 images" in told["Trained"]
    assert told["Finds"] == "all of the nearest, always"
    assert told["Changed in the folder since"] == "Nothing"
    assert drawn["running"] is None
    assert drawn["advice"] == []
    assert {item["path"] for item in drawn["skipped"]} == {BROKEN, "empty.png"}
    newest = next(entry for entry in drawn["drift"] if entry["title"] == "Your newest pictures")
    assert newest["lines"][0].endswith("new pictures look unlike the rest.")
    assert all(example["path"].startswith("flag/") for example in newest["examples"])


def test_the_files_passed_over_can_be_taken_away(grown: Collection) -> None:
    drawn = HealthScreen(grown, Path()).do(Session(), {"do": "csv"})
    rows = list(csv.DictReader(io.StringIO(drawn["download"]["text"])))
    assert {row["path"]: row["reason"] for row in rows} == {item.path: item.reason for item in grown.skipped()}


def test_a_command_is_shown_while_it_would_help(grown: Collection) -> None:
    screen, session = HealthScreen(grown, Path()), Session()
    assert settled(screen, session)["advice"] == []
    new = grown.root / "new.jpg"
    shutil.copy(next(grown.root.glob("fruit/*.jpg")), new)
    drawn = settled(screen, session, "again")
    ((command,),) = (entry["commands"] for entry in drawn["advice"])
    assert shlex.split(command) == ["massl", "index", str(grown.root)]
    assert facts(drawn)["Changed in the folder since"] == "1 new, 0 changed, 0 gone"
    new.unlink()
    assert settled(screen, session, "again")["advice"] == []


@pytest.fixture
def tab(visit: Visit, grown: Collection) -> Iterator[Any]:
    """The page, opened."""
    with serve(grown, "127.0.0.1", 0, None) as address, visit(str(address)) as tab:
        yield tab


def test_a_person_looks_after_the_collection(tab: Any, grown: Collection, tmp_path: Path) -> None:
    new = grown.root / "new.jpg"
    shutil.copy(next(grown.root.glob("fruit/*.jpg")), new)
    show(tab, "Health")
    board = tab.locator("#massl-health")
    tab.wait_for_selector("#massl-health .advice code")
    command = board.locator(".advice code").inner_text()
    assert shlex.split(command) == ["massl", "index", str(grown.root)]
    board.locator(".advice code").click()
    assert tab.evaluate("() => getSelection().toString()") == command  # one click selects it to be copied
    assert "new pictures look unlike the rest." in board.inner_text()
    tab.wait_for_function("() => document.querySelector('#massl-health .examples img').naturalWidth > 100")
    assert board.get_by_text("massl-builtin-1").count() == 1
    assert board.get_by_text(BROKEN).count() == 1  # as text
    assert tab.locator("img[src='x']").count() == 0
    with tab.expect_download() as waiting:
        board.get_by_role("button", name="Download as CSV").click()
    waiting.value.save_as(tmp_path / "skipped.csv")
    rows = list(csv.DictReader((tmp_path / "skipped.csv").open(encoding="utf-8")))
    assert {row["path"] for row in rows} == {BROKEN, "empty.png"}
    new.unlink()
    board.get_by_role("button", name="Look again").click()
    tab.wait_for_selector("#massl-health .advice", state="detached")
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
