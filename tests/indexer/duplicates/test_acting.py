"""Doing what a plan says, and undoing it: real files, a real trash, and what can go wrong in between."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from indexer import Collection, Encoder
from indexer.duplicates import acting
from indexer.duplicates.acting import Outcome, content_of, read_plan
from indexer.duplicates.action_log import WAYS, FileAct, read
from indexer.duplicates.plan import plan
from indexer.store.decision_tables import TABLES
from indexer.store.inheriting import Inherited
from massl.core.errors import MasslError
from tests.indexer.tiny import picture


@pytest.fixture(autouse=True)
def own_trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trash of the test's own, in place of the person's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    from send2trash import plat_other

    monkeypatch.setattr(plat_other, "HOMETRASH_B", os.fsencode(tmp_path / "data" / "Trash"))
    return tmp_path / "data" / "Trash"


@pytest.fixture
def collection(tmp_path: Path, tiny_encoder: Encoder) -> Collection:
    """Four pictures, three of them twice."""
    root = tmp_path / "photos"
    (root / "copies").mkdir(parents=True)
    for number in range(4):
        (root / f"{number}.bmp").write_bytes(picture(number))
        os.utime(root / f"{number}.bmp", ns=(10**18, 10**18))
        if number:
            (root / "copies" / f"{number} copy.bmp").write_bytes(picture(number))
    made = Collection.create(root, tiny_encoder)
    made.update()
    return made


ACT = FileAct(0, "trash", "a", "b", "0" * 64, "0" * 64, 1, 0o644, "", Inherited("", ("cat", "me"), (("sea", "me"),)))
COPIES = [f"copies/{number} copy.bmp" for number in (1, 2, 3)]


def rows_of(collection: Collection) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(plan(collection.duplicates.find(exact_only=True)))))


def written(rows: list[dict[str, str]], path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def applied(
    collection: Collection,
    tmp_path: Path,
    by: str,
    change: Callable[[list[dict[str, str]]], object] = lambda rows: None,
) -> Outcome:
    rows = rows_of(collection)
    change(rows)
    read_back = read_plan(written(rows, tmp_path / "plan.csv"))
    return collection.duplicates.apply(read_back, by, moved_to(tmp_path, by), tmp_path / "log.jsonl")


def moved_to(tmp_path: Path, by: str) -> Path | None:
    return tmp_path / "moved" if by == "move" else None


def files(root: Path) -> dict[str, tuple[bytes, int]]:
    found = (path for path in root.rglob("*.bmp") if not path.is_symlink())
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("by", WAYS)
def test_exact_copies_go_and_come_back_as_they_were(collection: Collection, tmp_path: Path, by: str) -> None:
    root = collection.root
    before = files(root)
    outcome = applied(collection, tmp_path, by)
    assert (sorted(outcome.done), outcome.left) == (COPIES, [])
    assert outcome.bytes == sum(len(before[path][0]) for path in COPIES)
    for number, path in enumerate(COPIES, 1):
        if by in ("hardlink", "symlink"):
            assert os.path.samefile(root / path, root / f"{number}.bmp")
        else:
            assert not (root / path).exists()
    assert set(files(root)) >= {"0.bmp", "1.bmp", "2.bmp", "3.bmp"}

    folder = moved_to(tmp_path, by)
    back = collection.duplicates.undo(tmp_path / "log.jsonl", folder)
    assert (sorted(back.done), back.in_place, back.left) == (COPIES, [], [])
    assert files(root) == before
    assert not any((root / path).is_symlink() for path in COPIES)
    if by == "move":
        assert list((tmp_path / "moved").iterdir()) == []  # the folders that were made for them went too
    again = collection.duplicates.undo(tmp_path / "log.jsonl", folder)
    assert (again.done, again.in_place) == ([], [])
    assert collection.update().unchanged + len(COPIES) >= 7


def test_after_a_plan_the_folder_holds_each_picture_once(collection: Collection, tmp_path: Path) -> None:
    applied(collection, tmp_path, "trash")
    assert collection.update().removed == 3
    assert collection.duplicates.find(exact_only=True).groups == ()
    collection.duplicates.undo(tmp_path / "log.jsonl")
    collection.update()
    assert len(collection) == 7


def test_what_is_merely_alike_waits_for_a_person(collection: Collection, tmp_path: Path) -> None:
    def alike(rows: list[dict[str, str]]) -> None:
        for row in rows:
            if row["path"] in COPIES:
                other = collection.root / row["path"]
                other.write_bytes(other.read_bytes() + b"not the same any more")
                row["sha256"] = content_of(other)  # the column `kind` still says exact: it is not believed

    outcome = applied(collection, tmp_path, "move", alike)
    assert (outcome.done, outcome.undecided) == ([], 3)
    collection.update()
    rows = rows_of(collection) or list(csv.DictReader((tmp_path / "plan.csv").open(newline="")))
    for row in rows:
        row["decided"] = "yes"
    decided = read_plan(written(rows, tmp_path / "decided.csv"))
    # A link would lose what differs.
    for by in ("hardlink", "symlink"):
        refused = collection.duplicates.apply(decided, by, None, tmp_path / f"{by}.jsonl")
        assert refused.done == []
        assert all("not the same content" in reason for _, reason in refused.left)
    moved = collection.duplicates.apply(decided, "move", tmp_path / "moved", tmp_path / "second.jsonl")
    assert sorted(moved.done) == COPIES
    assert sorted(collection.duplicates.undo(tmp_path / "second.jsonl", tmp_path / "moved").done) == COPIES


def test_labels_and_decisions_go_over_to_the_file_that_is_kept(collection: Collection, tmp_path: Path) -> None:
    ids = {path: image for image, path in collection.images.ready()}
    collection.labels.add("cat", [ids[COPIES[0]]], "me")
    collection.rejections.add({ids[COPIES[0]]: "dog"})
    collection.labels.add("cat", [ids[COPIES[1]]], "me")
    collection.labels.add("bird", [ids["2.bmp"]], "me")
    collection.decisions.keep_both([ids[COPIES[2]], ids["0.bmp"]])
    outcome = applied(collection, tmp_path, "move")
    assert sorted(outcome.done) == [COPIES[0], COPIES[2]]
    ((path, reason),) = outcome.left
    assert path == COPIES[1]
    assert "labelled 'cat' and the file to keep 'bird'" in reason
    assert collection.images.facts(ids["1.bmp"]).label == "cat"
    assert "dog" in collection.rejections.by_image()[ids["1.bmp"]]
    assert (ids["0.bmp"], ids["3.bmp"]) in {tuple(sorted(pair)) for pair in _kept(collection)}
    back = collection.duplicates.undo(tmp_path / "log.jsonl", tmp_path / "moved")
    assert (sorted(back.done), back.labels) == ([COPIES[0], COPIES[2]], 1)
    assert collection.images.facts(ids["1.bmp"]).label is None
    assert collection.images.facts(ids[COPIES[0]]).label == "cat"
    assert ids["1.bmp"] not in collection.rejections.by_image()
    assert _kept(collection) == {(ids["0.bmp"], ids[COPIES[2]]), (ids[COPIES[2]], ids["0.bmp"])}


def said(collection: Collection) -> dict[str, list[tuple[object, ...]]]:
    """All that people said, row by row."""
    tables = ("labels", *TABLES)
    return {table: sorted(collection.catalog.read(f"SELECT * FROM {table}")) for table in tables}


def say(collection: Collection) -> dict[str, int]:
    """Says of copies what goes over to the files that are kept; returns the images by path."""
    ids = {path: image for image, path in collection.images.ready()}
    copy, keep = ids[COPIES[0]], ids["1.bmp"]
    collection.tags.give([(copy, "sea"), (copy, "red"), (copy, "old"), (keep, "old"), (keep, "mine")], "me")
    collection.rejected_tags.add([(keep, "red"), (copy, "mine"), (copy, "blue")])
    collection.labels.add("cat", [copy], "me")
    collection.confirmations.add([(copy, "cat")])
    collection.tags.add("sea", [ids[COPIES[1]], ids[COPIES[2]]], "me")
    return ids


@pytest.mark.parametrize("by", WAYS)
def test_undoing_takes_back_all_that_went_over(collection: Collection, tmp_path: Path, by: str) -> None:
    ids = say(collection)
    before = said(collection)
    outcome = applied(collection, tmp_path, by)
    assert (sorted(outcome.done), outcome.labels, outcome.tags) == (COPIES, 1, 4)
    assert set(collection.tags.authors(ids["1.bmp"])) == {"sea", "red", "old", "mine"}
    assert collection.rejected_tags.of_image(ids["1.bmp"]) == ("blue",)
    assert (ids["1.bmp"], "cat") in collection.confirmations.every()
    collection.update()
    back = collection.duplicates.undo(tmp_path / "log.jsonl", moved_to(tmp_path, by))
    collection.update()
    assert (sorted(back.done), back.labels, back.tags) == (COPIES, 1, 4)
    assert said(collection) == before


def test_undoing_leaves_what_somebody_said_since(collection: Collection, tmp_path: Path) -> None:
    ids = say(collection)
    applied(collection, tmp_path, "trash")
    keep = ids["1.bmp"]
    collection.tags.remove([(keep, "sea"), (keep, "red")])
    collection.tags.give([(keep, "sea"), (keep, "new")], "somebody")
    collection.rejected_tags.add([(keep, "red")])
    collection.labels.add("dog", [keep], "somebody")
    (collection.root / "1.bmp").rename(collection.root / "copies" / "1.bmp")  # and moved it
    collection.update()
    now = said(collection)
    back = collection.duplicates.undo(tmp_path / "log.jsonl")
    assert (back.labels, back.tags) == (0, 2)  # of the other two files
    for table in ("tags", "rejected_tags"):
        taken = {(row[0], row[1]) for row in set(now[table]) - set(said(collection)[table])}
        wanted = {(ids["2.bmp"], "sea"), (ids["3.bmp"], "sea")} if table == "tags" else {(keep, "blue")}
        assert taken == wanted
    assert said(collection)["labels"] == now["labels"]


def test_what_could_not_be_removed_hands_nothing_on(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(collection)
    before = said(collection)

    def refused(*paths: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(acting, "_remove", refused)
    outcome = applied(collection, tmp_path, "trash")
    assert (outcome.done, outcome.labels, outcome.tags) == ([], 0, 0)
    assert said(collection) == before


def test_a_log_of_before_tags_were_noted_gives_the_label_back(collection: Collection, tmp_path: Path) -> None:
    ids = say(collection)
    applied(collection, tmp_path, "move")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for line in lines[1:]:
        line["act"]["label"] = line["act"].pop("inherited")["label"]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    back = collection.duplicates.undo(tmp_path / "old.jsonl", tmp_path / "moved")
    assert (sorted(back.done), back.labels, back.tags) == (COPIES, 1, 0)
    assert collection.images.facts(ids["1.bmp"]).label is None
    lines[1]["act"]["shape"] = "round"
    (tmp_path / "later.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(MasslError, match="was not written by this version"):
        collection.duplicates.undo(tmp_path / "later.jsonl")


def test_a_kill_while_it_is_undone_is_gone_on_with(collection: Collection, tmp_path: Path) -> None:
    say(collection)
    before = files(collection.root), said(collection)
    applied(collection, tmp_path, "move")
    script = f"""
