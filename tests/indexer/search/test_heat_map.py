"""Why an image was found: which of its parts are like the examples."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import Collection, Encoder, Query
from massl.core.errors import MasslError
from massl.core.images.fitting import fit, fitted_part

SIDE = 120


@pytest.fixture(scope="module")
def scene(pictures: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Four pictures, and `scene.png` in which they stand in two rows of two."""
    root = tmp_path_factory.mktemp("scene")
    whole = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    for number, kind in enumerate(("flag", "fruit", "painting", "space")):
        square = Image.open(sorted((pictures / kind).glob("*.jpg"))[2]).convert("RGB").resize((SIDE, SIDE))
        square.save(root / f"{number}.png")
        whole.paste(square, (number % 2 * SIDE, number // 2 * SIDE))
    whole.save(root / "scene.png")
    collection = Collection.create(root, encoder)
    collection.update()
    return collection


def _warmest(cosines: np.ndarray) -> int:
    """The quarter of the map that is warmest, from left to right and down; the middle of an odd one is shared."""
    size = -(-len(cosines) // 2)
    share = np.ones(size) if len(cosines) % 2 == 0 else np.r_[np.ones(size - 1), 0.5]
    corners = (cosines, cosines[:, ::-1], cosines[::-1], cosines[::-1, ::-1])
    return int(np.argmax([share @ corner[:size, :size] @ share for corner in corners]))


def test_the_part_that_holds_the_example_is_the_warmest(scene: Collection) -> None:
    target = scene.images.id_of("scene.png")
    for number in range(4):
        by_file = scene.searcher.heat([Query.of_file(scene.root / f"{number}.png")], target)
        assert by_file.cosines.ndim == 2
        assert np.abs(by_file.cosines).max() <= 1.001
        assert _warmest(by_file.cosines) == number
        assert by_file.part == (0, 0, 1, 1)
        by_image = scene.searcher.heat([Query(image=scene.images.id_of(f"{number}.png"))], target)
        np.testing.assert_allclose(by_image.cosines, by_file.cosines, atol=1e-3)


def test_a_region_of_the_example_warms_what_is_like_the_region(scene: Collection) -> None:
    target = scene.images.id_of("2.png")
    asked = scene.images.id_of("scene.png")
    own = scene.searcher.heat([Query(image=asked, crop=(0, SIDE, SIDE, SIDE))], target).cosines.mean()
    other = scene.searcher.heat([Query(image=asked, crop=(SIDE, 0, SIDE, SIDE))], target).cosines.mean()
    assert own > other


def test_an_unwanted_example_cools_what_is_like_it(scene: Collection) -> None:
    target = scene.images.id_of("scene.png")
    first, second = (Query.of_file(scene.root / f"{number}.png") for number in (0, 3))
    both = scene.searcher.heat([first, second], target).cosines
    against = scene.searcher.heat([first, Query(second.data, weight=-1.0)], target).cosines
    assert _warmest(against) == 0
    assert against[-1, -1] < both[-1, -1]


def test_an_example_whose_file_has_gone_is_still_compared(scene: Collection, tmp_path: Path) -> None:
    root = tmp_path / "moved"
    shutil.copytree(scene.root, root)
    moved = Collection.open(root)
    gone = moved.images.id_of("1.png")
    (root / "1.png").unlink()
    assert _warmest(moved.searcher.heat([Query(image=gone)], moved.images.id_of("scene.png")).cosines) == 1
    with pytest.raises(MasslError, match=r"1\.png can't be used as a query: there is no such file"):
        moved.searcher.heat([Query(image=gone)], gone)
    with pytest.raises(MasslError, match="no longer in the collection"):
        moved.searcher.heat([Query(image=gone)], 999)


def test_an_encoder_without_patches_says_so(photos: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(photos, tiny_encoder)
    collection.update()
    image = collection.images.ready()[0][0]
    with pytest.raises(MasslError, match="encoder tiny describes pictures only as a whole"):
        collection.searcher.heat([Query(image=image)], image)


@pytest.mark.parametrize(("width", "height"), [(300, 100), (100, 300), (7, 5), (64, 64)])
def test_the_part_is_what_an_encoder_is_given(width: int, height: int) -> None:
    ramp = np.indices((height, width))[::-1].transpose(1, 2, 0) * [255 / (width - 1), 255 / (height - 1)]
    picture = Image.fromarray(np.dstack([ramp, np.zeros((height, width))]).astype(np.uint8))
    x, y, across, down = fitted_part(picture, 32, 40)
    seen = np.asarray(fit(picture, 32, 40)).astype(float) / 255
    expected = [x + across / 64, x + across - across / 64, y + down / 64, y + down - down / 64]
    found = [seen[16, 0, 0], seen[16, -1, 0], seen[0, 16, 1], seen[-1, 16, 1]]
    np.testing.assert_allclose(found, expected, atol=0.6 / min(width, height) + 0.01)


def test_the_nearest_labelled_images_are_found_wherever_they_are(scene: Collection) -> None:
    target = scene.images.id_of("scene.png")
    assert scene.searcher.labelled_like(target) == []
    scene.labels.add("stars", [scene.images.id_of("2.png")], "me")
    scene.labels.add("cloth", [scene.images.id_of("0.png"), target], "me")
    found = scene.searcher.labelled_like(target)
    assert {(item.path, item.label) for item in found} == {("2.png", "stars"), ("0.png", "cloth")}
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    assert len(scene.searcher.labelled_like(target, 1)) == 1
