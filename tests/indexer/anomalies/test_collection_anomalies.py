"""Unusual images of a real collection."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from indexer import Collection, Encoder
from indexer.anomalies import collection_anomalies
from indexer.anomalies.collection_anomalies import bands
from indexer.anomalies.neighbour_distance import ExactIndex, distances
from indexer.store import revision
from indexer.store.filters import Filter
from indexer.store.meta import Meta
from massl.core.errors import MasslError
from tests.indexer.vectors import clustered


def test_every_image_has_a_place_and_a_part_is_compared_within_itself(collection: Collection) -> None:
    found = collection.anomalies.find()
    assert [item.rank for item in found.images] == list(range(1, 25))
    assert (found.among, found.threshold) == (24, None)
    scores = [item.score for item in found.images]
    assert scores == sorted(scores, reverse=True)
    part = collection.anomalies.find(3, wanted=Filter(folders=("fruit",)))
    assert {item.path.split("/")[0] for item in part.images} == {"fruit"}
    assert (part.among, part.reference) == (6, 6)


def test_what_is_not_good_stands_before_what_is_like_it(collection: Collection) -> None:
    space = [image for image, path in collection.images.ready() if path.startswith("space/")]
    collection.labels.add("good", space[:4], "test")
    found = collection.anomalies.find(good="good")
    assert (found.among, found.reference) == (20, 4)
    assert {item.path for item in found.images[-2:]} == set(collection.images.paths_of(space[4:]))
    with pytest.raises(MasslError, match="no image has the label"):
        collection.anomalies.find(good="fine")
    with pytest.raises(MasslError, match="needs pictures that are known to be good"):
        collection.anomalies.find(false_alarms=0.1)
    with pytest.raises(MasslError, match=r"1 % false alarms takes 102 different good pictures at least, and 4"):
        collection.anomalies.find(good="good", false_alarms=0.01)


def test_the_rate_of_false_alarms_holds_for_good_pictures(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors that are all of one kind: of the unlabelled ones no more than the rate is called unusual, on average."""
    from tests.indexer.anomalies.test_neighbour_distance import Searched

    rates = []
    for seed in range(12):
        vectors = clustered(1_200, 16, seed)
        ids = np.arange(len(vectors))
        index = Searched(ids, vectors.astype(np.float32))
        monkeypatch.setattr(collection.searcher, "index", lambda index=index: index)
        found = collection.anomalies._unlike_good(
            ids, vectors, ids[:600], ids[600:], 1.1, len(ids), 0.1, lambda done, total: None
        )
        assert found.threshold is not None
        rates.append((found.unusual or 0) / 600)
    assert abs(np.mean(rates) - 0.1) < 4 * np.std(rates) / np.sqrt(len(rates))


def test_scores_are_kept_until_an_image_changes(collection: Collection) -> None:
    ids, scores = collection.anomalies.by_image()
    assert collection.anomalies.by_image()[1] is scores
    picture = sorted(collection.root.glob("fruit/*.jpg"))[0]
    shutil.copy(picture, picture.with_name("copy.jpg"))
    collection.update()
    more, again = collection.anomalies.by_image()
    assert len(more) == len(ids) + 1
    # A copy makes nothing less unusual.
    assert np.allclose(again[np.isin(more, ids)], scores, atol=1e-5)


def test_scores_outlive_the_process_and_a_damaged_file_is_made_anew(collection: Collection) -> None:
    ids, scores = collection.anomalies.by_image()
    (file,) = collection.folder.glob("unusual-*.npz")
    for damaged in (False, True):
        if damaged:
            file.write_bytes(file.read_bytes()[:-9] + b"nine bytes")
        opened = Collection.open(collection.root)
        compared = Mock()
        again, same = opened.anomalies.by_image(compared)
        assert compared.called == damaged
        assert again.tolist() == ids.tolist()
        assert same.tolist() == scores.tolist()
    assert len(list(collection.folder.glob("unusual-*.npz"))) == 1


@pytest.mark.parametrize(
    "arrays",
    [
        None,
        {"ids": np.arange(3), "scores": np.zeros(3, np.float32)},
        {"ids": np.arange(3), "scores": np.zeros(2, np.float32), "boxes": np.zeros((0, 5), np.int64)},
        {"ids": np.array(["a"]), "scores": np.zeros(1, np.float32), "boxes": np.zeros((0, 5), np.int64)},
        {"ids": np.array([{}]), "scores": np.zeros(1, np.float32), "boxes": np.zeros((0, 5), np.int64)},
    ],
)
def test_a_file_of_scores_by_somebody_else_is_not_believed(
    tiny_encoder: Encoder, tmp_path: Path, arrays: dict[str, Any] | None
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    made = Collection.create(tmp_path, tiny_encoder)
    made.update()
    file = made.folder / "unusual-0123456789abcdef.npz"
    if arrays is None:
        file.write_bytes(b"no arrays")
    else:
        np.savez(file, **arrays)
    now = revision.read(made.catalog).embedded
    made.catalog.set_meta(
        Meta.unusual_file.to(file.name),
        Meta.unusual_sha256.to(hashlib.sha256(file.read_bytes()).hexdigest()),
        Meta.unusual_of.to(repr(now)),
    )
    ids, scores = made.anomalies.by_image()
    assert (ids.tolist(), scores.tolist()) == ([1], [0.0])


def test_of_many_images_each_is_compared_with_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_anomalies, "SAMPLE", 400)
    vectors = clustered(2_000, 16, 0)
    vectors[:, 12:] = 0  # a corner where the others are not
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7::400] = np.eye(16, dtype=np.float32)[12:].repeat(2, 0)[:5]
    ids = np.arange(len(vectors)) * 3
    packed = vectors.astype(np.float16)
    scores = collection_anomalies._with_sample(ids, packed, 0.9999, lambda done, total: None)
    exact = distances(ExactIndex(ids, packed), ids, packed, np.arange(len(ids)), np.arange(len(ids)), 0.9999)
    assert set(np.argsort(-scores)[:5].tolist()) == {7, 407, 807, 1_207, 1_607}
    assert np.corrcoef(scores, exact)[0, 1] > 0.5
    assert len(scores) == len(ids)


