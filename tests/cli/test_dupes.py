"""`massl dupes` as a person runs it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from cli.dupes import _free_log
from tests.conftest import copy_photos
from tests.forked import Forks
from tests.indexer.copies import copy_of

HOSTILE = "evil\n\x1b[31mname.jpg"


@pytest.fixture(scope="module")
def made(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """What `indexed` is a copy of."""
    photos = copy_photos(tmp_path_factory.mktemp("made") / "photos")
    shutil.rmtree(photos / "flag")  # two of one layout are near duplicates by their greys
    original = sorted(photos.glob("painting/*.jpg"))[0]
    smaller = copy_of(original, "smaller", photos)
    shutil.copy(original, photos / HOSTILE)
    assert forks.run(["index", photos, "-q"]).returncode == 0
    return photos, [str(path.relative_to(photos)) for path in (original, smaller)]


@pytest.fixture
def indexed(made: tuple[Path, list[str]], tmp_path: Path) -> tuple[Path, list[str]]:
    """18 pictures, one with a smaller copy and an exact copy of a name that would colour the terminal red."""
    photos, names = made
    return shutil.copytree(photos, tmp_path / "photos"), names


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.jpg")}


def test_duplicates_are_listed_planned_and_left_alone(massl, indexed: tuple[Path, list[str]], tmp_path: Path) -> None:
    photos, (original, smaller) = indexed
    before = contents(photos)
    plan = tmp_path / "plan.csv"
    found = massl("dupes", photos, "--plan", plan, "--json").json
    (group,) = found["groups"]
    assert [item["action"] for item in group] == ["keep", "remove", "remove"]
    assert found["schema"] == 1
    assert (found["images"], found["duplicates"]) == (20, 2)
    assert {(item["kind"], item["path"]) for item in group[1:]} == {("near", smaller), ("exact", original)} or {
        (item["kind"], item["path"]) for item in group[1:]
    } == {("near", smaller), ("exact", HOSTILE)}
    rows = list(csv.DictReader(plan.open(newline="")))
    assert list(rows[0]) == [
        "group", "path", "action", "kind", "score", "expected_false_matches", "bytes", "decided", "reason", "sha256",
    ]  # fmt: skip
    assert [row["action"] for row in rows] == ["keep", "remove", "remove"]
    assert {row["path"] for row in rows} == {original, smaller, HOSTILE}
    assert all(int(row["bytes"]) == (photos / row["path"]).stat().st_size for row in rows)

    shown = massl("dupes", photos, "--exact-only")
    assert "\x1b" not in shown.output
    assert "evil\\n\\x1b[31mname.jpg" in shown.output
    assert len(shown.output.splitlines()) == 2
    assert "1 group with 1 duplicate (" in shown.error
    assert [line.split()[1] for line in shown.output.splitlines()] == ["keep", "remove"]
    assert contents(photos) == before


def test_a_part_is_named_as_elsewhere_and_a_wrong_name_is_no_empty_part(massl, indexed: tuple[Path, list[str]]) -> None:
    photos, (original, _) = indexed
    folder = Path(original).parent.name
    for name, where in ((folder, photos.parent), (f"./{folder}/", photos.parent), (f"photos/{folder}", photos.parent)):
        assert massl("dupes", photos, "--under", name, "--json", cwd=where).json["images"] > 0
    refused = massl("dupes", photos, "--under", "paintigns")
    assert (refused.code, refused.output) == (1, "")
    assert "no image lies below a folder 'paintigns'" in refused.error


def test_pairs_to_keep_are_not_proposed_again(massl, indexed: tuple[Path, list[str]]) -> None:
    photos, (original, _) = indexed
    assert massl("dupes", photos, "--keep", original, photos / HOSTILE, "--json").json["remembered"] == 1
    found = massl("dupes", photos, "--json", "--exact-only").json
    assert (found["groups"], found["kept_both"]) == ([], 1)
    assert massl("dupes", photos, "--forget", "--json").json["forgotten"] == 1
    assert len(massl("dupes", photos, "--json", "--exact-only").json["groups"]) == 1


def test_wrong_use_says_what_to_do(massl, photos: Path, tmp_path: Path) -> None:
    assert massl("dupes", photos).code == 1  # never indexed
    massl("index", photos, "-q")
    assert massl("dupes", photos, "a.jpg").code == 2
    assert massl("dupes", photos, "--keep", "--forget").code == 2
    assert massl("dupes", photos, "--threshold", "7").code == 2
    assert massl("dupes", photos, "--threshold", "0.9", "--exact-only").code == 2
    assert massl("dupes", photos, "--keep", "--plan", tmp_path / "plan.csv").code == 2
    for arguments, reason in (
        (("--keep",), "at least two"),
        (("--keep", "nowhere.jpg", "x.jpg"), "there is no such image"),
        (("--exact-only", "--plan", tmp_path / "nowhere" / "plan.csv"), "can't be written"),
    ):
        ran = massl("dupes", photos, *arguments)
        assert ran.code == 1
        assert reason in ran.error
        assert len(ran.error.splitlines()) <= 2


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_plan_that_can_not_be_written_costs_no_answer(massl, indexed: tuple[Path, list[str]], flags) -> None:
    photos, (original, _) = indexed
    ran = massl("dupes", photos, "--plan", "/dev/full", *flags)
    assert ran.code == 1
    assert "/dev/full can't be written (no space left on device); free some space" in ran.error
    assert original in ran.output
    early = massl("dupes", photos, "--plan", photos / "nowhere" / "plan.csv", *flags)  # said before the work
    assert (early.code, early.output) == (1, "")


def test_what_lies_there_no_more_is_not_proposed_and_not_counted_upon(massl, indexed: tuple[Path, list[str]]) -> None:
    photos, (_, smaller) = indexed
    assert massl("dupes", photos, "--keep", *sorted(photos.glob("space/*.jpg"))[:2]).code == 0
    group = massl("dupes", photos, "--exact-only", "--json").json["groups"][0]
    kept, removed = (photos / item["path"] for item in group)
    kept.unlink()
    ran = massl("dupes", photos, "--exact-only", "--json")
    assert (ran.json["groups"], ran.json["stale"]) == ([], 1)
    assert (
        f"1 file has changed or gone since the folder was indexed, and left out; run: massl index {photos}" in ran.error
    )
    found = massl("dupes", photos, "--json").json["groups"]
    assert [{item["path"] for item in group} for group in found] == [{str(removed.relative_to(photos)), smaller}]

    shutil.copy(sorted(photos.glob("fruit/*.jpg"))[0], removed)
    sorted(photos.glob("space/*.jpg"))[0].unlink()
    found = massl("dupes", photos, "--json").json
    assert (found["groups"], found["stale"]) == ([], 2)


def test_one_file_by_two_names_is_no_duplicate_and_a_link_is_not_what_is_kept(massl, photos: Path) -> None:
    original = sorted(photos.glob("painting/*.jpg"))[0]
    (photos / "hard.jpg").hardlink_to(original)
    massl("index", photos, "-q")
    assert massl("dupes", photos, "--exact-only", "--json").json["groups"] == []

    elsewhere = photos.parent / "elsewhere.jpg"
    shutil.copy2(original, elsewhere)
    (photos / "a.jpg").symlink_to(elsewhere)
    massl("index", photos, "-q")
    (group,) = massl("dupes", photos, "--exact-only", "--json").json["groups"]
    assert [item["path"] for item in group] == ["hard.jpg", "a.jpg"]


def test_a_plan_is_done_and_undone(massl, indexed: tuple[Path, list[str]], tmp_path: Path) -> None:
    photos, (_, smaller) = indexed
    before = contents(photos)
    plan, moved = tmp_path / "plan.csv", tmp_path / "moved"
    assert massl("dupes", photos, "--plan", plan).code == 0
    plan.write_text(plan.read_text().replace(",remove,near,", ",look,near,"))
    ran = massl("dupes", photos, "--apply", plan, "--by", f"move:{moved}", "--json")
    done, log = ran.json["done"], ran.json["log"]
    assert (len(done), ran.json["left"], ran.json["undecided"]) == (1, [], 1)
    assert (moved / done[0]).exists()
    assert set(contents(photos)) == set(before) - {photos / done[0]}
    assert f"--undo {log}" in ran.error
    assert f"now run: massl index {photos}" in ran.error
    asked = massl("dupes", photos, "--undo", log)
    assert asked.code == 1
    assert f"add --by move:{moved};" in asked.error
    assert f"--undo {log} --by move:{moved}" in ran.error
    back = massl("dupes", photos, "--undo", log, "--by", f"move:{moved}")
    assert (back.code, contents(photos)) == (0, before)
    assert "1 file given back" in back.error
    again = massl("dupes", photos, "--undo", log, "--by", f"move:{moved}")
    assert (again.code, contents(photos)) == (0, before)
    assert "0 files given back; what this log says was undone before" in again.error
    nothing = massl("dupes", photos, "--apply", plan, "--by", "hardlink")
    assert nothing.code == 0
    assert smaller not in nothing.output


def test_logs_of_one_second_have_names_of_their_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("indexer.store.catalog.now", lambda: "2026-11-30T01:45:49+00:00")
    logs = [_free_log(tmp_path)]
    for _ in range(2):
        logs[-1].touch()
        logs.append(_free_log(tmp_path))
    assert [log.name for log in logs] == [f"dupes-2026-11-30T014549{end}.jsonl" for end in ("", "-2", "-3")]


def test_wrong_use_of_a_plan_says_what_to_do_and_does_nothing(
    massl, indexed: tuple[Path, list[str]], tmp_path: Path
) -> None:
    photos, _ = indexed
    before = contents(photos)
    plan = tmp_path / "plan.csv"
    assert massl("dupes", photos, "--plan", plan).code == 0
    for arguments in (
        ("--apply", plan),
        ("--by", "trash"),
        ("--apply", plan, "--by", "delete"),
        ("--apply", plan, "--by", "move"),
        ("--apply", plan, "--by", "trash:x"),
        ("--apply", plan, "--by", "trash", "--undo", plan),
        ("--apply", plan, "--by", "trash", "--exact-only"),
        ("--undo", plan, "--by", "trash"),
        ("--undo", plan, "--keep", "a.jpg"),
    ):
        assert massl("dupes", photos, *arguments).code == 2, arguments
    for arguments, reason in (
        (("--apply", tmp_path / "nowhere.csv", "--by", "trash"), "nowhere.csv"),
        (("--undo", plan), "no log"),
        (("--apply", plan, "--by", f"move:{photos}"), "found again"),
        (("--apply", plan, "--by", f"move:{plan}"), f"{plan} can't be written"),
        (("--apply", plan, "--by", "move:/proc/x"), "/proc/x can't be written"),
    ):
        ran = massl("dupes", photos, *arguments)
        assert ran.code == 1
        assert reason in ran.error
        assert len(ran.error.splitlines()) <= 2
    assert contents(photos) == before
    assert list((photos / ".massl").glob("dupes-*")) == []


def test_a_plan_of_which_nothing_can_be_done_fails_and_leaves_no_log(
    massl, indexed: tuple[Path, list[str]], tmp_path: Path
) -> None:
    photos, _ = indexed
    plan = tmp_path / "plan.csv"
    assert massl("dupes", photos, "--exact-only", "--plan", plan).code == 0
    for path in photos.rglob("*.jpg"):
        with path.open("ab") as file:
            file.write(b"changed since")
    ran = massl("dupes", photos, "--apply", plan, "--by", "trash", "--json")
    assert (ran.code, ran.json["done"], ran.json["log"]) == (1, [], None)
    assert "nothing was done" in ran.error
    assert list((photos / ".massl").glob("dupes-*")) == []
