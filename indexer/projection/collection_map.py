"""A collection's map, kept from one look to the next: shown at once, made better in the background, cached in a file.

The file is a cache, as the index's is: written to a temporary name, flushed, renamed, its SHA-256 kept in the catalog
and checked before it is read. What it says of an image holds while the image's content and the encoder are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.jobs.background import BackgroundJob, JobReport
from indexer.projection import categories, layout
from indexer.projection.categories import Kinds
from indexer.projection.point_clusters import find_clusters
from indexer.store import array_file, revision
from indexer.store.catalog import Catalog
from indexer.store.images import Images
from indexer.store.meta import Meta
from indexer.store.revision import Revision
from indexer.store.vectors import CatalogVectors, unit
from massl.core.errors import MasslError

KEPT = 0.9  # share of the images that must have a point already for the others to be put among them; else all is redone
_ARRAYS: array_file.Kinds = {"ids": (np.int64, ()), "hashes": (np.uint64, ()), "points": (np.float32, (2,))}
_FORMAT = "2"  # those of the first showed all of some few pictures as one point


@dataclass(frozen=True, eq=False)
class Map:
    """Images in the plane.

    Attributes:
        ids: rising, int64 `[N]`.
        points: float32 `[N, 2]`, from -1 to 1; where no axis means anything.
        kind: `principal` (components: at once, rough) or `neighbours` (t-SNE).
        laid_out: how many were laid out themselves; the others were put among their nearest neighbours.
        missing: searchable images that it doesn't show yet.
        version: another text for other points.
    """

    ids: NDArray[np.int64]
    points: NDArray[np.float32]
    kind: Literal["principal", "neighbours"]
    laid_out: int
    missing: int
    version: str


@dataclass(frozen=True)
class Making:
    """How far the better map is: the step, the share of all that is done, and the seconds that it has taken."""

    step: str
    done: float
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """About how long still; None while that can't be told."""
        return self.seconds * (1 - self.done) / self.done if self.done > 0.05 else None


@dataclass(frozen=True)
class _Content:
    """What the catalog holds: rising ids, int64 `[N]`, and the beginning of each content's hash, uint64 `[N]`."""

    ids: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    encoder: str

    @classmethod
    def of(cls, catalog: Catalog) -> _Content:
        with catalog.snapshot():
            ids, hashes = Images(catalog).contents()
            return cls(ids, hashes, catalog.meta().embedded_by)

    def same(self, other: _Content) -> NDArray[np.bool_]:
        """Which of these images the other holds with the same content, bool `[N]`."""
        if not len(other.ids) or self.encoder != other.encoder:
            return np.zeros(len(self.ids), bool)
        rows = np.searchsorted(other.ids, self.ids).clip(max=len(other.ids) - 1)
        return (other.ids[rows] == self.ids) & (other.hashes[rows] == self.hashes)


@dataclass(frozen=True, eq=False)
class _Made:
    """A map by neighbours, and of which contents it is."""

    content: _Content
    points: NDArray[np.float32]
    laid_out: int


