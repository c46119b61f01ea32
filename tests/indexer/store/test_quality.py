"""Hints at pictures of little use: found where they are made so, with bounds that come from the collection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from indexer import Collection, Encoder, Query
from indexer.store import quality
from indexer.store.filters import Filter
from indexer.store.tiling import Tiling
from massl.core.errors import MasslError

BUNDLED = Path(__file__).parents[3] / "cli" / "pictures"


def of_one_colour(picture: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 1, (200, 260, 3))
    return Image.fromarray((noise + np.array(picture.resize((1, 1)))).clip(0, 255).astype(np.uint8))


SPOILT: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(min(picture.size) / 50)),
    "dark": lambda picture: ImageEnhance.Brightness(picture).enhance(0.08),
    "overexposed": lambda picture: ImageEnhance.Brightness(ImageEnhance.Contrast(picture).enhance(0.4)).enhance(4),
    "low-contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(0.06),
    "one-colour": of_one_colour,
    "tiny": lambda picture: picture.resize((20, 20)),
    "elongated": lambda picture: picture.crop((0, 0, picture.width, picture.height // 7)),
}


@pytest.fixture(scope="module")
def spoilt(tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Forty photographs and two of each way to spoil one."""
    root = tmp_path_factory.mktemp("spoilt")
    kinds = ("bug", "painting", "antique", "fruit", "insect")
    files = [file for kind in kinds for file in sorted((BUNDLED / kind).glob("*.jpg"))]
    for number, file in enumerate(files[:54]):
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        if number >= 40:
            name = list(SPOILT)[(number - 40) % len(SPOILT)]
            SPOILT[name](picture).save(root / f"{name}-{number}.png")
        else:
            picture.save(root / f"plain-{number}.png")
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    return collection


@pytest.mark.parametrize("name", SPOILT)
def test_what_was_spoilt_is_found_and_few_others_are(spoilt: Collection, name: str) -> None:
    wanted = Filter(quality=quality.bounds(spoilt.catalog, [name]))
    found = {path.rsplit("-", 1)[0] for _, path, _ in spoilt.images.browse(wanted)}
    assert name in found
    plain = sum(path.startswith("plain") for _, path, _ in spoilt.images.browse(wanted))
    assert plain <= (8 if name == "overexposed" else 4)  # a white wall looks like it
    assert quality.counts(spoilt.catalog)[name][0] == spoilt.images.count(wanted)


def test_a_search_is_confined_to_hints(spoilt: Collection) -> None:
    found = {result.path for result in spoilt.search([Query(image=1)], 60, quality=["tiny", "elongated"])}
    assert {path.rsplit("-", 1)[0] for path in found} >= {"tiny", "elongated"}
    assert len(found) < 12
    with pytest.raises(MasslError, match="there is no hint 'ugly'; there are: blurred"):
        spoilt.search([Query(image=1)], 5, quality=["ugly"])


def test_bounds_follow_the_collection_within_limits(tiny_encoder: Encoder, tmp_path: Path) -> None:
    """Where all pictures are of a night, few of them are dark."""
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 40 + number, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    collection = Collection.create(tmp_path, tiny_encoder)
    collection.update()
    (bound,) = quality.bounds(collection.catalog, ["dark"])
    assert quality.HINTS["dark"].limits[0] <= bound.bound < quality.HINTS["dark"].limits[1]
    assert "dark" not in quality.counts(collection.catalog)
    with pytest.raises(MasslError, match="no picture is dark"):
        collection.search([Query(image=1)], 5, quality=["dark"])


def test_what_the_encoder_is_not_given_is_the_share_outside_of_the_square(
    tiny_encoder: Encoder, tmp_path: Path
) -> None:
    for number, size in enumerate([(40, 40), (80, 40), (40, 160)]):
        Image.effect_noise(size, 50).save(tmp_path / f"{number}.png")
    collection = Collection.create(tmp_path, tiny_encoder)
    collection.update()
    assert quality.unseen(collection.catalog) == pytest.approx((0 + 0.5 + 0.75) / 3)


@pytest.mark.parametrize(("side", "offered"), [(100, None), (300, 256), (2000, 512)])
def test_tiles_are_offered_that_cut_the_pictures(
    side: int, offered: int | None, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    for number in range(4):
        Image.effect_noise((side, side // 2), 50).save(tmp_path / f"{number}.png")
    collection = Collection.create(tmp_path, tiny_encoder)
    collection.update()
    told = quality.tell_of_square(collection.catalog)
    assert told.startswith("50 % of an average picture lies outside")
    assert (f"--tiles {offered} --rebuild" if offered else "sees no more") in told
    assert ("--tiles" in told) == bool(offered)
    if offered:
        cut = Collection.create(tmp_path, tiny_encoder, rebuild=True, tiling=Tiling(offered))
        cut.update()
        assert quality.unseen(cut.catalog) == 0


def test_pictures_no_larger_than_a_tile_are_not_seen_whole(tiny_encoder: Encoder, tmp_path: Path) -> None:
    for number, size in enumerate([(120, 60), (60, 60), (300, 60)]):
        Image.effect_noise(size, 50).save(tmp_path / f"{number}.png")
    collection = Collection.create(tmp_path, tiny_encoder, tiling=Tiling(200))
    collection.update()
    assert quality.unseen(collection.catalog) == pytest.approx((0.5 + 0 + 0) / 3)
