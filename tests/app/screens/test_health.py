"""The screen "Health": what a person is told about the collection."""

from __future__ import annotations

import csv
import io
import json
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
from indexer.store.labels import NONE_OF_THESE
from tests.app.conftest import DAY, Visit, lines, show
from tests.indexer.tiny import write_encoder, write_sizes_encoder

MARKUP = "<img src=x onerror=alert(2)>"
BROKEN = "<img src=x onerror=alert(1)> broken.jpg"


@pytest.fixture(scope="module")
def grown(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Fruits and paintings; then flags came, and two files that are no pictures."""
    root = tmp_path_factory.mktemp("grown") / "my photos"
    for kind in ("fruit", "painting"):
        shutil.copytree(pictures / kind, root / kind)
    made = Collection.create(root)
    made.update()
    shutil.copytree(pictures / "space", root / "@eaDir")
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
    told = [*drawn["numbers"], *(fact for card in drawn["cards"] for fact in card["facts"])]
    return {fact["name"]: fact["value"] for fact in told}


def test_the_screen_says_what_the_collection_is(grown: Collection) -> None:
    drawn = settled(HealthScreen(grown, Path()), Session())
    told = facts(drawn)
    assert told["Pictures"] == f"{len(grown):,}"
    assert told["Skipped"] == "2"
    assert told["Left out"] == "1 folder called @eaDir (which a system made)"
    assert told["Name"] == grown.encoder.name
    assert "DINOv2" in told["Initial weights"]
    assert told["Recall"] == "100 % (exact search)"
    assert told["Changed since"] == "0"
    assert drawn["running"] is None
    assert drawn["advice"] == []
    assert {item["path"] for item in drawn["skipped"]} == {BROKEN, "empty.png"}
    newest = next(entry for entry in drawn["drift"] if entry["title"] == "Newest pictures")
    assert newest["lines"][0].endswith("new pictures look different from the others.")
    assert all(example["path"].startswith("flag/") for example in newest["examples"])


def test_none_of_these_is_no_class_and_what_is_not_known_has_no_card(grown: Collection) -> None:
    ids = [image for image, _ in grown.images.ready()]
    grown.labels.add("fruit", ids[:3], "me")
    grown.labels.add(NONE_OF_THESE, ids[3:5], "me")
    try:
        drawn = settled(HealthScreen(grown, Path()), Session())
    finally:
        grown.labels.remove(ids)
    assert drawn["classes"] == [{"name": "fruit", "count": 3}]
    (labelled,) = (number for number in drawn["numbers"] if number["name"] == "Labelled")
    assert labelled["value"] == "3"
    assert labelled["hint"].endswith(" %, 1 class, 2 none of these")
    assert not any("not known" in line.lower() for entry in drawn["drift"] for line in entry["lines"])
    assert "training images" not in " ".join(entry["title"] for entry in drawn["drift"])  # the built-in one stores none


def test_quality_hints_are_counted_and_lead_to_their_pictures(visit: Visit, site: str, collection: Collection) -> None:
    counts = {name: count for name, (count, _) in collection.images.quality_counts(True).items()}
    drawn = settled(HealthScreen(collection, Path()), Session())
    (card,) = (card for card in drawn["cards"] if card["title"] == "Quality hints")
    assert {fact["href"]: int(fact["value"].split()[0]) for fact in card["facts"]} == {
        f"?quality={name}": count for name, count in counts.items()
    }
    hint, count = next(iter(counts.items()))
    with visit(site, "Health") as tab:
        tab.locator(f"#massl-health a[href='?quality={hint}']").click()
        tab.wait_for_function(f"document.querySelectorAll('#massl-find .tile').length === {count}")
        assert tab.get_by_label(f"Only these quality hints: {hint}").is_visible()


def test_the_skipped_files_can_be_downloaded(grown: Collection) -> None:
    drawn = HealthScreen(grown, Path()).do(Session(), {"do": "csv"})
    rows = list(csv.DictReader(io.StringIO(drawn["download"]["text"])))
    assert {row["path"]: row["reason"] for row in rows} == {item.path: item.reason for item in grown.images.skipped()}


def test_a_command_is_shown_while_it_would_help(grown: Collection) -> None:
    screen, session = HealthScreen(grown, Path()), Session()
    assert settled(screen, session)["advice"] == []
    new = grown.root / "new.jpg"
    shutil.copy(next(grown.root.glob("fruit/*.jpg")), new)
    drawn = settled(screen, session, "again")
    ((command,),) = (entry["commands"] for entry in drawn["advice"])
    assert shlex.split(command) == ["massl", "index", str(grown.root)]
    (since,) = (number for number in drawn["numbers"] if number["name"] == "Changed since")
    assert (since["value"], since["hint"]) == ("1", "1 new, 0 changed, 0 gone")
    new.unlink()
    assert settled(screen, session, "again")["advice"] == []


@pytest.fixture
def workplace(grown: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which somebody trained an encoder (that knows nothing), and starts the page."""
    folder = tmp_path / "runs" / MARKUP
    folder.mkdir(parents=True)
    write_encoder(folder / "encoder.onnx", name=MARKUP)
    (folder / "config.toml").write_text(
        f"[run]\nimages = 80\nroot = {json.dumps(str(grown.root))}\nlabels = 'sorted'\n"
    )
    (folder / "metrics.jsonl").write_text('{"step": 300, "epoch": 30.0, "seconds": 125.0, "knn_top1": 0.5}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(screen: HealthScreen, session: Session, **asked: Any) -> dict[str, Any]:
    drawn = screen.do(session, {"do": "compare", **asked})
    for work in screen._comparing.values():
        work.wait(60)
    return screen.do(session, {"do": "look"}) if drawn["message"] is None else drawn


def test_an_encoder_that_was_trained_is_shown_beside_the_one_in_use(grown: Collection, workplace: Path) -> None:
    screen, session = HealthScreen(grown, Path()), Session()
    other, *sizes = settled(screen, session)["others"]
    assert len(sizes) == len(grown.encoder.image_sizes) - 1
    told = {fact["name"]: fact["value"] for fact in other["facts"]}
    assert other["name"] == MARKUP
    assert told["Training data"].endswith("from this folder")
    assert told["Duration"] == "30 epochs, about 2 minutes"
    assert told["k-NN accuracy"] == "50.0 % on sorted"
    encoder = str(Path("runs") / MARKUP / "encoder.onnx")
    assert shlex.split(other["command"]) == ["massl", "index", str(grown.root), "--encoder", encoder, "--rebuild"]
    assert (other["compared"], other["lines"]) == (False, [])  # only when somebody asks
    asked = {"place": other["place"], "encoder": other["encoder"]}
    seen, *_ = compared(screen, session, **asked)["others"]
    assert seen["lines"][0].startswith("To see which one is better, label")
    assert "most similar pictures" in seen["lines"][1]
    assert [len(sight["other"]) for sight in seen["sights"]] == [5] * 4
    for kind in ("fruit", "painting", "flag"):
        grown.labels.add(kind, [image for image, path in grown.images.ready() if path.startswith(kind)], "me")
    try:
        stale, *_ = screen.do(session, {"do": "look"})["others"]
        assert stale["lines"][0].startswith("Measured before the labels or pictures changed")
        seen, *_ = compared(screen, session, **asked)["others"]
        assert seen["lines"][0].startswith("massl-builtin-6 separates your classes better")
        present, new = seen["bars"]
        assert (present["name"], new["name"]) == ("massl-builtin-6 (current)", MARKUP)
        assert present["share"] > new["share"] + 0.2
    finally:
        grown.labels.remove([image for image, _ in grown.images.ready()])


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"place": 0},
        {"place": 0, "encoder": "another"},
        {"place": 1},
        {"place": 2**70},
        {"place": -1},
        {"place": True},
        {"place": "0"},
        {"place": "../../../etc/passwd"},
        {"place": 0, "encoder": "/etc/passwd", "path": "/etc/passwd"},
    ],
)
def test_a_browser_can_name_no_file_to_compare(grown: Collection, workplace: Path, asked: dict[str, Any]) -> None:
    screen, session = HealthScreen(grown, Path()), Session()
    settled(screen, session)
    drawn = compared(screen, session, **asked)
    assert drawn["message"]["kind"] == "error"
    assert screen._comparing == {}


