"""DICOM, by pydicom (the extra `sci`): the numbers that a device measured, rescaled, in the window that its file names.

Only what is stored plainly or run-length encoded is read: pydicom unpacks both itself. Everything that identifies a
patient is passed over.
"""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from PIL import Image

from massl.core.images import bit_depth, planes
from massl.core.images.content import Content
from massl.core.images.dicom_elements import PictureElements, picture_elements
from massl.core.images.dicom_elements import Unreadable as Unreadable
from massl.core.images.rendering import EACH, Limits, Scaling, kind_of
from massl.core.images.stacks import plane_numbers

_READ = {
    "1.2.840.10008.1.2": "implicit",
    "1.2.840.10008.1.2.1": "explicit",
    "1.2.840.10008.1.2.2": "big-endian",
    "1.2.840.10008.1.2.5": "run-length encoded",
}
_GREYS = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL")
_MOST_OF_A_RUN = 64  # bytes that one encoded byte can become
_WIDEST = 2.0**64  # of a window; 32 bits in 256 shades, and as much again for the slope
_A_PIXEL = 48  # bytes of a channel, at most: as stored, as numbers of 64 bits, their copies, and as 8 bits


def can_read() -> bool:
    """Whether pydicom is here: `pip install 'massl[sci]'`."""
    return importlib.util.find_spec("pydicom") is not None


def is_dicom(data: Content) -> bool:
    """Whether a file's content is DICOM's, whatever its name."""
    return data[128:132] == b"DICM"


def read(data: bytes, scaling: Scaling, admit: Callable[[int, int, int, int], None]) -> Image.Image:
    """The picture in a file: the first of several frames, unless `scaling` chooses another plane.

    A range that a person gave for the collection counts before the file's window, and that before a measured range.

    Args:
        data: the file's content.
        scaling: how its numbers become 8 bits.
        admit: given width, height, the number of frames to be read, and the bytes that they take, before any is read;
            raises to refuse.

    Returns:
        an image of mode `L` or `RGB`.

    Raises:
        Unreadable: it holds no picture, or one of a kind that isn't read.
    """
    if not can_read():
        raise Unreadable("DICOM: to read these, pip install 'massl[sci]'")
    import pydicom

    elements = picture_elements(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that aren't as the standard has them
        return _picture(pydicom.dcmread(io.BytesIO(elements.small)), elements, scaling, admit)


def _picture(
    dataset: Any, elements: PictureElements, scaling: Scaling, admit: Callable[[int, int, int, int], None]
) -> Image.Image:
    if elements.pixels is None or "Rows" not in dataset or "Columns" not in dataset:
        what = dataset.get("SOPClassUID")
        raise Unreadable(f"DICOM without pixels ({what.name if what else 'of a kind that it does not say'})")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in _READ:
        raise Unreadable(f"DICOM encoded as {syntax.name if syntax else 'it does not say'}, which is not supported")
    colours = dataset.get("PhotometricInterpretation", "")
    samples, bits = int(dataset.get("SamplesPerPixel", 1)), int(dataset.get("BitsAllocated", 0))
    if (colours, samples) not in [*((each, 1) for each in _GREYS), *((each, 3) for each in _COLOURS)]:
        raise Unreadable(f"DICOM of {samples} channels of colour space {colours}, which is not supported")
    if bits not in (8, 16, 32):
        raise Unreadable(f"DICOM of {bits} bits, which is not supported")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if scaling.rendering.plane == EACH and frames > 1:
        raise Unreadable(f"DICOM of {frames:,} frames, which --plane each doesn't take apart; choose max or a number")
    rows = plane_numbers(frames, scaling.rendering.plane)
    if len(rows) > planes.MOST:
        raise Unreadable(f"DICOM of more than {planes.MOST:,} frames, which are too many for the greatest of all")
    pixels = int(dataset.Rows) * int(dataset.Columns)
    unpacked = len(elements.pixels) * (_MOST_OF_A_RUN if _READ[syntax] == "run-length encoded" else 1)
    admit(int(dataset.Columns), int(dataset.Rows), len(rows), _A_PIXEL * samples * pixels + unpacked)
    from pydicom import DataElement
    from pydicom.pixels import iter_pixels

    dataset["PixelData"] = DataElement(
        "PixelData", elements.kind, bytes(elements.pixels), is_undefined_length=elements.in_fragments
    )
    # Not frame by frame, for each of which pydicom goes through the fragments of all.
    every = scaling.rendering.plane == "max"
    values = reduce(np.fmax, iter_pixels(dataset, indices=None if every else rows))
    if samples == 3:
        kind = kind_of("u", bits, 3)
        limits = scaling.limits(values, f"DICOM {kind}") if bits > 8 else (0.0, 255.0)
        return Image.fromarray(bit_depth.to_8_bits(values, limits))
    padding = dataset.get("PixelPaddingValue")
    measured = _rescaled(values, dataset)
    if isinstance(padding, int):
        measured[values == padding] = np.nan
    shown = _in_window(measured, dataset, scaling)
    return Image.fromarray(255 - shown if colours == "MONOCHROME1" else shown)


def _rescaled(values: np.ndarray, dataset: Any) -> np.ndarray:
    """The numbers as they were measured, float64 of the same shape.

    Raises:
        Unreadable: nothing is left of them, as of a damaged slope.
    """
    from pydicom.pixels import apply_modality_lut

    with np.errstate(all="ignore"):
        measured = np.asarray(apply_modality_lut(values, dataset), np.float64)
    low, high = (float(each) for each in bit_depth.extremes(measured))
    if not np.isfinite(measured).any():
        raise Unreadable("DICOM of which no number is finite once it is rescaled; its rescale slope is damaged")
    if low == high and values.min() < values.max():
        raise Unreadable("DICOM of which all numbers are one once they are rescaled; its rescale slope is damaged")
    return measured


def _in_window(values: np.ndarray, dataset: Any, scaling: Scaling) -> np.ndarray:
    device = re.sub("[^A-Z0-9]", "", str(dataset.get("Modality", "")).upper())[:16]
    kind = f"DICOM {device}".rstrip()
    window = None if scaling.rendering.fixed else _window(dataset)
    if window is None:
        return bit_depth.to_8_bits(values, scaling.limits(values, kind))
    scaling.clipped[kind] = None
    if dataset.get("VOILUTFunction") == "SIGMOID":
        centre, width = sum(window) / 2, window[1] - window[0]
        with np.errstate(over="ignore"):
            values = 1 / (1 + np.exp(-4 * (values - centre) / width))
        window = 0.0, 1.0
    return bit_depth.to_8_bits(values, window)


def _window(dataset: Any) -> Limits | None:
    """What becomes black and white by the file's first window; see part 3 of the standard, C.11.2.1.2."""
    told = []
    for name in ("WindowCenter", "WindowWidth"):
        value = dataset.get(name)
        first = value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value
        try:
            told.append(float(first))
        except (TypeError, ValueError, IndexError):
            return None
    centre, width = told
    if dataset.get("VOILUTFunction", "LINEAR") == "LINEAR":
        centre, width = centre - 0.5, width - 1
    low, high = centre - width / 2, centre + width / 2
    # Also none where floats leave nothing between its ends, or all that a device can measure is one shade of it.
    return (low, high) if low < high and high - low < _WIDEST else None
