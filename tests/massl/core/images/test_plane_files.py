"""Planes as files of their own: what is copied, and what a damaged or hostile stack costs."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from massl.core.files.scan import Contents, ImageFile, walk
from massl.core.images import plane_files
from massl.core.images.decoding import decode
from massl.core.images.file_reading import read_bytes
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import Rendering

VALUES = np.random.default_rng(0).integers(0, 4000, (5, 32, 48)).astype("u2")
OPTIONS: list[dict[str, Any]] = [
    {"imagej": True, "metadata": {"axes": "ZYX"}},
    {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib", "tile": (16, 16)},
    {"ome": True, "metadata": {"axes": "ZYX"}, "bigtiff": True, "compression": "lzw", "rowsperstrip": 7},
    {"metadata": None, "byteorder": ">", "predictor": True, "compression": "zlib"},
]


def write(path: Path, values: np.ndarray = VALUES, **options: Any) -> Path:
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    return path


@pytest.mark.parametrize("options", OPTIONS)
def test_a_plane_is_a_tiff_that_others_read(tmp_path: Path, options: dict[str, Any]) -> None:
    stack = write(tmp_path / "stack.tif", **options)
    assert plane_files.count(stack) == 5
    for number in range(1, 6):
        data = read_bytes(tmp_path / f"stack.tif#{number}")
        (tmp_path / "alone.tif").write_bytes(data)
        assert np.array_equal(tifffile.imread(tmp_path / "alone.tif"), VALUES[number - 1])
        assert len(data) < stack.stat().st_size / 2
        assert read_bytes(tmp_path / f"stack.tif#{number}") == data


def test_planes_of_colours_and_of_channels_on_a_page_are_as_in_the_stack(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 255, (4, 16, 24, 3)).astype("u1")
    tifffile.imwrite(tmp_path / "stack.tif", colours, photometric="rgb")
    found = decode(read_bytes(tmp_path / "stack.tif#3"), rendering=Rendering(plane="each")).picture
    assert np.array_equal(np.asarray(found), colours[2])


def test_a_file_of_one_plane_stays_one_and_is_not_read_to_count(tmp_path: Path) -> None:
    write(tmp_path / "one.tif", VALUES[0])
    (tmp_path / "photo.tif").write_bytes(b"II*\0")
    (tmp_path / "other.tif").write_bytes(b"no TIFF at all")
    assert plane_files.count(tmp_path / "one.tif") == plane_files.count(tmp_path / "other.tif") == 1
    assert plane_files.count(tmp_path / "photo.tif") is None
    assert plane_files.split(tmp_path / "one.tif#0") is None
    assert plane_files.split(tmp_path / "two.tif#1") is None
    with pytest.raises(ImageError, match=r"no plane 1: one\.tif is no stack"):
        read_bytes(tmp_path / "one.tif#1")


def test_a_number_behind_a_picture_of_another_kind_is_no_plane(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.webp")
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    (tmp_path / "c.tif").write_bytes(b"MZ" + bytes(40))
    for name in ("a.webp", "b.png", "c.tif"):
        with pytest.raises(ImageError, match=f"no plane 1: {name} is no stack"):
            read_bytes(tmp_path / f"{name}#1")


def test_what_a_stack_claims_beyond_its_size_is_refused(tmp_path: Path) -> None:
    stack = write(tmp_path / "stack.tif", metadata=None)
    with tifffile.TiffFile(stack) as file:
        tag = file.pages[2].tags[279]  # of the pixels' bytes
    data = bytearray(stack.read_bytes())
    struct.pack_into("<L", data, tag.offset + 8, len(data) - 100)
    stack.write_bytes(data)
    with pytest.raises(ImageError, match=r"truncated|claims more"):
        read_bytes(tmp_path / "stack.tif#3")
    assert read_bytes(tmp_path / "stack.tif#2")
    stack.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError):
        read_bytes(tmp_path / "stack.tif#4")


def test_a_stack_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "stack.tif", **OPTIONS[0])
    write(tmp_path / "frame.tif", VALUES[0])
    first = Contents(planes=plane_files.counter("each", ()))
    found = [item.path for item in walk(tmp_path, contents=first) if isinstance(item, ImageFile)]
    assert found == ["frame.tif", *(f"stack.tif#{number}" for number in range(1, 6))]
    monkeypatch.setattr(plane_files, "count", None)  # nobody may ask again
    second = Contents(first.now, plane_files.counter("each", ()))
    assert [item.path for item in walk(tmp_path, contents=second)] == found
    assert not second.changed
    assert [item.path for item in walk(tmp_path, contents=Contents(first.now))] == ["frame.tif", "stack.tif"]


def test_a_tiff_without_pages_is_no_image_whatever_is_asked_of_stacks() -> None:
    """It was called `damaged: 0`."""
    for plane in ("", "max", "each"):
        with pytest.raises(ImageError, match="not an image"):
            decode(b"II*\0" + bytes(100), rendering=Rendering(plane=plane))


def test_memory_is_asked_for_before_a_plane_is_read(tmp_path: Path) -> None:
    write(tmp_path / "stack.tif", **OPTIONS[0])
    asked: list[int] = []
    data = plane_files.read(tmp_path / "stack.tif", 2, asked.append)
    assert sum(asked) >= 2 * VALUES[1].nbytes > len(data)  # what is read, and what is written of it
