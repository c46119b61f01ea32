"""`massl embed` from outside, and `massl index --embeddings`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.cli.conftest import failed
from tests.indexer.tiny import picture, write_encoder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="needs pip install 'massl[parquet]'"
)


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
