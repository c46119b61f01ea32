"""A catalog of which bits have flipped, in whatever place: told, repaired, and nothing that people said is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import Collection, Encoder, Query
from indexer.json_results import of_collection
from indexer.recovery import repair
from indexer.store import journal
from indexer.store.catalog import Catalog
from indexer.store.damage import CatalogDamaged
from indexer.store.journal import Said
from massl.core.errors import MasslError
from tests.cli.conftest import Ran, failed, massl  # noqa: F401 - a fixture
from tests.indexer.former import write_as_format
from tests.indexer.tiny import picture

FLIPS = int(os.environ.get("MASSL_TEST_FLIPS", "60"))
IMAGES = 40


@pytest.fixture
def small(tmp_path: Path, tiny_encoder: Encoder) -> Collection:
    """Forty pictures of which 30 are labelled, and tags and decisions of some; closed."""
    root = tmp_path / "small"
    for number in range(IMAGES):
        path = root / f"{number % 3}" / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    made = Collection.create(root, tiny_encoder)
    made.update()
    ids = [image for image, _ in made.images.ready()]
    for name, part in (("cat", ids[:10]), ("dog", ids[10:20]), ("Eule ☃", ids[20:30])):
        made.labels.add(name, part, "somebody")
    made.rejections.add({ids[31]: "cat", ids[32]: "dog"})
    made.decisions.keep_both(ids[33:36])
    made.decisions.choose(ids[36], [ids[37]])
    made.confirmations.add([(ids[0], "cat")])
    made.tags.give([(image, tag) for image in ids[:8] for tag in ("sea", "Abend ☃")], "somebody")
    made.rejected_tags.add([(ids[39], "sea")])
    closed(made)
    return made


def closed(collection: Collection) -> Path:
    """Puts all into the one file, and gives it."""
    list(collection.catalog.read("PRAGMA wal_checkpoint(TRUNCATE)"))
    collection.catalog.close()
    return collection.folder / "catalog.sqlite"


def answers(root: Path) -> dict[str, Any]:
    """All that a person sees of a collection."""
    opened = Collection.open(root)
    try:
        return {
            "images": opened.images.ready(),
            "found": [vars(item) for item in opened.search([Query(image=opened.images.id_of("0/3.bmp"))], 20)],
            "labels": [vars(item) for item in opened.labels.every()],
            "classes": opened.labels.classes(),
            "rejected": opened.rejections.by_image(),
            "confirmed": opened.confirmations.every(),
            "kept": opened.duplicates.kept_together(),
            "tags": (opened.tags.every(), opened.rejected_tags.of_tag("sea")),
            "info": {
                key: value
                for key, value in of_collection(opened).items()
                if key not in ("bytes", "search", "drift", "scores", "created", "updated", "checked")
            },
            "exported": opened.exports.labels("csv"),
        }
    finally:
        opened.catalog.close()


def said(collection: Collection) -> set[tuple[str, str, str, str]]:
    return {(item.path, item.label, item.author, item.at) for item in collection.labels.every()}


def decided(root: Path) -> tuple[Any, ...]:
    """Decisions by path: ids may differ after a repair."""
    opened = Collection.open(root)
    path = dict(opened.images.ready())
    kept = sorted(sorted(item.path for item in group) for group in opened.duplicates.kept_together())
    rejected = sorted((path[image], sorted(names)) for image, names in opened.rejections.by_image().items())
    confirmed = sorted((path[image], label) for image, label in opened.confirmations.every())
    query = "SELECT path FROM kept_instead JOIN images ON id = image"
    chosen = list(opened.catalog.read(query))
    tags = opened.tags.every(), sorted(path[image] for image in opened.rejected_tags.of_tag("sea"))
    opened.catalog.close()
    return kept, rejected, confirmed, chosen, tags


def test_a_flipped_bit_is_harmless_or_told_and_repair_loses_no_label(small: Collection, tmp_path: Path) -> None:
    file = small.folder / "catalog.sqlite"
    whole = file.read_bytes()
    before, labelled, decisions = answers(small.root), said(small), decided(small.root)
    small.catalog.close()
    kept = tmp_path / "kept"
    shutil.copytree(small.folder, kept)
    chance = random.Random(os.environ.get("MASSL_TEST_SEED", "0"))
    used = [place for place in range(len(whole)) if whole[place]]
    told = 0
    for turn in range(FLIPS):
        shutil.rmtree(small.folder)
        shutil.copytree(kept, small.folder)
        damaged = bytearray(whole)
        # A file of forty pictures is mostly empty pages: half of the flips go where something is written.
        place = chance.choice(used) if turn % 2 else chance.randrange(len(damaged))
        damaged[place] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        where = f"byte {place}: {whole[place]} became {damaged[place]}"
        try:
            assert answers(small.root) == before, where
            continue
        except CatalogDamaged:
            told += 1
        except MasslError as error:
            assert "is damaged" in str(error) or "newer version" in str(error), where
            told += 1
        repaired = Collection.create(small.root)
        repaired.update()
        assert said(repaired) == labelled, where
        assert [path for _, path in repaired.images.ready()] == [path for _, path in before["images"]], where
        repaired.catalog.close()
        assert decided(small.root) == decisions, where
        Catalog.open(file, whole=True).close()
    assert told >= FLIPS // 4


@pytest.mark.parametrize("damage", ["emptied", "foreign", "cut", "overwritten pages", "root page"])
def test_whatever_happened_to_the_file_the_labels_come_back(small: Collection, damage: str) -> None:
    labelled, decisions = said(small), decided(small.root)
    file = closed(small)
    data = file.read_bytes()
    pages = bytearray(data)
    for page in range(3, len(data) // 4096, 3):
        pages[page * 4096 : (page + 1) * 4096] = b"\xff" * 4096
    file.write_bytes(
        {
            "emptied": b"",
            "foreign": b"not a database" * 500,
            "cut": data[: len(data) // 2],
            "overwritten pages": bytes(pages),
            "root page": data[:4096] + b"\0" * 4096 + data[8192:],
        }[damage]
    )
    with pytest.raises(CatalogDamaged, match="run `massl index"):
        Collection.open(small.root)
    repaired = Collection.create(small.root)
    repaired.update()
    assert said(repaired) == labelled
    assert decided(small.root) == decisions
    assert len(list(small.folder.glob("catalog-damaged-*.sqlite"))) == 1


def test_a_damaged_catalog_takes_the_place_of_no_earlier_one_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Stopped:
            return cls(1999, 6, 1, 10, 0, 0, tzinfo=tz)

    monkeypatch.setattr(repair, "datetime", Stopped)
    damaged = [b"not a database" * count for count in (500, 600, 700)]
    for content in damaged:
        (tmp_path / "catalog.sqlite").write_bytes(content)
        repair.repair(tmp_path / "catalog.sqlite", {"dim": "2", "generation": "0"}, comparable=False)
    kept = sorted(tmp_path.glob("catalog-damaged-*.sqlite"), key=lambda file: file.stat().st_size)
    assert [file.read_bytes() for file in kept] == damaged


def damage_a_label(file: Path) -> None:
    """The text of a label becomes another's, where SQLite sees nothing."""
    data = file.read_bytes()
    assert b"dogsomebody" in data
    file.write_bytes(data.replace(b"dogsomebody", b"fogsomebody", 1))


