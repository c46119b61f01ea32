"""The unusual images of a collection, the least usual first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.anomalies import map_drawing
from indexer.anomalies.conformal import needed, p_values
from indexer.anomalies.kept_scores import KeptScores
from indexer.anomalies.neighbour_distance import GOOD_NEIGHBOUR, NEIGHBOUR, ExactIndex, distances
from indexer.anomalies.patch_memory import worst_patches
from indexer.anomalies.unusual_parts import UnusualParts, unusual_parts
from indexer.anomalies.worst_tiles import worst_tiles
from indexer.search.engines.interface import CurrentIndex
from indexer.search.near_copies import copies_from, one_of_each
from indexer.search.query import Query, with_content
from indexer.search.searcher import Searcher
from indexer.storage.collection_storage import Storage
from indexer.store import revision, tiles
from indexer.store.filters import EVERYTHING, Filter, among
from indexer.store.images import Images
from indexer.store.paths import below
from indexer.store.quality import Scores
from indexer.store.tiles import TilePlaces, TileVectors
from indexer.store.tiling import Box
from indexer.store.vectors import CatalogVectors, VectorSource
from massl.core.errors import MasslError
from massl.core.images.decoding import within_memory

_MANY_COPIES = 0.1  # the share of different images up to which copies are what is usual
_ITSELF = 0.99999  # the cosine of a picture with itself, or with the very same one, but for rounding
FEWEST = 3  # images, under which none is unusual
SAMPLE = 10_000  # images that each is compared with at most, where all are


def _silent(done: int, total: int) -> None: ...


@dataclass(frozen=True)
class Anomaly:
    """An unusual image.

    Attributes:
        rank: from 1.
        image: its id.
        path: relative to the root.
        score: one minus its cosine with the k-th nearest other, 0 to 2; near copies count once.
        p_value: the share of good pictures that are as unusual; None unless a rate of false alarms was asked for.
        label: that somebody gave it, or None.
        box: its most unusual tile, where that was scored: x, y, width and height in pixels of the upright picture.
    """

    rank: int
    image: int
    path: str
    score: float
    p_value: float | None
    label: str | None
    box: Box | None = None


@dataclass(frozen=True)
class Anomalies:
    """What was found.

    Attributes:
        images: the least usual first.
        among: how many images were looked at.
        reference: how many they were compared with; of near copies one counts.
        held_out: good pictures by which a threshold was found; 0 without one.
        threshold: the score from which a picture is called unusual; None without a rate of false alarms.
        unusual: how many of those looked at are; None as above.
    """

    images: tuple[Anomaly, ...]
    among: int
    reference: int
    held_out: int = 0
    threshold: float | None = None
    unusual: int | None = None


class CollectionAnomalies:
    """Finds unusual images. Safe to share by threads: what is kept is swapped whole.

    Args:
        storage: where the collection lies, and its encoder, which is asked only for patches.
        searcher: finds neighbours, and says from which score on two are copies.
    """

    def __init__(self, storage: Storage, searcher: Searcher) -> None:
        self._storage = storage
        self._catalog = storage.catalog
        self._searcher = searcher
        self._comparing = threading.Lock()  # two screens that want the scores at once wait for one comparison
        self._kept: KeptScores | None = None

    def find(
        self,
        count: int = 50,
        *,
        good: str | None = None,
        wanted: Filter = EVERYTHING,
        false_alarms: float | None = None,
        patches: bool = False,
        report: Callable[[int, int], None] = _silent,
    ) -> Anomalies:
        """The `count` least usual images; each by its most unusual tile, where the collection has tiles.

        Args:
            count: how many, at most.
            good: compare with the images of this label alone, and look at all others. Without it each image is
                compared with all others.
            wanted: look only at images that pass. Without `good` they are also compared only with each other.
            false_alarms: the share of good pictures, above 0 and below 1, that may be called unusual by mistake; only
                those that are called so are then listed. Half of the good pictures are held out for that.
            patches: go by each picture's most unusual patch. Every picture is read for that.
            report: told how many images are done, of how many.

        Raises:
            MasslError: the encoder has no patches, too few images, no such label, or too few good ones for such a rate.
        """
        if false_alarms is not None and good is None:
            raise MasslError(
                "a rate of false alarms needs pictures that are known to be good: label some, name the label"
            )
        ids, vectors = self._vectors()
        least = copies_from(self._searcher.calibration(), len(ids))
        passing = among(self._catalog, wanted)
        looked_at = np.arange(len(ids)) if passing is None else np.flatnonzero(np.isin(ids, passing))
        if good is None:
            if len(looked_at) < FEWEST:
                raise MasslError(f"there are too few images to tell which is unusual: it takes {FEWEST} at least")
            reference, scores, boxes = self._among_themselves(ids, vectors, looked_at, least, report, patches)
            return Anomalies(self._listed(ids[looked_at], scores, None, count, boxes), len(looked_at), reference)
        own = among(self._catalog, Filter(labels=(good,)))
        good_rows = np.flatnonzero(np.isin(ids, own if own is not None else []))
        looked_at = np.setdiff1d(looked_at, good_rows)
        return self._unlike_good(ids, vectors, good_rows, looked_at, least, count, false_alarms, report, patches)

    def by_image(self, report: Callable[[int, int], None] = _silent) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rising ids and scores of all images; kept until one changes, also in a file.

        Of more than `SAMPLE` images without tiles, each is compared with so many drawn at random, so that the time
        grows with the number of images and not with its square. Then an image is unusual if there are fewer than about
        `NEIGHBOUR` like it among these.
        """
        with self._comparing:
            now = revision.read(self._catalog).embedded
            if self._kept is None or self._kept.of != now:
                found = KeptScores.read(self._catalog, now)
                if found is None:
                    found = self._compare_all(now, report)
                    found.write(self._catalog)
                self._kept = found
            return self._kept.ids, self._kept.scores

    def scores(self, report: Callable[[int, int], None] = _silent) -> Scores:
        """As `by_image`, as the quality hint takes them."""
        return Scores(*self.by_image(report))

    def quickly_told(self) -> bool:
        """Whether `by_image` takes a second or two at most: of few images, or where nothing has changed since."""
        now = revision.read(self._catalog).embedded
        if (self._kept is not None and self._kept.of == now) or KeptScores.is_current(self._catalog, now):
            return True
        return Images(self._catalog).count() <= SAMPLE and not self._searcher.tiles.in_use()

    def _compare_all(self, now: Hashable, report: Callable[[int, int], None]) -> KeptScores:
        ids, vectors = self._vectors()
        scores, boxes = np.zeros(len(ids), np.float32), dict[int, Box]()
        if len(ids) >= FEWEST:
            least = copies_from(self._searcher.calibration(), len(ids))
            if len(ids) > SAMPLE and not self._searcher.tiles.in_use():
                scores = _with_sample(ids, vectors, least, report)
            else:
                _, scores, boxes = self._among_themselves(ids, vectors, np.arange(len(ids)), least, report)
        return KeptScores(now, ids, scores, boxes)

    def worst_tile(self, image: int) -> Box | None:
        """The most unusual tile of an image, as `by_image` found it last; None where it has none, or nobody asked."""
        kept = self._kept
        return None if kept is None else kept.boxes.get(image)

    def parts_of(self, image: int, box: Box | None = None, good: str | None = None) -> UnusualParts:
        """Where an image, or a tile of it, is unusual; see `indexer.anomalies.unusual_parts`."""
        return unusual_parts(self._catalog, self._searcher, image, box, good)

    def draw_map(self, image: int, parts: UnusualParts) -> Image.Image:
        """The image with its usual parts darkened; see `indexer.anomalies.map_drawing`.

        Raises:
            MasslError: its file can't be read any more.
        """
        facts, meta = Images(self._catalog).facts(image), self._catalog.meta()
        query = with_content(Query(image=image), self._catalog, self._storage.root)
        with query.picture(map_drawing.LARGEST, meta.max_pixels, meta.rendering) as picture:
            return map_drawing.drawn(picture, parts, facts.width, facts.height)

    def _among_themselves(
        self,
        ids: NDArray[np.int64],
        vectors: NDArray[np.float16],
        rows: NDArray[np.int64],
        least: float,
        report: Callable[[int, int], None],
        patches: bool = False,
    ) -> tuple[int, NDArray[np.float32], dict[int, Box]]:
        index = self._searcher.index()
        reference, least = _different(index, ids, vectors, rows, least)
        if patches:
            return len(reference), self._by_patches(ids, reference, rows, NEIGHBOUR, report), {}
        if self._searcher.tiles.in_use():
            return len(reference), *self._by_tiles(ids, reference, rows, NEIGHBOUR, report)
        return len(reference), distances(index, ids, vectors, reference, rows, least, report), {}

    def _by_tiles(
        self,
        ids: NDArray[np.int64],
        reference: NDArray[np.int64],
        rows: NDArray[np.int64],
        k: int,
        report: Callable[[int, int], None],
    ) -> tuple[NDArray[np.float32], dict[int, Box]]:
        """Scores by tiles, and the most unusual one of each picture, by its id."""
        known = tiles.places(self._catalog)
        own, vectors = _joined(TileVectors(self._catalog))
        kept = np.isin(known.ids, own)  # an update may have come between
        places = TilePlaces(known.ids[kept], known.images[kept], known.boxes[kept])
        vectors = vectors[np.isin(own, places.ids)]
        scores, worst = worst_tiles(self._searcher.tiles.index(), places, vectors, ids[reference], ids[rows], k, report)
        boxes = {}
        images, counts = np.unique(places.images, return_counts=True)
        cut = set(images[counts > 1].tolist())  # of the others, the only tile is the whole
        for image, row in zip(ids[rows].tolist(), worst.tolist(), strict=True):
            if image in cut:
                x, y, width, height = places.boxes[row].tolist()
                boxes[image] = (x, y, width, height)
        return scores, boxes

    def _by_patches(
        self,
        ids: NDArray[np.int64],
        reference: NDArray[np.int64],
        rows: NDArray[np.int64],
        k: int,
        report: Callable[[int, int], None],
    ) -> NDArray[np.float32]:
        """Scores by patches; pictures that can't be read any more stand last, with -1."""
        encoder, paths = self._storage.encoder, dict(Images(self._catalog).ready())
        if not encoder.has_patches:
            raise MasslError(
                f"the encoder {encoder.name} describes pictures only as a whole, not part by part; leave "
                "out --patches, or index with one that `massl export` writes"
            )

        def tokens(row: int) -> NDArray[np.float32] | None:
            try:
                query = Query.of_file(below(self._storage.root, paths[int(ids[row])]))
                meta = self._catalog.meta()
                opened = query.picture(encoder.resize, meta.max_pixels, meta.rendering)
                with within_memory(), opened as picture:
                    pixels = encoder.prepare(picture)
            except (MasslError, KeyError):
                return None
            found = encoder.embed_patches(pixels[None])[0]
            return found.reshape(-1, found.shape[-1]).astype(np.float32)

        return np.nan_to_num(worst_patches(tokens, reference, rows, k, report), nan=-1.0)

    def _unlike_good(
        self,
        ids: NDArray[np.int64],
        vectors: NDArray[np.float16],
        good: NDArray[np.int64],
        looked_at: NDArray[np.int64],
        least: float,
        count: int,
        false_alarms: float | None,
        report: Callable[[int, int], None],
        patches: bool = False,
    ) -> Anomalies:
        boxes: dict[int, Box] = {}

        def measured(beside: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.float32]:
            if patches:
                return self._by_patches(ids, beside, asked, GOOD_NEIGHBOUR, report)
            if self._searcher.tiles.in_use():
                scores, found = self._by_tiles(ids, beside, asked, GOOD_NEIGHBOUR, report)
                boxes.update(found)
                return scores
            return distances(index, ids, vectors, beside, asked, least, report, GOOD_NEIGHBOUR)

        index = self._searcher.index()
        reference, least = _different(index, ids, vectors, good, least)
        if false_alarms is None:
            scores = measured(reference, looked_at)
            listed = self._listed(ids[looked_at], scores, None, count, boxes)
            return Anomalies(listed, len(looked_at), len(reference))
        held_out, reference = _halves(reference, needed(false_alarms), false_alarms)
        calibration, scores = np.split(measured(reference, np.concatenate([held_out, looked_at])), [len(held_out)])
        chances = p_values(scores, calibration)
        unusual = chances <= false_alarms
        # The lowest score with such a p-value, whether or not a picture has it.
        rank = int(np.floor(false_alarms * (len(held_out) + 1) + 1e-9))
        threshold = float(np.nextafter(np.sort(calibration)[-rank], np.float32(np.inf)))
        return Anomalies(
            self._listed(ids[looked_at][unusual], scores[unusual], chances[unusual], count, boxes),
            len(looked_at),
            len(reference),
            len(held_out),
            threshold,
            int(unusual.sum()),
        )

    def _listed(
        self,
        ids: NDArray[np.int64],
        scores: NDArray[np.float32],
        chances: NDArray[np.float64] | None,
        count: int,
        boxes: Mapping[int, Box],
    ) -> tuple[Anomaly, ...]:
        order = np.argsort(-scores, kind="stable")[:count]
        known = Images(self._catalog).with_labels(ids[order].tolist())
        return tuple(
            Anomaly(
                rank,
                int(ids[row]),
                known[int(ids[row])][0],
                float(scores[row]),
                None if chances is None else float(chances[row]),
                known[int(ids[row])][1],
                boxes.get(int(ids[row])),
            )
            for rank, row in enumerate((row for row in order.tolist() if int(ids[row]) in known), 1)
        )

    def _vectors(self) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        return _joined(CatalogVectors(self._catalog))


