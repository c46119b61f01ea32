"""Subsets of a collection: chosen, described, and divided into parts."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.label_formats.exporting import imagefolder_targets, same_targets
from indexer.search.near_copies import copies_from, near_pairs
from indexer.search.query import Query
from indexer.search.searcher import Searcher
from indexer.store.catalog import Catalog
from indexer.store.filters import EVERYTHING, Filter, among
from indexer.store.images import Images
from indexer.store.labels import NONE_OF_THESE, Labels
from indexer.store.vectors import CatalogVectors
from indexer.subsets import placing, selection
from indexer.subsets.splits import connected, cut_by_chance, divide
from massl.core.errors import MasslError

LIKE = 10  # times as many images as are wanted, at most: those alike to the examples, among which they are chosen
_STEPS = (1, 2, 5)  # times powers of ten, the sizes at which a curve is measured


@dataclass(frozen=True)
class SubsetImage:
    """An image of a subset.

    Attributes:
        rank: from 1.
        image: its id.
        path: relative to the root.
        label: that somebody gave it, or None.
    """

    rank: int
    image: int
    path: str
    label: str | None


@dataclass(frozen=True)
class Covered:
    """What the first images of a subset cover.

    Attributes:
        images: how many of the subset.
        share: of the images that were to choose from, how many have one of these that a search would call alike; None
            in a collection too small to tell.
        mean: the mean cosine of all with the nearest of these.
    """

    images: int
    share: float | None
    mean: float


@dataclass(frozen=True)
class Subset:
    """Images of a collection, in the order in which they were chosen.

    Attributes:
        images: the chosen ones.
        among: how many there were to choose from.
        curve: what the first of them cover; empty where that was not asked for.
    """

    images: tuple[SubsetImage, ...]
    among: int
    curve: tuple[Covered, ...] = ()


@dataclass(frozen=True)
class SplitImage:
    """An image of a split: `part` is its part, `target` its place in the ImageFolder layout, as `train/cat/1.jpg`."""

    path: str
    label: str
    part: str
    target: str


@dataclass(frozen=True)
class Split:
    """A subset divided into parts.

    Attributes:
        images: those that have a class, in the order of the subset.
        without_class: how many have none, and are left out: not labelled, or as none of these.
        pairs: pairs of near copies. All are on one side.
        cut_by_chance: how many of these pairs a split of single images would put on two sides, on average.
        largest: how many images the largest group of near copies has.
    """

    images: tuple[SplitImage, ...]
    without_class: int
    pairs: int
    cut_by_chance: float
    largest: int


class CollectionSubsets:
    """Chooses images of a collection. Safe to share by threads.

    Args:
        root: the folder of images.
        catalog: what is known of them.
        searcher: ranks them by examples, and says from which score on two are copies.
    """

    def __init__(self, root: Path, catalog: Catalog, searcher: Searcher) -> None:
        self._root = root
        self._catalog = catalog
        self._searcher = searcher

    def choose(
        self,
        count: int,
        by: str = "diverse",
        *,
        wanted: Filter = EVERYTHING,
        images: Sequence[int] | None = None,
        like: Sequence[Query] = (),
        unlike: Sequence[Query] = (),
        over: str = "labels",
        curve: bool = False,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> Subset:
        """Chooses images of which no two are near copies.

        Args:
            count: how many, at most: where the rest is near copies of the chosen, there are fewer.
            by: `diverse`, `typical` or `balanced`; see `indexer.subsets.selection`.
            wanted: only images that pass.
            images: only these ids.
            like: only among those that a search by these examples would call alike or better; at least `count` of the
                most similar, and `LIKE` times as many at most.
            unlike: none that a search by one of these examples would call alike or better.
            over: what `balanced` is balanced over: `labels`, or the `folders` that images lie in.
            curve: also measure what the subset covers.
            report: told how many are chosen, of how many.

        Raises:
            MasslError: nothing to choose from, or nothing to balance over.
        """
        ids, vectors = self._vectors(self._far_from(unlike, self._candidates(count, wanted, images, like)))
        if not len(ids):
            raise MasslError("there is nothing to choose from: the index holds no such image")
        least = copies_from(self._searcher.calibration(), len(self._everything()))
        if by == "balanced":
            rows = selection.balanced(vectors, self._groups(ids, over), count, least)
        elif by == "typical":
            rows = selection.typical(vectors, count, least, report)
        else:
            rows = selection.farthest_first(vectors, count, least, report=report)
        chosen = self._described(ids[rows])
        return Subset(tuple(chosen), len(ids), self._curve(vectors, rows) if curve else ())

    def everything(self, wanted: Filter = EVERYTHING) -> Subset:
        """All images that pass, by path, near copies among them: what is to be split as a whole."""
        ids = self._everything() if not wanted else self._passing(wanted)
        chosen = sorted(self._described(ids), key=lambda item: item.path)
        ranked = [SubsetImage(rank, item.image, item.path, item.label) for rank, item in enumerate(chosen, 1)]
        return Subset(tuple(ranked), len(ranked))

    def split(self, subset: Subset, shares: Mapping[str, float], seed: int = 0) -> Split:
        """Divides a subset into parts. Near copies, and images that are so by others between them, stay together.

        An image's class is its label; where no image of the subset is labelled, the folder that it lies in.

        Args:
            subset: what to divide.
            shares: name of each part to its share; they add up to 1.
            seed: of the draw.

        Raises:
            MasslError: none of its images has a class.
        """
        classes = _classes(subset.images)
        items = [item for item in subset.images if item.image in classes]
        if not items:
            raise MasslError("there is nothing to split: no image of the subset has a class; label some first")
        items_by_id = sorted(items, key=lambda item: item.image)
        ids, vectors = self._vectors(np.array([item.image for item in items_by_id], np.int64))
        items_by_id = [item for item in items_by_id if item.image in set(ids.tolist())]
        pairs = self._copies(ids, vectors)
        groups = connected(len(ids), pairs)
        parts = dict(
            zip(ids.tolist(), divide(groups, [classes[image] for image in ids.tolist()], shares, seed), strict=True)
        )
        items = [item for item in items if item.image in parts]
        targets: dict[int, str] = {}
        for part in shares:
            own = [item for item in items if parts[item.image] == part]
            places = imagefolder_targets([(item.path, classes[item.image]) for item in own])
            targets |= {
                item.image: placing.target_of(self._root, item.path, f"{part}/{place}")
                for item, place in zip(own, places, strict=True)
            }
        return Split(
            tuple(SplitImage(item.path, classes[item.image], parts[item.image], targets[item.image]) for item in items),
            len(subset.images) - len(items),
            len(pairs),
            cut_by_chance(len(pairs), shares),
            int(np.bincount(groups).max()),
        )

    def check_target(self, folder: Path) -> None:
        """See `indexer.subsets.placing.check_target`."""
        placing.check_target(self._root, folder)

    def place(
        self,
        folder: Path,
        chosen: Subset | Split,
        link: bool,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[tuple[str, str]]:
        """Makes a folder of links to a subset's or a split's images, or of copies of them.

        A subset's images lie in the same folders there as in the collection, a split's in one a part and class.

        Returns:
            Paths of files that can't be read, and are left out, each with the reason.

        Raises:
            MasslError: see `indexer.subsets.placing.place`.
        """
        if isinstance(chosen, Split):
            files = [(item.path, item.target) for item in chosen.images]
        else:
            paths = [item.path for item in chosen.images]
            files = [
                (path, placing.target_of(self._root, path, target))
                for path, target in zip(paths, same_targets(paths), strict=True)
            ]
        return placing.place(self._root, folder, files, link, report)

    def _candidates(
        self, count: int, wanted: Filter, images: Sequence[int] | None, like: Sequence[Query]
    ) -> NDArray[np.int64] | None:
        if images is not None:
            return np.intersect1d(np.array(images, np.int64), self._passing(wanted))
        if like:
            ranking = self._searcher.rank(like, LIKE * count, wanted)
            bounds = ranking.calibration.bounds(ranking.among)
            alike = int(np.sum(ranking.scores >= bounds["alike"])) if bounds else len(ranking.scores)
            return np.sort(ranking.images[: max(count, alike)])
        return self._passing(wanted) if wanted else None

    def _far_from(self, examples: Sequence[Query], candidates: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        for example in examples:
            ranking = self._searcher.rank([example], max(1, len(self._everything())), exact=True)
            if bounds := ranking.calibration.bounds(ranking.among):
                near = ranking.images[ranking.scores >= bounds["alike"]]
                candidates = np.setdiff1d(self._everything() if candidates is None else candidates, near)
        return candidates

    def _passing(self, wanted: Filter) -> NDArray[np.int64]:
        passing = among(self._catalog, wanted)
        return self._everything() if passing is None else passing

    def _everything(self) -> NDArray[np.int64]:
        return np.array(sorted(image for image, _ in Images(self._catalog).ready()), np.int64)

    def _vectors(self, ids: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Rising ids and vectors, in half precision, of all images or of these."""
        source = CatalogVectors(self._catalog)
        blocks = list(source.blocks() if ids is None else source.blocks_of(ids))
        own = np.concatenate([np.empty(0, np.int64), *(block for block, _ in blocks)])
        return own, np.concatenate([np.empty((0, source.dim), np.float16), *(rows for _, rows in blocks)])

    def _groups(self, ids: NDArray[np.int64], over: str) -> dict[str, NDArray[np.int64]]:
        if over == "folders":
            paths = dict(Images(self._catalog).ready())
            names = [posixpath.dirname(paths.get(image, "")) for image in ids.tolist()]
        else:
            given = Labels(self._catalog).by_image()
            names = [given.get(image, "") for image in ids.tolist()]
            if not any(names):
                raise MasslError(
                    "no image is labelled, so there are no classes to balance; label some first (massl label), or "
                    "balance folders: --over folders"
                )
        groups: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            if over == "folders" or name:
                groups.setdefault(name, []).append(row)
        return {name: np.array(rows, np.int64) for name, rows in groups.items()}

    def _described(self, ids: NDArray[np.int64]) -> list[SubsetImage]:
        known = Images(self._catalog).with_labels(ids.tolist())
        there = [image for image in ids.tolist() if image in known]
        return [SubsetImage(rank, image, *known[image]) for rank, image in enumerate(there, 1)]

    def _curve(self, vectors: NDArray[np.float16], rows: NDArray[np.int64]) -> tuple[Covered, ...]:
        bounds = self._searcher.calibration().bounds(len(vectors))
        sizes = sorted({step * 10**power for power in range(8) for step in _STEPS if step * 10**power < len(rows)})
        sizes = [*sizes, len(rows)]
        found = selection.coverage(vectors, rows, sizes, bounds["alike"] if bounds else np.inf)
        return tuple(
            Covered(size, share if bounds else None, mean) for size, (share, mean) in zip(sizes, found, strict=True)
        )

    def _copies(self, ids: NDArray[np.int64], vectors: NDArray[np.float16]) -> NDArray[np.int64]:
        """Pairs of rows that are near copies, or the same content."""
        index = self._searcher.index()
        least = copies_from(self._searcher.calibration(), len(index))
        near = near_pairs(index, ids, vectors, least)
        hashes = Images(self._catalog).hashes(ids.tolist())
        rows: dict[bytes, list[int]] = {}
        for row, image in enumerate(ids.tolist()):
            if content := hashes.get(image):
                rows.setdefault(content, []).append(row)
        same = [pair for copies in rows.values() for pair in itertools.pairwise(copies)]
        return np.unique(np.concatenate([near, np.array(same, np.int64).reshape(-1, 2)]), axis=0)


def _classes(chosen: Sequence[SubsetImage]) -> dict[int, str]:
    """The class of each image that has one."""
    if any(item.label for item in chosen):
        return {item.image: item.label for item in chosen if item.label and item.label != NONE_OF_THESE}
    return {item.image: posixpath.dirname(item.path) or "images" for item in chosen}
