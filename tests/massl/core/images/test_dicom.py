"""DICOM files that pydicom ships, and files written by it, against the numbers that are in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from massl.core.images import dicom
from massl.core.images.decoding import decode, depends_on
from massl.core.images.image_errors import ImageError, TooLarge
from massl.core.images.rendering import Rendering, Unmeasured


def shipped(name: str) -> bytes:
    return Path(get_testdata_file(name, download=False)).read_bytes()


def file(values: np.ndarray, **told: Any) -> bytes:
    """A file of these frames or colours, uint16 or uint8."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    colour = values.ndim == 3 and values.shape[-1] == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    elif values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.Rows, dataset.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.Modality = "CT"
    dataset.PixelData = values.tobytes()
    for name, value in told.items():
        setattr(dataset, name, value)
    with io.BytesIO() as buffer:
        dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


FRAMES = np.random.default_rng(0).integers(0, 2000, (4, 10, 12)).astype("u2")


def shown(data: bytes, **rendering: Any) -> np.ndarray:
    return np.asarray(decode(data, rendering=Rendering(**rendering)).picture)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"]
)
def test_a_shipped_file_is_shown_in_its_own_window(name: str) -> None:
    dataset = pydicom.dcmread(io.BytesIO(shipped(name)))
    centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    found = shown(shipped(name), limits={"DICOM MR": (0, 9)})
    wanted = scaled(dataset.pixel_array, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    assert np.array_equal(found[..., 0], wanted)
    assert 20 < found.mean() < 235


def test_numbers_are_rescaled_and_a_person_s_range_counts_before_the_window() -> None:
    data = file(FRAMES[0], RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    hounsfield = 2.0 * FRAMES[0] - 1024
    assert np.array_equal(shown(data)[..., 0], scaled(hounsfield, 39.5 - 199.5, 39.5 + 199.5))
    assert np.array_equal(shown(data, fixed=(-160, 240))[..., 0], scaled(hounsfield, -160, 240))
    exact = file(FRAMES[0], WindowCenter=[500, 9], WindowWidth=[400, 9], VOILUTFunction="LINEAR_EXACT")
    assert np.array_equal(shown(exact)[..., 0], scaled(FRAMES[0], 300, 700))
    curve = file(FRAMES[0], WindowCenter=500, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert np.array_equal(shown(curve)[..., 0], scaled(1 / (1 + np.exp(-4 * (FRAMES[0] - 500.0) / 400)), 0, 1))


def test_without_a_window_the_collection_s_range_of_the_modality_counts() -> None:
    data = file(FRAMES[0])
    assert depends_on(Rendering(), data)
    with pytest.raises(Unmeasured) as asked:
        shown(data, measuring=True)
    assert asked.value.kind == "DICOM CT"
    assert np.array_equal(shown(data, limits={"DICOM CT": (100, 900)})[..., 0], scaled(FRAMES[0], 100, 900))
    dark = shown(file(FRAMES[0], PhotometricInterpretation="MONOCHROME1"), limits={"DICOM CT": (100, 900)})
    assert np.array_equal(dark[..., 0], 255 - scaled(FRAMES[0], 100, 900))
    for width in (0, -5, 1):  # none that anything can be seen in
        data = file(FRAMES[0], WindowCenter=40, WindowWidth=width)
        assert np.array_equal(shown(data, limits={"DICOM CT": (100, 900)})[..., 0], scaled(FRAMES[0], 100, 900))


@pytest.mark.parametrize(
    ("slope", "intercept", "why"),
    [
        ("nan", "0", "no number is finite once it is rescaled"),
        ("1e308", "1e308", "no number is finite once it is rescaled"),
        ("0", "5", "all numbers are one once they are rescaled"),
        ("1", "1e300", "all numbers are one once they are rescaled"),
    ],
)
def test_a_damaged_slope_is_a_reason_and_no_black_picture(slope: str, intercept: str, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        shown(file(FRAMES[0], RescaleSlope=slope, RescaleIntercept=intercept))


@pytest.mark.parametrize("curve", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(
    ("centre", "width"), [("500", "1e308"), ("500", "1e30"), ("500", "1e-300"), ("1e300", "400"), ("nan", "5")]
)
def test_a_window_in_which_nothing_can_be_seen_counts_as_none(centre: str, width: str, curve: str) -> None:
    data = file(FRAMES[0], WindowCenter=centre, WindowWidth=width, VOILUTFunction=curve)
    assert np.array_equal(shown(data, limits={"DICOM CT": (100, 900)})[..., 0], scaled(FRAMES[0], 100, 900))


def test_padding_is_black_and_takes_no_part_in_the_range() -> None:
    values = FRAMES[0].copy()
    values[0] = 65000
    decoded = decode(file(values, PixelPaddingValue=65000), rendering=Rendering({"DICOM CT": (0, 2000)}))
    assert not np.asarray(decoded.picture)[0].any()
    assert decoded.clipped == {"DICOM CT": 0.0}


def test_a_frame_is_chosen_as_a_plane_is() -> None:
    data = file(FRAMES)
    for plane, wanted in (("", FRAMES[0]), ("3", FRAMES[2]), ("middle", FRAMES[2]), ("max", FRAMES.max(0))):
        assert np.array_equal(shown(data, fixed=(0, 2000), plane=plane)[..., 0], scaled(wanted, 0, 2000))
    with pytest.raises(ImageError, match="no plane 5: it has 4"):
        shown(data, plane="5")


def test_colours_are_as_they_are() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (10, 12, 3)).astype("u1")
    assert np.array_equal(shown(file(colours), measuring=True), colours)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("rtplan.dcm", r"DICOM without pixels \(RT Plan Storage\)"),
        ("JPEG2000.dcm", "DICOM encoded as JPEG 2000 Image Compression, which"),
        ("MR_small_jpeg_ls_lossless.dcm", "DICOM encoded as JPEG-LS Lossless"),
        ("image_dfl.dcm", "deflated as a whole"),
        ("examples_palette.dcm", "of colour space PALETTE COLOR"),
        ("MR_truncated.dcm", "truncated|damaged"),
    ],
)
def test_what_can_not_be_read_is_a_reason(name: str, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        shown(shipped(name))


def test_a_size_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(TooLarge, match="60000 x 50000"):
        shown(file(FRAMES[0], Rows=50_000, Columns=60_000))
    with pytest.raises(TooLarge, match="20 pages of 12 x 10 pixels"):
        decode(file(np.repeat(FRAMES, 5, 0)), max_pixels=120, rendering=Rendering(plane="max"))


def test_without_pydicom_a_file_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "can_read", lambda: False)
    with pytest.raises(ImageError, match=r"DICOM: to read these, pip install 'massl\[sci\]'"):
        shown(file(FRAMES[0]))


def test_the_picture_of_a_file_has_none_of_its_words() -> None:
    picture = decode(file(FRAMES[0], PatientName="Doe^Jane")).picture
    assert isinstance(picture, Image.Image)
    assert picture.info == {}
