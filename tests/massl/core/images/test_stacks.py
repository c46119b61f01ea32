"""Stacks as tifffile writes them: the channels and the plane that are asked for, against the arrays in them."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
import tifffile

from massl.core.images import stacks
from massl.core.images.decoding import decode, depends_on
from massl.core.images.image_errors import ImageError, TooLarge
from massl.core.images.rendering import Rendering

FULL = {"uint16": (0.0, 4000.0)}


def stack(*shape: int, kind: str = "u2") -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 250 if kind == "u1" else 4000, (*shape, 16, 24)).astype(kind)


def written(values: np.ndarray, axes: str | None, channels: tuple[str, ...] = (), **options: Any) -> bytes:
    """A stack: OME-TIFF unless told otherwise."""
    metadata = None if axes is None else {"axes": axes} | ({"Channel": {"Name": list(channels)}} if channels else {})
    options = {"photometric": "minisblack", "ome": axes is not None and not options.get("imagej")} | options
    with io.BytesIO() as buffer:
        tifffile.imwrite(buffer, values, metadata=metadata, **options)
        return buffer.getvalue()


def shown(data: bytes, channels: tuple[str, ...] = (), plane: str = "", **limits: tuple[float, float]) -> np.ndarray:
    known = {name.replace("_", " "): each for name, each in limits.items()} or FULL
    return np.asarray(decode(data, rendering=Rendering(known, channels=channels, plane=plane)).picture)


def scaled(values: np.ndarray, high: float = 4000) -> np.ndarray:
    return np.rint(values.astype(float) / high * 255).astype(np.uint8)


NAMES = ("DAPI", "GFP", "RFP", "Cy5")


@pytest.mark.parametrize("order", ["ZCYX", "CZYX"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_three_channels_become_red_green_and_blue(order: str, compression: str | None) -> None:
    values = stack(3, 4)
    data = written(values if order == "ZCYX" else values.swapaxes(0, 1), order, NAMES, compression=compression)
    limits = {f"uint16 {name}": (0.0, 4000.0 + at) for at, name in enumerate(("RFP", "dapi", "4"))}
    rendering = Rendering(limits, channels=("RFP", "dapi", "4"), plane="2")
    found = np.asarray(decode(data, rendering=rendering).picture)
    for at, channel in enumerate((2, 0, 3)):
        assert np.array_equal(found[..., at], scaled(values[1, channel], 4000 + at))


@pytest.mark.parametrize("imagej", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_a_plane_is_taken_by_number_from_the_middle_or_as_the_maximum(imagej: bool, kind: str) -> None:
    values = stack(5, kind=kind)
    data = written(values, "ZYX", imagej=imagej)
    high = {"u1": 255, "u2": 4000, "f4": 3000}[kind]
    limits = {"uint16": (0.0, 4000.0), "float32": (0.0, 3000.0)}
    for plane, wanted in (("", values[0]), ("3", values[2]), ("middle", values[2]), ("max", values.max(0))):
        if plane:
            found = shown(data, plane=plane, **limits)
            assert np.array_equal(found[..., 0], scaled(np.minimum(wanted, high), high)), plane


def test_two_channels_leave_blue_black_and_one_is_grey() -> None:
    values = stack(2)
    data = written(values, "CYX", NAMES[:2])
    found = shown(data, ("1", "2"), uint16_1=(0, 4000), uint16_2=(0, 4000))
    assert np.array_equal(found, np.stack([scaled(values[0]), scaled(values[1]), np.zeros((16, 24), np.uint8)], -1))
    found = shown(data, ("GFP",), uint16_GFP=(0, 4000))
    assert np.array_equal(found, np.repeat(scaled(values[1])[..., None], 3, -1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_five_channels_on_one_page_are_chosen_by_number(planar: str) -> None:
    values = np.moveaxis(stack(5), 0, -1) if planar == "contig" else stack(5)
    data = written(values, None, planarconfig=planar)
    with pytest.raises(ImageError, match="a TIFF of 5 channels of 16 bits that doesn't say"):
        decode(data)
    wanted = values[..., 4] if planar == "contig" else values[4]
    assert np.array_equal(shown(data, ("5",), uint16_5=(0, 4000))[..., 0], scaled(wanted))


def test_what_is_no_stack_is_read_as_ever() -> None:
    single = written(stack()[None][0], None)
    colour = written(np.moveaxis(stack(3, kind="u1"), 0, -1), None, photometric="rgb")
    for data in (single, colour):
        plain = np.asarray(decode(data, rendering=Rendering(FULL)).picture)
        assert np.array_equal(shown(data, ("1", "2"), "max"), plain)


def test_pictures_in_colour_have_planes_but_no_channels() -> None:
    values = np.moveaxis(stack(4, 3, kind="u1"), 1, -1)
    data = written(values, "ZYXS", photometric="rgb")
    assert np.array_equal(shown(data, plane="2"), values[1])
    assert np.array_equal(shown(data, plane="max"), values.max(0))
    with pytest.raises(ImageError, match="pictures in colour, which has no channels"):
        shown(data, ("1",))


@pytest.mark.parametrize(
    ("data", "channels", "plane", "why"),
    [
        (written(stack(5), "ZYX"), (), "6", "no plane 6: it has 5"),
        (written(stack(2), "CYX", NAMES[:2]), ("Cy5",), "", "no channel 'Cy5': it has DAPI, GFP"),
        (written(stack(2), "CYX", ("a", "b")), ("3",), "", "no channel '3': it has a, b"),
        (written(stack(5), None), ("1",), "", "a stack of 5 pages that doesn't say which are channels"),
        (written(stack(3, 4), "TZYX"), (), "max", "a stack of 3 points in time, 4 planes: only one"),
        (written(stack(2), "ZYX", compression="zlib")[:-500], (), "max", "truncated|damaged"),
    ],
)
def test_what_is_not_there_is_a_reason(data: bytes, channels: tuple[str, ...], plane: str, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        shown(data, channels, plane)


def test_pages_of_different_sizes_are_no_stack() -> None:
    with io.BytesIO() as buffer:
        with tifffile.TiffWriter(buffer) as file:
            for side in (32, 20):  # not halves, which would be a pyramid
                file.write(np.zeros((side, side), "u2"), photometric="minisblack", metadata=None)
        with pytest.raises(ImageError, match=r"2 pictures that are no stack \(20 x 20, 32 x 32\)"):
            shown(buffer.getvalue(), plane="max")


@pytest.mark.parametrize("told", ["images=2\nslices=2\nhyperstack=true", "images=4\nchannels=4"])
def test_planes_of_which_the_metadata_does_not_tell_are_not_left_out_in_silence(told: str) -> None:
    data = written(stack(6), None, description=f"ImageJ=1.54f\n{told}\n")
    with pytest.raises(ImageError, match=r"a stack of 6 pages whose metadata tells of [24]; save it as OME-TIFF"):
        shown(data, plane="max")


@pytest.mark.parametrize("claimed", [2, 2_000_000_000])
def test_planes_that_imagej_tells_of_and_that_are_not_there_are_a_reason(claimed: int) -> None:
    data = written(stack(1), None, description=f"ImageJ=1.54f\nimages={claimed}\nslices={claimed}\n")
    with pytest.raises(ImageError, match=rf"a stack of {claimed:,} pages of which 1 are there"):
        shown(data, plane="max")


def lsm(values: np.ndarray, channel_colours: bytes = b"") -> bytes:
    """A stack of Zeiss's older microscopes: a thumbnail behind each plane, and a record that says what there is."""
    record = np.zeros(1, np.dtype(tifffile.TIFF.CZ_LSMINFO).newbyteorder("<"))
    record["MagicNumber"], record["StructureSize"] = 67127628, record.nbytes
    for axis, size in zip("ZYX", values.shape, strict=True):
        record[f"Dimension{axis}"] = size
    record["DimensionChannels"] = record["DimensionTime"] = 1
    with io.BytesIO() as buffer:
        with tifffile.TiffWriter(buffer) as file:
            for number, plane in enumerate(values):
                told = [(34412, 1, record.nbytes, record.tobytes(), True)] if number == 0 else []
                file.write(plane, photometric="minisblack", metadata=None, extratags=told)
                file.write(plane[:8, :8], photometric="minisblack", metadata=None, subfiletype=1)
        before = record.tobytes()
        record["OffsetChannelColors"] = len(buffer.getvalue())
        return buffer.getvalue().replace(before, record.tobytes()) + channel_colours


