"""The pictures that scikit-image ships, against the arrays that it reads from them.

Three have a colour profile that isn't sRGB's, which scikit-image leaves out: a screenshot with that of its screen, a
page scanned with a dot gain, a photograph in Adobe RGB. By these their arrays are converted first.

`pip install scikit-image` has these tests run.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from massl.core.images.decoding import decode

_FOUND = importlib.util.find_spec("skimage")
_FOLDER = Path(_FOUND.origin).parent / "data" if _FOUND and _FOUND.origin else Path("none")
_PROFILES = {"color.png": "Color LCD", "page.png": "Dot Gain 20%", "rocket.jpg": "Adobe RGB (1998)"}
_NAMES = sorted(path.name for path in _FOLDER.glob("*") if path.suffix in (".png", ".jpg", ".gif", ".tif"))

pytestmark = pytest.mark.skipif(not _NAMES, reason="scikit-image isn't installed")


def expected(path: Path) -> np.ndarray:
    """Its array as upright, opaque, 8-bit sRGB, `[H, W, 3]`."""
    from skimage.io import imread

    values = imread(path)
    if path.name == "multipage_rgb.tif":
        return np.rint(255 * values[0]).astype(np.uint8)  # floating point from 0 to 1
    if path.name in ("multipage.tif", "no_time_for_that_tiny.gif"):
        values = values[0]  # the first page, or frame
    if values.ndim == 3 and values.shape[2] == 4:
        opaque = values[..., 3:] / 255
        values = np.rint(values[..., :3] * opaque + 255 * (1 - opaque)).astype(np.uint8)
    if (name := _PROFILES.get(path.name)) is not None:
        with Image.open(path) as file:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(file.info["icc_profile"]))
        assert ImageCms.getProfileDescription(profile).strip() == name
        own = Image.fromarray(values)
        values = np.asarray(ImageCms.profileToProfile(own, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"))
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)


@pytest.mark.parametrize("name", _NAMES)
def test_a_shipped_picture_is_the_array_that_scikit_image_reads(name: str) -> None:
    shown = np.asarray(decode((_FOLDER / name).read_bytes()).picture)
    wanted = expected(_FOLDER / name)
    assert shown.shape == wanted.shape
    assert np.array_equal(shown, wanted)


def test_all_are_there_that_are_special() -> None:
    assert {*_PROFILES, "multipage.tif", "multipage_rgb.tif", "no_time_for_that_tiny.gif", "horse.png"} <= set(_NAMES)
