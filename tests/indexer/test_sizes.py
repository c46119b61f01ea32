"""A collection whose encoder's file can be used at several sizes: which it has, and what another one would be."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from indexer import Collection, Encoder, EncoderMismatch, Query
from indexer.encoder.encoder_file import BUILTIN
from indexer.encoder.former_builtin import FORMER, is_former_builtin
from indexer.fewshot.label_state import CollectionFewshot
from indexer.json_results import of_collection
from indexer.store.catalog import Catalog
from massl.core.errors import MasslError
from massl.core.images.decoding import open_image
from tests.indexer.kills import killed_while_forgetting
from tests.indexer.tiny import write_encoder, write_sizes_encoder

SIZES = (8, 12, 16)
IMAGES = 12


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_sizes_encoder(tmp_path / "sized.onnx", SIZES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures of 16 x 16 pixels, which look different at each size."""
    (tmp_path / "photos").mkdir()
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02}.png")
    return tmp_path / "photos"


@pytest.fixture
def at_12(root: Path, file: Path) -> Collection:
    """Indexed at 12 pixels; the file's usual size is 8."""
    made = Collection.create(root, Collection.choose_encoder(root, file, 12))
    made.update()
    return made


def embeddings(collection: Collection) -> np.ndarray:
    """By path, float32 `[N, D]`."""
    ids, vectors = CollectionFewshot(collection.catalog).vectors()
    return vectors[np.argsort(collection.images.paths_of(ids.tolist()))]


def expected(root: Path, file: Path, size: int) -> np.ndarray:
    encoder = Encoder.load(file, image_size=size)
    return encoder.embed([encoder.prepare(open_image(path)) for path in sorted(root.glob("*.png"))])


def forget_the_size(collection: Collection) -> None:
    """Makes its catalog one from before there were sizes."""
    with collection.catalog.writing() as connection:
        connection.execute("DELETE FROM meta WHERE key = 'image_size'")


def test_a_collection_is_made_and_used_at_the_size_that_was_chosen(at_12: Collection, file: Path) -> None:
    np.testing.assert_allclose(embeddings(at_12), expected(at_12.root, file, 12), atol=2e-3)
    again = Collection.open(at_12.root)
    assert (again.storage.image_size, again.encoder.image_size, again.encoder.image_sizes) == (12, 12, SIZES)
    query = Query.of_file(at_12.root / "03.png")
    (first,) = again.search([query], 1)
    assert first.path == "03.png"
    assert first.score > 0.999  # at another size it would be less
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(again.root / "new.png")
    assert again.update().embedded == 1
    np.testing.assert_allclose(embeddings(again), expected(again.root, file, 12), atol=2e-3)
    assert again.searcher.heat([query], again.images.id_of("03.png")).cosines.shape == (3, 3)
    assert of_collection(again)["encoder"]["image_size"] == 12
    assert of_collection(again)["encoder"]["image_sizes"] == list(SIZES)


def test_another_size_is_another_encoder_and_is_refused_with_the_way_out(at_12: Collection, file: Path) -> None:
    before = embeddings(at_12)
    for asked in (Encoder.load(file, image_size=16), Collection.choose_encoder(at_12.root, None, 16)):
        with pytest.raises(
            EncoderMismatch, match=r"was indexed at 12 pixels, not at 16; .* keep its labels"
        ) as refused:
            Collection.create(at_12.root, asked)
        command = shlex.split(str(refused.value).partition("run: ")[2])
        assert command == ["massl", "index", str(at_12.root), "--image-size", "16", "--rebuild"]
    other = write_sizes_encoder(file.with_name("other.onnx"), SIZES, "other")
    with pytest.raises(EncoderMismatch, match=r"--encoder \S*other.onnx --image-size 16 --rebuild"):
        Collection.create(at_12.root, Encoder.load(other, image_size=16))
    np.testing.assert_array_equal(embeddings(at_12), before)


def test_a_size_that_is_not_told_is_the_collection_s_with_its_own_file_and_else_the_usual_one(
    at_12: Collection, file: Path, tmp_path: Path
) -> None:
    def size(*asked: object) -> int | None:
        chosen = Collection.choose_encoder(at_12.root, *asked)
        return chosen and chosen.image_size

    assert size() is None
    assert size(file) == 12
    assert size(file, 8) == 8
    assert size(None, 16) == 16
    assert size(write_sizes_encoder(tmp_path / "other.onnx", SIZES, "other")) == 8
    assert Collection.choose_encoder(tmp_path, None, 112).called == "builtin"
    for asked in (None, file):
        with pytest.raises(MasslError, match="takes pictures of 8, 12 or 16 pixels, not of 10"):
            size(asked, 10)
    assert Collection.create(at_12.root, None, rebuild=True).storage.image_size == 12


