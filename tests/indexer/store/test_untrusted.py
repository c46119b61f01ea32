"""An index that somebody else made: nothing in it is believed before it is looked at."""

from __future__ import annotations

import ast
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import indexer
from indexer import Collection, Encoder, Query
from indexer.json_results import of_collection
from indexer.label_formats.exporting import FORMATS
from indexer.store import checksums, fact_tables, schema
from indexer.store.catalog import Catalog
from indexer.store.damage import CatalogDamaged
from indexer.store.decision_tables import TABLES
from indexer.store.migrations import VERSION, schema_of
from indexer.store.sidecar_keywords import SidecarKeywords
from massl.core.errors import MasslError
from tests.indexer.tiny import picture, write_encoder

ROOMS = Path(indexer.__file__).parent.parent


def make(folder: Path, encoder: Encoder) -> Path:
    """Six pictures and their index, with labels, a pair that is kept both, and a rejection. Nobody has it open."""
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(picture(number))
    collection = Collection.create(folder, encoder)
    collection.update()
    collection.labels.add("a", [1, 2], "me")
    collection.labels.add("b", [3, 4], "me")
    collection.decisions.keep_both([1, 2])
    collection.rejections.add({5: "a"})
    collection.health.drift()
    collection.catalog.close()
    return folder


@pytest.fixture
def made(tmp_path: Path, tiny_encoder: Encoder) -> Path:
    """See `make`."""
    return make(tmp_path / "photos", tiny_encoder)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Encoder) -> Path:
    """As `made`; not to be changed."""
    return make(tmp_path_factory.mktemp("once") / "photos", tiny_encoder)


def change(folder: Path, *statements: str | tuple[str, list[object]]) -> None:
    """Runs statements on the catalog of a folder, as somebody does who can write the file."""
    with closing(sqlite3.connect(folder / ".massl" / "catalog.sqlite", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(*((statement,) if isinstance(statement, str) else statement))


def rewritten(name: str, old: str, new: str) -> tuple[str, ...]:
    """Statements that change what a part of the schema says, past all that SQLite checks."""
    text = f"UPDATE sqlite_master SET sql = replace(sql, '{old}', '{new}') WHERE name = '{name}'"
    return ("PRAGMA writable_schema = ON", text, "PRAGMA schema_version = 999")


# The schema -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TRIGGER t AFTER INSERT ON labels BEGIN DELETE FROM labels; END",),
        ("CREATE TABLE more (x)",),
        ("CREATE VIEW v AS SELECT 1",),
        (
            "ALTER TABLE images RENAME TO others",
            "CREATE VIEW images AS WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c) SELECT id FROM c",
        ),
        ("CREATE INDEX i ON images (abs(size))",),
        ("ALTER TABLE images ADD COLUMN g AS (hex(zeroblob(1 << 30)))",),
        ("DROP TRIGGER image_changed",),
        ("DROP INDEX images_by_hash",),
        rewritten("labels", "at TEXT NOT NULL", "at TEXT NOT NULL CHECK (randomblob(1 << 30) IS NULL)"),
        rewritten("labels", "label TEXT NOT NULL", "label TEXT NOT NULL COLLATE NOCASE"),
        rewritten("labels", "ON DELETE CASCADE", "ON DELETE SET NULL"),
        rewritten("image_deleted", "OLD.id", "1"),
        ("CREATE VIRTUAL TABLE f USING fts5(x)",),
        (
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'images') "
            "WHERE name = 'labels'",
            "PRAGMA schema_version = 999",
        ),
    ],
    ids=lambda statements: statements[-1][:40] if "schema_version" not in statements[-1] else statements[1][-60:],
)
def test_a_catalog_with_anything_that_we_do_not_make_is_not_opened(made: Path, statements: tuple[str, ...]) -> None:
    change(made, *statements)
    path = made / ".massl" / "catalog.sqlite"
    before = path.read_bytes()
    with pytest.raises(MasslError, match=r"not as massl makes it|damaged"):
        Collection.open(made)
    assert path.read_bytes() == before
    # Indexing takes over its rows, not what runs with them, and keeps the file.
    Collection.create(made).catalog.close()
    with closing(sqlite3.connect(path)) as connection:
        assert schema.difference(schema.of(connection), schema_of(VERSION)) is None
        assert connection.execute("SELECT count(*) FROM images").fetchone()[0] in (0, 6)
    (kept,) = path.parent.glob("catalog-damaged-*.sqlite")
    assert kept.read_bytes() == before


