"""What is said of images that are unlike others: those that the encoder learnt from, and those that came before."""

from __future__ import annotations

import base64
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer import Collection, Encoder
from indexer.ingest.indexing import IndexProgress
from indexer.monitoring import drift
from indexer.store import arrivals
from massl.core.images.decoding import open_image
from tests.indexer.tiny import picture, write_copy
from tests.indexer.vectors import clustered


def add(root: Path, files: list[Path]) -> None:
    root.mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, root / f"{file.parent.name}-{file.name}")


@pytest.fixture(scope="module")
def by_kind(pictures: Path) -> dict[str, list[Path]]:
    return {kind: sorted((pictures / kind).glob("*.jpg")) for kind in ("flag", "fruit", "painting", "space")}


@pytest.fixture(scope="module", autouse=True)
def each_picture_is_embedded_once() -> Iterator[None]:
    """Keeps what the built-in network makes of a picture, as nearly every test here takes the same two hundred.

    By pixels and dimension: copies of its file, with other words in them, hold the same network.
    """
    embed, kept = Encoder.embed, dict[tuple[int, bytes], NDArray[np.float32]]()

    def remembered(self: Encoder, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = np.asarray(pixels)
        keys = [(self.dim, hashlib.sha256(row.tobytes()).digest()) for row in pixels]
        if new := [place for place, key in enumerate(keys) if key not in kept]:
            kept.update(zip([keys[place] for place in new], embed(self, pixels[new]), strict=True))
        return np.stack([kept[key] for key in keys])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "embed", remembered)
        yield


def test_pictures_of_a_new_kind_look_unlike_the_rest(
    by_kind: dict[str, list[Path]], tmp_path: Path, encoder: Encoder
) -> None:
    add(tmp_path / "photos", by_kind["fruit"] + by_kind["painting"] + by_kind["space"])
    collection = Collection.create(tmp_path / "photos", encoder)
    collection.update()
    assert collection.health.drift().newest is None  # all came at once: none are new
    older = len(collection)
    add(tmp_path / "photos", by_kind["flag"])
    collection.update()
    newest = collection.health.drift().newest
    assert newest is not None
    assert (newest.images, newest.older) == (len(by_kind["flag"]), older)
    assert newest.images / 3 < newest.at_least <= newest.unlike <= newest.images
    assert all(path.startswith("flag-") for path in collection.images.paths_of(newest.examples))


def test_more_of_the_same_looks_like_the_rest(by_kind: dict[str, list[Path]], tmp_path: Path, encoder: Encoder) -> None:
    every = [file for files in by_kind.values() for file in files]
    new = every[::4]
    add(tmp_path / "photos", [file for file in every if file not in new])
    collection = Collection.create(tmp_path / "photos", encoder)
    collection.update()
    add(tmp_path / "photos", new)
    collection.update()
    newest = collection.health.drift().newest
    assert newest is not None
    assert newest.images == len(new)
    assert newest.at_least == 0
    assert newest.examples == ()


def test_a_measure_is_kept_until_the_images_change(photos: Path, tiny_encoder: Encoder) -> None:
    collection = Collection.create(photos, tiny_encoder)
    collection.update()
    first = collection.health.drift()
    kept = collection.catalog.meta().drift
    assert Collection.open(photos).health.drift() == first
    assert Collection.open(photos).catalog.meta().drift == kept
    next(photos.rglob("*.jpg")).unlink()
    collection.update()
    assert collection.health.drift().images == first.images - 1


def as_if_whitened_on(encoder: Encoder, files: list[Path], path: Path) -> Encoder:
    """A copy of the encoder that says that it was whitened in full on some pictures, with their mean embedding."""
    pixels = [encoder.prepare(open_image(file, encoder.resize)) for file in files]
    mean = base64.b64encode(encoder.embed(pixels).mean(0).astype("<f2")).decode("ascii")
    return Encoder.load(write_copy(encoder.path, path, whitening="1.0", mean_embedding=mean))


