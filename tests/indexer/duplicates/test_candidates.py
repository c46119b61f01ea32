"""Families of pictures: bursts, and many versions of one. They must neither hide duplicates nor hide themselves."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from indexer import Collection, Encoder
from indexer.duplicates.candidates import PROPOSED, candidates, unrelated
from indexer.search.calibration import unrelated_ranks
from indexer.search.engines.faiss_engine import Exact
from tests.indexer.vectors import Array

FAMILIES = (1, 2, 5, 8, 10, 12, 20, 50)


@pytest.mark.parametrize("size", FAMILIES)
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_members_of_a_family_are_never_taken_for_unrelated_and_are_all_proposed(size: int, share: float) -> None:
    """1,200 images, of which a tenth or all are in families of this size, some tighter than others."""
    draw = np.random.default_rng(size)
    count, dim = 1_200, 48
    family = np.arange(count) // size
    alone = family >= share * count / size
    family[alone] = count + np.flatnonzero(alone)
    centres = draw.normal(size=(2 * count, dim))
    spread = draw.uniform(0.05, 0.25, 2 * count)[family][:, None]
    vectors = centres[family] + spread * draw.normal(size=(count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = draw.permutation(count)
    family, source = family[order], Array(vectors[order].astype(np.float16), np.arange(count))
    joined = Exact().build(source, lambda *step: None), source, np.arange(count), True

    far = unrelated(*joined)
    assert len(far) > 250
    assert all(family[one] != family[other] for one, other in far)

    if size > 1:
        proposed = candidates(*joined, lambda *step: None)
        assert len(proposed) <= PROPOSED * count
        pairs = np.array([pair for pair in proposed if family[pair[0]] == family[pair[1]]])
        linked = coo_array((np.ones(len(pairs)), pairs.T), (count, count))
        _, part = connected_components(linked)
        within = np.isin(family, np.flatnonzero(np.bincount(family) > 1))
        assert np.isin(np.flatnonzero(within), pairs).mean() >= 0.98
        # Pairs lead from each member to nearly all others: a file to keep can be compared with them.
        largest = [np.bincount(part[family == one]).max() for one in np.unique(family[within])]
        assert sum(largest) >= 0.95 * within.sum()


@pytest.mark.parametrize("count", [2, 3, 5, 10, 64, 100, 1_000])
def test_ranks_of_unrelated_neighbours_are_there_in_a_collection_of_any_size(count: int) -> None:
    first, last = unrelated_ranks(count)
    assert 1 <= first <= last < count or count < 3


def test_bursts_and_the_duplicates_beside_them_are_found(pictures: Path, encoder: Encoder, tmp_path: Path) -> None:
    """80 pictures with 8 that were saved again, and two bursts of twelve frames each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    originals = sorted(pictures.rglob("*.jpg"))
    draw = random.Random(0)
    chosen = draw.sample([path for path in originals if path.parent.name != "flag"], 82)
    for number, path in enumerate(chosen):
        with Image.open(path) as file:
            picture = file.convert("RGB")
        if number >= 80:
            for frame in range(12):
                _frame(picture, draw).save(folder / f"burst{number}-{frame:02d}.jpg", quality=92)
            continue
        picture.save(folder / f"{number:02d}.jpg", quality=92)
        if number < 8:
            picture.save(folder / f"{number:02d}-again.jpg", quality=60)
    collection = Collection.create(folder, encoder)
    collection.update()
    groups = [{item.path for item in group} for group in collection.duplicates.find().groups]
    assert sum({f"{n:02d}.jpg", f"{n:02d}-again.jpg"} in groups for n in range(8)) >= 7
    assert sum(len(group) - 1 for group in groups if all(path.startswith("burst") for path in group)) >= 20  # of 22


def _frame(picture: Image.Image, draw: random.Random) -> Image.Image:
    """As the next frame of a burst: a little moved, with other noise and another exposure."""
    width, height = picture.size
    left, top = draw.randint(0, width // 60), draw.randint(0, height // 60)
    moved = picture.crop((left, top, width - width // 60 + left, height - height // 60 + top)).resize(picture.size)
    noise = np.random.default_rng(draw.randrange(2**32)).normal(0, 4, (height, width, 3))
    return Image.fromarray((np.asarray(moved) * draw.uniform(0.95, 1.05) + noise).clip(0, 255).astype(np.uint8))
