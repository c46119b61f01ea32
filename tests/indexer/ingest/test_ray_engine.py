"""Embedding by the workers of a Ray cluster on this machine. Starting one takes a while, so tests are few."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import psutil
import pytest

from indexer import Encoder
from indexer.ingest import bulk_embedding, ray_engine
from indexer.ingest.bulk_embedding import BlockWork, embed_source
from indexer.ingest.ray_engine import RayEngine
from massl.core.errors import MasslError
from massl.data.sources import find_source
from tests.indexer.ingest.test_bulk_embedding import folder, quiet, rows_of

__all__ = ["folder"]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'massl[ray]'")


class Refusing:
    """A source that stops being one after a few images, as a store whose credentials run out."""

    where = "there"
    identity = "refusing"

    def __init__(self, root: Path) -> None:
        self._source, _ = find_source(root)

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        return self._source.name(index)

    def read(self, index: int) -> bytes:
        if index >= 40:
            raise MasslError("there is refused; run the same command again to go on")
        return self._source.read(index)


@needs_ray
def test_a_cluster_gives_the_same_numbers_though_a_worker_is_killed(
    folder: Path, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_embedding, "BLOCK", 8)
    work = BlockWork(find_source(folder)[0])
    embed_source(work, tiny_encoder, tmp_path / "here.parquet", quiet)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if 0 < done < total and not killed:
            workers = [one for one in psutil.Process().children(recursive=True) if "_Worker" in " ".join(one.cmdline())]
            if workers:
                killed.append(workers[0].pid)
                workers[0].kill()

    engine = RayEngine(tiny_encoder, "onnxruntime", 2)
    report = embed_source(work, tiny_encoder, tmp_path / "there.parquet", kill, engine=engine)
    assert killed
    assert (report.images, report.embedded) == (92, 91)
    assert rows_of(tmp_path / "there.parquet") == rows_of(tmp_path / "here.parquet")
    assert engine.runtimes == {"onnxruntime"}
    assert not [one for one in psutil.Process().children(recursive=True) if "ray" in one.name()]


@needs_ray
def test_images_that_can_t_be_read_any_more_end_it_with_one_line_and_keep_blocks(
    folder: Path, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_embedding, "BLOCK", 8)
    engine = RayEngine(tiny_encoder, "onnxruntime", 1)
    with pytest.raises(MasslError, match=r"^there is refused; run the same command again to go on$"):
        embed_source(BlockWork(Refusing(folder)), tiny_encoder, tmp_path / "out.parquet", quiet, engine=engine)
    assert len(list((tmp_path / "out.parquet.blocks").iterdir())) >= 1
    monkeypatch.setenv(ray_engine.ADDRESS, "127.0.0.1:1")
    with pytest.raises(MasslError, match=r"the Ray cluster at 127\.0\.0\.1:1 can't be used: "):
        embed_source(BlockWork(Refusing(folder)), tiny_encoder, tmp_path / "out.parquet", quiet, engine=engine)


def test_ray_that_is_not_installed_names_the_extra(tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MasslError, match=r"run: pip install 'massl\[ray\]'"):
        RayEngine(tiny_encoder, "auto")
