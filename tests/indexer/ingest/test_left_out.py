"""What indexing leaves out: counted, remembered, looked at once, and never at the cost of a label."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from indexer import Collection, Encoder
from indexer.json_results import of_collection
from indexer.store.file_contents import NAME
from massl.core.images.formats import RULES
from tests.massl.core.images.test_decoding import HEIC


def paths(collection: Collection) -> list[str]:
    return [path for _, path in collection.images.ready()]


def test_pictures_are_indexed_by_content_and_others_counted(photos: Path, tiny_encoder: Encoder) -> None:
    (photos / "DSC1.HIF").write_bytes(HEIC)
    shutil.move(photos / "flag", photos / "@eaDir")
    shutil.copy(next((photos / "fruit").iterdir()), photos / "no suffix")
    (photos / "a.jxl").write_bytes(b"\xff\x0a")
    collection = Collection.create(photos, tiny_encoder)
    report = collection.update()
    assert {"DSC1.HIF", "no suffix"} < set(paths(collection))
    assert report.indexed == 20
    assert report.left_out == collection.images.left_out() == {"folder @eaDir": 1, "JPEG XL": 1}
    assert of_collection(Collection.open(photos))["left_out"] == report.left_out
    assert not collection.health.check().behind
    assert collection.update(include=["@eaDir"]).indexed == 26
    again = Collection.open(photos)
    assert (again.update().indexed, again.meta.include, again.images.left_out()) == (26, ("@eaDir",), {"JPEG XL": 1})
    assert again.update(include=[""]).indexed == 20


def test_a_second_run_opens_no_file_that_is_as_it_was(photos: Path, tiny_encoder: Encoder) -> None:
    for number in range(5):
        (photos / f"unknown {number}").write_bytes(b"text")
    Collection.create(photos, tiny_encoder).update()
    code = (
        "import sys; opened = []; from indexer import Collection\n"
        "sys.addaudithook(lambda event, about: event == 'open' and opened.append(str(about[0])))\n"
        "Collection.open(sys.argv[1]).update(); print(sum('unknown' in path for path in opened))"
    )

    def opened() -> int:
        return int(subprocess.run([sys.executable, "-c", code, str(photos)], capture_output=True, check=True).stdout)

    assert opened() == 0
    (photos / "unknown 3").write_bytes(b"other text")
    assert opened() == 1
    assert opened() == 0
    (photos / ".massl" / NAME).unlink()
    assert opened() == 5
    noted = (photos / ".massl" / NAME).read_text()
    (photos / ".massl" / NAME).write_text(noted.replace(RULES, "of another version"))
    assert opened() == 5
    assert opened() == 0


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"kinds": 3}', b'{"kinds": {"a": "?"}}', b'{"kinds": {"a": 1}}', b"[" * 100_000],
)
def test_a_damaged_note_of_contents_costs_only_the_looking(photos: Path, tiny_encoder: Encoder, damage: bytes) -> None:
    shutil.copy(next((photos / "fruit").iterdir()), photos / "no suffix")
    collection = Collection.create(photos, tiny_encoder)
    collection.update()
    whole = (photos / ".massl" / NAME).read_bytes()
    (photos / ".massl" / NAME).write_bytes(damage)
    assert collection.update().indexed == 25
    assert (photos / ".massl" / NAME).read_bytes() == whole


def test_an_index_of_before_keeps_system_folders_that_hold_labels(photos: Path, tiny_encoder: Encoder) -> None:
    shutil.move(photos / "flag", photos / "@eaDir")
    shutil.move(photos / "space", photos / "lost+found")
    collection = Collection.create(photos, tiny_encoder)
    collection.update(include=["@eaDir", "lost+found"])
    labelled = next(image for image, path in collection.images.ready() if path.startswith("@eaDir"))
    collection.labels.add("flag", [labelled], "ada")
    before = [(item.path, item.label) for item in collection.labels.every()]
    with collection.catalog.writing() as connection:  # as one that knew of no such folders
        connection.execute("DELETE FROM meta WHERE key = 'include'")
    report = collection.update()
    assert report.kept_folders == collection.meta.include == ("@eaDir",)
    assert report.left_out == {"folder lost+found": 1}
    assert (report.indexed, report.removed) == (18, 6)
    assert [(item.path, item.label) for item in collection.labels.every()] == before
    collection.update(include=[""])  # a person's own wish
    assert collection.labels.every() == []
    collection.update(include=["@eaDir"])
    assert [(item.path, item.label) for item in collection.labels.every()] == before


def test_json_of_the_note_holds_no_names(photos: Path, tiny_encoder: Encoder) -> None:
    (photos / "a secret").write_bytes(b"text")
    Collection.create(photos, tiny_encoder).update()
    text = (photos / ".massl" / NAME).read_text()
    assert "secret" not in text
    assert json.loads(text)["schema"] == 1