def _joined(source: VectorSource) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """All vectors of a source: rising ids `[N]`, and `[N, D]`."""
    blocks = list(source.blocks())
    ids = np.concatenate([np.empty(0, np.int64), *(own for own, _ in blocks)])
    return ids, np.concatenate([np.empty((0, source.dim), np.float16), *(rows for _, rows in blocks)])


def bands(scores: NDArray[np.float32], shares: Sequence[float]) -> NDArray[np.uint8]:
    """How unusual each image is, in bands, uint8 `[N]`.

    Args:
        scores: `[N]`, greater where less usual.
        shares: of all images, that each band has: 0 is that of the least usual ones. `len(shares)` is all the others.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.ceil(np.cumsum(shares) * len(scores) - 1e-9)
    found = np.empty(len(scores), np.uint8)
    found[order] = np.searchsorted(ends, np.arange(len(scores)), side="right")
    return found


def _different(
    index: CurrentIndex,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float16],
    rows: NDArray[np.int64],
    least: float,
) -> tuple[NDArray[np.int64], float]:
    """Rows to compare with, of which no two are near copies; and the cosine from which two are near copies.

    Where nearly all are near copies of others, as pictures of a fixed camera are, that is what is usual, and all count.
    """
    kept = rows[one_of_each(index, ids[rows], vectors[rows], least)]
    return (kept, least) if len(kept) > _MANY_COPIES * len(rows) else (rows, _ITSELF)


def _with_sample(
    ids: NDArray[np.int64], vectors: NDArray[np.float16], least: float, report: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """As `distances` of all images, to `SAMPLE` of them, the same each time, of which near copies count once."""
    drawn = np.sort(np.random.default_rng(0).choice(len(ids), SAMPLE, replace=False))
    reference, least = _different(ExactIndex(ids[drawn], vectors[drawn]), ids, vectors, drawn, least)
    index = ExactIndex(ids[reference], vectors[reference])
    return distances(index, ids, vectors, reference, np.arange(len(ids)), least, report)


def _halves(good: NDArray[np.int64], fewest: int, rate: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Good pictures that are held out, and those to compare with, both rising; drawn at random, the same each time.

    Raises:
        MasslError: too few of them for such a rate.
    """
    held = max(fewest, len(good) // 2)
    if len(good) - held < FEWEST:
        raise MasslError(
            f"a rate of {100 * rate:g} % false alarms takes {fewest + FEWEST:,} different good pictures at least, and "
            f"{len(good):,} are labelled; label more of them, or allow more false alarms"
        )
    drawn = np.random.default_rng(0).permutation(good)
    return np.sort(drawn[:held]), np.sort(drawn[held:])