import os, signal
from pathlib import Path
from indexer import Collection
from indexer.duplicates.action_log import LogWriter
LogWriter.undone = lambda self, act: os.kill(os.getpid(), signal.SIGKILL)
moved = Path({str(tmp_path / "moved")!r})
Collection.open({str(collection.root)!r}).duplicates.undo(Path({str(tmp_path / "log.jsonl")!r}), moved)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert files(collection.root) != before[0]
    back = collection.duplicates.undo(tmp_path / "log.jsonl", tmp_path / "moved")
    assert (sorted(back.done + back.in_place), back.left) == (COPIES, [])
    assert len(back.in_place) == 1  # given back by the run that was killed
    assert (files(collection.root), said(collection)) == before


def _kept(collection: Collection) -> set[tuple[int, int]]:
    groups = collection.duplicates.kept_together()
    return {(one.image, other.image) for group in groups for one in group for other in group if one is not other}


def test_files_that_are_no_longer_as_planned_stay(collection: Collection, tmp_path: Path) -> None:
    root = collection.root

    def meanwhile(rows: list[dict[str, str]]) -> None:
        (root / COPIES[0]).write_bytes(b"another picture")
        (root / COPIES[1]).unlink()
        (root / "3.bmp").write_bytes(b"the one to keep, changed")

    outcome = applied(collection, tmp_path, "trash", meanwhile)
    assert outcome.done == []
    assert dict(outcome.left) == {
        COPIES[0]: "has changed since the plan was made",
        COPIES[1]: "has gone already",
        COPIES[2]: "the file to keep has changed since the plan was made",
    }
    assert (root / COPIES[0]).read_bytes() == b"another picture"
    assert (root / COPIES[2]).exists()


