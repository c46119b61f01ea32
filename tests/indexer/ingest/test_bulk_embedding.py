"""Embedding to Parquet, a block at a time, and the way from there into a collection."""

from __future__ import annotations

import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from indexer import Collection, Encoder, EncoderMismatch
from indexer.ingest import bulk_embedding, indexing
from indexer.ingest.bulk_embedding import BlockWork, embed_source
from indexer.ingest.embedding_table import EmbeddingTables, TableRow, facts_of, made_by, table_of
from massl.core.errors import MasslError
from massl.core.images.rendering import RenderingChoice
from massl.core.images.rendering_facts import AS_AN_INDEX, ShownAs
from massl.data.sources import find_source
from tests.indexer.tiny import SIDE, picture, write_encoder
from tests.massl.core.images.tiff_files import GREY, tiff

pytest.importorskip("pyarrow", reason="needs pip install 'massl[parquet]'")
import pyarrow.parquet as pq


def quiet(done: int, total: int) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ninety small pictures, two of them alike, and one that is damaged."""
    for number in range(90):
        path = tmp_path / "photos" / f"{number % 4}" / f"{number:02d}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (tmp_path / "photos" / "1" / "copy.bmp").write_bytes(picture(7))
    (tmp_path / "photos" / "2" / "damaged.bmp").write_bytes(picture(9)[:-100])
    return tmp_path / "photos"


def rows_of(path: Path) -> list[tuple[bytes, str, int, int, bytes | None, str | None]]:
    """As they stand in the file."""
    table = pq.read_table(path).to_pylist()
    packed = [None if row["vector"] is None else np.array(row["vector"], np.float16).tobytes() for row in table]
    return [
        (row["hash"], row["path"], row["width"], row["height"], vector, row["reason"])
        for row, vector in zip(table, packed, strict=True)
    ]


def in_catalog(collection: Collection) -> dict[str, tuple[bytes, int, int, bytes]]:
    found = collection.catalog.read("SELECT path, hash, width, height, embedding FROM images WHERE +state = 'ready'")
    return {path.decode(): tuple(rest) for path, *rest in found}  # type: ignore[misc]


def test_a_table_has_the_numbers_of_an_index_bit_for_bit_and_an_index_takes_them(
    photos: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photos / "flag" / "bhutan.jpg", photos / "space" / "again.jpg")
    (photos / "space" / "broken.jpg").write_bytes((photos / "flag" / "bhutan.jpg").read_bytes()[:900])
    collection = Collection.create(photos, encoder, tmp_path / "usual")
    collection.update()
    wanted = in_catalog(collection)
    source, _ = find_source(photos)
    report = embed_source(BlockWork(source), encoder, tmp_path / "out.parquet", quiet)
    assert (report.images, [item.path for item in report.skipped]) == (26, ["space/broken.jpg"])
    rows = rows_of(tmp_path / "out.parquet")
    assert {path: (digest, width, height, vector) for digest, path, width, height, vector, why in rows if not why} == (
        wanted
    )
    facts = facts_of(tmp_path / "out.parquet")
    assert facts.items() >= made_by(encoder).items()

    def decoded(*given: object) -> None:
        raise AssertionError

    (photos / "space" / "broken.jpg").unlink()
    monkeypatch.setattr(indexing, "decode", decoded)
    (photos / "flag").rename(photos / "renamed")  # a picture is its content
    taken = Collection.create(photos, encoder, tmp_path / "taken")
    result = taken.update(embeddings=EmbeddingTables([tmp_path / "out.parquet"], encoder))
    assert (result.indexed, result.taken, result.embedded) == (25, 24, 0)
    assert in_catalog(taken) == {path.replace("flag/", "renamed/"): row for path, row in wanted.items()}
    assert taken.images.thumbnail(1)


def test_shards_give_what_the_folder_gives(folder: Path, tiny_encoder: Encoder, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "images-0.tar", "w") as shard:
        shard.add(folder, "photos")
    by_content = []
    for place in (folder, tmp_path / "images-0.tar"):
        embed_source(BlockWork(find_source(place)[0]), tiny_encoder, tmp_path / f"{place.name}.parquet", quiet)
        by_content.append({row[0]: row[2:] for row in rows_of(tmp_path / f"{place.name}.parquet")})
    assert by_content[0] == by_content[1]
    assert len(by_content[0]) == 91


def test_a_kill_costs_one_block_and_parts_are_the_whole(
    folder: Path, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_embedding, "BLOCK", 32)
    source, _ = find_source(folder)
    whole = embed_source(BlockWork(source), tiny_encoder, tmp_path / "whole.parquet", quiet)
    assert (whole.images, whole.embedded) == (92, 91)

    def killed(done: int, total: int) -> None:
        if done > 64:
            raise KeyboardInterrupt

    out = tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        embed_source(BlockWork(source), tiny_encoder, out, killed)
    assert not out.exists()
    assert len(list((tmp_path / "out.parquet.blocks").iterdir())) == 2
    again = embed_source(BlockWork(source), tiny_encoder, out, quiet)
    assert 0 < again.embedded < 32
    assert rows_of(out) == rows_of(tmp_path / "whole.parquet")
    assert sorted(path.name for path in tmp_path.iterdir() if "parquet" in path.name) == [
        "out.parquet",
        "whole.parquet",
    ]
    assert embed_source(BlockWork(source), tiny_encoder, out, quiet).embedded == 0  # it is done

    parts = []
    for number in (1, 2):
        embed_source(BlockWork(source), tiny_encoder, tmp_path / f"{number}.parquet", quiet, (number, 2))
        parts += rows_of(tmp_path / f"{number}.parquet")
    assert parts == rows_of(out)
    with pytest.raises(MasslError, match=r"1\.parquet already exists, with other images or another part of them"):
        embed_source(BlockWork(source), tiny_encoder, tmp_path / "1.parquet", quiet, (2, 2))
    empty = embed_source(BlockWork(source), tiny_encoder, tmp_path / "empty.parquet", quiet, (1, 9))
    assert empty.images == 0


def test_a_table_or_blocks_of_another_encoder_are_never_mixed_in(
    folder: Path, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    other = Encoder.load(write_encoder(tmp_path / "other.onnx", seed=5), threads=1)
    source, _ = find_source(folder)
    out = tmp_path / "out.parquet"
    embed_source(BlockWork(source), other, out, quiet)
    with pytest.raises(MasslError, match="already exists, with another encoder or size; name another file"):
        embed_source(BlockWork(source), tiny_encoder, out, quiet)
    with pytest.raises(EncoderMismatch, match=rf"{out} was embedded by .*, not by .*; embed again with --encoder "):
        EmbeddingTables([out], tiny_encoder)


@pytest.mark.parametrize(
    "damage", ["empty", "text", "cut", "flip", "somebody else's", "other format", "gone", "folder"]
)
def test_a_file_that_is_no_table_is_one_line(folder: Path, tiny_encoder: Encoder, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out.parquet"
    embed_source(BlockWork(find_source(folder)[0]), tiny_encoder, out, quiet)
    data = bytearray(out.read_bytes())
    if damage in ("empty", "text", "cut"):
        out.write_bytes({"empty": b"", "text": b"path,label\n" * 9, "cut": bytes(data[:-20])}[damage])
    elif damage == "flip":
        data[40:400] = bytes(360)
        out.write_bytes(data)
    elif damage == "somebody else's":
        pq.write_table(pq.read_table(out).replace_schema_metadata({}), out)
    elif damage == "other format":
        pq.write_table(table_of([], tiny_encoder.dim, made_by(tiny_encoder) | {"format": "9"}), out)
    else:
        out.unlink()
        if damage == "folder":
            out.mkdir()

    def read() -> None:
        tables = EmbeddingTables([out], tiny_encoder)
        tables.of_contents(list(tables._places))

    with pytest.raises(MasslError, match=r"out\.parquet") as caught:
        read()
    assert "\n" not in str(caught.value)


def test_vectors_that_are_none_are_embedded_after_all(folder: Path, tiny_encoder: Encoder, tmp_path: Path) -> None:
    """A table may be anybody's: one that isn't of unit length, or has no size, is not believed."""
    usual = Collection.create(folder, tiny_encoder, tmp_path / "usual")
    usual.update()
    wanted = in_catalog(usual)
    bad = [np.zeros(tiny_encoder.dim), np.full(tiny_encoder.dim, np.nan), np.full(tiny_encoder.dim, 3.0)]
    rows = [
        TableRow(digest, path, 0 if number > 80 else width, height, bad[number % 3].astype(np.float16).tobytes(), None)
        for number, (path, (digest, width, height, _)) in enumerate(wanted.items())
    ]
    pq.write_table(table_of(rows, tiny_encoder.dim, made_by(tiny_encoder)), tmp_path / "bad.parquet")
    collection = Collection.create(folder, tiny_encoder, tmp_path / "other")
    result = collection.update(embeddings=EmbeddingTables([tmp_path / "bad.parquet"], tiny_encoder))
    assert result.taken == 0
    assert in_catalog(collection) == wanted


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Twelve frames of 16 bits, three of floating point, one without any difference, and a picture of 8 bits."""
    root = tmp_path / "frames"
    root.mkdir()
    for number in range(15):
        values = np.random.default_rng(number).gamma(2, 100, (SIDE, SIDE, 1)).astype("f4" if number > 11 else "u2")
        (root / f"{number:02}.tif").write_bytes(tiff(values, GREY))
    (root / "empty.tif").write_bytes(tiff(np.full((SIDE, SIDE, 1), 7, "i4"), GREY))
    (root / "plain.png").write_bytes(picture(5, "PNG"))
    return root