def test_a_collection_of_one_kind_is_farther_from_what_the_encoder_learnt_than_one_of_many(
    by_kind: dict[str, list[Path]], encoder: Encoder, tmp_path: Path
) -> None:
    scores = {}
    encoder = as_if_whitened_on(encoder, [file for kind in by_kind.values() for file in kind], tmp_path / "e.onnx")
    for name, files in {"flags": by_kind["flag"], "all": [file for kind in by_kind.values() for file in kind]}.items():
        add(tmp_path / name, files)
        collection = Collection.create(tmp_path / name, encoder)
        collection.update()
        found = collection.health.drift()
        assert found.mean_score is not None
        assert found.familiar in ("known", "narrow", "foreign")
        scores[name] = found.mean_score
    assert scores["flags"] > scores["all"] + 0.05


def test_an_encoder_that_was_not_whitened_says_nothing_of_what_it_learnt_from(
    photos: Path, tiny_encoder: Encoder
) -> None:
    collection = Collection.create(photos, tiny_encoder)
    collection.update()
    assert collection.health.drift().mean_score is not None
    assert collection.health.drift().familiar is None


def test_an_encoder_whitened_by_half_is_held_to_bounds_of_its_own(
    by_kind: dict[str, list[Path]], encoder: Encoder, tmp_path: Path
) -> None:
    add(tmp_path / "photos", by_kind["flag"] + by_kind["space"])
    collection = Collection.create(tmp_path / "photos", encoder)
    collection.update()
    in_full, by_half = (drift.of_collection(collection.catalog, strength) for strength in (1.0, 0.5))
    assert in_full.mean_score is not None
    assert in_full.mean_score == by_half.mean_score
    assert 0.25 < in_full.mean_score < 0.45
    assert (in_full.familiar, by_half.familiar) == ("foreign", "narrow")
    assert by_half.bounds > in_full.bounds


def test_a_collection_is_seen_from_where_the_training_images_lie(
    by_kind: dict[str, list[Path]], encoder: Encoder, tmp_path: Path
) -> None:
    flags = [encoder.prepare(open_image(file, encoder.resize)) for file in by_kind["flag"]]
    mean = base64.b64encode(encoder.embed(flags).mean(0).astype("<f2")).decode("ascii")

    def found(kind: str, told: dict[str, str]) -> drift.Drift:
        write_copy(encoder.path, tmp_path / "of-flags.onnx", **told)
        root = Path(tempfile.mkdtemp(dir=tmp_path))
        add(root, by_kind[kind])
        collection = Collection.create(root, Encoder.load(tmp_path / "of-flags.onnx"))
        collection.update()
        return collection.health.drift()

    for kind, nearer in (("flag", True), ("space", False)):
        usual, seen = found(kind, {}).mean_score, found(kind, {"mean_embedding": mean}).mean_score
        assert usual is not None
        assert seen is not None
        assert (seen < usual - 0.05) if nearer else (seen > usual + 0.05)
        assert (abs(seen) < 0.05) == nearer
    for damaged in ("no base64", mean[:-8], ""):
        assert found("flag", {"mean_embedding": damaged}).familiar is None


def test_a_few_images_are_too_few_to_say_anything(tmp_path: Path, tiny_encoder: Encoder) -> None:
    for number in range(drift.FEWEST - 1):
        (tmp_path / f"{number}.bmp").write_bytes(picture(number))
    collection = Collection.create(tmp_path, tiny_encoder)
    collection.update()
    assert collection.health.drift() == drift.Drift(drift.FEWEST - 1, None, None, None)


# Arrivals -------------------------------------------------------------------------------------------------------------


def write(root: Path, numbers: range) -> None:
    for number in numbers:
        (root / f"{number}.bmp").write_bytes(picture(number))