@pytest.mark.parametrize("link", ["hard", "symbolic", "to a folder outside"])
def test_one_file_by_two_names_is_left(collection: Collection, tmp_path: Path, link: str) -> None:
    root = collection.root

    def meanwhile(rows: list[dict[str, str]]) -> None:
        if link == "to a folder outside":
            shutil.move(root / "copies", tmp_path / "outside")
            (root / "copies").symlink_to(tmp_path / "outside")
            return
        (root / COPIES[0]).unlink()
        if link == "hard":
            os.link(root / "1.bmp", root / COPIES[0])
        else:
            (root / COPIES[0]).symlink_to(root / "1.bmp")

    outcome = applied(collection, tmp_path, "move", meanwhile)
    assert COPIES[0] in dict(outcome.left)
    assert (root / "1.bmp").read_bytes() == picture(1) == (root / COPIES[0]).read_bytes()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("path", "../outside.bmp", "not below"),
        ("path", "/etc/passwd", "not below"),
        ("path", "copies/../0.bmp", "not below"),
        ("path", "", "not below"),
        ("path", ".massl/lock", "belongs to an index"),
        ("path", "copies/.massl/1.bmp", "belongs to an index"),
        ("path", "1.bmp", "stands in a plan once"),
        ("action", "delete", "none of keep, remove and look"),
        ("decided", "perhaps", "must be yes or no"),
        ("sha256", "", "make the plan anew"),
        ("group", "99", "keeps no file"),
    ],
)
def test_a_plan_that_is_none_is_refused_whole(
    collection: Collection, tmp_path: Path, column: str, value: str, message: str
) -> None:
    before = files(collection.root)

    def wrong(rows: list[dict[str, str]]) -> None:
        next(row for row in rows if row["path"] in COPIES).update({column: value})

    with pytest.raises(MasslError, match=message):
        applied(collection, tmp_path, "trash", wrong)
    assert files(collection.root) == before
    assert not (tmp_path / "log.jsonl").exists()