def test_a_stack_of_an_lsm_file_is_read_without_the_lists_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values = stack(3)
    # Names of no length: tifffile copies what is left of the list for each.
    data = lsm(values, np.array([24 + 4_000, 0, 0, 24, 24, 0], "<u4").tobytes() + bytes(4_000))
    read: list[Any] = []
    monkeypatch.setattr(tifffile.tifffile, "read_lsm_channelcolors", lambda file: read.append(file) or {})
    assert np.array_equal(shown(data, plane="max")[..., 0], scaled(values.max(0)))
    assert not read
    assert tifffile.TiffFile(io.BytesIO(data)).lsm_metadata["ChannelColors"] == {}
    assert read  # where it is asked for


def test_a_stack_is_refused_before_its_size_is_allocated() -> None:
    data = written(stack(40), "ZYX")
    with pytest.raises(TooLarge, match="24 x 16 is"):
        decode(data, max_pixels=300, rendering=Rendering(FULL, plane="1"))
    with pytest.raises(TooLarge, match="40 pages of 24 x 16 pixels"):
        decode(data, max_pixels=400, rendering=Rendering(FULL, plane="max"))


def test_other_files_that_metadata_names_are_not_opened(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = stack(2)
    (tmp_path / "other.tif").write_bytes(written(values, "ZYX"))
    monkeypatch.chdir(tmp_path)
    data = written(values, "ZYX")
    opened: list[str] = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
    shown(data, plane="max")
    assert not [path for path in opened if path.endswith(".tif")]


def test_without_tifffile_a_stack_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "can_read", lambda: False)
    with pytest.raises(ImageError, match=r"a stack of 5 pages: .* pip install 'massl\[sci\]'"):
        shown(written(stack(5), "ZYX"), plane="max")
    assert shown(written(stack(), None), plane="max").shape == (16, 24, 3)


def test_a_stack_depends_on_what_is_chosen() -> None:
    data = written(stack(5, kind="u1"), "ZYX")
    assert not depends_on(Rendering(), data)
    assert depends_on(Rendering(plane="max"), data)
