"""Milvus in FAISS's place: for more vectors than one machine holds, or for several machines that share them.

The catalog stays the truth. What changed in it is sent before the next search. The server's collection carries a stamp
(`indexer.search.engines.milvus_server`), and the catalog knows the stamp that it wrote last and the one that it is
about to write. So a kill at any moment is noticed, and so is a collection that is half filled, restored from a backup,
or written to by a copy of this catalog: that one is left alone, and another is filled.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import secrets
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import filelock
import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.catalog_scan import MOST, CatalogScan
from indexer.search.engines.interface import Measured, Preparing
from indexer.search.engines.milvus_server import (
    EFFORTS,
    MOST_RESULTS,
    Away,
    MilvusServer,
    check_address,
    is_file,
    quoted,
)
from indexer.search.engines.recall import Truth
from indexer.search.engines.subjects import IMAGES, Subject
from indexer.store import filters, index_state
from indexer.store.catalog import Catalog
from indexer.store.filters import Filter
from indexer.store.index_state import IndexState, Overtaken
from indexer.store.meta import Written
from indexer.store.vectors import VectorBlocks, unit
from massl.core.errors import MasslError

NAME = "milvus"
FEW = 1_000  # images that pass a filter up to which they are named one by one, as the catalog has them now
COMPARED = 10_000  # images that pass a filter up to which the catalog compares each: a tenth of a second
MOST_NAMED = 200_000  # ids that a question may name: two megabytes
TUNED_FOR = 20  # results for which `effort` is meant; it grows in proportion for more
_MOST_EFFORT = 16_384
_FRESH = 15.0  # seconds after a write within which a search asks for all that was written, which takes a server longer
_PATIENCE = 30.0  # seconds for which a server that is away is not asked again
_WAIT = 5.0  # seconds for another process of this collection that writes to the server
_FLOOR = 0.99
_HASTY = 0.02  # share of the images up to which it doesn't matter that the server has no index of them yet
_LOOK = 60.0  # seconds after which it is looked again whether it has, as a restart is not always noticed
_PLACES = 8_000  # images whose paths are compared at a time
_OURS = re.compile(r"massl_[0-9a-f]{16}")
_LOG = logging.getLogger(__name__)


def engine(address: str) -> MilvusEngine:
    """See `indexer.search.engines.engine_choice`.

    Raises:
        MasslError: an address that is none, or a package is missing.
    """
    check_address(address)
    if importlib.util.find_spec("pymilvus") is None:
        raise MasslError("Milvus is asked through a package that isn't installed; run: pip install 'massl[milvus]'")
    if is_file(address) and importlib.util.find_spec("milvus_lite") is None:
        raise MasslError("a .db file needs a package that isn't installed; run: pip install milvus-lite")
    return MilvusEngine(address)


@dataclass(frozen=True)
class MilvusEngine:
    """The `Engine` at one address."""

    address: str

    def check(self) -> None:
        """See `Engine.check`."""
        MilvusServer(self.address).check()

    def open(self, catalog: Catalog, folder: Path, subject: Subject = IMAGES) -> OpenedMilvus:
        """See `Engine.open`."""
        return OpenedMilvus(catalog, folder, MilvusServer(self.address), subject)


@dataclass(frozen=True)
class Kept:
    """What a catalog knows of its collection in a server.

    Attributes:
        collection: its name.
        stamp, next: the stamp that was written last, and the one that is being written.
        images: how many it holds.
        written: when, in seconds since 1970.
        places: a checksum of the paths and times that it has, and `seen`, what the catalog said when it was taken.
    """

    collection: str = ""
    stamp: str = ""
    next: str = ""
    images: int = 0
    written: float = 0.0
    places: int = 0
    seen: str = ""

    @classmethod
    def of(cls, text: str) -> Kept:
        """As the catalog keeps it; empty where that is none. The catalog may be anybody's."""
        try:
            told = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return cls()
        fits = all(type(getattr(told, name)) is type(value) for name, value in asdict(cls()).items())
        return told if fits and _OURS.fullmatch(told.collection) else cls()

    def text(self) -> str:
        """The reverse of `of`."""
        return json.dumps(asdict(self))


