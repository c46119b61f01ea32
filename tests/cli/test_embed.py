"""`massl embed` from outside, and `massl index --embeddings`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from indexer import Encoder
from indexer.ingest import bulk_embedding
from indexer.ingest.bulk_embedding import BlockWork, embed_source
from indexer.store.catalog import Catalog
from massl.core.errors import MasslError
from massl.data.objects import find_objects
from massl.data.sources import find_source
from tests.cli.conftest import failed
from tests.indexer.tiny import picture, write_encoder
from tests.objectstore import BUCKET, ObjectServer

pytest.importorskip("pyarrow", reason="needs pip install 'massl[parquet]'")
import pyarrow.parquet as pq


def test_what_one_machine_embeds_another_indexes(massl, tmp_path: Path) -> None:
    for number in range(40):
        path = tmp_path / "photos" / f"{number}.bmp"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(number))
    (tmp_path / "photos" / "broken.bmp").write_bytes(picture(1)[:99])
    (tmp_path / "list.txt").write_text("".join(f"photos/{number}.bmp\n" for number in range(40)) + "photos/gone.bmp\n")
    encoder, out = write_encoder(tmp_path / "tiny.onnx"), tmp_path / "out.parquet"
    told = massl("embed", tmp_path / "photos", "-o", out, "--encoder", encoder, "--json").json
    assert (told["images"], told["embedded"], told["encoder"]["dim"]) == (41, 40, 16)
    assert [item["path"] for item in told["skipped"]] == ["broken.bmp"]
    assert massl("embed", tmp_path / "photos", "-o", out, "--encoder", encoder, "--json").json["embedded"] == 0
    listed = massl("embed", tmp_path / "list.txt", "-o", tmp_path / "b.parquet", "--encoder", encoder, "--strict")
    assert listed.code == 1
    assert "skipped 'photos/gone.bmp': there is no such file" in listed.error

    index = ("index", tmp_path / "photos", "--embeddings", out, "--embeddings", tmp_path / "b.parquet")
    assert "was embedded by tiny" in failed(massl(*index), 4)  # the built-in encoder is another
    taken = massl(*index, "--encoder", encoder, "--index-dir", tmp_path / "index")
    assert "40 embeddings taken from files" in taken.error
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0"):
        assert massl("embed", tmp_path / "photos", "-o", tmp_path / "c.parquet", "--part", wrong).code == 2
    assert "is a picture and is not overwritten" in failed(
        massl("embed", tmp_path / "photos", "-o", tmp_path / "photos" / "1.bmp", "--encoder", encoder)
    )


def test_an_object_store_gives_the_numbers_of_an_index_bit_for_bit(
    massl, object_server: ObjectServer, photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "flag" / "bhutan.jpg").read_bytes()[:900])
    object_server.put(photos, "photos")
    (tmp_path / "list.txt").write_text(f"s3://{BUCKET}/photos/flag/bhutan.jpg\ns3://{BUCKET}/photos/gone.jpg\n")
    out = tmp_path / "out.parquet"
    told = massl("embed", f"s3://{BUCKET}/photos", "-o", out, "--json").json
    assert (told["images"], told["embedded"]) == (25, 24)
    assert [item["path"] for item in told["skipped"]] == ["broken.jpg"]

    index = ("index", photos, "--index-dir")
    assert massl(*index, tmp_path / "usual").code == 0
    assert "24 embeddings taken from files" in massl(*index, tmp_path / "taken", "--embeddings", out).error

    def vectors(folder: str) -> dict[str, bytes]:
        rows = Catalog.open(tmp_path / folder / "catalog.sqlite").read("SELECT hash, embedding FROM images")
        return {digest: vector for digest, vector in rows if vector is not None}

    assert vectors("usual") == vectors("taken")
    assert len(vectors("usual")) == 24

    listed = massl("embed", tmp_path / "list.txt", "-o", tmp_path / "listed.parquet", "--strict")
    assert listed.code == 1
    assert f"skipped 's3://{BUCKET}/photos/gone.jpg': there is no such object" in listed.error


def test_an_object_store_that_goes_is_one_line_and_the_work_goes_on_where_it_was(
    massl, object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(90):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number:02d}.bmp").write_bytes(picture(number))
    object_server.put(tmp_path / "photos", "photos")
    out, there = tmp_path / "out.parquet", f"s3://{BUCKET}/photos"
    encoder = write_encoder(tmp_path / "tiny.onnx")
    asked = ("embed", there, "-o", out, "--encoder", encoder)

    nobody = failed(massl(*asked, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""))
    assert "there are no credentials; set AWS_ACCESS_KEY_ID" in nobody
    with object_server.refusing():
        assert "access is denied" in failed(massl(*asked))
    for wrong in (f"s3://{BUCKET}/out.parquet", "s3:/x.parquet"):
        ran = massl("embed", there, "-o", wrong, "--encoder", encoder)
        assert (ran.code, "takes a file of this machine" in ran.error) == (2, True)
    assert not out.exists()

    # Here, as blocks of a few images can't be had from outside.
    monkeypatch.setattr(bulk_embedding, "BLOCK", 32)
    source, _ = find_objects(there)
    work, tiny = BlockWork(source, readers=8), Encoder.load(encoder, threads=1)
    gone = threading.Event()

    def goes(done: int, total: int) -> None:
        if done >= 64 and not gone.is_set():
            gone.set()
            object_server.stop()

    try:
        with pytest.raises(MasslError, match="run the same command again to go on"):
            embed_source(work, tiny, out, goes)
    finally:
        object_server.start()
    kept = len(list((tmp_path / "out.parquet.blocks").iterdir()))
    assert kept == 2
    report = embed_source(work, tiny, out, lambda done, total: None)
    assert (report.images, report.embedded, report.skipped) == (90, 26, [])
    whole, _ = find_source(tmp_path / "photos")
    embed_source(BlockWork(whole), tiny, tmp_path / "folder.parquet", lambda done, total: None)
    columns = ["hash", "path", "width", "height", "vector", "reason"]
    assert pq.read_table(out, columns=columns).equals(pq.read_table(tmp_path / "folder.parquet", columns=columns))
