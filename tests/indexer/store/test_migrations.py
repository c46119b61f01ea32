"""Collections of earlier formats, as earlier versions left them, brought to today's: a test a step."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from indexer import Collection, Encoder, Query
from indexer.store import journal, migrations, schema, tiles
from indexer.store.catalog import Catalog
from indexer.store.damage import CatalogDamaged
from indexer.store.decisions import hashes_of
from indexer.store.filters import Filter
from indexer.store.migrations import STEPS, VERSION
from indexer.store.sidecar_keywords import SidecarKeywords
from indexer.store.tiling import Tiling
from tests.indexer.former import STATEMENTS, write_as_format
from tests.indexer.tiny import picture

IMAGES = 12


@pytest.fixture
def made(tmp_path: Path, tiny_encoder: Encoder) -> Path:
    """A folder of twelve pictures, indexed, of which four are labelled, with each kind of decision; closed."""
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(IMAGES):
        (root / f"{number:02d}.bmp").write_bytes(picture(number))
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    collection.labels.add("a", [1, 2], "me")
    collection.labels.add("b", [3, 4], "somebody else")
    collection.decisions.keep_both([5, 6])
    collection.decisions.choose(7, [8])
    collection.rejections.add({9: "a", 10: "no 'b' \N{SNOWMAN}"})
    collection.confirmations.add([(3, "b")])
    collection.catalog.close()
    return root


def in_format(root: Path, version: int) -> Path:
    """The collection's catalog, written as that format had it."""
    path = root / ".massl" / "catalog.sqlite"
    write_as_format(path, version)
    return path


def said_of(collection: Collection) -> tuple[object, ...]:
    """Images, labels, and each kind of decision."""
    hashes = hashes_of(collection.catalog, range(1, IMAGES + 1))
    decided = collection.decisions.decided(hashes)
    assert decided.images == {(5, 6)}
    assert decided.chosen == {7}
    return (
        collection.images.ready(),
        collection.labels.every(),
        collection.duplicates.kept_together(),
        decided,
        collection.rejections.by_image(),
        collection.confirmations.every(),
    )


def after(path: Path, version: int) -> sqlite3.Connection:
    """The catalog of a format, after the one step from it."""
    connection = sqlite3.connect(path, isolation_level=None)
    STEPS[version](connection)
    return connection


def test_every_earlier_format_has_a_step_and_is_known_to_the_tests() -> None:
    assert list(STEPS) == list(STATEMENTS) == list(range(1, VERSION))
    assert [step.__name__ for step in STEPS.values()] == [f"from_{one}_to_{one + 1}" for one in STEPS]
    assert all(step.__doc__ for step in STEPS.values())


@pytest.mark.parametrize("version", STEPS)
def test_a_collection_of_an_earlier_format_opens_and_loses_nothing(made: Path, version: int) -> None:
    opened = Collection.open(made)
    said = said_of(opened)
    found = [(result.path, result.score) for result in opened.search([Query(image=1)], 5)]
    opened.catalog.close()
    path = in_format(made, version)

    migrated = Collection.open(made)
    assert said_of(migrated) == said
    assert [(result.path, result.score) for result in migrated.search([Query(image=1)], 5)] == found
    report = migrated.update()
    assert (report.unchanged, report.embedded) == (IMAGES, 0)
    migrated.catalog.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() == (str(VERSION),)
        assert schema.difference(schema.of(connection), migrations.schema_of(VERSION)) is None


def test_the_first_step_adds_a_time_of_change_that_is_not_known(made: Path) -> None:
    with closing(after(in_format(made, 1), 1)) as connection:
        assert connection.execute("SELECT DISTINCT ctime_ns FROM images").fetchall() == [(-1,)]
        assert schema.difference(schema.of(connection), migrations.schema_of(2)) is None


def test_the_second_step_forgets_an_index_that_noted_no_changes(made: Path) -> None:
    with closing(after(in_format(made, 2), 2)) as connection:
        assert connection.execute("SELECT * FROM meta WHERE key LIKE 'vectors_%'").fetchall() == []
        connection.execute("UPDATE images SET embedding = NULL WHERE id = 7")
        assert connection.execute("SELECT image FROM changes").fetchall() == [(7,)]


