"""Whatever reads a picture takes from one budget a process; a picture that it does not hold costs nothing else."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from indexer import Collection, Encoder, Query
from indexer.ingest.edited_copies import open_to_edit
from indexer.ingest.indexing import batches
from indexer.search.pixel_verification import Looks
from indexer.store import thumbnails
from massl.core.errors import MasslError
from massl.core.files.scan import ImageFile
from massl.core.images.image_errors import ImageError
from tests.memory import little_memory


@pytest.fixture
def large(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture among the photos that takes more than there is, while any of the others may have what it needs."""
    little_memory(monkeypatch)
    Image.new("RGB", (10_000, 4_000), "red").save(photos / "large.png", compress_level=1)
    return photos / "large.png"


def test_a_picture_too_large_for_the_memory_is_skipped_and_tried_again(
    large: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = Collection.create(large.parent, encoder)
    report = collection.update()
    assert report.indexed == 24
    assert [item.path for item in report.skipped] == ["large.png"]
    assert report.skipped[0].reason.startswith("not enough memory to decode it: 10000 x 4000 pixels take about")
    monkeypatch.undo()
    assert collection.update().indexed == 25


def test_thumbnails_queries_and_comparing_take_from_the_budget(large: Path, encoder: Encoder) -> None:
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    assert thumbnails.Thumbnails(large.parent / ".massl").get(large, digest) is None
    for crop in (None, (0, 0, 500, 500)):
        with (
            pytest.raises(MasslError, match=r"large.png can't be used as a query: not enough memory"),
            Query.of_file(large, crop=crop).picture(encoder.resize),
        ):
            pass
    looks = Looks([large, next(large.parent.rglob("*.jpg"))], ["a" * 64, "b" * 64], {})
    assert looks.agreement(0, 1) == 0
    with pytest.raises(ImageError, match="not enough memory"):
        open_to_edit(large, encoder.resize)


def test_too_little_memory_for_one_picture_s_pixels_is_that_picture_s_reason(photos: Path) -> None:
    class Greedy:
        """Prepares pictures of a flag in a way that no machine has the memory for."""

        resize, device = 64, "cpu"

        def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
            return np.empty(1 << 55 if picture.getpixel((0, 0)) == (1, 2, 3) else 1, np.uint8)

        def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.ones((len(pixels), 2), np.float32)

    Image.new("RGB", (64, 64), (1, 2, 3)).save(photos / "greedy.png")
    shutil.copy(photos / "greedy.png", photos / "again.png")
    files = [ImageFile(path.relative_to(photos).as_posix(), 0, 0) for path in sorted(photos.rglob("*.*"))]
    loaded = [item for batch in batches(photos, files, Greedy()) for item in batch]
    failed = [item for item in loaded if item.reason]
    assert [item.file.path for item in failed] == ["again.png", "greedy.png"]
    assert len(loaded) == 26
    assert all(item.reason == "not enough memory to work on it" and not item.lasting for item in failed)
