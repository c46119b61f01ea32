"""What a collection gives to other tools: its labels and tags as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from indexer.label_formats import exporting, tag_sidecars
from indexer.label_formats.tag_sidecars import SidecarReport
from indexer.store.catalog import Catalog


class CollectionExports:
    """The labels and tags of a collection as text, or beside its images. Safe to share by threads."""

    def __init__(
        self, root: Path, catalog: Catalog, predictions: Callable[[float], list[tuple[int, str, float]]]
    ) -> None:
        """Args:
        root: the folder of images.
        catalog: the collection's.
        predictions: id, class and probability of the images without a label, from this probability on.
        """
        self._root = root
        self._catalog = catalog
        self._predictions = predictions

    def labels(self, kind: str, predictions: bool = False, sure: float = 0.0) -> str:
        """The labels as the text of a file.

        Args:
            kind: one of `indexer.label_formats.exporting.FORMATS`.
            predictions: with the predicted classes of images that nobody has labelled.
            sure: the least probability of those.

        Raises:
            MasslError: no such format, nothing labelled, or, for predictions, labels of fewer than two classes.
        """
        guesses = self._predictions(sure) if predictions else []
        return exporting.write(kind, exporting.rows(self._catalog, guesses), self._root.resolve().name)

    def tags(self, kind: str) -> str:
        """The tags as the text of a file of this kind, one of `indexer.label_formats.exporting.TAG_FORMATS`.

        Raises:
            MasslError: no such format.
        """
        return exporting.write_tags(kind, exporting.tag_rows(self._catalog), self._root.resolve().name)

    def write_sidecars(self) -> SidecarReport:
        """Writes the tags of each image into the XMP file beside it; see `indexer.label_formats.tag_sidecars`."""
        return tag_sidecars.write(self._root, self._catalog)
