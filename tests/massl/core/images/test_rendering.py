"""One range for the deep files of a folder: the numbers that become black and white, and what lies beyond them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from massl.core.errors import MasslError
from massl.core.images.decoding import decode, decode_scaled, depends_on
from massl.core.images.rendering import (
    Rendering,
    Sampling,
    Unmeasured,
    check_range,
    given_limits,
    measured,
)
from tests.massl.core.images.tiff_files import CMYK, GREY, GREY_WHITE_IS_ZERO, RGB, tiff


def frame(kind: str = "u2", channels: int = 1) -> np.ndarray:
    return np.random.default_rng(3).integers(100, 3000, (24, 32, channels)).astype(kind)


def png(values: np.ndarray) -> bytes:
    with io.BytesIO() as buffer:
        Image.fromarray(values[..., 0]).save(buffer, "PNG")
        return buffer.getvalue()


def shown(data: bytes, rendering: Rendering) -> np.ndarray:
    return np.asarray(decode(data, rendering=rendering).picture)[..., 0]


def expected(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)[..., 0]


def test_one_hot_pixel_no_longer_darkens_a_picture() -> None:
    values = frame() % 900
    hot = values.copy()
    hot[3, 4] = 65535
    by_file = [shown(tiff(each, GREY), Rendering()).mean() for each in (values, hot)]
    assert by_file[1] < by_file[0] / 10
    ranged = Rendering({"uint16": (0, 1000)})
    by_range = [shown(tiff(each, GREY), ranged) for each in (values, hot)]
    assert (by_range[0] != by_range[1]).sum() == 1
    assert by_range[1][3, 4] == 255


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_numbers_of_every_type_are_scaled_by_the_range(kind: str) -> None:
    values = frame(kind)
    name = {"u": "uint", "i": "int", "f": "float"}[kind[0]] + str(8 * int(kind[1]))
    decoded = decode(tiff(values, GREY), rendering=Rendering({name: (200, 2000)}))
    assert np.array_equal(np.asarray(decoded.picture)[..., 0], expected(values, 200, 2000))
    assert decoded.clipped == {name: pytest.approx(((values < 200) | (values > 2000)).mean())}


def test_colours_share_a_range_that_is_not_that_of_greys() -> None:
    values = frame(channels=3)
    for planar in (False, True):
        data = tiff(values, RGB, planar=planar)
        found = np.asarray(decode(data, rendering=Rendering({"uint16 RGB": (0, 4000), "uint16": (0, 9)})).picture)
        assert np.array_equal(found[..., 1:2][..., 0], expected(values[..., 1:2], 0, 4000))


def test_a_png_of_16_bits_is_as_the_same_numbers_in_a_tiff() -> None:
    values = frame() * 20  # also beyond 14 bits
    ranged = Rendering({"uint16": (2000, 30000)})
    assert np.array_equal(shown(png(values), ranged), shown(tiff(values, GREY), ranged))
    assert np.array_equal(shown(tiff(values, GREY_WHITE_IS_ZERO), ranged), 255 - shown(tiff(values, GREY), ranged))


def test_pictures_of_8_bits_and_inks_do_not_know_of_ranges() -> None:
    unmeasured = Rendering(measuring=True)
    for data in (tiff(frame("u1"), GREY), png(frame("u1")), tiff(frame(channels=4), CMYK)):
        assert decode(data, rendering=unmeasured).clipped == {}
    assert not depends_on(Rendering(), png(frame("u1")))
    assert depends_on(Rendering(), png(frame()))
    assert depends_on(Rendering(), tiff(frame("f4"), GREY))


def test_a_kind_without_a_range_is_asked_for_and_nothing_else_is() -> None:
    with pytest.raises(Unmeasured) as asked:
        decode(tiff(frame("f4"), GREY), rendering=Rendering({"uint16": (0, 9)}, measuring=True))
    assert asked.value.kind == "float32"


def test_a_range_leaves_out_what_is_no_number() -> None:
    values = frame("f4")
    values[0, :8, 0] = [np.nan, np.inf, -np.inf, np.nan, np.inf, -np.inf, np.nan, np.nan]
    sampling = Sampling(10_000)
    decode_scaled(tiff(values, GREY), sampling)
    numbers = values[np.isfinite(values)]
    assert measured(sampling.taken.values()) == pytest.approx(tuple(np.percentile(numbers, [0.1, 99.9])))
    ranged = decode(tiff(values, GREY), rendering=Rendering({"float32": (0, 5000)}))
    assert np.asarray(ranged.picture)[0, :8, 0].tolist() == [0] * 8
    assert ranged.clipped == {"float32": 0.0}


def test_a_sample_has_no_more_numbers_than_it_may_and_is_the_same_again() -> None:
    samples = []
    for _ in range(2):
        sampling = Sampling(50)
        decode_scaled(tiff(frame(), GREY), sampling)
        samples.append(sampling.taken["uint16"])
    assert len(samples[0]) == 50
    assert np.array_equal(*samples)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40))
def test_a_measured_range_lies_within_the_numbers_and_is_empty_only_if_they_are_one(numbers: list[float]) -> None:
    low, high = measured([np.array(numbers)])
    assert min(numbers) <= low <= high <= max(numbers)
    assert (low == high) == (len(set(numbers)) == 1)


@pytest.mark.parametrize(
    ("text", "kept", "limits"),
    [
        ("collection", "collection", None),
        ("file", "file", None),
        ("bits=12", "bits=12", (0, 4095)),
        (" 100:4000 ", "100:4000", (100, 4000)),
        ("-1.5:1e3", "-1.5:1000", (-1.5, 1000)),
    ],
)
def test_a_range_is_written_in_one_way(text: str, kept: str, limits: tuple[float, float] | None) -> None:
    assert check_range(text) == kept == check_range(kept)
    assert given_limits(kept) == limits


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5:5", "holds only one value"),
        ("9:3", "begins above its end"),
        ("nan:3", "has no end"),
        ("0:inf", "has no end"),
        ("12", "is no range"),
        ("1:2:3", "is no range"),
        ("", "is no range"),
        ("bits=0", "of 0 bits"),
        ("bits=99", "of 99 bits"),
    ],
)
def test_what_is_no_range_is_said_to_be_none(text: str, why: str) -> None:
    with pytest.raises(MasslError, match=why):
        check_range(text)