def parts_of(schema_text: str) -> list[str]:
    return [token for token in schema._TOKEN.findall(schema_text) if not token.isspace() and not token.startswith("--")]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_change_of_a_word_of_the_schema_is_noticed_and_none_of_its_spacing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("catalog")
    path = folder / "catalog.sqlite"
    Catalog.create(path, {}).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name").fetchall()
        name, sql = data.draw(st.sampled_from(rows))
        words = parts_of(sql)
        place = data.draw(st.integers(0, len(words) - 1))
        how = data.draw(st.sampled_from(["drop", "twice", "another", "space"]))
        other = data.draw(st.sampled_from([*words, "randomblob", "'x'", '"x"', "--x\n", "0"]))
        assume(how != "another" or other != words[place])
        if how == "space":
            gap = data.draw(st.sampled_from(["\n", " \t ", " -- a note\n", " /* a note */ "]))
            words[place] += gap
        else:
            words[place : place + 1] = {"drop": [], "twice": [words[place]] * 2, "another": [other]}[how]
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", [" ".join(words), name])
        connection.execute("PRAGMA schema_version = 999")
    if how == "space":
        Catalog.open(path).close()
    else:
        with pytest.raises(MasslError):
            Catalog.open(path)


def test_a_catalog_that_came_by_migrations_is_as_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    Catalog.create(path, {}).close()
    with closing(sqlite3.connect(path)) as connection:
        new = schema.of(connection)
    catalog = Catalog.open(path)
    found = schema.difference(new, schema_of(VERSION))
    catalog.close()
    assert found is None


