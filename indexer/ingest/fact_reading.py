"""What is known of pictures beside their embeddings: read with each new file, and later of what is not known yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from indexer.store.catalog import Catalog
from indexer.store.paths import below
from indexer.store.picture_facts import MetadataRow, PictureFacts, Unread
from massl.core.files.sidecars import Sidecar
from massl.core.images.content import Content
from massl.core.images.decoding import decode, within_memory
from massl.core.images.file_reading import open_content
from massl.core.images.image_errors import ImageError
from massl.core.images.measures import MEASURED_AT, Measures, measure
from massl.core.images.metadata import Metadata, read_beside
from massl.core.lookahead import ahead

BATCH = 256  # images in a transaction

Found = TypeVar("Found")
FactReport = Callable[[Literal["read", "measure"], int, int], None]
"""Is told the step, `read` or `measure`, and how many of how many images are done."""


def metadata_of(root: Path, path: str, sidecar: Sidecar | None, data: Content) -> Metadata:
    """What a picture, and the file beside it, say.

    Args:
        root: the folder.
        path: the picture's, relative to it.
        sidecar: the file beside it, if there is one.
        data: the picture's content.
    """
    return read_beside(data, below(root, sidecar.path) if sidecar else None, path)


def read_missing(
    root: Path, catalog: Catalog, files: Mapping[str, Sidecar], max_pixels: int, report: FactReport
) -> tuple[int, int]:
    """Reads what is not known yet: first what needs no pixels, of all, then what does.

    Each batch is a transaction. What can't be read now is tried again the next time.

    Args:
        root: the folder.
        catalog: is written.
        files: the sidecars that lie there now, by the path of their picture.
        max_pixels: larger images are not decoded.
        report: see `FactReport`.

    Returns:
        of how many images metadata was read, and how many were measured.
    """
    facts = PictureFacts(catalog)
    unread = facts.without_metadata({path: sidecar.state for path, sidecar in files.items()})

    def told(item: Unread) -> MetadataRow | None:
        sidecar = files.get(item.path)
        try:
            with within_memory(), open_content(below(root, item.path)) as data:
                said = metadata_of(root, item.path, sidecar, data)
        except ImageError:
            return None
        return MetadataRow(item.image, said, sidecar.state if sidecar else "")

    for rows in _batches(told, unread, "read", report):
        facts.write(metadata=rows)

    unmeasured = facts.without_measures()
    known = facts.measured(sorted({item.hash for item in unmeasured}))
    facts.write(measures=[(item.image, known[item.hash]) for item in unmeasured if item.hash in known])
    rendering = catalog.rendering
    left = [item for item in unmeasured if item.hash not in known]

    def measured(item: Unread) -> tuple[int, Measures] | None:
        try:
            with within_memory(), open_content(below(root, item.path)) as data:
                return item.image, measure(decode(data, MEASURED_AT, max_pixels, rendering).picture)
        except ImageError:
            return None

    for found in _batches(measured, left, "measure", report):
        facts.write(measures=found)
    return len(unread), len(unmeasured)


def _batches(
    function: Callable[[Unread], Found | None],
    items: Sequence[Unread],
    step: Literal["read", "measure"],
    report: FactReport,
) -> Iterable[list[Found]]:
    """What a function finds of items, in threads, a batch at a time."""
    if not items:
        return
    report(step, 0, len(items))
    done = 0
    with closing(ahead(function, items)) as results:
        while batch := list(islice(results, BATCH)):
            done += len(batch)
            yield [found for found in batch if found is not None]
            report(step, done, len(items))
