"""What is said of a collection's state, and which command would help."""

from __future__ import annotations

import json
import shlex
import shutil
import threading
from pathlib import Path

import pytest

from indexer import Collection, Encoder
from indexer.json_results import of_collection
from indexer.monitoring import health
from indexer.monitoring.drift import Drift, Newest
from indexer.monitoring.health import Behind
from tests.indexer.tiny import picture

FINE = Drift(100, 0.01, "known", None)
NOTHING = Behind()


def test_what_changed_in_the_folder_is_counted_without_reading_a_file(photos: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(photos, tiny_encoder)
    collection.update()
    assert collection.health.check().behind == NOTHING
    assert collection.health.check().advice == ()
    files = sorted(photos.rglob("*.jpg"))
    files[0].unlink()
    files[1].write_bytes(files[2].read_bytes())
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(files[3], photos / name)
        (photos / name).chmod(0)
    (photos / "notes.txt").write_text("no picture")
    found = collection.health.check()
    assert found.behind == Behind(new=2, changed=1, gone=1)
    assert [advice.commands for advice in found.advice] == [(f"massl index {shlex.quote(str(photos))}",)]
    assert "2 new, 1 changed, 1 gone" in found.advice[0].why


def test_a_folder_that_is_not_there_is_no_reason_to_say_nothing(photos: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(photos, tiny_encoder, photos.parent / "index")
    collection.update()
    photos.rename(photos.parent / "unplugged")
    found = collection.health.check()
    assert found.behind is None
    assert found.bytes > 0


def test_what_an_encoder_s_file_says_of_itself_is_read(encoder: Encoder, tiny_encoder: Encoder) -> None:
    told = health.training(encoder)
    assert (told.architecture, told.images) == ("vit_small_patch14_dinov2, patch 14", None)
    assert 0.85 < told.figures["trashnet"] < 1
    unknown = health.training(tiny_encoder)
    assert (unknown.architecture, unknown.images, unknown.figures) == (None, None, {})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"a": "b"}', '{"a": {"other": 0.5}}', '{"a": {"tiny": {"map": 0.5}}}', '{"a": 7.5}', "null"],
)
def test_an_encoder_may_say_anything_of_itself(tiny_encoder: Encoder, text: str) -> None:
    facts = {"evaluation": text, "training_images": "many", "parameters": "-1"}
    told = health.training(Encoder(**{**vars(tiny_encoder), "metadata": facts}))
    assert (told.images, told.parameters, told.figures) == (None, None, {})


def advised(
    drift: Drift,
    images: int,
    *,
    builtin: bool = True,
    since: Behind = NOTHING,
    waiting: int = 0,
    trained: bool = False,
) -> list[str]:
    root = Path("my photos")
    found = health.advise(root, root / ".massl", drift, since, waiting, images, builtin, trained)
    return [command for advice in found for command in advice.commands]


def test_commands_are_advised_only_where_they_would_help() -> None:
    narrow, foreign = Drift(4_096, 0.1, "narrow", None), Drift(4_096, 0.5, "foreign", None)
    unknown = Drift(4_096, 0.5, None, None)
    assert advised(FINE, 5_000) == advised(unknown, 5_000) == []
    assert advised(foreign, 999) == []  # what training on so few brings was not measured
    assert advised(FINE, 50, waiting=3) == ["massl index 'my photos'"]
    then = "massl index 'my photos' --encoder 'runs/my photos/encoder.onnx' --rebuild"
    assert advised(foreign, 5_000, trained=True) == []  # somebody did already: that encoder is shown instead
    for drift in (narrow, foreign):
        assert advised(drift, 5_000) == ["massl train 'my photos' --init builtin", then]
        assert advised(drift, 5_000, builtin=False) == ["massl train 'my photos'", then]


def test_an_own_encoder_is_advised_anew_when_many_of_the_newest_are_unlike() -> None:
    few = Drift(4_096, 0.01, "known", Newest("2026-01-01", 600, 4_400, 499, 499, (1,)))
    many = Drift(4_096, 0.01, "known", Newest("2026-01-01", 600, 4_400, 520, 500, (1,)))
    assert advised(few, 5_000, builtin=False) == []
    assert advised(many, 5_000, builtin=True) == []
    assert advised(many, 5_000, builtin=False)[0] == "massl train 'my photos'"


def test_the_command_names_an_index_that_lies_elsewhere(tmp_path: Path, tiny_encoder: Encoder) -> None:
    root = tmp_path / "a b"
    root.mkdir()
    (root / "0.bmp").write_bytes(picture(0))
    collection = Collection.create(root, tiny_encoder, tmp_path / "it's here")
    collection.update()
    (root / "1.bmp").write_bytes(picture(1))
    ((command,),) = (advice.commands for advice in collection.health.check().advice)
    assert shlex.split(command) == ["massl", "index", str(root), "--index-dir", str(tmp_path / "it's here")]


def test_files_that_come_and_go_meanwhile_are_none_of_its_trouble(collection: Collection) -> None:
    folder = collection.folder / "thumbnails" / "ab"
    folder.mkdir(parents=True)
    done = threading.Event()

    def make_thumbnails() -> None:
        while not done.is_set():
            for number in range(20):
                (folder / f"{number}.tmp").touch()
            for number in range(20):
                (folder / f"{number}.tmp").unlink()

    making = threading.Thread(target=make_thumbnails)
    making.start()
    try:
        sizes = {collection.health.disk_use() for _ in range(1_000)}
    finally:
        done.set()
        making.join()
    assert sizes == {sum(path.stat().st_size for path in collection.folder.rglob("*") if path.is_file())}


def test_info_says_the_same_in_brief(collection: Collection) -> None:
    told = json.loads(json.dumps(of_collection(collection)))
    assert told["drift"]["familiar"] == collection.health.drift().familiar
    assert told["training"]["architecture"] == "vit_small_patch14_dinov2, patch 14"
    assert told["checked"] >= told["created"]
    assert -1 < told["scores"]["alike"] < told["scores"]["same"] <= 0.9995
    collection.catalog.set_meta(("encoder_sha256", "0" * 64), ("drift", ""))
    damaged = Collection.open(collection.root)
    assert of_collection(damaged)["training"] is None
    assert damaged.health.check().training is None
    assert damaged.health.check().drift.familiar is None


def test_from_the_scores_that_are_told_on_results_are_called_so(collection: Collection) -> None:
    fitted = collection.searcher.calibration()
    bounds = fitted.bounds(24)
    assert bounds is not None
    assert fitted.match(bounds["same"] + 1e-4, 24) == "same"
    assert fitted.match(bounds["alike"] + 1e-3, 24) in ("alike", "same")
    assert fitted.match(bounds["alike"] - 1e-3, 24) == "weak"