def test_the_newest_are_those_of_the_last_runs_that_brought_any(tmp_path: Path, tiny_encoder: Encoder) -> None:
    write(tmp_path, range(30))
    collection = Collection.create(tmp_path, tiny_encoder)
    collection.update()
    assert arrivals.latest(collection.catalog).since is None
    write(tmp_path, range(30, 60))
    collection.update()
    came = arrivals.latest(collection.catalog)
    assert sorted(collection.images.paths_of(came.newest.tolist())) == [f"{number}.bmp" for number in range(30, 60)]
    assert len(came.older) == 30
    assert came.since
    collection.update()  # brings nothing, and so changes nothing
    (tmp_path / "broken.bmp").write_text("not an image")
    collection.update()  # nor does a file that can't be read
    assert arrivals.latest(collection.catalog).newest.tolist() == came.newest.tolist()


def test_runs_that_brought_few_are_looked_at_together(tmp_path: Path, tiny_encoder: Encoder) -> None:
    write(tmp_path, range(30))
    collection = Collection.create(tmp_path, tiny_encoder)
    collection.update()
    for first in range(30, 65, 7):
        write(tmp_path, range(first, first + 7))
        collection.update()
    assert len(arrivals.latest(collection.catalog).newest) == 21


def test_a_first_run_that_was_cut_short_and_went_on_brought_everything_at_once(
    tmp_path: Path, tiny_encoder: Encoder
) -> None:
    write(tmp_path, range(80))
    collection = Collection.create(tmp_path, tiny_encoder)

    def stop(progress: IndexProgress) -> None:
        if progress.stage == "embed" and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection.update(stop)
    assert 0 < len(collection) < 80
    collection.update()
    assert len(collection) == 80
    assert arrivals.latest(collection.catalog).since is None


# The measures ---------------------------------------------------------------------------------------------------------


@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 99))
def test_the_mean_score_is_that_of_all_pairs(count: int, dim: int, seed: int) -> None:
    vectors = clustered(count, dim, seed).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [float(one @ two) for row, one in enumerate(vectors) for two in vectors[:row]]
    assert drift.mean_score(vectors) == pytest.approx(np.mean(pairs), abs=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(8, 60), st.integers(8, 60), st.floats(0, 1), st.integers(0, 99))
def test_what_is_said_at_least_is_never_more_than_the_estimate(older: int, newer: int, share: float, seed: int) -> None:
    found = drift.unlike(*_older_and_newer(older, newer, round(share * newer), seed))
    assert 0 <= found.at_least <= found.share <= 1
    assert sorted(found.order.tolist()) == list(range(newer))


def test_what_is_said_at_least_is_hardly_ever_more_than_the_truth() -> None:
    draw, above = np.random.default_rng(0), 0
    for seed in range(100):
        older, newer = draw.integers(8, 61, 2)
        away = round(draw.random() * newer) * (seed % 2)
        above += drift.unlike(*_older_and_newer(older, newer, away, seed)).at_least * newer > away + 1e-9
    assert above <= 3  # 1 in 100 on average, see `FALSE_ALARM`


def _older_and_newer(older: int, newer: int, away: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of one kind; of the newer ones so many are of another."""
    vectors = clustered(older + newer, 8, seed).astype(np.float32)
    vectors[older : older + away] = np.eye(8, dtype=np.float32)[0]
    return vectors[:older], vectors[older:]


def test_the_estimate_is_near_the_truth_where_half_of_the_newest_are_of_another_kind() -> None:
    like: NDArray[np.float32] = clustered(700, 32).astype(np.float32)
    draw = np.random.default_rng(0)
    away = np.eye(32, dtype=np.float32)[0] + 0.1 * draw.standard_normal((100, 32)).astype(np.float32)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    found = drift.unlike(like[:600], np.concatenate([like[600:], away]))
    assert found.share == pytest.approx(0.5, abs=0.1)
    assert 0.25 < found.at_least <= 0.5
    assert set(found.order[:50].tolist()) <= set(range(100, 200))
