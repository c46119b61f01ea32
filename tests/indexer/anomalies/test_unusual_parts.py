"""Where a picture is unusual: the patches that no picture like it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import Collection, Encoder, Query
from indexer.anomalies import map_drawing
from indexer.anomalies.unusual_parts import UnusualParts
from indexer.search.near_copies import copies_from
from indexer.store.tiling import Tiling
from massl.core.errors import MasslError
from tests.indexer.tiny import write_sizes_encoder

SIDE = 64
SPOT = (40, 16, 48, 24)  # of odd.png: a whole patch of a picture of 32 pixels, which is half as large


def cloth(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    weave = np.random.default_rng(seed).integers(110, 140, (size[1] // 4, size[0] // 4, 3), np.uint8)
    return Image.fromarray(weave).resize(size, Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    path = tmp_path_factory.mktemp("encoder") / "parted.onnx"
    return Encoder.load(write_sizes_encoder(path, [32]), threads=1)


@pytest.fixture(scope="module")
def woven(parted: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Fourteen cloths, one of them with a spot, which a collection cut into tiles of 64 has as a tile of a scan."""
    root = tmp_path_factory.mktemp("woven")
    for number in range(13):
        cloth(number).save(root / f"{number:02}.png")
    odd = cloth(50)
    odd.paste((200, 30, 30), SPOT)
    odd.save(root / "odd.png")
    collection = Collection.create(root, parted)
    collection.update()
    return collection


def test_the_patch_that_no_other_picture_has_is_the_peak(woven: Collection, parted: Encoder) -> None:
    image = woven.images.id_of("odd.png")
    parts = woven.anomalies.parts_of(image)
    assert parts.peak == (40, 16, 8, 8)
    # By every patch of these pictures, one by one; the nearest ones of this cloth are as near as copies.
    ranking = woven.searcher.rank([Query(image=image)], 13)
    far = ranking.images[ranking.scores < copies_from(woven.searcher.calibration(), 14)]
    near = [woven.root / path for path in woven.images.paths_of(far[:10].tolist())]
    assert (parts.part, parts.beside) == ((0, 0, 1, 1), len(near))
    assert len(near) > 5

    def patches(path: Path) -> np.ndarray:
        return parted.embed_patches(parted.prepare(Image.open(path).convert("RGB"))[None])[0]

    own = patches(woven.root / "odd.png")
    others = np.concatenate([patches(path).reshape(-1, own.shape[-1]) for path in near])
    wanted = np.array([[1 - max(float(patch @ other) for other in others) for patch in row] for row in own])
    np.testing.assert_allclose(parts.distances, wanted.clip(0), atol=4e-3)


def test_it_is_compared_with_pictures_of_a_label_alone(woven: Collection) -> None:
    image = woven.images.id_of("odd.png")
    woven.labels.add("good", [woven.images.id_of(f"{number:02}.png") for number in (3, 7)], "test")
    assert woven.anomalies.parts_of(image, good="good").beside == 2
    with pytest.raises(MasslError):
        woven.anomalies.parts_of(image, good="fine")


def test_of_a_scan_the_tile_is_looked_at(parted: Encoder, tmp_path: Path) -> None:
    root = tmp_path / "scans"
    root.mkdir()
    for number in range(6):
        scan = cloth(100 + number, (192, 128))
        if number == 2:
            scan.paste((200, 30, 30), (136, 72, 168, 104))
        scan.save(root / f"{number}.png")
    collection = Collection.create(root, parted, tiling=Tiling(64))
    collection.update()
    best = collection.anomalies.find(1).images[0]
    collection.anomalies.by_image()
    assert collection.anomalies.worst_tile(best.image) == best.box is not None
    image, box = collection.images.id_of("2.png"), (128, 64, 64, 64)
    parts = collection.anomalies.parts_of(image, box)
    x, y, width, height = parts.peak
    assert (x >= 136, x + width <= 168, y >= 72, y + height <= 104) == (True,) * 4
    assert parts.part == pytest.approx((128 / 192, 64 / 128, 64 / 192, 64 / 128))
    shown = np.asarray(collection.anomalies.draw_map(image, parts)).astype(int)
    whole = np.asarray(Image.open(root / "2.png")).astype(int)
    outside = np.ones((128, 192), bool)
    outside[64:128, 128:192] = False
    assert (shown[outside] == whole[outside]).all()
    assert shown[~outside].mean() < whole[~outside].mean() - 20


def test_a_map_is_light_at_the_peak_and_a_picture_alike_all_over_stays_light() -> None:
    picture = Image.new("RGB", (2048, 1024), (200, 200, 200))
    far = np.zeros((4, 8), np.float32)
    far[1, 6] = 0.6
    shown = np.asarray(
        map_drawing.drawn(picture, UnusualParts(far, (0, 0, 1, 1), (1536, 256, 256, 256), 3), 2048, 1024)
    )
    assert shown.shape == (512, 1024, 3)
    assert shown[192, 832].min() > 190
    assert shown[400, 100].max() < 60
    alike = UnusualParts(np.full((4, 8), 0.3, np.float32), (0, 0, 1, 1), (0, 0, 256, 256), 3)
    assert np.asarray(map_drawing.drawn(picture, alike, 2048, 1024))[400, 100].min() == 200


def test_an_encoder_without_patches_says_so(tiny_encoder: Encoder, woven: Collection, tmp_path: Path) -> None:
    collection = Collection.create(woven.root, tiny_encoder, tmp_path / "whole")
    collection.update()
    with pytest.raises(MasslError, match="only as a whole, not part by part"):
        collection.anomalies.parts_of(collection.images.id_of("odd.png"))