def test_a_folder_that_can_not_be_written_to_costs_nothing(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(collection.root)

    def refused(*paths: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:  # an administrator, as whom tests may run, can write anywhere
        patch.setattr(os, "rename", refused)
        outcome = applied(collection, tmp_path, "move")
    assert (outcome.done, files(collection.root)) == ([], before)
    assert all("Permission denied" in reason for _, reason in outcome.left)
    assert not (tmp_path / "log.jsonl").exists()


def test_another_disk_is_copied_to_and_no_hard_link_leads_there(collection: Collection, tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    folder = shared / f"massl-test-{os.getpid()}"
    try:
        before = files(collection.root)
        made = read_plan(written(rows_of(collection), tmp_path / "plan.csv"))
        outcome = collection.duplicates.apply(made, "move", folder, tmp_path / "log.jsonl")
        assert sorted(outcome.done) == COPIES
        assert (folder / COPIES[0]).read_bytes() == picture(1)
        assert sorted(collection.duplicates.undo(tmp_path / "log.jsonl", folder).done) == COPIES
        assert files(collection.root) == before
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_file_is_not_moved_over_another_or_into_the_collection(collection: Collection, tmp_path: Path) -> None:
    (tmp_path / "moved" / "copies").mkdir(parents=True)
    (tmp_path / "moved" / COPIES[0]).write_bytes(b"precious")
    outcome = applied(collection, tmp_path, "move")
    assert [path for path, _ in outcome.left] == [COPIES[0]]
    assert (tmp_path / "moved" / COPIES[0]).read_bytes() == b"precious"
    again = read_plan(tmp_path / "plan.csv")
    with pytest.raises(MasslError, match="found again"):
        collection.duplicates.apply(again, "move", collection.root / "copies", tmp_path / "other.jsonl")
    with pytest.raises(MasslError, match="there already"):
        collection.duplicates.apply(again, "trash", None, tmp_path / "log.jsonl")


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_in_the_middle_can_be_undone_and_gone_on_with(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, when: str
) -> None:
    """A kill leaves what was written: the log says what was meant, whether or not it was done."""
    say(collection)
    before = files(collection.root), said(collection)
    remove = acting._remove

    class Killed(BaseException):
        pass

    def killed(path: Path, *rest: object) -> None:
        second = path.name.startswith("2")
        if second and when == "before":
            raise Killed
        remove(path, *rest)  # type: ignore[arg-type]
        if second:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(acting, "_remove", killed)
        with pytest.raises(Killed):
            applied(collection, tmp_path, by)
    with (tmp_path / "log.jsonl").open("ab") as log:
        log.write(b'{"act": {"number": 9, "by": "tr')  # cut off
    assert len(read(tmp_path / "log.jsonl").acts) == 2
    going_on = read_plan(tmp_path / "plan.csv")
    folder = moved_to(tmp_path, by)
    rest = collection.duplicates.apply(going_on, by, folder, tmp_path / "2.jsonl")
    assert COPIES[2] in rest.done
    assert len(rest.done) + len(rest.left) == 3
    for log, wanted in (("2.jsonl", rest.done), ("log.jsonl", COPIES[:1] if when == "before" else COPIES[:2])):
        back = collection.duplicates.undo(tmp_path / log, folder)
        assert back.left == []
        assert sorted(back.done) == sorted(wanted)
    assert (files(collection.root), said(collection)) == before


@pytest.mark.parametrize("text", ["", "{}", "no log\n", '{"format": 99, "root": "/x"}\n', '{"format": 1, "root": 7}\n'])
def test_what_is_no_log_is_refused(collection: Collection, tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(MasslError, match="no log"):
        collection.duplicates.undo(tmp_path / "log")
    with pytest.raises(MasslError, match="can't be read"):
        collection.duplicates.undo(tmp_path / "missing")


def test_a_log_of_another_folder_is_refused_and_a_file_in_the_way_stays(
    collection: Collection, tmp_path: Path, tiny_encoder: Encoder
) -> None:
    applied(collection, tmp_path, "trash")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.bmp").write_bytes(picture(0))
    with pytest.raises(MasslError, match="is about"):
        Collection.create(tmp_path / "other", tiny_encoder).duplicates.undo(tmp_path / "log.jsonl")
    (collection.root / COPIES[0]).write_bytes(b"new")
    back = collection.duplicates.undo(tmp_path / "log.jsonl")
    assert back.left == [(COPIES[0], "another file is there now")]
    assert sorted(back.done) == COPIES[1:]
    assert (collection.root / COPIES[0]).read_bytes() == b"new"


def forged(collection: Collection, log: Path, /, **told: object) -> Path:
    """A log from somebody else, of one act."""
    content = content_of(collection.root / "1.bmp")
    act = {"number": 0, "by": "trash", "path": "new.bmp", "keep": "1.bmp", "content": content, "kept_content": content}
    act |= {"mtime_ns": 0, "mode": 0o644, "to": "", "label": None, **told}
    head = {"format": 1, "root": os.path.realpath(collection.root)}
    log.write_text(f"{json.dumps(head)}\n{json.dumps({'act': act})}\n")
    return log


def test_a_log_from_somebody_else_reaches_nothing_outside_of_the_folder(collection: Collection, tmp_path: Path) -> None:
    root, outside = collection.root, tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"known")
    (root / "link").symlink_to(outside)
    (root / "index").symlink_to(root / ".massl")
    log = tmp_path / "forged.jsonl"
    content = content_of(outside / "secret")
    for path, reason in (("link/deep/evil.bmp", "behind a link"), ("index/evil.bmp", "lies in an index")):
        back = collection.duplicates.undo(forged(collection, log, path=path))
        assert back.done == []
        assert reason in back.left[0][1]
        kept = collection.duplicates.undo(forged(collection, log, keep=path))
        assert reason in kept.left[0][1]
    taken: dict[str, object] = {"by": "move", "path": "secret", "content": content, "to": str(outside / "secret")}
    with pytest.raises(MasslError, match=f"were moved to {outside}. If that is right, add --by move:{outside};"):
        collection.duplicates.undo(forged(collection, log, **taken))
    with pytest.raises(MasslError, match="was moved, by trash"):
        collection.duplicates.undo(forged(collection, log, **taken | {"by": "trash"}))
    with pytest.raises(MasslError, match="were moved to"):
        collection.duplicates.undo(forged(collection, log, **taken), tmp_path)
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "deep").symlink_to(outside)
    deep = taken | {"path": "deep/secret", "to": str(tmp_path / "moved" / "deep" / "secret")}
    assert collection.duplicates.undo(forged(collection, log, **deep), tmp_path / "moved").done == []
    for path in ("../evil.bmp", "/tmp/evil.bmp", ".massl/evil.bmp"):
        with pytest.raises(MasslError, match="nothing was done"):
            collection.duplicates.undo(forged(collection, log, path=path))
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not list(root.glob("**/evil*"))


def test_what_a_log_gives_back_runs_as_nobody_else(collection: Collection, tmp_path: Path) -> None:
    log = forged(collection, tmp_path / "forged.jsonl", mode=0o6777)
    assert collection.duplicates.undo(log).done == ["new.bmp"]
    assert (collection.root / "new.bmp").stat().st_mode & 0o7777 == 0o777


def test_a_link_to_something_else_is_not_replaced(collection: Collection, tmp_path: Path) -> None:
    (collection.root / "new.bmp").symlink_to("2.bmp")
    back = collection.duplicates.undo(forged(collection, tmp_path / "forged.jsonl", by="symlink"))
    assert back.left == [("new.bmp", "another file is there now")]
    assert (collection.root / "new.bmp").readlink() == Path("2.bmp")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_are_not_waited_for(collection: Collection, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MasslError, match="not a regular file"):
        collection.duplicates.undo(tmp_path / "pipe")
    with pytest.raises(MasslError, match="not a regular file"):
        read_plan(tmp_path / "pipe")
    os.mkfifo(collection.root / "new.bmp")
    back = collection.duplicates.undo(forged(collection, tmp_path / "forged.jsonl"))
    assert back.left == [("new.bmp", "another file is there now")]


WRONG = st.sampled_from([5, [1], {}, None, "x", "\ud800.jpg", 10**30, -1, [[1]], [["a"]], True, 1.5, "trash"])
FIELDS = st.sampled_from([field.name for field in dataclasses.fields(FileAct)])
INHERITED = st.sampled_from([field.name for field in dataclasses.fields(Inherited)])


@given(st.lists(st.tuples(FIELDS | INHERITED.map("inherited.{}".format), WRONG), min_size=1, max_size=3))
@example([("number", [1])])
@example([("mtime_ns", 10**30)])
@example([("path", "\ud800.jpg")])
@example([("label", [])])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_changed_by_hand_is_read_or_refused(tmp_path: Path, changes: list[tuple[str, object]]) -> None:
    act: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(ACT)))
    for name, value in changes:
        (act["inherited"] if name.startswith("inherited.") else act)[name.removeprefix("inherited.")] = value
        if name == "inherited":
            break
    (tmp_path / "log").write_text(f'{{"format": 1, "root": "/x"}}\n{json.dumps({"act": act})}\n')
    try:
        found = read(tmp_path / "log").acts[0]
    except MasslError as error:
        assert "or was changed since" in str(error)
        return
    for name, kind in (("number", int), ("by", str), ("path", str), ("keep", str), ("mtime_ns", int), ("to", str)):
        assert type(getattr(found, name)) is kind
    os.fsencode(found.path + found.keep + found.to)
    assert found.by in WAYS
    assert isinstance(found.inherited.label, tuple | None)
    assert all(len(pair) == 2 for pair in found.inherited.tags)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the capabilities of Linux where tests run as root")
