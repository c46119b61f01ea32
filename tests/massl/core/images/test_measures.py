"""Hashes by which copies are found, and what pixels tell of a picture's quality."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from massl.core.images.measures import HASH_BYTES, Measures, measure, orientations

BUNDLED = Path(__file__).parents[4] / "cli" / "pictures"
TURNS = [None, *Image.Transpose]


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Twelve different ones, among them wide and tall ones."""
    found = []
    for number, path in enumerate(sorted(BUNDLED.rglob("*.jpg"))[::10][:12]):
        with Image.open(path) as picture:
            side = min(picture.size)
            found.append(picture.convert("RGB").crop((0, 0, side, round(side * (0.6 + 0.03 * number)))))
    return found


def hashes(measured: Measures) -> np.ndarray:
    both = [value for value in (measured.whole, measured.trimmed) if value is not None]
    return np.frombuffer(b"".join(both), np.uint8).reshape(-1, HASH_BYTES)


def distance(one: Image.Image, other: Image.Image) -> int:
    """Of the hashes that are nearest to each other, in bits."""
    first, second = orientations(hashes(measure(one))), hashes(measure(other))
    return int(np.bitwise_count(first[:, :, None] ^ second).sum(-1).min())


def saved(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("turn", TURNS)
def test_a_hash_knows_its_picture_again_in_every_orientation(
    photographs: list[Image.Image], turn: Image.Transpose | None
) -> None:
    for picture in photographs:
        turned = picture if turn is None else picture.transpose(turn)
        assert distance(picture, turned) <= 40
        assert distance(turned, picture) <= 40


def test_all_eight_orientations_are_different(photographs: list[Image.Image]) -> None:
    for picture in photographs:
        found = orientations(hashes(measure(picture))[:1])
        assert len({bytes(each[0]) for each in found}) == 8
        assert bytes(found[0][0]) == measure(picture).whole


def test_edited_pictures_are_nearer_than_other_ones(photographs: list[Image.Image]) -> None:
    far: Counter[str] = Counter()
    for place, picture in enumerate(photographs):
        nearest = min(distance(picture, other) for other in photographs[:place] + photographs[place + 1 :])
        assert nearest > 64
        edited = {
            "brighter": ImageEnhance.Brightness(picture).enhance(1.3),
            "darker": ImageEnhance.Brightness(picture).enhance(0.6),
            "saved again": saved(picture, 30),
            "smaller": picture.resize((picture.width // 3, picture.height // 3)),
            "grey": ImageOps.grayscale(picture).convert("RGB"),
            "with a border": ImageOps.expand(picture, max(4, picture.width // 12), "white"),
            "with a border, turned": ImageOps.expand(picture, max(4, picture.width // 9), "black").rotate(90, expand=1),
        }
        far.update(name for name, edit in edited.items() if distance(picture, edit) > 64)
    # Where a picture begins that is of its border's colour, nobody can tell.
    assert set(far) <= {"with a border", "with a border, turned"}
    assert max(far.values(), default=0) <= 2


def test_a_clock_on_a_bar_hides_no_picture(photographs: list[Image.Image]) -> None:
    found = []
    for picture in photographs:
        screen = Image.new("RGB", (picture.width, round(picture.height * 1.5)), "black")
        screen.paste(picture, (0, picture.height // 4))
        ImageDraw.Draw(screen).text((4, 4), "12:41", fill="grey")
        found.append(distance(picture, screen) <= 64)
    assert sum(found) >= 10


@pytest.mark.parametrize("colour", ["black", "white", "#7a3010"])
def test_a_picture_of_one_colour_has_no_hash(colour: str) -> None:
    plain = np.asarray(Image.new("RGB", (400, 300), colour), np.float32)
    noisy = plain + np.random.default_rng(0).normal(0, 2, plain.shape)
    for picture in (Image.new("RGB", (400, 300), colour), Image.fromarray(noisy.clip(0, 255).astype(np.uint8))):
        found = measure(picture)
        assert (found.whole, found.trimmed) == (None, None)
        assert found.variety < 4


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 2), (3, 500), (64, 64)])
def test_pictures_of_any_size_are_measured(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    found = measure(Image.fromarray(pixels))
    assert all(np.isfinite([found.sharpness, found.brightness, found.overexposed, found.contrast, found.variety]))


def test_quality_goes_the_way_that_its_name_says(photographs: list[Image.Image]) -> None:
    for picture in photographs:
        plain = measure(picture)
        blurred = measure(picture.filter(ImageFilter.GaussianBlur(5)))
        dark = measure(ImageEnhance.Brightness(picture).enhance(0.2))
        bright = measure(ImageEnhance.Brightness(picture).enhance(6))
        flat = measure(ImageEnhance.Contrast(picture).enhance(0.2))
        assert blurred.sharpness < 0.6 * plain.sharpness
        assert dark.brightness < 0.3 * plain.brightness + 1
        assert bright.overexposed > plain.overexposed
        assert flat.contrast < 0.4 * plain.contrast