class MilvusIndex:
    """A collection in a server, searched. A `CurrentIndex`, and a `TunableIndex` while its effort is chosen."""

    exact = False

    def __init__(self, opened: OpenedMilvus, catalog: Catalog, kept: Kept, effort: int, current_places: bool) -> None:
        self.effort = effort
        self._opened = opened
        self._subject = opened.subject
        self._catalog = catalog
        self._kept = kept
        self._current_places = current_places
        self.exact = opened.server.is_lite

    def __len__(self) -> int:
        return self._kept.images

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | Filter | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `CurrentIndex.search`; where the server is away, the catalog is searched."""
        condition, count = self._condition(among)
        k = min(k, count)
        if k <= 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        # A graph of which a filter keeps out most falls apart: among a seventh of 20,000 images a server found 93 % of
        # the nearest, however hard it looked.
        few = among is not None and count <= COMPARED and not self.exact
        if condition is None or few or k > MOST_RESULTS - 1:
            return CatalogScan(self._catalog, "Milvus takes no such question", self._subject).search(queries, k, among)
        # The graph is walked past what a filter keeps out: the fewer pass, the more must be looked at.
        sparse = 1.0 if among is None else 2 * len(self) / count
        effort = min(_MOST_EFFORT, round(self.effort * max(1.0, k / TUNED_FOR) * sparse))
        strong = time.time() - self._kept.written < _FRESH
        try:
            scores, ids = self._opened.server.search(
                self._kept.collection, np.ascontiguousarray(queries, np.float32), k, condition, effort, strong
            )
        except Away as error:
            return self._opened.fall_back(error).search(queries, k, among)
        if isinstance(among, Filter):  # the catalog has the last word, should a path have changed this very moment
            outside = ~np.isin(ids, self._subject.passing(self._catalog, among, ids))
            scores[outside], ids[outside] = -np.inf, -1
        return scores, ids

    def _condition(self, among: NDArray[np.int64] | Filter | None) -> tuple[str | None, int]:
        """What rows must be, None where that can't be said, and how many are at most."""
        if among is None:
            return "", len(self)
        if isinstance(among, Filter):
            count = self._subject.count(self._catalog, among)
            if count > FEW and self._current_places and among.of_files_alone:
                return _expression(among), count
            if count > MOST_NAMED:
                return None, count
            among = self._subject.among(self._catalog, among)
            assert among is not None
        return (f"id in {among.tolist()}" if len(among) <= MOST_NAMED else None), len(among)


def _expression(wanted: Filter) -> str:
    """A filter by folder and date in Milvus's own language. Quoted paths hold nothing that means anything there."""
    terms = ["id >= 0"]
    if ranges := wanted.paths():
        # The first ends with "/", the second with "0", which both stand for themselves.
        terms.append(
            "(" + " or ".join(f'(path >= "{quoted(first)}" and path < "{quoted(end)}")' for first, end in ranges) + ")"
        )
    if times := wanted.times():
        terms.append(f"mtime != {filters.UNKNOWN} and mtime >= {max(times[0], 1 - 2**63)} and mtime < {times[1]}")
    return " and ".join(terms)