def test_commands_tell_of_damage_and_give_out_what_can_be_read(
    small: Collection,
    massl: Callable[..., Ran],  # noqa: F811
) -> None:
    labelled = said(small)
    damage_a_label(closed(small))
    for command in ("search", "classify", "dupes"):
        more = [small.root / "0" / "3.bmp"] if command == "search" else []
        assert "catalog.sqlite is damaged (1 label changed)" in failed(massl(command, small.root, *more))
    told = massl("info", small.root)
    assert told.code == 1
    for part in ("40 images", "29 labels", "journal    30 labels"):
        assert part in told.output
    exported = massl("label", "export", small.root)
    assert exported.code == 1
    assert "is damaged" in exported.error
    assert len(exported.output.splitlines()) == 31
    assert "fog" not in exported.output

    mended = massl("index", small.root)
    assert mended.code == 0
    assert "the catalog was damaged and is made anew" in mended.error
    assert "brought back from the journal: 1 labels, 0 decisions" in mended.error
    assert said(Collection.open(small.root)) == labelled


def test_labels_come_back_into_an_index_whose_catalog_was_deleted(
    small: Collection,
    tiny_encoder: Encoder,
    massl: Callable[..., Ran],  # noqa: F811
) -> None:
    labelled, decisions = said(small), decided(small.root)
    for file in small.folder.glob("catalog.sqlite*"):
        file.unlink()
    (small.root / "0" / "0.bmp").rename(small.root / "elsewhere.bmp")  # has a label
    (small.root / "1" / "1.bmp").unlink()
    made = massl("index", small.root, "--encoder", tiny_encoder.path)
    assert "the journal has 30 labels" in made.error
    assert "massl label restore" in made.error
    done = massl("label", "restore", small.root, "--json").json
    assert (done["labels"], len(done["left"])) == (29, 1)
    assert done["left"][0]["path"] == "1/1.bmp"
    now = said(Collection.open(small.root))
    assert {row[1:] for row in now} == {row[1:] for row in labelled}
    assert [row[0] for row in now if row[0] == "elsewhere.bmp"] == ["elsewhere.bmp"]
    again = massl("label", "restore", small.root, "--json").json
    assert (again["labels"], again["decisions"], len(again["left"])) == (0, 0, 1)
    assert [len(part) for part in decided(small.root)] == [len(part) for part in decisions]


