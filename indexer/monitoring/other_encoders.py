"""Encoders that could take the place of a collection's own: which there are, and what they would change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from indexer.encoder.encoder_file import BUILTIN
from indexer.encoder.former_builtin import is_former_builtin
from indexer.encoder.onnx_encoder import Encoder
from indexer.monitoring import encoder_comparison, trained_encoders
from indexer.monitoring.encoder_comparison import Beside, Comparison
from indexer.monitoring.trained_encoders import Trained
from indexer.storage.collection_storage import Storage
from indexer.storage.index_command import index_command
from indexer.store.meta import Meta
from massl.core.errors import MasslError


class OtherEncoders:
    """A collection's encoder beside others. Safe to share by threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def compare(self, other: Encoder, report: Callable[[int, int], None] = lambda done, total: None) -> Comparison:
        """Another encoder beside the collection's own, on its labelled images; see
        `indexer.monitoring.encoder_comparison.compare`.
        """
        return encoder_comparison.compare(self._storage.root, self._storage.catalog, other, report)

    def beside(
        self, other: Trained | int, report: Callable[[str, int, int], None] = lambda step, done, total: None
    ) -> Beside:
        """A trained encoder, or the collection's own at another size, beside it; see
        `indexer.monitoring.encoder_comparison.beside`.

        Raises:
            MasslError: its file isn't what it was any more, doesn't list the size, or none of the images can be read.
        """
        report("encoder", 0, 0)
        if isinstance(other, int):
            encoder = self._storage.encoder_at(other)
        else:
            encoder = Encoder.load(other.path)
            if encoder.sha256 != other.sha256:
                raise MasslError(f"{other.path} has changed since it was found; refresh")
        return encoder_comparison.beside(self._storage.root, self._storage.catalog, encoder, report)

    def trained(self, here: Path) -> tuple[Trained, ...]:
        """Encoders other than its own that somebody who works in the folder `here` trained; see
        `indexer.monitoring.trained_encoders`.
        """
        root = self._storage.root
        own = self._storage.catalog.meta().encoder_sha256
        return trained_encoders.find(trained_encoders.places(here, root), root, own)

    def tell_of_builtin(self) -> str:
        """What to say of a collection that a former built-in encoder made: once for each new one, else nothing.

        Raises:
            MasslError: nothing can be written.
        """
        root, catalog = self._storage.root, self._storage.catalog
        meta = catalog.meta()
        if meta.builtin_told == BUILTIN or not is_former_builtin(meta.encoder_sha256, meta.encoder_name):
            return ""
        catalog.set_meta(Meta.builtin_told.to(BUILTIN))
        return (
            f"{root} is indexed with {meta.encoder_name}, the built-in encoder of an earlier version; that of "
            "this version is another and a better one. To switch, keeping the labels, run: "
            + index_command(root, self._storage.folder, "builtin")
        )
