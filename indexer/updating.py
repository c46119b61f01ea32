"""Brings a collection up to date with its folder: its images, then the journal, the calibration and the index."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from indexer.encoder.runtimes import Wanted
from indexer.ingest import indexing
from indexer.ingest.embedding_table import EmbeddingTables
from indexer.recovery.journal_restore import LabelJournal
from indexer.search.engines.interface import Preparing
from indexer.search.searcher import Searcher
from indexer.storage.collection_storage import Storage
from indexer.store import arrivals, file_contents, revision
from indexer.store.catalog import Catalog, now
from indexer.store.labels import Labels
from indexer.store.meta import Meta
from massl.core.files.atomic_writing import remove_forgotten


@dataclass(frozen=True)
class UpdateSettings:
    """What a collection remembers for later updates; None leaves it as it was.

    Attributes:
        exclude: patterns of files and folders to leave out.
        include: patterns of hidden files and of folders made by a system to look into. A collection from before such
            folders were left out keeps those that hold labelled images.
        max_pixels: the largest image to read.
    """

    exclude: Sequence[str] | None = None
    include: Sequence[str] | None = None
    max_pixels: int | None = None


def update(
    storage: Storage,
    labels: Labels,
    journal: LabelJournal,
    searcher: Searcher,
    runtime: Wanted,
    settings: UpdateSettings,
    embeddings: EmbeddingTables | None,
    report: Callable[[indexing.IndexProgress], None],
    preparing: Preparing,
) -> indexing.IndexReport:
    """See `Collection.update`, which holds the lock."""
    started, catalog = time.monotonic(), storage.catalog
    remove_forgotten(storage.folder)
    catalog.seal()
    kept_folders = _remember(catalog, settings, labels)
    meta = catalog.meta()
    known = file_contents.read(storage.folder, meta.rendering)
    result = indexing.update(
        storage.root, catalog, lambda count: storage.encoder.for_many(count, runtime), report,
        meta.exclude, meta.max_pixels, meta.include or (), known, embeddings,
    )  # fmt: skip
    file_contents.keep(storage.folder, known)
    arrivals.note(catalog)
    catalog.set_meta(Meta.left_out.to(result.left_out), Meta.checked.to(now()))
    journal.settle(f"massl label restore {shlex.quote(str(storage.root))}")
    images = revision.read(catalog).images
    if catalog.meta().calibrated_generation != images:
        catalog.set_meta(
            Meta.calibration.to(searcher.calibrate().to_json()),
            Meta.calibrated_generation.to(images),
            Meta.updated.to(now()),
        )
    searcher.tidy_up(preparing)
    return replace(result, seconds=time.monotonic() - started, kept_folders=kept_folders)


def _remember(catalog: Catalog, settings: UpdateSettings, labels: Labels) -> tuple[str, ...]:
    """Keeps what was asked for; returns the folders that are looked into as they hold labelled images."""
    if settings.exclude is not None:
        catalog.set_meta(Meta.exclude.to(tuple(settings.exclude)))
    if settings.max_pixels is not None:
        catalog.set_meta(Meta.max_pixels.to(settings.max_pixels))
    kept: tuple[str, ...] = ()
    if settings.include is not None:
        catalog.set_meta(Meta.include.to(tuple(settings.include)))
    elif catalog.meta().include is None:
        kept = tuple(sorted(labels.system_folders()))
        catalog.set_meta(Meta.include.to(kept))
    return kept