def test_a_schema_that_changes_while_it_is_open_is_looked_at_again(made: Path) -> None:
    opened = Collection.open(made)
    assert len(opened) == 6
    change(made, "CREATE TRIGGER t AFTER INSERT ON labels BEGIN DELETE FROM labels; END")
    with pytest.raises(MasslError, match="also has the trigger 't'"):
        opened.labels.add("a", [1], "me")
    change(made, "DROP TRIGGER t")
    assert opened.labels.add("a", [1], "me") == 1


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_journal_that_names_another_file_does_not_have_it_deleted(made: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    name = os.fsencode(victim)
    with closing(sqlite3.connect(made / ".massl" / "catalog.sqlite")) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    magic = bytes.fromhex("d9d505f920a163d7")
    head = (magic + struct.pack(">IIIII", 0, 1, pages, 512, size)).ljust(512, b"\0")
    tail = struct.pack(">I", (1 << 30) // size + 1) + name + struct.pack(">II", len(name), sum(name)) + magic

    def lay() -> Path:
        victim.write_text("precious")
        journal = made / ".massl" / "catalog.sqlite-journal"
        journal.write_bytes(head + tail)
        return journal

    lay()
    with closing(sqlite3.connect(made / ".massl" / "catalog.sqlite")) as connection:
        connection.execute("SELECT * FROM meta").fetchall()
    assert not victim.exists(), "SQLite by itself no longer deletes it: this guard can go"
    journal = lay()
    with pytest.raises(MasslError, match="its journal names another file"):
        Collection.open(made)
    assert victim.read_text() == "precious"
    journal.unlink()
    assert len(Collection.open(made)) == 6


@pytest.mark.parametrize(
    "name", ["lock", "catalog.sqlite-wal", "catalog.sqlite-shm", "catalog.sqlite-journal", "thumbnails", "notes"]
)
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_written_through_a_link_in_an_index(made: Path, tmp_path: Path, name: str, there: bool) -> None:
    victim = tmp_path / "victim"
    if there and name == "thumbnails":
        victim.mkdir()
    elif there:
        victim.write_text("precious")
    link = made / ".massl" / name
    shutil.rmtree(link, ignore_errors=True)
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    for opened in (Collection.open, Collection.create):
        with pytest.raises(MasslError, match=rf"{name} is a link"):
            opened(made)
    (made / ".massl" / "catalog.sqlite").unlink()  # to be made anew
    with pytest.raises(MasslError, match=rf"{name} is a link"):
        Collection.create(made)
    assert victim.exists() == there
    assert not there or victim.is_dir() or victim.read_text() == "precious"


def test_a_linked_encoder_catalog_or_thumbnail_is_neither_read_nor_written(
    made: Path, tmp_path: Path, tiny_encoder: Encoder
) -> None:
    other = Encoder.load(write_encoder(tmp_path / "other.onnx", "other"))
    (tmp_path / "victim").write_text("precious")
    (made / ".massl" / f"encoder-{other.sha256[:16]}.onnx").symlink_to(tmp_path / "victim")
    with pytest.raises(MasslError, match="is a link"):
        Collection.create(made, other, rebuild=True)
    (made / ".massl" / f"encoder-{other.sha256[:16]}.onnx").unlink()
    opened = Collection.open(made)
    ((digest,),) = opened.catalog.read("SELECT hash FROM images WHERE id = 1")
    (made / ".massl" / "thumbnails").mkdir(exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    (made / ".massl" / "thumbnails" / digest.hex()[:2]).symlink_to(tmp_path / "elsewhere")
    assert opened.images.thumbnail(1) is None
    assert not list((tmp_path / "elsewhere").iterdir())
    opened.catalog.close()
    catalog = made / ".massl" / "catalog.sqlite"
    catalog.rename(tmp_path / "catalog.sqlite")
    catalog.symlink_to(tmp_path / "catalog.sqlite")
    with pytest.raises(MasslError, match="is a link"):
        Collection.open(made)


def test_an_index_that_is_itself_a_link_is_taken_only_if_it_is_named(made: Path, tmp_path: Path) -> None:
    (made / ".massl").rename(tmp_path / "index")
    (made / ".massl").symlink_to(tmp_path / "index")
    with pytest.raises(MasslError, match=r"name .*index with --index-dir"):
        Collection.open(made)
    assert len(Collection.open(made, tmp_path / "index")) == 6
    (tmp_path / "by a link").symlink_to(made)  # a link to the folder of images is somebody's own
    (made / ".massl").unlink()
    (tmp_path / "index").rename(made / ".massl")
    assert len(Collection.open(tmp_path / "by a link")) == 6


def test_a_pipe_in_an_index_is_not_waited_for(made: Path) -> None:
    os.mkfifo(made / ".massl" / "encoder-0000000000000000.onnx")
    with pytest.raises(MasslError, match="no ordinary file"):
        Collection.open(made)


def test_an_encoder_in_the_runtime_s_own_form_is_not_run(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "encoder.onnx")
    options.add_session_config_entry("session.save_model_format", "ORT")
    source = write_encoder(tmp_path / "source.onnx")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    with pytest.raises(MasslError, match="is not an ONNX model"):
        Encoder.load(tmp_path / "encoder.onnx")


# Paths ----------------------------------------------------------------------------------------------------------------

EVERYTHING = """if True:
    import os, sys
    from indexer import Collection, Query
    from indexer.json_results import of_collection
    from massl.core.errors import MasslError

    opened, trying = [], [False]
    sys.addaudithook(lambda event, what: opened.append(what[0]) if trying[0] and event == "open" else None)
    calls = lambda collection: [
        lambda: collection.images.thumbnail(1), lambda: collection.images.thumbnail(1, 1024),
        lambda: collection.images.facts(1), lambda: collection.images.file_state(1),
        lambda: collection.images.browse(), lambda: collection.images.ready(), lambda: collection.images.outline(),
        lambda: collection.search([Query(image=1, crop=(0, 0, 8, 8))]), lambda: collection.search([Query(image=2)]),
        lambda: collection.searcher.heat([Query(image=2)], 1), lambda: collection.duplicates.find(),
        lambda: collection.duplicates.find(exact_only=True),
        lambda: collection.duplicates.settled(collection.duplicates.find()),
        lambda: collection.duplicates.kept_together(), lambda: collection.exports.labels("csv", predictions=True),
        lambda: collection.exports.labels("coco"), lambda: collection.exports.labels("imagefolder"),
        lambda: collection.labels.every(), lambda: collection.fewshot.classify(),
        lambda: collection.fewshot.suspects(), lambda: collection.encoders.compare(collection.encoder),
        lambda: of_collection(collection), lambda: collection.images.skipped(),
        lambda: collection.images.described([1]), lambda: collection.images.paths_of([1]),
        lambda: collection.searcher.calibrate(), lambda: collection.health.check(),
        lambda: collection.map.kinds(collection.searcher.index()._base.ids, "folder", 5), lambda: collection.update(),
    ]
    for folder in sys.argv[1:]:
        collection = Collection.open(folder)
        for call in calls(collection):
            trying[0] = True
            try:
                call()
            except MasslError:
                pass
            trying[0] = False
    paths = [os.path.realpath(os.fsdecode(path)) for path in opened if not isinstance(path, int)]
    looked_at = [any(path.startswith(folder) for path in paths) for folder in sys.argv[1:]]
    print([path for path in paths if "private" in path], all(looked_at))
"""


def test_whatever_is_asked_of_a_catalog_that_names_a_file_elsewhere_it_is_not_opened(
    tmp_path: Path, tiny_encoder: Encoder
) -> None:
    folders = []
    for number, form in enumerate(("climbing", "absolute", "hidden climb")):
        (tmp_path / f"{number}").mkdir()
        made = make(tmp_path / f"{number}" / "photos", tiny_encoder)
        secret = tmp_path / f"{number}" / "private" / "secret.png"
        secret.parent.mkdir()
        shutil.copy(made / "0.png", secret)
        path = {
            "climbing": "../private/secret.png", "absolute": str(secret), "hidden climb": "x/../../private/secret.png",
        }[form]  # fmt: skip
        (made / "x").mkdir()
        change(made, ("UPDATE images SET path = ? WHERE id = 1", [os.fsencode(path)]))
        folders.append(made)
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING, *folders], capture_output=True, text=True, cwd=ROOMS, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] True"  # other files of each folder were opened
    for made in folders:
        opened = Collection.open(made)  # brought up to date, it has forgotten that path
        assert {path for _, path in opened.images.ready()} == {f"{number}.png" for number in range(6)}


@pytest.mark.parametrize("path", [b"../a", b"/a", b"a/../../b", b"a//b", b"./a", b"a/", b"a\0b", b"..", b"."])
def test_a_path_that_no_walk_would_find_is_refused_by_name(made: Path, path: bytes) -> None:
    change(made, ("UPDATE images SET path = ? WHERE id = 1", [path]))
    with pytest.raises(MasslError, match="outside of its folder"):
        Collection.open(made).images.ready()


def test_links_that_lie_in_the_folder_are_followed_as_before(tmp_path: Path, tiny_encoder: Encoder) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.png").write_bytes(picture(0))
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "disk")
    collection = Collection.create(tmp_path / "photos", tiny_encoder)
    collection.update()
    assert [path for _, path in collection.images.ready()] == ["linked/a.png"]
    assert collection.images.thumbnail(1) is not None
    assert collection.images.file_state(1) == "there"


