"""A collection that massl 0.1.0 made with massl-builtin-4, of nine bundled pictures, with labels, rejections and a pair
that was kept: `collection_of_massl_0.1.zip`. The encoder's copy (15 MB) is left out.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

import cli
from indexer import Collection, Encoder, Query
from indexer.encoder.encoder_file import BUILTIN

PICTURES = Path(cli.__file__).with_name("pictures")
KEPT = Path(__file__).with_name("collection_of_massl_0.1.zip")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The pictures, with the times that the index knows, and the index beside them."""
    root = tmp_path / "photos"
    with zipfile.ZipFile(KEPT) as kept:
        kept.extractall(root / ".massl")
    with closing(sqlite3.connect(root / ".massl" / "catalog.sqlite")) as catalog:
        files = catalog.execute("SELECT path, mtime_ns FROM images").fetchall()
    for name, mtime_ns in files:
        path = root / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((PICTURES / os.fsdecode(name)).read_bytes())
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return root


def decided(opened: Collection) -> tuple[object, ...]:
    """What people said of the pictures, by path."""
    path_of = dict(opened.images.ready())
    return (
        sorted((each.path, each.label, each.author, each.at) for each in opened.labels.every()),
        {path_of[image]: labels for image, labels in opened.rejections.by_image().items()},
        [[each.path for each in group] for group in opened.duplicates.kept_together()],
    )


def test_a_collection_of_massl_builtin_4_goes_on_and_keeps_what_was_decided_when_it_switches(photos: Path) -> None:
    old = Collection.open(photos)
    image_of = {path: image for image, path in old.images.ready()}
    found = old.search([Query(image=image_of["antique/black_glazed_bowl_361.jpg"])], 3)
    assert [(each.path, each.match) for each in found] == [  # as massl 0.1.0 answered, as are the scores
        ("antique/bronze_bell_shaped_pendant_380.jpg", "weak"),
        ("antique/black_glazed_ewer_353.jpg", "weak"),
        ("bug/abeille_tanguy_jacq.jpg", "weak"),
    ]
    assert [each.score for each in found] == pytest.approx([0.4428, 0.3143, 0.0745], abs=2e-4)
    before = decided(old)
    assert len(before[0]) == 5
    assert before[1] == {"bug/bee3_mimooh.jpg": {"flag"}, "flag/argentina.jpg": {"antique"}}
    assert before[2] == [["flag/argentina.jpg", "flag/australia.jpg"]]

    report = old.update()
    assert (report.unchanged, report.added, report.removed) == (9, 0, 0)
    command = shlex.split(old.encoders.tell_of_builtin().partition("run: ")[2])
    assert command == ["massl", "index", str(photos), "--encoder", "builtin", "--rebuild"]
    switched = Collection.create(photos, Encoder.load(), rebuild=True)
    switched.update()
    assert switched.encoder.sha256 == BUILTIN
    assert decided(switched) == before
    assert switched.encoders.tell_of_builtin() == ""
