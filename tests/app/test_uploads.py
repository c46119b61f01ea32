"""Taking an upload: what is remembered of it, and what it may cost."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.screens.find import Finding, FindScreen
from app.screens.search_request import Example, Question
from app.uploads import of_bytes, take
from indexer import Collection, Encoder
from massl.core.errors import MasslError
from tests.memory import little_memory


@pytest.mark.parametrize("size", [(120, 9_000), (9_000, 121)])
def test_of_a_very_long_picture_the_middle_is_remembered(
    tmp_path: Path, encoder: Encoder, size: tuple[int, int]
) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 60 + 1, size[0] // 60 + 1, 3), np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    picture.save(tmp_path / "long.png")
    upload = take(str(tmp_path / "long.png"), tmp_path, encoder.resize)
    assert not (tmp_path / "long.png").exists()
    with upload.query.picture(encoder.resize) as remembered:
        assert max(remembered.size) <= 8 * min(remembered.size) + 1
        pixels = [encoder.prepare(picture), encoder.prepare(remembered)]
    whole, middle = encoder.embed(pixels)
    assert float(whole @ middle) > 0.99


def test_an_upload_that_the_memory_does_not_hold_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little_memory(monkeypatch)
    Image.new("RGB", (10_000, 4_000), "red").save(tmp_path / "large.png", compress_level=1)
    with pytest.raises(
        MasslError, match="This file can't be used as a picture: not enough memory to decode it: 10000 x"
    ):
        take(str(tmp_path / "large.png"), tmp_path, 256)
    assert not (tmp_path / "large.png").exists()


def test_of_a_large_upload_the_copy_that_parts_are_cut_from_says_by_how_much_it_is_smaller(tmp_path: Path) -> None:
    for size, reduced in (((800, 600), 1), ((3_072, 1_600), 2)):
        Image.new("L", size).save(tmp_path / "large.png", compress_level=1)
        upload = of_bytes((tmp_path / "large.png").read_bytes(), 256, "It")
        assert upload.reduced == pytest.approx(reduced)
        assert upload.size[0] * upload.reduced == pytest.approx(size[0])


def test_a_part_of_an_upload_is_searched_by_at_the_scale_of_the_upload(unlabelled: Collection, tmp_path: Path) -> None:
    Image.new("L", (3_072, 1_600)).save(tmp_path / "large.png", compress_level=1)
    find = FindScreen(unlabelled, tmp_path)
    token = find._uploads.put("It", of_bytes((tmp_path / "large.png").read_bytes(), 256, "It"))
    part = Example(upload=token, part=(0.25, 0.5, 0.5, 0.25))
    (query,) = find._queries(Finding(question=Question(examples=(part,))))
    assert query.reduced == pytest.approx(2)
    assert query.crop == (384, 400, 768, 200)


def deep_png(width: int, height: int, interlaced: bool = False) -> bytes:
    """A PNG with alpha and 16 bits a channel that claims a size, and ends before its pixels do."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    header = struct.pack(">LLBBBBB", width, height, 16, 6, 0, 0, interlaced)
    pixels = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_an_upload_that_unpacks_to_more_than_a_search_may_take_is_refused_by_its_header() -> None:
    for data, why in (
        (deep_png(13_300, 13_300), "its pixels take about 1.3 GiB, the limit is 512 MiB"),
        (deep_png(10_000, 8_000, interlaced=True), "decoding it takes about 2.2 GiB, the limit is 2.0 GiB"),
    ):
        with pytest.raises(MasslError, match=f"It can't be used as a picture: too large: {why}; make it smaller first"):
            of_bytes(data, 256, "It")
    with pytest.raises(MasslError, match="truncated"):  # as large as may be: it is looked into
        of_bytes(deep_png(8_192, 8_192), 256, "It")