def test_paths_of_the_catalog_are_read_and_joined_in_one_place() -> None:
    """Every `root / …` of the indexer that is not by `below`, and every decoding of a path that is not by it."""
    walked = {"indexing.py", "edited_copies.py", "ranges.py"}  # what they join came of a walk or of somebody's own list
    compared = {"journal.py", "restoring.py"}  # where paths, also of gone images, are compared and never opened
    found = []
    for file in sorted((ROOMS / "indexer").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and file.name not in {*walked, "paths.py"}:
                left = ast.unparse(node.left)
                if left.split(".")[-1] in ("root", "_root") and not isinstance(node.right, ast.Constant):
                    found.append(f"{file.name}: {ast.unparse(node)}")
            if isinstance(node, ast.Attribute) and node.attr == "fsdecode" and file.name not in {*compared, "paths.py"}:
                found.append(f"{file.name}: {ast.unparse(node)}")
    # Of a path that somebody typed: whether there is such a file, and what its name is in the answer.
    assert found == ["folder_images.py: self._root / path"]


# Values ---------------------------------------------------------------------------------------------------------------

VALUES = [
    None,
    7,
    -1,
    1 << 62,
    1.5,
    float("inf"),
    "x",
    "-1",
    "[1]",
    b"\1\2",
    b"\0" * 32,
    np.full(8, np.nan, "<f2").tobytes(),
]
COLUMNS = {
    "images": [*checksums.IMAGE.split(", "), "embedding"],
    "labels": checksums.LABEL.split(", "),
    **{name: table.columns.split(", ") for name, table in TABLES.items()},
    "revisions": ["subject", "number"],
    "changes": ["number", "image"],
}
FACTS = (
    "encoder_sha256",
    "image_size",
    "dim",
    "vectors_kept",
    "engine",
    "engine_address",
    "vectors_change",
    "max_pixels",
    "generation",
    "exclude",
    "classes",
)
ASKED: dict[str, Callable[[Collection], object]] = {
    "search": lambda it: it.search([Query(image=2)], 3),
    "exact": lambda it: it.search([Query(image=1)], 3, exact=True),
    "browse": lambda it: (it.images.browse(), it.images.outline(), it.images.ready(), it.images.skipped()),
    "image": lambda it: (it.images.facts(1), it.images.file_state(1), it.images.thumbnail(1)),
    "labels": lambda it: (
        it.labels.every(),
        it.labels.counts(),
        it.labels.classes(),
        it.rejections.by_image(),
        it.confirmations.every(),
    ),
    "tags": lambda it: (it.tags.every(), it.tags.counts(), it.tags.by_tag(), it.rejected_tags.of_tag("sea")),
    "classify": lambda it: it.fewshot.classify(),
    "duplicates": lambda it: it.duplicates.settled(it.duplicates.find(exact_only=True)),
    "kept": lambda it: it.duplicates.kept_together(),
    "export": lambda it: [it.exports.labels(kind) for kind in FORMATS],
    "map": lambda it: it.map.get(False),
    "revision": lambda it: it.revision(),
    "update": lambda it: it.update(),
    "info": lambda it: of_collection(it),
    "label": lambda it: it.labels.add("c", [1], "me"),
    "label again": lambda it: it.labels.restore({2: ("d", "me")}, {2: "c"}),
    "tag": lambda it: (it.tags.add("sea", [1, 2], "me"), it.tags.remove([(1, "sea")])),
    "reject": lambda it: (it.rejections.add({1: "c"}), it.rejected_tags.add([(2, "sand")])),
    "keep": lambda it: (it.decisions.keep_both([1, 2]), it.decisions.choose(3, [4])),
    "forget": lambda it: it.decisions.forget(),
}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_value_of_another_kind_is_a_sentence_and_no_crash(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, made_once: Path
) -> None:
    folder = tmp_path_factory.mktemp("copy") / "photos"
    shutil.copytree(made_once, folder)
    place = data.draw(st.sampled_from([*COLUMNS, "meta"]))
    value = data.draw(st.sampled_from([*VALUES, "not UTF-8"]))
    new, values = ("CAST(x'ff41' AS TEXT)", []) if value == "not UTF-8" else ("?", [value])
    if place == "meta":
        statement = f"UPDATE meta SET value = {new} WHERE key = '{data.draw(st.sampled_from(FACTS))}'"
    else:
        column = data.draw(st.sampled_from(COLUMNS[place]))
        statement = f"UPDATE {place} SET {column} = {new}" + (" WHERE id = 1" if place == "images" else "")
    try:
        change(folder, (statement, values))
    except sqlite3.Error:
        assume(False)  # SQLite takes none such there
    for ask in ASKED.values():
        try:
            opened = Collection.open(folder)
            ask(opened)
        except MasslError:
            pass
        else:
            opened.catalog.close()


@pytest.mark.parametrize("table", ["labels", "rejected_labels", "confirmed_labels"])
def test_a_label_is_not_given_beside_one_that_is_no_text(made: Path, table: str) -> None:
    opened = Collection.open(made)
    opened.labels.add("c", [1], "me")
    opened.rejections.add({1: "d"})
    opened.confirmations.add([(1, "c")])
    change(made, (f"UPDATE {table} SET label = ?", [b"\1\2"]))
    with pytest.raises(MasslError, match="label is of another kind"):
        Collection.open(made).labels.add("c", [2], "me")


@pytest.mark.parametrize("value", [7, "x", '{"a": "b"}', "[1]", '["\\ud800"]', "[" * 5_000])
def test_keywords_that_are_no_list_of_words_are_a_sentence_and_read_anew(
    made: Path, tiny_encoder: Encoder, value: object
) -> None:
    opened = Collection.open(made)
    columns = fact_tables.COLUMNS | fact_tables.SIDECAR_COLUMNS
    with closing(sqlite3.connect(made / ".massl" / "catalog.sqlite", isolation_level=None)) as connection:
        checksums.register(connection)
        connection.execute("INSERT INTO sidecar_keywords VALUES (1, '[]', 0)")
        for table in ("file_metadata", "sidecar_keywords"):
            connection.execute(f"UPDATE {table} SET keywords = ?", [value])
            connection.execute(f"UPDATE {table} SET checksum = checksum({columns[table]})")
    for ask in (lambda: opened.images.facts(1), opened.images.keywords, SidecarKeywords(opened.catalog).every):
        with pytest.raises(CatalogDamaged, match="keywords is of another kind"):
            ask()
    opened.catalog.close()
    with pytest.raises(CatalogDamaged, match="7 picture facts changed"):
        Collection.open(made)
    repaired = Collection.create(made, tiny_encoder)
    repaired.update()
    assert repaired.images.keywords() == {}
    assert repaired.images.facts(1).metadata is not None
    repaired.catalog.close()