def test_what_was_taken_back_stays_so(small: Collection, tiny_encoder: Encoder) -> None:
    ids = [image for image, _ in small.images.ready()]
    small.labels.remove(ids[:3])
    small.labels.restore({ids[3]: None, ids[4]: ("bird", "page")}, {ids[3]: "cat", ids[4]: "cat"})  # an undo
    small.rejections.remove([(ids[31], "cat")])
    labelled = said(small)
    closed(small).unlink()
    fresh = Collection.create(small.root, tiny_encoder)
    fresh.update()
    fresh.journal.restore()
    assert said(fresh) == labelled
    assert list(fresh.rejections.by_image().values()) == [frozenset({"dog"})]


def test_labels_follow_moves_and_edits_in_the_journal_too(small: Collection, tiny_encoder: Encoder) -> None:
    (small.root / "0").rename(small.root / "renamed")
    (small.root / "1" / "1.bmp").write_bytes(picture(500))  # edited in place: the label stays
    small.update()
    labelled = said(small)
    assert any(path.startswith("renamed/") for path, *_ in labelled)
    closed(small).unlink()
    fresh = Collection.create(small.root, tiny_encoder)
    fresh.update()
    done = fresh.journal.restore()
    assert done.left == ()
    assert said(fresh) == labelled


def test_a_damaged_line_costs_itself_alone_and_is_written_again(small: Collection, caplog) -> None:
    path = small.folder / journal.NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert journal.read(small.folder).damaged == 1
    small.update()
    assert "1 lines of the journal were damaged" in caplog.text
    assert journal.read(small.folder).damaged == 0
    assert {(image.path, given.label) for image, given in journal.read(small.folder).labels.items()} == {
        row[:2] for row in said(small)
    }


KILLED = """
import os, signal, sys
from indexer import Collection; from indexer.store import journal
from indexer.store.journal import {name} as real
def dies(*arguments):
    {before}
    os.kill(os.getpid(), signal.SIGKILL)
journal.{name} = dies
collection = Collection.open(sys.argv[1])
collection.labels.add("late", [image for image, _ in collection.images.ready()][:5], "killed")
"""


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("is_behind", "pass"),  # nothing is committed yet
        ("catch_up", "pass"),  # committed, and not in the journal
        ("_append", "pass"),
        ("_append", "real(*arguments)"),  # in the journal, and its note not deleted
        ("_tidy", "real(*arguments)"),
    ],
)
def test_a_kill_between_catalog_and_journal_loses_and_doubles_nothing(
    small: Collection, tiny_encoder: Encoder, name: str, before: str
) -> None:
    labelled = said(small)
    closed(small)
    code = KILLED.format(name=name, before=before)
    done = subprocess.run([sys.executable, "-c", code, str(small.root)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    after = said(Collection.open(small.root))
    late = {row for row in after if row[1] == "late"}
    assert len(late) == (0 if name == "is_behind" else 5)
    again = Collection.open(small.root)
    again.labels.add("next", [[image for image, _ in again.images.ready()][39]], "me")
    in_journal = journal.read(small.folder)
    assert in_journal.damaged == 0
    assert {(image.path, *vars(given).values()) for image, given in in_journal.labels.items()} == said(again)
    assert len(said(again)) == len(labelled) + 1
    assert list(again.catalog.read("SELECT count(*) FROM unwritten")) == [(0,)]


def test_two_processes_write_one_journal(small: Collection) -> None:
    code = (
        "import sys; from indexer import Collection; c = Collection.open(sys.argv[1]); "
        "ids = [image for image, _ in c.images.ready()]\n"
        "for turn in range(25): c.labels.add(f'{sys.argv[2]} {turn}', ids[int(sys.argv[2])::2][:20], sys.argv[2])"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(small.root), which]) for which in "01"]
    assert [process.wait(120) for process in running] == [0, 0]
    found = journal.read(small.folder)
    assert found.damaged == 0
    assert {(image.path, *vars(given).values()) for image, given in found.labels.items()} == said(small)