def test_the_third_step_leaves_checksums_unknown_until_a_transaction_ends(made: Path) -> None:
    with closing(after(in_format(made, 3), 3)) as connection:
        assert connection.execute("SELECT DISTINCT row_checksum, embedding_checksum FROM images").fetchall() == [
            (None, None)
        ]
        connection.execute("DELETE FROM labels WHERE image = 3")
        assert connection.execute("SELECT act FROM unwritten").fetchall() == [("unlabel",)]


def test_the_fourth_step_gives_each_kind_of_decision_its_table_and_tells_the_journal_nothing_twice(made: Path) -> None:
    with closing(after(in_format(made, 4), 4)) as connection:
        tables = ("kept_both", "kept_instead", "rejected_labels", "confirmed_labels")
        rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
        assert [[row[:2] for row in rows[table]] for table in tables[2:]] == [
            [(9, "a"), (10, "no 'b' \N{SNOWMAN}")],
            [(3, "b")],
        ]
        assert [row[:2] for row in rows["kept_both"]] == [(5, 6)]
        assert [row[0] for row in rows["kept_instead"]] == [7, 7]  # by itself, and over the other
        assert all(len(row[-3]) == 16 for row in rows["kept_both"] + rows["kept_instead"])
        assert connection.execute("SELECT * FROM unwritten").fetchall() == []
        assert schema.difference(schema.of(connection), migrations.schema_of(5)) is None


def test_the_fifth_step_knows_nothing_of_pictures_and_the_next_update_reads_it(made: Path) -> None:
    path = in_format(made, 5)
    with closing(after(path, 5)) as connection:
        assert schema.difference(schema.of(connection), migrations.schema_of(6)) is None
        for table in ("file_metadata", "pixel_measures"):
            assert connection.execute(f"SELECT * FROM {table}").fetchall() == []
    write_as_format(path, 5)
    opened = Collection.open(made)
    assert opened.images.facts(1).metadata is None
    assert opened.update().embedded == 0
    known = opened.images.facts(1)
    assert known.metadata is not None
    assert known.metadata.taken is None
    assert known.measures is not None
    opened.catalog.close()


def test_the_sixth_step_adds_tags_and_the_journal_follows_a_tagged_picture(made: Path) -> None:
    path = in_format(made, 6)
    with closing(after(path, 6)) as connection:
        assert schema.difference(schema.of(connection), migrations.schema_of(7)) is None
        assert connection.execute("SELECT * FROM tags").fetchall() == []
    write_as_format(path, 6)
    opened = Collection.open(made)
    known = opened.images.facts(12).metadata
    assert known is not None
    assert opened.tags.add("sea", [12], "me") == 1
    (made / "11.bmp").rename(made / "moved.bmp")
    opened.update()
    assert [(tag.path, tag.tag) for tag in opened.tags.every()] == [("moved.bmp", "sea")]
    assert [decision.image.path for decision in journal.read(opened.folder).tagged()] == ["moved.bmp"]
    assert opened.images.facts(12).metadata == known
    opened.catalog.close()


