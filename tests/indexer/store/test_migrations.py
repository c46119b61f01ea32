"""Collections of earlier formats, as earlier versions left them, brought to today's: a test a step."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexer import Collection, Encoder, Query
from indexer.store import migrations, schema
from indexer.store.migrations import STEPS, VERSION
from tests.indexer.former import STATEMENTS, write_as_format
from tests.indexer.tiny import picture

IMAGES = 12


@pytest.fixture
def made(tmp_path: Path, tiny_encoder: Encoder) -> Path:
    """A folder of twelve pictures, indexed, of which four are labelled and two are to be kept both; closed."""
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(IMAGES):
        (root / f"{number:02d}.bmp").write_bytes(picture(number))
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    collection.labels.add("a", [1, 2], "me")
    collection.labels.add("b", [3, 4], "somebody else")
    collection.decisions.keep_both([5, 6])
    collection.catalog.close()
    return root


def in_format(root: Path, version: int) -> Path:
    """The collection's catalog, written as that format had it."""
    path = root / ".massl" / "catalog.sqlite"
    write_as_format(path, version)
    return path


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
    said = opened.labels.every(), opened.duplicates.kept_together(), opened.images.ready()
    found = [(result.path, result.score) for result in opened.search([Query(image=1)], 5)]
    opened.catalog.close()
    path = in_format(made, version)

    migrated = Collection.open(made)
    assert (migrated.labels.every(), migrated.duplicates.kept_together(), migrated.images.ready()) == said
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
