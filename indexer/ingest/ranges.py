"""The ranges of a collection's deep files while it is indexed: measured when the first such file comes, then kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from indexer.jobs.lookahead import ahead
from indexer.store.catalog import Catalog
from indexer.store.kind_ranges import KindRange
from indexer.store.meta import Meta, Written
from massl.core.files.scan import ImageFile
from massl.core.images.decoding import ImageError, decode_scaled, depends_on, read_bytes, within_memory
from massl.core.images.rendering import (
    BY_COLLECTION,
    EACH_FILE,
    FILES,
    Limits,
    Rendering,
    Sampling,
    measured,
    numbers_per_file,
)

_LOOKED_AT = 4 * FILES  # files at most, to find `FILES` with numbers of one kind
_AHEAD = 32  # files that are read before their numbers are taken over
_SMALL = 64  # pixels of the shorter side of what is decoded for its numbers alone


class Ranges:
    """How deep files are shown: as somebody told, or each by its own numbers."""

    def __init__(self, rendering: Rendering = EACH_FILE) -> None:
        self.rendering = rendering

    def measure(self, kind: str) -> None:
        """Finds the range of a kind of numbers that `rendering` doesn't know; there is none here."""
        raise AssertionError(kind)

    def concern(self, data: bytes) -> bool:
        """Whether a file's pixels may depend on the ranges: an embedding from elsewhere is of another picture then."""
        return False


class CollectionRanges(Ranges):
    """Those of a collection, which a run keeps in its catalog. Safe to share by threads.

    Args:
        root: the folder.
        catalog: has the ranges of before, and takes new ones.
        files: those that the run embeds: ranges are measured on them.
        max_pixels: larger images are not looked at.
    """

    def __init__(self, root: Path, catalog: Catalog, files: Sequence[ImageFile], max_pixels: int) -> None:
        meta = catalog.meta()
        super().__init__(replace(meta.rendering, measuring=meta.display_range == BY_COLLECTION))
        self._root = root
        self._catalog = catalog
        self._files = files
        self._max_pixels = max_pixels
        self._known = dict(meta.kind_ranges)
        self._before = frozenset(self.rendering.limits) if self.rendering.fixed is None else None
        self._lock = threading.RLock()  # also while the catalog is written, so that no older state is written last

    def measure(self, kind: str) -> None:
        """Finds the range of a kind of numbers and keeps it, before anything is embedded with it.

        A kind whose numbers are all the same gets none that is kept: its pictures are black, and the next run looks
        again.
        """
        with self._lock:
            if kind in self.rendering.limits:
                return  # another thread has been at it
            found = self._samples(kind)
            low, high = measured(sampling.taken[kind] for sampling in found)
            if low < high:
                before = self._known.get(kind, KindRange())
                self._known[kind] = replace(
                    before,
                    low=low,
                    high=high,
                    measured_on=len(found),
                    masks=sum(kind in sampling.masks for sampling in found),
                )
                self._catalog.set_meta(Meta.kind_ranges.to(self._known))
            limits: Limits = (low, high) if low < high else (low, low + 1)
            self.rendering = replace(self.rendering, limits={**self.rendering.limits, kind: limits})

    def concern(self, data: bytes) -> bool:
        """See `Ranges.concern`."""
        return (self.rendering.measuring or bool(self.rendering.key)) and depends_on(self.rendering, data)

    @contextmanager
    def noting(self, clipped: Iterable[Mapping[str, float | None]]) -> Iterator[list[Written]]:
        """The facts to write with a batch of files; until the end of the block nobody else writes them.

        Args:
            clipped: of each file; see `massl.core.images.rendering.Scaling`.
        """
        with self._lock:
            deep = [found for found in clipped if found]
            for found in deep:
                for kind, share in found.items():
                    later = self._before is None or kind in self._before
                    known = self._known.get(kind, KindRange())
                    self._known[kind] = known.with_file(share if later else None)
            yield [Meta.kind_ranges.to(self._known)] if deep else []

    def _samples(self, kind: str) -> list[Sampling]:
        """Numbers of up to `FILES` files, in an order that only the paths decide."""
        shuffled = sorted(
            (file for file in self._files if _may_be_named_so(file.path)),
            key=lambda file: hashlib.sha256(file.path.encode("utf-8", "surrogateescape")).digest(),
        )
        most = numbers_per_file(len(shuffled))

        def numbers(file: ImageFile) -> Sampling | None:
            sampling = Sampling(most, self.rendering)
            try:
                with within_memory():
                    data = read_bytes(self._root / file.path)
                    if depends_on(self.rendering, data):
                        decode_scaled(data, sampling, _SMALL, self._max_pixels)
            except ImageError:
                return None  # the run will say why
            return sampling if kind in sampling.taken else None

        found: list[Sampling] = []
        with closing(ahead(numbers, shuffled[:_LOOKED_AT], _AHEAD)) as samples:
            for sample in samples:
                if sample is not None:
                    found.append(sample)
                    if len(found) == FILES:
                        break
        return found


_NEVER_DEEP = (".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".heic", ".heif", ".avif")


def _may_be_named_so(path: str) -> bool:
    """Whether a file of this name may be deep, so that it is worth opening for that."""
    return not path.lower().endswith(_NEVER_DEEP)