class CollectionMap:
    """The map of a collection. Safe to share by threads; all who look share one."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self._catalog = catalog
        self._folder = folder
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._opened = False
        self._shown: tuple[Hashable, _Made | None, Map] | None = None
        self._clusters: tuple[str, NDArray[np.int64]] = "", np.empty(0, np.int64)
        self._job = BackgroundJob(
            self._improve, lambda status: catalog.close(), "the map by similarity could not be computed", "map"
        )
        self._wanted: Hashable = None  # what the map was last to be improved for
        self._closed = False

    def get(self, improve: bool = True, now: Revision | None = None) -> Map:
        """The map as well as it can be had at once; a better one is begun in the background.

        Args:
            improve: begin it. Not worth while as long as images are still coming in.
            now: the collection's revision, if that was asked for just before.
        """
        state = (now or revision.read(self._catalog)).embedded
        with self._lock:
            if not self._opened:
                self._made, self._opened = self._read(), True
            if self._shown is None or self._shown[:2] != (state, self._made):
                self._shown = state, self._made, self._draw()
            current = self._shown[2]
            behind = current.kind == "principal" or current.missing
            if improve and behind and len(current.ids) >= layout.FEWEST and not self._closed:
                if self._job.status(state).state != "failed":
                    self._job.begin(state)
                self._wanted = state
            return current

    def kinds(self, ids: NDArray[np.int64], by: Literal["label", "folder"], most: int) -> Kinds:
        """These images by label or folder, in at most about `most` kinds; see `indexer.projection.categories`."""
        return (categories.by_folder if by == "folder" else categories.by_label)(self._catalog, ids, most)

    def clusters(self, of: Map) -> NDArray[np.int64]:
        """Which cluster of a map each of its points is in; see `indexer.projection.point_clusters`."""
        version, found = self._clusters
        if version != of.version:
            found = find_clusters(of.points)
            self._clusters = of.version, found
        return found

    def typical(self, images: Sequence[int], count: int) -> list[int]:
        """Of these images, the `count` that are most like all of them taken together.

        Raises:
            MasslError: none of them is in the collection.
        """
        ids, packed = CatalogVectors(self._catalog).of(np.unique(np.array(images, np.int64)))
        if not len(ids):
            raise MasslError("these images are no longer in the collection; reload the page")
        return ids[categories.typical(unit(packed), count)].tolist()

    def making(self) -> Making | None:
        """How far the better map is; None while none is being made."""
        status = self._job.status()
        if status.state != "running":
            return None
        return Making(status.step or "comparing", status.done, time.monotonic() - status.began)

    def trouble(self) -> str | None:
        """Why there is no better map; None where nothing went wrong."""
        return self._job.status(self._wanted).reason or None

    def stop(self) -> None:
        """Stops what goes on in the background, and waits until it has; what was made before stays."""
        self._closed = True
        self._job.stop()
        self._job.wait()

    def wait(self, seconds: float) -> bool:
        """Waits for what goes on in the background; False if it takes longer."""
        return self._job.wait(seconds)

    def _draw(self) -> Map:
        if self._made is not None:
            content = _Content.of(self._catalog)
            kept = self._made.content.same(content)
            if kept.sum() >= len(content.ids) / 2 and kept.any():
                ids, points = self._made.content.ids[kept], self._made.points[kept]
                laid_out = min(self._made.laid_out, len(ids))
                return Map(ids, points, "neighbours", laid_out, len(content.ids) - len(ids), _version(ids, points))
        ids, points = layout.principal(CatalogVectors(self._catalog))
        return Map(ids, points, "principal", len(ids), 0, _version(ids, points))

    # In the background --------------------------------------------------------------------------------------------

    def _improve(self, report: JobReport) -> None:
        _step_back()
        made = self._make(lambda step, done: report(step, done, 1.0))
        self._write(made)
        with self._lock:
            self._made = made

    def _make(self, going: Callable[[str, float], None]) -> _Made:
        content = _Content.of(self._catalog)
        vectors = CatalogVectors(self._catalog)
        before = None
        laid_out = 0
        if self._made is not None and self._made.content.encoder == content.encoder:
            kept = self._made.content.same(content)
            before = self._made.content.ids[kept], self._made.points[kept]
            laid_out = min(self._made.laid_out, int(kept.sum()))
        if before is not None and len(before[0]) >= KEPT * len(content.ids):
            ids, points = layout.placed(vectors, *before, going)
        else:
            ids, points, laid_out = layout.by_neighbours(vectors, going, before)
        # Images may have come and gone meanwhile: of those that came no content is known, and they count as missing.
        there = np.isin(ids, content.ids)
        ids, points = ids[there], points[there]
        hashes = content.hashes[np.searchsorted(content.ids, ids)]
        return _Made(_Content(ids, hashes, content.encoder), points, laid_out)

    # In a file ----------------------------------------------------------------------------------------------------

    def _write(self, made: _Made) -> None:
        content = made.content
        arrays: dict[str, NDArray[Any]] = {"ids": content.ids, "hashes": content.hashes, "points": made.points}
        array_file.keep(
            self._folder,
            "map",
            arrays,
            lambda name, digest: self._catalog.set_meta(
                Meta.map_format.to(_FORMAT),
                Meta.map_file.to(name),
                Meta.map_sha256.to(digest),
                Meta.map_encoder.to(content.encoder),
                Meta.map_laid_out.to(made.laid_out),
            ),
        )

    def _read(self) -> _Made | None:
        """The map that the catalog names, if it is there and whole."""
        meta = self._catalog.meta()
        if meta.map_format != _FORMAT:
            return None
        stored = array_file.read(self._folder, meta.map_file, meta.map_sha256, _ARRAYS)
        if stored is None or not len(stored["ids"]) == len(stored["hashes"]) == len(stored["points"]):
            return None
        content = _Content(stored["ids"], stored["hashes"], meta.map_encoder)
        return _Made(content, stored["points"], meta.map_laid_out)


def _version(ids: NDArray[np.int64], points: NDArray[np.float32]) -> str:
    return hashlib.sha256(ids.tobytes() + points.tobytes()).hexdigest()[:16]


def _step_back() -> None:
    """Where the system can: this thread, and those that it starts, wait behind all others, as somebody searches."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
