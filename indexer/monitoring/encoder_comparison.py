"""A new encoder beside a collection's own, on its own images: before everything is embedded anew."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoder.onnx_encoder import Encoder
from indexer.ingest.embedding import embed_paths
from indexer.store.catalog import Catalog
from indexer.store.images import Images
from indexer.store.labels import Labels
from indexer.store.vectors import CatalogVectors, unit
from massl.core.errors import MasslError
from massl.core.progress import CountReport
from massl.core.similarities import nearest, weighted_votes

MOST = 1_000  # labelled images that are embedded
FEWEST = 2  # images of a class, under which nothing can be held out
NEIGHBOURS = 10
SEEN = 400  # images whose neighbours are looked at
FEWEST_SEEN = (
    8 * NEIGHBOURS
)  # under which ten neighbours would be a good part of all images, whichever encoder finds them
EXAMPLES = 4
SHOWN = 5  # neighbours of an example


@dataclass(frozen=True)
class Comparison:
    """How often each encoder's nearest neighbours name labelled images right, each left out in turn.

    Attributes:
        images, classes: how many it was measured on.
        present, other: shares of right answers, 0 to 1.
        only_present, only_other: images that only one of them named right.
        chance: how often a difference at least so large would come by chance were both equally good (McNemar's exact
            test), 0 to 1.
    """

    images: int
    classes: int
    present: float
    other: float
    only_present: int
    only_other: int
    chance: float


@dataclass(frozen=True)
class Sight:
    """The ids of an image and of those most like it, best first, to each of two encoders."""

    image: int
    present: tuple[int, ...]
    other: tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """How another encoder would change what is found. Says nothing of which is better: that takes labels, or eyes.

    Attributes:
        images: how many, drawn at random, it was looked for among.
        same: share of the `NEIGHBOURS` nearest of each that are nearest to both encoders, 0 to 1.
        examples: some of them, drawn at random.
    """

    images: int
    same: float
    examples: tuple[Sight, ...]


@dataclass(frozen=True)
class Beside:
    """All that can be said of another encoder beside a collection's own.

    Attributes:
        comparison: on the labelled images; None where there are too few.
        change: in what is found; None where there are too few images.
    """

    comparison: Comparison | None
    change: Change | None


def beside(root: Path, catalog: Catalog, other: Encoder, report: Callable[[str, int, int], None]) -> Beside:
    """Both `compare`, where there are labels to compare by, and `change`.

    Args:
        root: the collection's folder.
        catalog: its catalog, with the embeddings by its own encoder.
        other: the one that might take its place.
        report: told the step, `labels` or `pictures`, and how many images of it are embedded, of how many.

    Raises:
        MasslError: none of the images can be read.
    """
    comparison = None
    if _labelled(catalog, MOST):
        comparison = compare(root, catalog, other, lambda done, total: report("labels", done, total))
    return Beside(comparison, change(root, catalog, other, lambda done, total: report("pictures", done, total)))


def compare(root: Path, catalog: Catalog, other: Encoder, report: CountReport, most: int = MOST) -> Comparison:
    """Compares an encoder with a collection's own on its labelled images; nothing is kept.

    Args:
        root: the collection's folder.
        catalog: its catalog, with the embeddings by its own encoder.
        other: the one that might take its place.
        report: told how many images are embedded, of how many.
        most: images to embed; drawn at random where more are labelled.

    Raises:
        MasslError: labels of fewer than two classes of two images, or none of the images can be read.
    """
    labelled = _labelled(catalog, most)
    if not labelled:
        raise MasslError("comparing encoders needs two classes of at least two labelled images each; label some")
    ids = np.array([image for image, *_ in labelled])
    found, theirs, kept = _embedded(root, catalog, ids, [path for _, path, _ in labelled], other, report)
    label_of = {image: label for image, _, label in labelled}
    classes = np.unique([label_of[image] for image in kept.tolist()], return_inverse=True)[1]
    present, new = _named_right(found, classes), _named_right(theirs, classes)
    only_present, only_other = int((present & ~new).sum()), int((new & ~present).sum())
    return Comparison(
        len(kept), int(classes.max()) + 1, float(present.mean()), float(new.mean()), only_present, only_other,
        _chance(only_present, only_other),
    )  # fmt: skip


def change(root: Path, catalog: Catalog, other: Encoder, report: CountReport, count: int = SEEN) -> Change | None:
    """Looks at what some images are most like, to a collection's own encoder and to another; nothing is kept.

    Args:
        root: the collection's folder.
        catalog: its catalog, with the embeddings by its own encoder.
        other: the one that might take its place.
        report: told how many images are embedded, of how many.
        count: images to embed, drawn at random.

    Returns:
        None where there are fewer than `FEWEST_SEEN` images.

    Raises:
        MasslError: none of the images can be read.
    """
    drawn, _ = CatalogVectors(catalog).sample(count)
    if len(drawn) < FEWEST_SEEN:
        return None
    paths = Images(catalog).by_id(drawn)
    if len(paths) < len(drawn):
        raise MasslError("pictures changed meanwhile; compare again")
    ours, theirs, kept = _embedded(root, catalog, drawn, paths, other, report)
    if len(kept) < FEWEST_SEEN:
        return None
    ours_nearest, theirs_nearest = _nearest(ours)[0], _nearest(theirs)[0]
    same = (ours_nearest[:, :, None] == theirs_nearest[:, None, :]).any(2).mean()
    examples = tuple(
        Sight(
            int(kept[row]),
            tuple(kept[ours_nearest[row, :SHOWN]].tolist()),
            tuple(kept[theirs_nearest[row, :SHOWN]].tolist()),
        )
        for row in np.sort(np.random.default_rng(0).choice(len(kept), EXAMPLES, replace=False))
    )
    return Change(len(kept), float(same), examples)


def _labelled(catalog: Catalog, most: int) -> list[tuple[int, str, str]]:
    """Rising id, path and label of at most `most` images to compare by; none where they are too few."""
    labelled = Labels(catalog).on_embedded()
    if len(labelled) > most:
        labelled = random.Random(0).sample(labelled, most)
    counts = Counter(label for *_, label in labelled)
    labelled = sorted(row for row in labelled if counts[row[2]] >= FEWEST)
    return labelled if len({label for *_, label in labelled}) > 1 else []


def _embedded(
    root: Path, catalog: Catalog, ids: NDArray[np.int64], paths: list[str], other: Encoder, report: CountReport
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Images, by rising ids, to both encoders, float32 `[n, D]` and `[n, D']`; and which, int64 `[n]`."""
    theirs, rows, _ = embed_paths(root, paths, other, report, catalog.max_pixels, catalog.rendering)
    stored, packed = CatalogVectors(catalog).of(ids)
    kept, left, right = np.intersect1d(stored, ids[rows], assume_unique=True, return_indices=True)
    return unit(packed[left]), theirs[right], kept


def _nearest(vectors: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Rows and cosines of each image's nearest others, best first: `[N, k]`."""
    return nearest(vectors, vectors, NEIGHBOURS, leave_one_out=True, first_of_equals=True)


def _named_right(vectors: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each image's nearest others, weighted by exp(cosine / 0.07), name its class: bool `[N]`."""
    rows, cosines = _nearest(vectors)
    return weighted_votes(cosines, classes[rows], int(classes.max()) + 1, 0.07).argmax(1) == classes


def _chance(one: int, other: int) -> float:
    from scipy.stats import binomtest  # takes a moment to import

    return float(binomtest(one, one + other).pvalue) if one + other else 1.0
