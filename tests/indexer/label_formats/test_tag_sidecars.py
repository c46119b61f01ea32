"""Sidecars: where they are written, and what comes of the words in them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from indexer import Collection, Encoder
from indexer.label_formats.tag_importing import of_keywords
from indexer.store.tags import MAX_TAGS
from tests.indexer.tiny import picture


def test_no_sidecar_is_written_behind_a_link_out_of_the_folder(tmp_path: Path, tiny_encoder: Encoder) -> None:
    root, outside = tmp_path / "photos", tmp_path / "outside"
    (root / "own").mkdir(parents=True)
    outside.mkdir()
    (outside / "1.bmp").write_bytes(picture(1))
    (root / "own" / "2.bmp").write_bytes(picture(2))
    (root / "link").symlink_to(outside)
    (tmp_path / "elsewhere.bmp").write_bytes(picture(3))
    (root / "3.bmp").symlink_to(tmp_path / "elsewhere.bmp")  # its sidecar lies in the folder
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    images = {path: image for image, path in collection.images.ready()}
    collection.tags.add("sea", images.values(), "me")
    report = collection.exports.write_sidecars()
    ((path, reason),) = report.left
    assert path == "link/1.bmp"
    assert "behind a link" in reason
    assert [path.name for path in outside.iterdir()] == ["1.bmp"]
    assert sorted(report.written) == ["3.bmp.xmp", "own/2.bmp.xmp"]


def test_a_repaired_catalog_still_knows_which_words_are_its_own(tmp_path: Path, tiny_encoder: Encoder) -> None:
    (tmp_path / "1.bmp").write_bytes(picture(1))
    made = Collection.create(tmp_path, tiny_encoder)
    made.update()
    made.tags.add("sea", [1], "me")
    assert made.exports.write_sidecars().written == ["1.bmp.xmp"]
    list(made.catalog.read("PRAGMA wal_checkpoint(TRUNCATE)"))
    made.catalog.close()
    with closing(sqlite3.connect(made.folder / "catalog.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE file_metadata SET taken = '2024-05-02'")
    repaired = Collection.create(tmp_path, tiny_encoder)
    assert list(made.folder.glob("catalog-damaged-*"))
    repaired.update()
    repaired.tags.remove([(1, "sea")])
    assert repaired.exports.write_sidecars().removed == ["1.bmp.xmp"]
    assert not (tmp_path / "1.bmp.xmp").exists()


def test_a_picture_with_too_many_words_is_left_out_alone() -> None:
    words = [f"w{number}" for number in range(MAX_TAGS)]
    keywords = {1: ("full.jpg", words), 2: ("two.jpg", ["a,b", "x" * 200, "a"]), 3: ("just.jpg", words)}
    wanted, left = of_keywords(keywords, {1: ("mine",), 3: ("w0",)})
    assert wanted == [(2, "a"), (2, "b"), *((3, word) for word in words)]
    assert [path for path, _ in left] == ["full.jpg", "two.jpg"]
    assert f"more than {MAX_TAGS} tags" in left[0][1]
