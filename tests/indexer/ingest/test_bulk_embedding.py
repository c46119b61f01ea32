"""Embedding to Parquet, a block at a time, and the way from there into a collection."""

from __future__ import annotations

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
from massl.data.sources import find_source
from tests.indexer.tiny import picture, write_encoder

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