def test_a_folder_that_gives_no_file_away_hands_nothing_on(collection: Collection, tmp_path: Path) -> None:
    say(collection)
    before, there = said(collection), files(collection.root)
    written(rows_of(collection), tmp_path / "plan.csv")
    (collection.root / "copies").chmod(0o555)
    script = f"""
import os
from pathlib import Path
from indexer import Collection
from indexer.duplicates.acting import read_plan
if os.geteuid() == 0:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capset(header, data) == 0  # no capabilities are left
outcome = Collection.open({str(collection.root)!r}).duplicates.apply(
    read_plan(Path({str(tmp_path / "plan.csv")!r})), "trash", None, Path({str(tmp_path / "log.jsonl")!r}))
assert (outcome.done, len(outcome.left)) == ([], 3), outcome
"""
    try:
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    finally:
        (collection.root / "copies").chmod(0o755)
    assert ran.returncode == 0, ran.stderr
    assert (said(collection), files(collection.root)) == (before, there)
    assert not (tmp_path / "log.jsonl").exists()


def test_a_log_stays_while_an_act_of_it_stands(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has gone although something failed after that can be given back."""
    remove = acting._remove

    def failing(*rest: object) -> None:
        remove(*rest)  # type: ignore[arg-type]
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(acting, "_remove", failing)
    before = files(collection.root)
    outcome = applied(collection, tmp_path, "move")
    assert (outcome.done, len(outcome.left)) == ([], 3)
    assert sorted(collection.duplicates.undo(tmp_path / "log.jsonl", tmp_path / "moved").done) == COPIES
    assert files(collection.root) == before