def changed(**asked: object) -> ShownAs:
    return AS_AN_INDEX.changed(RenderingChoice(**asked))  # type: ignore[arg-type]


@pytest.mark.parametrize("shown", [AS_AN_INDEX, changed(range="file"), changed(range="bits=9"), changed(range="9:300")])
def test_deep_files_are_embedded_as_an_index_embeds_them(
    frames: Path, tiny_encoder: Encoder, tmp_path: Path, shown: ShownAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = RenderingChoice(shown.range)
    usual = Collection.create(frames, tiny_encoder, tmp_path / "usual", shown=choice)
    usual.update()
    wanted = in_catalog(usual)
    work = BlockWork.shown(find_source(frames)[0], shown)
    embed_source(work, tiny_encoder, tmp_path / "out.parquet", quiet)
    assert {row[1]: (row[0], *row[2:5]) for row in rows_of(tmp_path / "out.parquet")} == {
        path: (digest, width, height, vector) for path, (digest, width, height, vector) in wanted.items()
    }
    monkeypatch.setattr(indexing, "decode", None)
    taken = Collection.create(frames, tiny_encoder, tmp_path / "taken", shown=choice)
    result = taken.update(embeddings=EmbeddingTables([tmp_path / "out.parquet"], tiny_encoder))
    assert (result.taken, result.embedded) == (17, 0)
    assert in_catalog(taken) == wanted
    known, own = taken.meta.kind_ranges, usual.meta.kind_ranges
    for kind in ("uint16", "float32", "int32"):
        assert (known[kind].limits, known[kind].files) == (own[kind].limits, own[kind].files)
        assert known[kind].clipped == pytest.approx(own[kind].clipped)


def test_parts_have_the_range_of_the_whole_and_a_second_run_that_of_the_first(
    frames: Path, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_embedding, "BLOCK", 4)
    source, _ = find_source(frames)
    work = BlockWork.shown(source, AS_AN_INDEX)
    embed_source(work, tiny_encoder, tmp_path / "whole.parquet", quiet)
    parts = []
    for number in (1, 2):
        out = tmp_path / f"{number}.parquet"
        embed_source(BlockWork.shown(source, AS_AN_INDEX), tiny_encoder, out, quiet, (number, 2))
        parts += rows_of(out)
    assert parts == rows_of(tmp_path / "whole.parquet")
    tables = EmbeddingTables([tmp_path / "1.parquet", tmp_path / "2.parquet"], tiny_encoder)
    assert tables.fit(AS_AN_INDEX) == work.shown_as.limits

    def killed(done: int, total: int) -> None:
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_source(BlockWork.shown(source, AS_AN_INDEX), tiny_encoder, tmp_path / "out.parquet", killed)
    for number in range(10):  # which are embedded already
        (frames / f"{number:02}.tif").write_bytes(tiff(np.full((SIDE, SIDE, 1), 65_535, "u2"), GREY))
    again = BlockWork.shown(source, AS_AN_INDEX)
    embed_source(again, tiny_encoder, tmp_path / "out.parquet", quiet)
    assert again.shown_as.limits["uint16"] == work.shown_as.limits["uint16"]
    with pytest.raises(MasslError, match="already exists, with another range, other channels or another plane"):
        embed_source(BlockWork.shown(source, changed(plane="max")), tiny_encoder, tmp_path / "out.parquet", quiet)


def test_work_and_rows_of_deep_files_go_to_other_processes_and_back(frames: Path, tiny_encoder: Encoder) -> None:
    """As the workers of a cluster get and send them."""
    here = BlockWork.shown(find_source(frames)[0], AS_AN_INDEX)
    there = pickle.loads(pickle.dumps(here))
    numbers = range(len(here.source))
    rows = pickle.loads(pickle.dumps(there.rows(numbers, tiny_encoder, lambda seen: None)))
    assert here.ranges.limits == {}
    here.ranges.adopt(there.ranges.limits)
    assert rows == here.rows(numbers, tiny_encoder, lambda seen: None)
    assert here.ranges.limits.keys() == {"uint16", "float32"}


@pytest.mark.parametrize(
    ("table", "index", "why"),
    [
        (changed(range="100:400"), RenderingChoice(), "the range 100:400, and not collection"),
        (AS_AN_INDEX, RenderingChoice("bits=12"), "the range collection, and not bits=12"),
        (changed(plane="max"), RenderingChoice(), "other channels or another plane"),
        (ShownAs("collection", (), "", {"uint16": (3.0, 99.0)}), RenderingChoice(), "another range of uint16"),
    ],
)
def test_vectors_of_deep_files_that_are_shown_otherwise_are_refused(
    frames: Path, tiny_encoder: Encoder, tmp_path: Path, table: ShownAs, index: RenderingChoice, why: str
) -> None:
    out = tmp_path / "out.parquet"
    embed_source(BlockWork.shown(find_source(frames)[0], table), tiny_encoder, out, quiet)
    collection = Collection.create(frames, tiny_encoder, tmp_path / "index", shown=index)
    if "uint16" in why:
        collection.update()
        (frames / "plain.png").write_bytes(picture(6, "PNG"))
    before = in_catalog(collection)
    with pytest.raises(EncoderMismatch, match=why) as refused:
        collection.update(embeddings=EmbeddingTables([out], tiny_encoder))
    assert table.options() in str(refused.value)
    assert in_catalog(collection) == before


def test_a_table_without_deep_files_serves_any_range(folder: Path, tiny_encoder: Encoder, tmp_path: Path) -> None:
    embed_source(
        BlockWork.shown(find_source(folder)[0], changed(range="9:99")), tiny_encoder, tmp_path / "a.parquet", quiet
    )
    collection = Collection.create(folder, tiny_encoder, tmp_path / "index")
    tables = EmbeddingTables([tmp_path / "a.parquet"], tiny_encoder)
    assert collection.update(embeddings=tables).taken == 90


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("limits", '{"uint16": [9, 3]}'), ("limits", '{"uint16": [0, 1e999]}'), ("limits", '{"a\\u001b[2J": [0, 1]}'),
        ("limits", "[" * 50_000), ("range", '"9:3"'), ("channels", "3"), ("plane", '"every"'),
    ],
)  # fmt: skip
def test_a_table_that_tells_no_range_is_one_line(
    frames: Path, tiny_encoder: Encoder, tmp_path: Path, fact: str, value: str
) -> None:
    path = tmp_path / "out.parquet"
    pq.write_table(table_of([], tiny_encoder.dim, made_by(tiny_encoder) | {fact: value}), path)
    with pytest.raises(MasslError, match="doesn't say how its images of more than 8 bits are shown"):
        EmbeddingTables([path], tiny_encoder)