class OpenedMilvus:
    """The server at work for one catalog. An `OpenedEngine`, safe to share by threads.

    Images and tiles are two collections in the server; a row of a tile has the path and time of its image.
    """

    def __init__(self, catalog: Catalog, folder: Path, server: MilvusServer, subject: Subject = IMAGES) -> None:
        self.server = server
        self.subject = subject
        self._catalog = catalog
        self._vectors = subject.vectors(catalog)
        self._folder = folder
        self._lock = threading.Lock()
        self._seen: str | None = None  # the stamp that was found in the server
        self._unindexed = ""  # why it is not searched, for a person
        self._indexed = "", 0.0  # the stamp of what it searches by its index, and until when that is taken for granted
        self._away_until = 0.0
        self._away = ""
        self._lock_name = "engine.lock" if subject is IMAGES else f"engine-{subject.name}.lock"

    def get(self, preparing: Preparing, tidy: bool = False) -> MilvusIndex | CatalogScan:
        """See `OpenedEngine.get`."""
        with self._lock:
            if time.monotonic() < self._away_until:
                return CatalogScan(self._catalog, self._away, self.subject)
            try:
                return self._current(preparing, tidy)
            except Away as error:
                return self.fall_back(error)

    def fall_back(self, error: Away) -> CatalogScan:
        """Leaves the server alone for a while, says so, and has the catalog searched."""
        self._seen, self._indexed = None, ("", 0.0)
        if time.monotonic() >= self._away_until:
            _LOG.warning("%s; until it answers, every image in the catalog is compared", error)
        self._away_until, self._away = time.monotonic() + _PATIENCE, str(error)
        return CatalogScan(self._catalog, str(error), self.subject)

    def is_current(self) -> bool:
        """See `OpenedEngine.is_current`."""
        state, kept = self._state()
        return _is_filled(state, kept) and not state.changed and kept.seen == self._places_seen()

    def measured(self) -> Measured | None:
        """See `OpenedEngine.measured`."""
        state, kept = self._state()
        return Measured.from_json(state.measured) if _is_filled(state, kept) else None

    def how(self) -> str:
        """See `OpenedEngine.how`."""
        why = self._away if time.monotonic() < self._away_until else self._unindexed
        return f"by {self.server}" + (f"; at present every picture is compared, as {why}" if why else "")

    def forget(self) -> None:
        """See `OpenedEngine.forget`; a server that is away keeps what it has, and it is said."""
        _, kept = self._state()
        try:
            if kept.collection and self._is_ours(kept, self.server.stamp(kept.collection)):
                self.server.drop(kept.collection)
        except Away as error:
            _LOG.warning("%s; its collection %s, of no more use, stays there", error, kept.collection)
        if kept.collection and self._catalog.can_be_written():
            self._catalog.set_meta(self._fact(Kept()))

    def _state(self) -> tuple[IndexState, Kept]:
        state = index_state.read(self._catalog, log=self.subject.log)
        return state, Kept.of(state.own)

    def _fact(self, kept: Kept) -> Written:
        return self.subject.log.own.to(kept.text())

    def _places_seen(self) -> str:
        """Differs whenever an update of the collection has ended, or images moved."""
        meta = self._catalog.meta()
        return f"{meta.checked} {meta.moves}"

    def _current(self, preparing: Preparing, tidy: bool) -> MilvusIndex | CatalogScan:
        state, kept = self._state()
        known = _is_filled(state, kept) and kept.stamp == self._seen
        if known and not state.changed and not (tidy and kept.seen != self._places_seen()):
            return self._indexed_or_scan(state, kept, preparing, tidy)
        why = f"{self._folder} can't be written, and so not what is sent of it to {self.server}"
        try:
            if self._catalog.can_be_written():
                with filelock.FileLock(self._folder / self._lock_name, timeout=_WAIT):
                    return self._brought_up_to_date(preparing, tidy)
            if _is_filled(state, kept) and not state.changed and self._is_whole(kept):
                self._seen = kept.stamp
                return self._indexed_or_scan(state, kept, preparing, tidy)
        except filelock.Timeout:
            why = f"another process is sending images to {self.server}"
        except Overtaken:
            why = "the collection has just been given another encoder"
        except OSError as error:
            why = f"{why}: {error.strerror}"
        return CatalogScan(self._catalog, why, self.subject)

    def _brought_up_to_date(self, preparing: Preparing, tidy: bool) -> MilvusIndex | CatalogScan:
        state, kept = self._state()
        if not (_is_filled(state, kept) and self._is_whole(kept)):
            return self._build(kept, preparing)
        if state.changed:
            state, kept = self._send(state, kept, np.array(state.changed, np.int64), preparing)
        if tidy and kept.seen != self._places_seen():
            state, kept = self._send_places(state, kept, preparing)
        self._seen = kept.stamp
        return self._indexed_or_scan(state, kept, preparing, tidy)

    def _indexed_or_scan(
        self, state: IndexState, kept: Kept, preparing: Preparing, tidy: bool
    ) -> MilvusIndex | CatalogScan:
        """The collection, if the server has the index by which the recall was measured; else the catalog.

        A server that was restarted, or wrote anew what it holds, first searches by less. More images than anyone would
        compare are searched all the same.
        """
        stamp, until = self._indexed
        if stamp == kept.stamp and time.monotonic() < until:
            return self._index(state, kept)
        few, self._unindexed = _HASTY * kept.images, ""
        if self.server.without_index(kept.collection) > few:
            if tidy:
                self.server.wait_for_index(kept.collection, kept.images, int(few), preparing)
            elif kept.images <= MOST:
                self._unindexed = f"{self.server} is still making its index"
                return CatalogScan(self._catalog, self._unindexed, self.subject)
        self._indexed = kept.stamp, time.monotonic() + _LOOK
        return self._index(state, kept)

    def _index(self, state: IndexState, kept: Kept) -> MilvusIndex:
        effort = Measured.from_json(state.measured).effort
        return MilvusIndex(self, self._catalog, kept, effort, kept.seen == self._places_seen())

    def _is_whole(self, kept: Kept) -> bool:
        """Whether the server has what this catalog has sent there, and nothing else."""
        if self._seen == kept.stamp:
            return True
        stamp = self.server.stamp(kept.collection)
        if not self._is_ours(kept, stamp):
            return False
        if kept.next and stamp != {"stamp": kept.stamp}:
            return True  # a kill came between: what changed is sent again
        return self.server.count(kept.collection) == kept.images

    def _is_ours(self, kept: Kept, stamp: dict[str, Any] | None) -> bool:
        """Whether a collection was last written to by this catalog, or is one that it was filling."""
        if stamp is None:
            return False
        if not stamp:
            return not kept.stamp
        return stamp.get("stamp") in {kept.stamp, kept.next} - {""}

    def _build(self, kept: Kept, preparing: Preparing) -> MilvusIndex | CatalogScan:
        """Fills a collection anew."""
        started = time.monotonic()
        state, made_with = self._state()[0], self._catalog.meta().embedded_by
        self._vectors = source = self.subject.vectors(self._catalog)
        name = self._free_name(kept)
        kept = Kept(name, "", secrets.token_hex(8), seen=self._places_seen())
        self._catalog.set_meta(self._fact(kept))  # first, so that a kill leaves nothing behind that nobody knows
        self.server.create(name, source.dim)
        count, places = 0, 0
        for ids, packed in source.blocks():
            here = source.places(int(ids[0]), int(ids[-1]))
            self.server.write(name, ids, unit(packed), here)
            count, places = count + len(ids), _summed(places, here)
            preparing("adding", count, len(source))
        self.server.prepare(name, count, preparing)
        self.server.wait_for_index(name, count, int(_HASTY * count), preparing)
        kept = replace(kept, images=count, places=places, written=time.time())
        index = MilvusIndex(self, self._catalog, kept, 0, False)
        recall, queries = 1.0, 0
        if not index.exact and count:
            truth = Truth.of(source, preparing)
            recall, queries = truth.tune(index, EFFORTS, _FLOOR), len(truth.measuring)
        seconds = round(time.monotonic() - started, 1)
        measured = Measured(NAME, index.effort, round(recall, 4), queries, count, seconds, {})
        kept = self._sealed(kept, measured.to_json(), state.last, made_with)
        self._seen = kept.stamp
        return self._index(self._state()[0], kept)

    def _free_name(self, kept: Kept) -> str:
        """A name that no collection has; ours of before is removed."""
        if kept.collection:
            stamp = self.server.stamp(kept.collection)
            if stamp is None:
                return kept.collection
            if self._is_ours(kept, stamp):
                self.server.drop(kept.collection)
                return kept.collection
            _LOG.warning(
                "the collection %s in %s was written to by another index, as a copy of this one: it stays as it is, "
                "and this index fills one of its own",
                kept.collection,
                self.server,
            )
        return f"massl_{secrets.token_hex(8)}"

    def _sealed(self, kept: Kept, measured: str, last: int, made_with: str) -> Kept:
        """Writes the stamp that was announced, and then that it is written."""
        self.server.seal(kept.collection, self._vectors.dim, {"stamp": kept.next, "made_with": made_with})
        kept = replace(kept, stamp=kept.next, next="", written=time.time())
        index_state.take(self._catalog, kept.stamp, measured, last, made_with, [self._fact(kept)], self.subject.log)
        return kept

    def _announced(self, kept: Kept) -> Kept:
        kept = replace(kept, next=secrets.token_hex(8))
        self._catalog.set_meta(self._fact(kept))
        return kept

    def _send(
        self, state: IndexState, kept: Kept, changed: NDArray[np.int64], preparing: Preparing
    ) -> tuple[IndexState, Kept]:
        """Sends what came, went or is another."""
        made_with = self._catalog.meta().embedded_by
        kept = self._announced(kept)
        for start in range(0, len(changed), _PLACES):
            some = changed[start : start + _PLACES]
            ids, packed = self._vectors.of(some)
            here = self._vectors.places(int(some[0]), int(some[-1]))
            self.server.write(kept.collection, ids, unit(packed), here)
            self.server.delete(kept.collection, np.setdiff1d(some, ids, assume_unique=True).tolist())
            preparing("adding", start + len(some), len(changed))
        kept = replace(kept, images=self.server.count(kept.collection), seen="")
        kept = self._sealed(kept, state.measured, state.last, made_with)
        return self._state()[0], kept

    def _send_places(self, state: IndexState, kept: Kept, preparing: Preparing) -> tuple[IndexState, Kept]:
        """Sends the paths and times that are others, so that filters by folder and date go by them."""
        seen, places, done = self._places_seen(), 0, 0
        moved: list[int] = []
        unchanged = _checksum(self._vectors) == kept.places
        for ids, _ in () if unchanged else self._vectors.blocks(_PLACES):
            here = self._vectors.places(int(ids[0]), int(ids[-1]))
            there = self.server.places(kept.collection, int(ids[0]), int(ids[-1]))
            moved += [image for image, (path, mtime) in here.items() if there.get(image) != (quoted(path), mtime)]
            places, done = _summed(places, here), done + len(ids)
            preparing("comparing paths", done, kept.images)
        if moved:
            state, kept = self._send(state, kept, np.array(sorted(moved), np.int64), preparing)
        kept = replace(kept, seen=seen, places=kept.places if unchanged else places)
        self._catalog.set_meta(self._fact(kept))
        return state, kept


def _is_filled(state: IndexState, kept: Kept) -> bool:
    """Whether the catalog has noted a collection that was filled by its present encoder."""
    return bool(kept.stamp) and state.kept == kept.stamp and bool(state.measured)


def _summed(total: int, places: dict[int, tuple[bytes, int]]) -> int:
    for image, (path, mtime) in sorted(places.items()):
        total = crc32(b"%d %d %s\n" % (image, mtime, path), total)
    return total


def _checksum(vectors: VectorBlocks) -> int:
    """Of the paths and times of all images that an index has."""
    total = 0
    for here in vectors.all_places(_PLACES):
        total = _summed(total, here)
    return total
