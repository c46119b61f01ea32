"""The ranges of a collection's deep files while it is indexed: measured when the first such file comes, then kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from indexer.store.catalog import Catalog
from indexer.store.kind_ranges import KindRange
from indexer.store.meta import Meta, Written
from massl.core.files.scan import ImageFile
from massl.core.images.content import Content
from massl.core.images.decoding import depends_on
from massl.core.images.file_reading import open_content, read_bytes
from massl.core.images.ranges import MeasuredRanges, RangeSampler
from massl.core.images.rendering import Limits, Sampling


class CollectionRanges(MeasuredRanges):
    """Those of a collection, which a run keeps in its catalog. Safe to share by threads.

    Args:
        root: the folder.
        catalog: has the ranges of before, and takes new ones.
        files: those that the run embeds: ranges are measured on them.
        max_pixels: larger images are not looked at.
    """

    def __init__(self, root: Path, catalog: Catalog, files: Sequence[ImageFile], max_pixels: int) -> None:
        meta = catalog.meta()
        paths = [file.path for file in files]
        sampler = RangeSampler(
            len(paths),
            paths.__getitem__,
            lambda at: read_bytes(root / paths[at]),
            max_pixels,
            opened=lambda at: open_content(root / paths[at]),
        )
        # Their lock is held also while the catalog is written, so that no older state is written last.
        super().__init__(meta.shown_as.rendering(measuring=True), sampler)
        self._catalog = catalog
        self._known = dict(meta.kind_ranges)
        self._before = frozenset(self.rendering.limits) if self.rendering.fixed is None else None

    def keep(self, limits: Mapping[str, Limits]) -> None:
        """Takes over and keeps ranges that were measured where files were embedded, of kinds that aren't known yet."""
        with self._lock:
            new = {kind: pair for kind, pair in limits.items() if kind not in self.rendering.limits}
            if new:
                self.adopt(new)
                self._known |= {
                    kind: replace(self._known.get(kind, KindRange()), low=low, high=high)
                    for kind, (low, high) in new.items()
                }
                self._catalog.set_meta(Meta.kind_ranges.to(self._known))

    def concern(self, data: Content) -> bool:
        """Whether a file's pixels may depend on the ranges: an embedding from elsewhere is of another picture then."""
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

    def _take(self, kind: str, samples: Sequence[Sampling]) -> Limits:
        """Also keeps the range, before anything is embedded with it.

        A kind whose numbers are all the same gets none that is kept: its pictures are black, and the next run looks
        again.
        """
        low, high = super()._take(kind, samples)
        if low < high:
            self._known[kind] = replace(
                self._known.get(kind, KindRange()),
                low=low,
                high=high,
                measured_on=len(samples),
                masks=sum(kind in sample.masks for sample in samples),
            )
            self._catalog.set_meta(Meta.kind_ranges.to(self._known))
        return low, high
