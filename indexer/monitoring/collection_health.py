"""How a collection is: drift, its encoder, its folder and its disk; measured when it is asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from indexer.encoder.encoder_file import BUILTIN
from indexer.monitoring import drift, health
from indexer.monitoring.drift import Drift
from indexer.monitoring.health import Health, Training
from indexer.monitoring.other_encoders import OtherEncoders
from indexer.storage.collection_storage import Storage
from indexer.store import file_contents, quality, revision
from indexer.store.images import Images
from indexer.store.meta import Meta
from indexer.store.quality import Scores
from massl.core.errors import MasslError


class CollectionHealth:
    """The health of a collection. Safe to share by threads.

    Args:
        storage: where it lies.
        unusual: says how unusual each image is; told how many are compared, of how many.
    """

    def __init__(self, storage: Storage, unusual: Callable[[Callable[[int, int], None]], Scores]) -> None:
        self._storage = storage
        self._unusual = unusual

    def check(
        self,
        report: Callable[[str, int, int], None] = lambda step, done, total: None,
        here: Path | None = None,
    ) -> Health:
        """What takes a moment to find out: drift, the encoder, the folder and the disk; see
        `indexer.monitoring.health`.

        Args:
            report: told the step, and how much of it is done, of how much.
            here: where somebody works, and may have trained an encoder; it is not looked for if left out.

        Raises:
            CatalogDamaged: something in the catalog is not as it was written.
        """
        storage, catalog = self._storage, self._storage.catalog
        report("catalog", 0, 0)
        catalog.examine(whole=True)
        report("drift", 0, 0)
        found = self.drift()
        training, sizes = self.encoder_file()
        meta = catalog.meta()
        contents = file_contents.read(storage.folder, meta.rendering)
        since = health.behind(storage.root, catalog, meta.exclude, meta.include or (), contents, report)
        report("disk", 0, 0)
        images = Images(catalog)
        waiting, count = images.unembedded(), images.count()
        builtin = catalog.meta().encoder_sha256 == BUILTIN
        report("trained", 0, 0)
        others = OtherEncoders(storage).trained(here) if here else ()
        on_these = any(other.on_these for other in others)
        advice = health.advise(storage.root, storage.folder, found, since, waiting, count, builtin, on_these)
        report("comparing", 0, 0)
        compared = partial(self._unusual, partial(report, "comparing"))
        hints = {name: number for name, (number, _) in quality.counts(catalog, compared).items()}
        return Health(found, training, storage.image_size, sizes, since, self.disk_use(), advice, others, hints)

    def tell_of_square(self) -> str:
        """What to say, once, of what the encoder isn't given; see `indexer.store.quality.tell_of_square`."""
        return quality.tell_of_square(self._storage.catalog)

    def tell_of_tiles(self) -> str:
        """What to say, once, where tiles would show much more; see `indexer.store.quality.tell_of_tiles`."""
        size = self._storage.image_size
        return quality.tell_of_tiles(self._storage.catalog, size) if size else ""

    def drift(self) -> Drift:
        """How unlike its encoder's training images, and its newest images the others; see `indexer.monitoring.drift`.

        Measured once for as long as the images stay the same.
        """
        catalog = self._storage.catalog
        images = revision.read(catalog).images
        known, measured = catalog.meta().drift
        if known == images:
            return Drift.from_json(measured)
        try:
            encoder = self._storage.encoder
            whitening, mean = encoder.whitening, encoder.mean_embedding
        except MasslError:  # its copy is damaged: what it was trained on can't be told, all else can
            return drift.of_collection(catalog, 0.0)
        found = drift.of_collection(catalog, whitening, mean)
        with contextlib.suppress(MasslError):  # a read-only or full disk costs the measuring each time
            catalog.set_meta(Meta.drift.to((images, found.to_json())))
        return found

    def encoder_file(self) -> tuple[Training | None, tuple[int, ...]]:
        """How its encoder came about, and the sizes that it can be used at; nothing if its copy can't be read."""
        try:
            return health.training(self._storage.encoder), self._storage.encoder.image_sizes
        except MasslError:
            return None, ()

    def disk_use(self) -> int:
        """Bytes of the collection's folder."""
        total = 0
        for folder, _, names in os.walk(self._storage.folder):
            for name in names:
                with contextlib.suppress(OSError):  # it has gone meanwhile, as temporary files do
                    total += os.stat(os.path.join(folder, name)).st_size
        return total