@pytest.fixture(scope="module")
def sized(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Fruits and paintings, labelled, by an encoder that can be used at three sizes."""
    folder = tmp_path_factory.mktemp("sized")
    for kind in ("fruit", "painting"):
        shutil.copytree(pictures / kind, folder / "photos" / kind)
    file = write_sizes_encoder(folder / "sized.onnx", (8, 16, 32))
    made = Collection.create(folder / "photos", Collection.choose_encoder(folder / "photos", file, 16))
    made.update()
    for kind in ("fruit", "painting"):
        made.labels.add(kind, [image for image, path in made.images.ready() if path.startswith(kind)], "me")
    return made


def test_the_other_sizes_of_the_encoder_can_be_compared_with_the_one_in_use(sized: Collection) -> None:
    screen, session = HealthScreen(sized, Path()), Session()
    drawn = settled(screen, session)
    told = facts(drawn)
    assert told["Input size"] == "16 x 16 pixels"
    assert told["Other sizes"] == "8 px: 0.25 times the work, 32 px: 4.0 times the work"
    small, large = drawn["others"]
    assert [fact["value"] for fact in large["facts"]] == ["4.0 times the work of 16 px"]
    assert shlex.split(large["command"]) == ["massl", "index", str(sized.root), "--image-size", "32", "--rebuild"]
    assert (small["compared"], large["compared"]) == (False, False)  # only when somebody asks
    _, seen = compared(screen, session, place=large["place"], encoder=large["encoder"])["others"]
    present, new = seen["bars"]
    assert (present["name"], new["name"]) == ("sized at 16 px (current)", "sized at 32 px")
    wanted = sized.encoders.beside(32).comparison
    assert wanted is not None
    assert (present["share"], new["share"]) == (wanted.present, wanted.other)
    assert sized.storage.image_size == 16


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
    assert "new pictures look different from the others." in board.inner_text()
    tab.wait_for_function("() => document.querySelector('#massl-health .examples img').naturalWidth > 100")
    assert board.get_by_text("massl-builtin-6", exact=True).count() == 1
    assert board.get_by_text(BROKEN).count() == 1  # as text
    assert tab.locator("img[src='x']").count() == 0
    with tab.expect_download() as waiting:
        board.get_by_role("button", name="Download as CSV").click()
    waiting.value.save_as(tmp_path / "skipped.csv")
    rows = list(csv.DictReader((tmp_path / "skipped.csv").open(encoding="utf-8")))
    assert {row["path"] for row in rows} == {BROKEN, "empty.png"}
    new.unlink()
    board.get_by_role("button", name="Refresh").click()
    tab.wait_for_selector("#massl-health .advice", state="detached")
    tab.set_viewport_size({"width": 1440, "height": 900})
    assert len({card.bounding_box()["x"] for card in board.locator(".packed .card").all()}) == 3  # no column is empty
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
    assert set(lines(tab, "#massl-health", DAY)) == {1}  # no day is broken at one of its hyphens


def test_a_person_looks_at_a_new_encoder_before_switching(workplace: Path, tab: Any, grown: Collection) -> None:
    before = grown.catalog.meta()
    show(tab, "Health")
    card = tab.locator("#massl-health .other").first
    assert MARKUP in card.locator("h2").inner_text()  # as text
    card.get_by_role("button", name="Compare on my pictures").click()
    card.locator(".sight").first.wait_for()
    assert "To see which one is better, label" in card.inner_text()
    tab.wait_for_function(
        "() => { const all = [...document.querySelectorAll('#massl-health .sight img')];"
        " all.forEach((image) => (image.loading = 'eager'));"
        " return all.length === 44 && all.every((image) => image.naturalWidth > 0); }"
    )
    card.locator("code").click()
    assert shlex.split(tab.evaluate("() => getSelection().toString()"))[:2] == ["massl", "index"]
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
    assert grown.catalog.meta() == before


def test_a_person_compares_another_size(visit: Visit, sized: Collection) -> None:
    with serve(sized, "127.0.0.1", 0, None) as address, visit(str(address)) as tab:
        show(tab, "Health")
        card = tab.locator("#massl-health .other").last
        assert card.locator("h2").inner_text() == "Current encoder at 32 x 32 pixels"
        card.get_by_role("button", name="Compare on my pictures").click()
        card.locator(".measures").wait_for()
        assert "sized at 32 px" in card.locator(".measures").inner_text()
        card.locator("code").click()
        assert tab.evaluate("() => getSelection().toString()").endswith("--image-size 32 --rebuild")
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
