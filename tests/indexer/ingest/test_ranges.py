"""A collection of deep files: one range for all, measured once, kept, and obeyed wherever they are shown."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from app.formatting import deep_range
from indexer import Collection, Encoder, Query
from indexer.encoder.onnx_encoder import EncoderMismatch
from indexer.ingest.bulk_embedding import BlockWork, embed_source
from indexer.ingest.embedding_table import SHOWN_AS, EmbeddingTables
from indexer.store.images import Images
from indexer.store.meta import Meta
from massl.core.images.decoding import decode
from massl.core.images.rendering import Rendering, RenderingChoice
from massl.data.sources import find_source
from tests.indexer.tiny import SIDE, picture, write_encoder
from tests.massl.core.images.tiff_files import GREY, RGB, tiff

FRAMES = 12


def frame(number: int, gain: float = 1.0, kind: str = "u2") -> np.ndarray:
    values = np.random.default_rng(number).gamma(2, 100, (SIDE, SIDE, 1))
    return (values * gain).astype(kind)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for number in range(FRAMES):
        (tmp_path / "frames" / f"{number:02}.tif").write_bytes(tiff(frame(number), GREY))
    return tmp_path / "frames"


def index(root: Path, encoder: Encoder, rebuild: bool = False, range: str | None = None) -> Collection:
    collection = Collection.create(root, encoder, rebuild=rebuild, shown=RenderingChoice(range))
    collection.update()
    return collection


def embedding(collection: Collection, name: str) -> np.ndarray:
    with closing(sqlite3.connect(collection.folder / "catalog.sqlite")) as connection:
        (found,) = connection.execute("SELECT embedding FROM images WHERE path = ?", [name.encode()]).fetchone()
    return np.frombuffer(found, np.float16)


def expected(encoder: Encoder, data: bytes, rendering: Rendering) -> np.ndarray:
    pixels = encoder.prepare(decode(data, encoder.resize, rendering=rendering).picture)
    return encoder.embed(pixels[None])[0].astype(np.float16)


def test_a_new_collection_has_one_range_by_all_of_its_files(root: Path, encoder: Encoder) -> None:
    collection = index(root, encoder)
    numbers = np.concatenate([frame(number).ravel() for number in range(FRAMES)])
    limits = tuple(np.percentile(numbers, [0.1, 99.9]))
    assert collection.meta.display_range == "collection"
    known = collection.meta.kind_ranges["uint16"]
    assert known.limits == pytest.approx(limits)
    assert (known.measured_on, known.files, known.later) == (FRAMES, FRAMES, 0)
    for path in root.glob("*.tif"):
        wanted = expected(encoder, path.read_bytes(), Rendering({"uint16": limits}))
        assert np.allclose(embedding(collection, path.name), wanted, atol=2e-3)


def test_later_files_keep_the_range_and_what_they_clip_is_known(root: Path, encoder: Encoder) -> None:
    collection = index(root, encoder)
    limits = collection.meta.kind_ranges["uint16"].limits
    bright = frame(50, gain=9.0)
    (root / "bright.tif").write_bytes(tiff(bright, GREY))
    collection.update()
    known = collection.meta.kind_ranges["uint16"]
    assert known.limits == limits
    assert limits is not None
    share = ((bright < limits[0]) | (bright > limits[1])).mean()
    assert (known.files, known.later, known.clipped) == (FRAMES + 1, 1, pytest.approx(share))
    assert share > 0.3


def test_queries_thumbnails_and_measures_are_shown_as_the_collection_is(root: Path, encoder: Encoder) -> None:
    faint = root / "faint.tif"
    faint.write_bytes(tiff(frame(3, gain=0.2), GREY))
    collection = index(root, encoder)
    best, *_ = collection.search([Query.of_file(faint)], 1)
    assert (best.path, round(best.score, 2)) == ("faint.tif", 1.0)
    thumbnail = collection.images.thumbnail(best.image)
    assert thumbnail is not None
    shown = np.asarray(Image.open(io.BytesIO(thumbnail)).convert("L"), float)
    wanted = np.asarray(decode(faint.read_bytes(), rendering=collection.meta.rendering).picture.convert("L"), float)
    assert abs(shown.mean() - wanted.mean()) < 4
    assert wanted.mean() < 40


def test_every_kind_of_numbers_has_its_range_and_8_bits_have_none(root: Path, encoder: Encoder) -> None:
    for number in range(3):
        (root / f"float{number}.tif").write_bytes(tiff(frame(number, 0.001, "f4"), GREY))
        colours = np.concatenate([frame(number + at) for at in range(3)], axis=-1)
        (root / f"colour{number}.tif").write_bytes(tiff(colours, RGB))
        (root / f"plain{number}.png").write_bytes(picture(number, "PNG"))
    kinds = index(root, encoder).meta.kind_ranges
    assert {kind: known.files for kind, known in kinds.items()} == {"uint16": FRAMES, "float32": 3, "uint16 RGB": 3}
    assert kinds["float32"].high < 2 < kinds["uint16"].high


def test_a_collection_of_8_bits_knows_of_no_range_and_takes_one_without_a_rebuild(
    tmp_path: Path, encoder: Encoder
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(picture(number, "PNG"))
    collection = index(tmp_path, encoder)
    assert Meta.kind_ranges not in collection.meta
    assert collection.meta.rendering.key == ""
    assert index(tmp_path, encoder, range="0:4095").meta.display_range == "0:4095"


def test_another_range_needs_a_rebuild_and_embeds_all_anew(root: Path, encoder: Encoder) -> None:
    collection = index(root, encoder)
    before = embedding(collection, "03.tif")
    with pytest.raises(EncoderMismatch, match=r"range collection, not 0:9000; .* --range 0:9000 --rebuild"):
        index(root, encoder, range="0:9000")
    assert np.array_equal(embedding(collection, "03.tif"), before)
    assert index(root, encoder, range="collection").meta.display_range == "collection"
    rebuilt = index(root, encoder, rebuild=True, range="0:9000")
    wanted = expected(encoder, (root / "03.tif").read_bytes(), Rendering(fixed=(0, 9000)))
    assert np.allclose(embedding(rebuilt, "03.tif"), wanted, atol=2e-3)
    assert not np.allclose(before, wanted, atol=1e-2)
    known = rebuilt.meta.kind_ranges["uint16"]
    assert (known.limits, known.later, known.clipped) == (None, FRAMES, 0.0)
    # As it was told, also when it is rebuilt once more.
    assert index(root, encoder, rebuild=True).meta.display_range == "0:9000"


def test_a_rebuild_measures_the_range_anew(root: Path, encoder: Encoder) -> None:
    first = index(root, encoder).meta.kind_ranges["uint16"].high
    for number in range(FRAMES):
        (root / f"more{number}.tif").write_bytes(tiff(frame(number + 100, gain=5), GREY))
    assert index(root, encoder).meta.kind_ranges["uint16"].high == first
    assert index(root, encoder, rebuild=True).meta.kind_ranges["uint16"].high > 2 * first


def test_a_collection_of_before_keeps_the_range_of_each_file_until_it_is_rebuilt(root: Path, encoder: Encoder) -> None:
    faint = root / "faint.tif"
    faint.write_bytes(tiff(frame(3, gain=0.1), GREY))
    collection = index(root, encoder, range="file")
    by_file = embedding(collection, "faint.tif")
    collection.catalog.forget_meta(Meta.display_range, Meta.kind_ranges)  # as former versions wrote it
    (root / "new.tif").write_bytes(tiff(frame(60), GREY))
    collection = index(root, encoder)
    assert collection.meta.display_range == "file"
    wanted = expected(encoder, (root / "new.tif").read_bytes(), Rendering())
    assert np.allclose(embedding(collection, "new.tif"), wanted, atol=2e-3)
    collection.catalog.forget_meta(Meta.display_range, Meta.kind_ranges)
    with pytest.raises(EncoderMismatch, match="range file, not collection"):
        index(root, encoder, range="collection")
    collection = index(root, encoder, rebuild=True)
    assert collection.meta.display_range == "collection"
    assert not np.allclose(embedding(collection, "faint.tif"), by_file, atol=1e-2)


def test_label_masks_are_said_to_be_some(root: Path, tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "masks").mkdir()
    for number in range(4):
        mask = np.zeros((40, 40, 1), "u2")
        for at in range(number + 2):
            mask[4 * at : 4 * at + 8, 3 * at : 3 * at + 12] = at + 1
        (tmp_path / "masks" / f"{number}.tif").write_bytes(tiff(mask, GREY))
    of_masks, of_frames = (index(folder, encoder).meta.kind_ranges for folder in (tmp_path / "masks", root))
    assert (of_masks["uint16"].masks, of_frames["uint16"].masks) == (4, 0)
    assert "most look like label masks" in deep_range("collection", of_masks)[0]
    assert "masks" not in deep_range("collection", of_frames)[0]
    assert (of_masks["uint16"].are_masks, of_frames["uint16"].are_masks) == (True, False)


def test_an_exported_classifier_names_the_range(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    collection = index(root, encoder)
    ids = [identity for identity, _ in Images(collection.catalog).ready()]
    for at, label in enumerate(("a", "b")):
        collection.labels.add(label, ids[6 * at : 6 * at + 6], "person")
    collection.fewshot.export(tmp_path / "classifier.onnx", encoder)
    facts = {each.key: each.value for each in onnx.load(tmp_path / "classifier.onnx").metadata_props}
    limits = collection.meta.kind_ranges["uint16"].limits
    assert limits is not None
    assert json.loads(facts["massl.ranges"]) == {"uint16": list(limits)}
    assert "massl.channels" not in facts


def test_of_a_table_of_a_former_version_no_deep_file_is_taken(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    """It says nothing of ranges, and every file had its own."""
    pq = pytest.importorskip("pyarrow.parquet")
    (root / "plain.png").write_bytes(picture(5, "PNG"))
    table = tmp_path / "table.parquet"
    embed_source(BlockWork(find_source(root)[0]), encoder, table, lambda done, total: None)
    former = pq.read_table(table).drop_columns(["clipped"])
    told = {key: value for key, value in former.schema.metadata.items() if key.decode()[6:] not in SHOWN_AS}
    pq.write_table(former.replace_schema_metadata(told), table)
    collection = Collection.create(root, encoder)
    report = collection.update(embeddings=EmbeddingTables([table], encoder))
    assert (report.taken, report.embedded, report.indexed) == (1, FRAMES, FRAMES + 1)


def test_files_of_one_value_are_black_and_freeze_no_range(tmp_path: Path, encoder: Encoder) -> None:
    for number in range(3):
        (tmp_path / f"empty{number}.tif").write_bytes(tiff(np.full((SIDE, SIDE, 1), 7.5, "f4"), GREY))
    (tmp_path / "none.tif").write_bytes(tiff(np.full((SIDE, SIDE, 1), np.nan, "f4"), GREY))
    collection = index(tmp_path, encoder)
    assert collection.meta.kind_ranges["float32"].limits is None
    for number in range(3):
        (tmp_path / f"cells{number}.tif").write_bytes(tiff(frame(number, kind="f4"), GREY))
    collection.update()
    assert collection.meta.kind_ranges["float32"].limits is not None


def test_the_order_in_which_files_are_found_does_not_change_the_range(
    root: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from massl.core.images import ranges

    monkeypatch.setattr(ranges, "FILES", 4)
    one = index(root, encoder).meta.kind_ranges["uint16"]
    assert one.measured_on == 4
    names = sorted(path.name for path in root.glob("*.tif"))
    random.Random(1).shuffle(names)
    (tmp_path / "again").mkdir()
    for name in names:
        shutil.copy(root / name, tmp_path / "again" / name)
    assert index(tmp_path / "again", encoder).meta.kind_ranges["uint16"] == one


def test_a_kind_that_the_first_files_lack_is_measured_on_one_that_has_it(
    root: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be shown from 0 to 1 else: white where nothing is."""
    from massl.core.images import ranges

    monkeypatch.setattr(ranges, "LOOKED_AT", 3)
    names = sorted((path.name for path in root.iterdir()), key=lambda name: hashlib.sha256(name.encode()).digest())
    (root / names[-1]).write_bytes(tiff(frame(7, kind="f4"), GREY))
    known = index(root, encoder).meta.kind_ranges
    assert (known["uint16"].measured_on, known["float32"].measured_on) == (3, 1)
    assert known["float32"].high > 100