def test_the_hint_of_the_unusual_follows_what_comes_and_goes(tiny_encoder: Encoder, tmp_path: Path) -> None:
    def picture(seed: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))

    def unusual() -> set[str]:
        wanted = opened.images.filter(quality=["unusual"])
        return {path for _, path, _ in opened.images.browse(wanted)}

    scene = np.asarray(picture(0), np.int16)
    for number in range(30):
        noise = np.random.default_rng(number).integers(-40, 41, scene.shape)
        Image.fromarray((scene + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number:02}.png")
    opened = Collection.create(tmp_path, tiny_encoder)
    opened.update()
    with pytest.raises(MasslError, match="no picture is unusual, nor nearly so"):
        unusual()
    for number in (77, 78):
        picture(number).save(tmp_path / f"odd-{number}.png")
    opened.update()
    assert unusual() >= {"odd-77.png", "odd-78.png"}
    assert opened.images.quality_counts(True)["unusual"][0] == len(unusual())
    (tmp_path / "odd-77.png").unlink()
    opened.update()
    assert "odd-78.png" in unusual()
    assert "odd-77.png" not in unusual()


def test_too_few_images_tell_nothing(collection: Collection) -> None:
    for picture in sorted(collection.root.glob("*/*.jpg"))[2:]:
        Path(picture).unlink()
    collection.update()
    with pytest.raises(MasslError, match="too few images"):
        collection.anomalies.find()
    assert collection.anomalies.by_image()[1].tolist() == [0.0, 0.0]


def test_bands_hold_their_shares_of_the_images() -> None:
    scores = np.random.default_rng(0).permutation(200).astype(np.float32)
    found = bands(scores, [0.01, 0.04, 0.15])
    assert np.bincount(found).tolist() == [2, 8, 30, 160]
    assert scores[found == 0].min() > scores[found == 1].max() > scores[found == 3].max()
    assert bands(np.zeros(1, np.float32), [0.01]).tolist() == [0]
    assert bands(np.empty(0, np.float32), [0.01]).tolist() == []


def test_a_small_mark_is_found_by_patches(encoder: Encoder, tmp_path: Path) -> None:
    """Twelve pictures of one weave that differ in their grain, one of them with a mark a twentieth of its side wide."""
    draw = np.random.default_rng(0)
    weave = 128 + 40 * np.sin(np.add.outer(np.arange(126), np.arange(126)) / 3)
    folder = tmp_path / "cloth"
    folder.mkdir()
    for number in range(12):
        pixels = weave + draw.normal(0, 6, weave.shape)
        if number == 7:
            pixels[60:67, 60:67] = 255
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    made = Collection.create(folder, encoder)
    made.update()
    found = made.anomalies.find(patches=True)
    assert found.images[0].path == "7.png"
    assert found.images[0].score > 2 * found.images[1].score
    (folder / "3.png").unlink()
    assert made.anomalies.find(patches=True).images[-1].path == "3.png"
    good = [image for image, path in made.images.ready() if path not in ("7.png", "8.png")]
    made.labels.add("good", good, "test")
    told = made.anomalies.find(good="good", patches=True)
    assert [item.path for item in told.images] == ["7.png", "8.png"]


def test_pictures_of_a_fixed_camera_are_compared_though_all_are_near_copies(
    tiny_encoder: Encoder, tmp_path: Path
) -> None:
    """None of them would be left to compare with."""
    scene = np.random.default_rng(0).integers(40, 200, (8, 8, 3))
    for number in range(40):
        noise = np.random.default_rng(number).integers(-1, 2, scene.shape)
        if number == 17:
            noise[2:5, 2:5] += 12
        Image.fromarray((scene + noise).astype(np.uint8)).save(tmp_path / f"{number:02}.png")
    fixed = Collection.create(tmp_path, tiny_encoder)
    fixed.update()
    assert fixed.searcher.calibration().bounds(40)["same"] <= 0.9995
    found = fixed.anomalies.find(2)
    assert found.images[0].path == "17.png"
    assert found.images[0].score > 3 * found.images[1].score
    fixed.labels.add("ok", [fixed.images.id_of(f"{number:02}.png") for number in range(17)], "test")
    assert fixed.anomalies.find(1, good="ok").images[0].path == "17.png"
    assert fixed.anomalies.find(1, good="ok", false_alarms=0.2).images[0].path == "17.png"