def test_a_rebuild_at_another_size_keeps_what_people_said(at_12: Collection, file: Path) -> None:
    ids = [image for image, _ in at_12.images.ready()]
    at_12.labels.add("odd", ids[::2], "me")
    at_12.rejections.add({ids[1]: "odd"})
    at_12.decisions.keep_both(ids[2:4])
    rebuilt = Collection.create(at_12.root, Collection.choose_encoder(at_12.root, None, 16), rebuild=True)
    assert rebuilt.update().embedded == IMAGES
    np.testing.assert_allclose(embeddings(rebuilt), expected(at_12.root, file, 16), atol=2e-3)
    assert len(rebuilt.labels.every()) == IMAGES // 2
    assert rebuilt.rejections.by_image() == {ids[1]: frozenset({"odd"})}
    assert [len(group) for group in rebuilt.duplicates.kept_together()] == [2]
    (copy,) = rebuilt.folder.glob("encoder-*.onnx")
    copy.write_bytes(b"damaged")
    assert Collection.open(at_12.root).encoder.image_size == 16  # made anew from where it came, not from the copy
    assert copy.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rebuild_at_another_size_that_is_killed_goes_on_at_the_right_one(
    at_12: Collection, file: Path, moment: str
) -> None:
    root = str(at_12.root)
    killed_while_forgetting(
        moment, f"Collection.create({root!r}, Collection.choose_encoder({root!r}, None, 16), rebuild=True)"
    )
    right = 12 if moment == "before" else 16
    on = Collection.create(at_12.root)
    assert on.update().embedded == (0 if moment == "before" else IMAGES)
    assert on.storage.image_size == right
    np.testing.assert_allclose(embeddings(on), expected(at_12.root, file, right), atol=2e-3)


def test_rebuilt_at_another_size_while_it_is_open_it_takes_that_one(at_12: Collection, file: Path) -> None:
    looking = Collection.open(at_12.root)
    query = Query.of_file(at_12.root / "05.png")
    before = looking.search([query], IMAGES), looking.revision()
    assert looking.searcher.heat([query], 1).cosines.shape == (3, 3)
    other = Collection.create(at_12.root, Encoder.load(file, image_size=16), rebuild=True)
    other.update()
    assert looking.search([query], IMAGES) == other.search([query], IMAGES) != before[0]
    assert looking.revision().embedded != before[1].embedded
    assert looking.revision().encoder != before[1].encoder
    assert looking.searcher.heat([query], 1).cosines.shape == (4, 4)


def test_a_collection_from_before_there_were_sizes_has_the_usual_one(root: Path, file: Path) -> None:
    made = Collection.create(root, Encoder.load(file))
    made.update()
    wanted, state = made.search([Query(image=1)], 5), made.revision().labelled
    forget_the_size(made)
    old = Collection.open(root)
    assert (old.storage.image_size, old.encoder.image_size) == (8, 8)
    assert old.search([Query(image=1)], 5) == wanted
    assert old.revision().labelled != state  # once
    assert Collection.create(root, Collection.choose_encoder(root, file, 8)).update().embedded == 0
    with pytest.raises(EncoderMismatch, match="at 8 pixels, not at 12"):
        Collection.create(root, Collection.choose_encoder(root, None, 12))
    rebuilt = Collection.create(root, Collection.choose_encoder(root, None, 12), rebuild=True)
    assert rebuilt.catalog.meta().image_size == 12


def drop(place: str) -> Callable[[Collection], None]:
    """Damages a catalog: an index of it goes, and what else `place` says."""

    def damage(collection: Collection) -> None:
        list(collection.catalog.read("PRAGMA wal_checkpoint(TRUNCATE)"))
        collection.catalog.close()
        with sqlite3.connect(collection.catalog.path) as connection:
            connection.create_function("checksum", -1, lambda *values: 0)
            connection.execute("DROP INDEX images_by_hash")
            if place:
                connection.execute(place)
        connection.close()

    return damage