def test_the_journal_stays_small(small: Collection, monkeypatch) -> None:
    monkeypatch.setattr(journal, "_LOOSE", 4_000)
    ids = [image for image, _ in small.images.ready()]
    sizes = []
    for turn in range(60):
        small.labels.add(f"turn {turn}", ids, "me")
        sizes.append((small.folder / journal.NAME).stat().st_size)
    assert max(sizes) < 3 * 400 * 60 + 40 * 400
    assert len({given.label for given in journal.read(small.folder).labels.values()}) == 1


def test_an_index_of_the_format_before_is_brought_to_todays(small: Collection) -> None:
    labelled = said(small)
    file = closed(small)
    write_as_format(file, 3)
    (small.folder / journal.NAME).unlink()
    opened = Collection.open(small.root)
    assert said(opened) == labelled
    opened.update()
    assert list(opened.catalog.read("SELECT count(*) FROM images WHERE row_checksum IS NULL")) == [(0,)]
    assert {image.path for image in journal.read(small.folder).labels} == {row[0] for row in labelled}
    closed(opened)
    damage_a_label(file)
    with pytest.raises(CatalogDamaged, match="1 label changed"):
        Collection.open(small.root)


@pytest.mark.parametrize("old", [False, True])
def test_an_index_that_cant_be_written_is_read(
    small: Collection, old: bool, bound: list[str], tiny_encoder: Encoder
) -> None:
    labelled = said(small)
    file = closed(small)
    if old:
        write_as_format(file, 3)
    code = (
        "import sys; from indexer import Collection, Query; c = Collection.open(sys.argv[1]); "
        "print(len(c.labels.every()), len(c.search([Query(image=c.images.ready()[0][0])], 5)))\n"
        "try: c.labels.add('x', [c.images.ready()[0][0]], 'me')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    small.folder.chmod(0o500)
    for path in small.folder.iterdir():
        path.chmod(0o400)
    try:
        done = subprocess.run([*bound, sys.executable, "-c", code, str(small.root)], capture_output=True, text=True)
    finally:
        small.folder.chmod(0o700)
    first, second = done.stdout.splitlines()
    assert first == f"{len(labelled)} 5", done.stderr
    assert second.startswith("MasslError")
    assert done.stderr == ""


def labelling(path: str, digest: str, label: str) -> dict[str, Any]:
    return {"act": "label", "path": path, "hash": digest, "about": label, "author": "me", "at": "then"}


def unlabelling(path: str, digest: str) -> dict[str, Any]:
    return {"act": "unlabel", "path": path, "hash": digest}


IMAGE = (st.text(max_size=3), st.sampled_from(["aa", "bb"]))
ENTRIES = st.lists(
    st.one_of(st.builds(labelling, *IMAGE, st.text(max_size=5)), st.builds(unlabelling, *IMAGE)), max_size=12
)


@given(ENTRIES, st.data())
def test_any_part_of_the_journal_that_is_there_is_read(entries: list[dict[str, Any]], data: st.DataObject) -> None:
    lines = [journal._line(entry) for entry in entries]
    assert [journal._entry(line.rstrip(b"\n")) for line in lines] == json.loads(json.dumps(entries))
    twice, once = Said(), Said()
    for entry in entries:
        once.add(entry)
    cut = data.draw(st.integers(0, len(entries)))
    for entry in [*entries, *entries[cut:]]:  # as after a kill: the last ones are written again
        twice.add(entry)
    assert twice == once


def test_a_full_disk_costs_no_label(tmp_path: Path, tiny_encoder: Encoder) -> None:
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root, for a small disk of its own")
    script = Path(tmp_path / "full.py")
    script.write_text(FULL)
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", 'mount -t tmpfs -o size=3m none "$0" && exec "$1" "$2" "$0" "$3"', str(place),
         sys.executable, str(script), str(tiny_encoder.path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mounts may be made here")
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert told["errors"] != []
    assert all("free some space" in line for line in told["errors"])
    assert told["kept"] == told["given"] == told["journal"]


FULL = """
import json, os, sys
from pathlib import Path
from indexer import Collection, Encoder; from indexer.store import journal
from massl.core.errors import MasslError
from tests.indexer.former import write_as_format
from tests.indexer.tiny import picture
root = Path(sys.argv[1], "photos"); root.mkdir()
for number in range(20): (root / f"{number}.bmp").write_bytes(picture(number))
c = Collection.create(root, Encoder.load(sys.argv[2])); c.update()
ids = [image for image, _ in c.images.ready()]
filler = open(Path(sys.argv[1], "filler"), "wb", buffering=0)
try:
    while True: filler.write(b"x" * 4096)
except OSError: pass
filler.truncate(filler.tell() - (200 << 10))
errors, given = [], 0
for turn in range(400):
    try:
        c.labels.add(f"label {turn}", ids, "me"); given = turn
    except MasslError as error:
        errors.append(str(error))
        if len(errors) > 3: break
os.unlink(filler.name)
filler.close()
c.labels.add("one more", ids[:1], "me")
kept = {item.label for item in c.labels.every()} - {"one more"}
again = {given.label for given in journal.read(c.folder).labels.values()} - {"one more"}
print(json.dumps({"errors": errors, "kept": sorted(kept), "given": [f"label {given}"], "journal": sorted(again)}))
"""


def test_readers_and_a_writer_see_no_false_damage(small: Collection) -> None:
    stop = threading.Event()
    wrong: list[Exception] = []

    def read() -> None:
        try:
            while not stop.is_set():
                opened = Collection.open(small.root)
                opened.labels.every()
                opened.catalog.close()
        except Exception as error:
            wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    ids = [image for image, _ in small.images.ready()]
    for turn in range(40):
        small.labels.add(f"{turn}", ids, "me")
        small.labels.remove(ids[:5])
    stop.set()
    reader.join()
    assert wrong == []


@pytest.mark.parametrize("version", [1, 2, 3])
def test_repairing_an_index_of_an_earlier_format_keeps_its_labels(small: Collection, version: int) -> None:
    """It has no journal and no checksums."""
    labelled = said(small)
    file = closed(small)
    write_as_format(file, version)
    (small.folder / journal.NAME).unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("DROP INDEX images_by_hash")
    connection.close()
    repaired = Collection.create(small.root)
    repaired.update()
    assert said(repaired) == labelled


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE meta SET value = 'x', checksum = NULL WHERE key = 'generation'",
        "UPDATE images SET reason = CAST(x'ff41' AS TEXT), row_checksum = NULL WHERE id = 1",
        "UPDATE images SET size = 'abc', row_checksum = NULL WHERE id = 1",
        "UPDATE images SET hash = 5, row_checksum = NULL WHERE id = 2",
        "UPDATE meta SET value = '9999999', checksum = NULL WHERE key = 'dim'",
    ],
)
def test_values_that_can_not_be_are_repaired_and_not_carried_over(small: Collection, statement: str) -> None:
    labelled = said(small)
    file = closed(small)
    with sqlite3.connect(file) as connection:
        connection.create_function("checksum", -1, lambda *values: 0)
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
    connection.close()
    for _ in range(2):
        repaired = Collection.create(small.root)
        repaired.update()
        repaired.journal.restore()
        assert said(repaired) == labelled
        closed(repaired)