def test_a_collection_of_the_sixth_format_that_cant_be_written_has_no_tags(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_format(made, 6)
    monkeypatch.setattr(Catalog, "can_be_written", lambda catalog: False)
    reading = Collection.open(made)
    assert reading.images.facts(1).metadata is not None
    assert (reading.tags.every(), reading.tags.counts(), reading.tags.of([1, 2])) == ([], {}, {})
    assert reading.rejected_tags.of_tag("sea") == frozenset()
    reading.catalog.close()


def test_the_seventh_step_adds_tiles_that_go_with_the_vector_of_their_image(made: Path, tiny_encoder: Encoder) -> None:
    path = in_format(made, 7)
    with closing(after(path, 7)) as connection:
        assert schema.difference(schema.of(connection), migrations.schema_of(8)) is None
        connection.execute("INSERT INTO tiles (image, x, y, width, height, embedding) VALUES (7, 0, 0, 32, 32, X'00')")
        connection.execute("UPDATE images SET state = 'gone' WHERE id = 7")
        connection.execute("UPDATE images SET embedding = NULL WHERE id = 7")
        assert connection.execute("SELECT * FROM tiles").fetchall() == []
        assert connection.execute("SELECT tile FROM tile_changes").fetchall() == [(1,), (1,), (1,)]
    write_as_format(path, 7)
    cut = Collection.create(made, tiny_encoder, rebuild=True, tiling=Tiling(32))
    assert cut.update().embedded == IMAGES
    assert tiles.count(cut.catalog) == IMAGES
    cut.catalog.close()


def test_a_collection_of_the_seventh_format_that_cant_be_written_has_no_tiles(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_format(made, 7)
    monkeypatch.setattr(Catalog, "can_be_written", lambda catalog: False)
    reading = Collection.open(made)
    assert [result.box for result in reading.search([Query(image=1)], 5)] == [None] * 5
    assert tiles.count(reading.catalog) == 0
    reading.catalog.close()


def test_the_eighth_step_takes_words_in_sidecars_for_somebody_elses(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = in_format(made, 8)
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "can_be_written", lambda catalog: False)
        reading = Collection.open(made)
        assert SidecarKeywords(reading.catalog).every() == {}
        reading.catalog.close()
    with closing(after(path, 8)) as connection:
        assert schema.difference(schema.of(connection), migrations.schema_of(9)) is None
        assert connection.execute("SELECT * FROM sidecar_keywords").fetchall() == []
    write_as_format(path, 8)
    opened = Collection.open(made)
    written = SidecarKeywords(opened.catalog)
    written.set({3: ["a", "é"], 4: ["b"]})
    written.set({4: []})
    assert written.every() == {3: frozenset({"a", "é"})}
    opened.catalog.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE sidecar_keywords SET keywords = replace(keywords, 'a', 'c')")
        connection.commit()
    with pytest.raises(CatalogDamaged, match="1 picture fact changed"):
        Collection.open(made)


def test_a_collection_of_the_fifth_format_that_cant_be_written_is_searched_and_knows_no_facts(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_format(made, 5)
    monkeypatch.setattr(Catalog, "can_be_written", lambda catalog: False)
    reading = Collection.open(made)
    assert reading.images.facts(1).metadata is None
    assert len(reading.search([Query(image=1)], 5)) == 5
    assert reading.duplicates.find().groups == ()
    assert reading.images.count(Filter(taken_since=date(2000, 1, 1))) == 0
    assert reading.images.count(Filter(taken_since=date(2000, 1, 1), or_modified=True)) == IMAGES
    reading.catalog.close()


def test_a_decision_that_the_disk_changed_is_found_before_the_fourth_step_takes_it_over(
    made: Path, tiny_encoder: Encoder
) -> None:
    opened = Collection.open(made)
    said = said_of(opened)
    opened.catalog.close()
    path = in_format(made, 4)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE decisions SET checksum = 7 WHERE kind = 'rejected' AND image = 9")
    with pytest.raises(CatalogDamaged, match="a decision changed"):
        Collection.open(made)
    repaired = Collection.create(made, tiny_encoder)
    repaired.update()
    assert said_of(repaired) == said  # the one that was lost comes from the journal
    repaired.catalog.close()


@pytest.mark.parametrize("version", STEPS)
def test_an_earlier_format_that_cant_be_written_is_read_with_its_decisions(
    made: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Collection.open(made)
    said = said_of(opened)
    opened.catalog.close()
    path = in_format(made, version)
    monkeypatch.setattr(Catalog, "can_be_written", lambda catalog: False)
    reading = Collection.open(made)
    assert said_of(reading) == said
    before = reading.revision()
    assert reading.revision() == before
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM labels WHERE image = 1")
    assert reading.revision().labelled != before.labelled
    reading.catalog.close()