@pytest.mark.parametrize(
    ("damage", "size", "embedded"),
    [
        (drop(""), 12, 0),
        (drop("DELETE FROM meta WHERE key = 'image_size'"), 8, IMAGES),  # it could be any
    ],
    ids=["size sound", "size lost"],
)
@pytest.mark.parametrize("given", [False, True])
def test_a_repaired_catalog_mixes_no_sizes(
    at_12: Collection, file: Path, damage: Callable[[Collection], None], size: int, embedded: int, given: bool
) -> None:
    damage(at_12)
    repaired = Collection.create(at_12.root, Collection.choose_encoder(at_12.root, file if given else None))
    assert repaired.update().embedded == embedded
    assert repaired.storage.image_size == size
    np.testing.assert_allclose(embeddings(repaired), expected(at_12.root, file, size), atol=2e-3)
    Catalog.open(repaired.catalog.path, whole=True)


def test_a_size_is_asked_for_of_a_damaged_collection(at_12: Collection) -> None:
    drop("")(at_12)
    with pytest.raises(EncoderMismatch, match="at 12 pixels, not at 16"):
        Collection.create(at_12.root, Collection.choose_encoder(at_12.root, None, 16))


def test_another_size_is_compared_on_the_labelled_pictures(at_12: Collection) -> None:
    ids = [image for image, _ in at_12.images.ready()]
    at_12.labels.add("a", ids[: IMAGES // 2], "me")
    at_12.labels.add("b", ids[IMAGES // 2 :], "me")
    told: list[str] = []
    found = at_12.encoders.beside(16, lambda step, done, total: told.append(step)).comparison
    assert found is not None
    assert found == at_12.encoders.compare(at_12.choose_encoder(at_12.root, None, 16))
    assert found.images == IMAGES
    own = at_12.encoders.beside(12).comparison
    assert own is not None
    assert (own.only_present, own.only_other) == (0, 0)
    assert set(told) == {"encoder", "labels"}
    with pytest.raises(MasslError, match="not of 10"):
        at_12.encoders.beside(10)
    health = at_12.health.check()
    assert (health.image_size, health.image_sizes) == (12, SIZES)


def test_a_classifier_s_file_takes_pictures_of_the_collection_s_size(at_12: Collection, tmp_path: Path) -> None:
    ids = [image for image, _ in at_12.images.ready()]
    at_12.labels.add("a", ids[:4], "me")
    at_12.labels.add("b", ids[4:8], "me")
    fitted = at_12.fewshot.export(tmp_path / "classifier.onnx", at_12.encoder)
    session = onnxruntime.InferenceSession(tmp_path / "classifier.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [12, 12, 3]
    facts = session.get_modelmeta().custom_metadata_map
    assert [facts[f"massl.{key}"] for key in ("image_size", "image_sizes", "resize")] == ["12", "12", "12"]
    pixels = np.stack([at_12.encoder.prepare(open_image(path)) for path in sorted(at_12.root.glob("*.png"))])
    (shares,) = session.run(["probabilities"], {"pixels": pixels})
    np.testing.assert_allclose(shares, fitted.probabilities(embeddings(at_12)), atol=5e-3)
    assert Encoder.load(tmp_path / "classifier.onnx").image_sizes == (12,)


# Former built-in encoders ---------------------------------------------------------------------------------------------


def test_a_former_built_in_encoder_is_told_of_once_for_each_new_one(root: Path, tmp_path: Path) -> None:
    made = Collection.create(root, Encoder.load(write_encoder(tmp_path / "old.onnx", "massl-builtin-1")))
    said = made.encoders.tell_of_builtin()
    assert "massl-builtin-1, the built-in encoder of an earlier version" in said
    command = shlex.split(said.partition("run: ")[2])
    assert command == ["massl", "index", str(root), "--encoder", "builtin", "--rebuild"]
    assert Collection.open(root).encoders.tell_of_builtin() == ""
    made.catalog.set_meta(("builtin_told", "a" * 64))  # that of another version
    assert made.encoders.tell_of_builtin() == said


def test_a_former_built_in_encoder_is_known_by_its_content_too() -> None:
    assert BUILTIN not in FORMER
    for sha256 in FORMER:
        assert is_former_builtin(sha256, "renamed")
    assert not is_former_builtin(BUILTIN, "massl-builtin-4")


@pytest.mark.parametrize("name", ["mine", None])
def test_other_encoders_are_left_alone(root: Path, tmp_path: Path, encoder: Encoder, name: str | None) -> None:
    own = Encoder.load(write_encoder(tmp_path / "own.onnx", name)) if name else encoder
    assert Collection.create(root, own).encoders.tell_of_builtin() == ""