def test_a_schema_with_a_comment_that_does_not_end_takes_no_time(small: Collection) -> None:
    file = closed(small)
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = sql || ? WHERE name = 'meta'", ["/* " * 200_000])
    connection.close()
    with pytest.raises(CatalogDamaged, match="not as massl makes it"):
        Collection.open(small.root)


def test_a_journal_of_many_moves_is_read_in_one_pass() -> None:
    """A folder that was renamed moves every image of which something was decided."""
    said = Said()
    for number in range(20_000):
        about = {"path": f"a/{number}", "hash": "ab", "kind": "rejected", "about": "cat", "at": "2026"}
        said.add({"act": "decide", **about})
    for number in range(20_000):
        said.add({"act": "move", "path": f"a/{number}", "hash": "ab", "other_path": f"b/{number}", "other_hash": "ab"})
    assert {decision.image.path for decision in said.decisions} == {f"b/{number}" for number in range(20_000)}


@pytest.mark.parametrize("entry", [{"hash": "zz"}, {"path": "\ud800"}, {"at": "\ud800"}, {"about": "\ud800"}])
def test_a_line_of_the_journal_that_nobody_wrote_counts_as_damaged(tmp_path: Path, entry: dict[str, str]) -> None:
    sound = {"act": "label", "path": "a", "hash": "ab", "about": "cat", "author": "me", "at": "2026"}
    (tmp_path / journal.NAME).write_bytes(journal._line(sound) + journal._line({**sound, "path": "b", **entry}))
    found = journal.read(tmp_path)
    assert ([image.path for image in found.labels], found.damaged) == (["a"], 1)
