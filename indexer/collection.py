"""A collection: a folder of images and the `.massl` folder that knows them. What the commands and the page call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from indexer import updating
from indexer.anomalies.collection_anomalies import CollectionAnomalies
from indexer.duplicates.collection_duplicates import CollectionDuplicates
from indexer.encoder.onnx_encoder import Encoder
from indexer.encoder.runtimes import Wanted
from indexer.fewshot.label_state import CollectionFewshot
from indexer.fewshot.tag_proposals import CollectionTagProposals
from indexer.ingest import indexing
from indexer.ingest.embedding_table import EmbeddingTables
from indexer.label_formats.collection_exports import CollectionExports
from indexer.monitoring.collection_health import CollectionHealth
from indexer.monitoring.other_encoders import OtherEncoders
from indexer.projection.collection_map import CollectionMap
from indexer.recovery.journal_restore import LabelJournal
from indexer.search.engines.engine_choice import CHOSEN
from indexer.search.engines.interface import Engine, Preparing
from indexer.search.query import Query, Result
from indexer.search.searcher import Searcher
from indexer.storage.collection_storage import Storage
from indexer.storage.folder_images import FolderImages
from indexer.store import revision
from indexer.store.confirmations import Confirmations
from indexer.store.decisions import Decisions
from indexer.store.labels import Labels
from indexer.store.meta import Meta
from indexer.store.rejections import Rejections
from indexer.store.revision import Revision
from indexer.store.tags import RejectedTags, Tags
from indexer.store.tiling import Tiling
from indexer.subsets.collection_subsets import CollectionSubsets
from massl.core.files.scan import check_folder
from massl.core.images.rendering import AS_BEFORE, RenderingChoice


class Collection:
    """Opened by `Collection.open`, or by `Collection.create` if it need not be there yet. Safe to share by threads.

    Attributes:
        root, folder: the folder of images, and the collection's own.
        storage: where it lies, and the encoder that it is made with.
        images: which there are, their paths, facts and thumbnails.
        labels: those that people gave.
        rejections: labels that were proposed, and are wrong.
        tags: those that people gave, several an image.
        rejected_tags: tags that were proposed, and are wrong.
        confirmations: labels that are right although they are suspect.
        decisions: what is to be kept of duplicates.
        journal: what people said, beside the catalog.
        searcher: ranks and describes images, and explains what was found.
        tag_proposals: which other images probably have a tag.
        fewshot: classes for the rest, labels to doubt, and which images to label next.
        exports: labels and tags as other tools read them.
        duplicates: copies, exact and near.
        anomalies: how unusual images are.
        subsets: images to take away that show what the rest is like, and splits of them.
        map: the images in the plane.
        health: drift, and what the folder has become since.
        encoders: others that could take the place of its own.
        updating: whether this process is bringing it up to date.
    """

    def __init__(self, storage: Storage, engines: Engine = CHOSEN, runtime: Wanted = "auto") -> None:
        self.root = storage.root
        self.folder = storage.folder
        self.catalog = storage.catalog
        self.storage = storage
        self._runtime = runtime
        self.labels = Labels(storage.catalog)
        self.rejections = Rejections(storage.catalog)
        self.confirmations = Confirmations(storage.catalog)
        self.tags = Tags(storage.catalog)
        self.rejected_tags = RejectedTags(storage.catalog)
        self.decisions = Decisions(storage.catalog)
        self.journal = LabelJournal(storage.catalog)
        self.searcher = Searcher(storage.root, storage.folder, storage.catalog, engines, lambda: storage.encoder)
        self.anomalies = CollectionAnomalies(storage, self.searcher)
        self.images = FolderImages(storage, self.anomalies.scores)
        self.fewshot = CollectionFewshot(storage.catalog)
        self.exports = CollectionExports(storage.root, storage.catalog, self.fewshot.predictions)
        self.tag_proposals = CollectionTagProposals(storage.catalog, self.fewshot)
        self.duplicates = CollectionDuplicates(storage.root, storage.catalog, self.searcher.index)
        self.subsets = CollectionSubsets(storage.root, storage.catalog, self.searcher)
        self.map = CollectionMap(storage.catalog, storage.folder)
        self.health = CollectionHealth(storage, self.anomalies.scores)
        self.encoders = OtherEncoders(storage)
        self.updating = False

    @classmethod
    def open(
        cls,
        root: Path | str,
        index_dir: Path | str | None = None,
        *,
        engines: Engine = CHOSEN,
        runtime: Wanted = "auto",
    ) -> Collection:
        """Opens the collection of a folder; `engines` and `runtime` are as for `create`.

        Raises:
            MasslError: the folder is missing, was never indexed, or its catalog can't be read.
        """
        return cls(Storage.open(root, index_dir), engines, runtime)

    @classmethod
    def create(
        cls,
        root: Path | str,
        encoder: Encoder | None = None,
        index_dir: Path | str | None = None,
        rebuild: bool = False,
        *,
        engines: Engine = CHOSEN,
        include: Sequence[str] = (),
        runtime: Wanted = "auto",
        shown: RenderingChoice = AS_BEFORE,
        tiling: Tiling | None = None,
        exclude: Sequence[str] | None = None,
    ) -> Collection:
        """Opens the collection of a folder, or makes an empty one for this encoder (the built-in one if left out).

        Args:
            root: the folder of images.
            encoder: the encoder that the collection has or is to have, at the size that it is loaded for; any that it
                has if left out.
            index_dir: where the collection lies, if not in `root/.massl`.
            rebuild: forget every embedding of a collection that is there, and take this encoder. Update it next.
            engines: what it is searched with: the engine that its catalog names, unless told otherwise.
            include: what would be left out and may be all that there is; see `update`, which remembers it.
            runtime: what embeds many pictures; see `Encoder.for_many`.
            shown: how files of more than 8 bits are shown, where that is not to be as before.
            tiling: how large pictures are cut into tiles, each with a vector of its own; as the collection remembers
                it if left out, and without tiles for one of size 0.
            exclude: what is to be left out; see `update`, which remembers it.

        Raises:
            EncoderMismatch: there is a collection already, made with another encoder, at another size, or with its
                deep files shown otherwise.
            TilesMismatch: there is one already, with other tiles or none, and `rebuild` is not set.
            MasslError: no folder, or nothing can be written.
        """
        return cls(Storage.create(root, encoder, index_dir, rebuild, include, shown, tiling, exclude), engines, runtime)

    @staticmethod
    def choose_encoder(
        root: Path | str, file: Path | None = None, image_size: int | None = None, index_dir: Path | str | None = None
    ) -> Encoder | None:
        """The encoder that somebody asks for, ready for `create`, by its file, its size, or both.

        Args:
            root: the folder of images.
            file: the encoder's; the collection's own, or the built-in one for a new collection, if left out.
            image_size: its input side in pixels; if left out, that of the collection where it is
                the collection's own file, else the file's usual one.
            index_dir: where the collection lies, if not in `root/.massl`.

        Returns:
            None if neither is told.

        Raises:
            MasslError: no folder, an encoder that can't be used, or one that doesn't list the size.
        """
        return Storage.choose_encoder(root, index_dir, file, image_size)

    @property
    def encoder(self) -> Encoder:
        """The encoder that the collection is made with now, at its size; a copy of it lies in the collection's folder.

        Raises:
            EncoderDamaged: the copy is damaged and can't be made anew.
        """
        return self.storage.encoder

    @property
    def meta(self) -> Meta:
        """The collection's own facts, as they are now; raises `CatalogDamaged` where one is not as it was written."""
        return self.catalog.meta()

    def revision(self) -> Revision:
        """What it is now, part by part: what differs from an earlier revision has changed since."""
        return revision.read(self.catalog)

    def __len__(self) -> int:
        return self.images.count()

    def close(self) -> None:
        """Closes the calling thread's connection to the catalog; the next call in this thread opens another."""
        self.catalog.close()

    def update(
        self,
        report: Callable[[indexing.IndexProgress], None] = lambda progress: None,
        preparing: Preparing = lambda step, done, total: None,
        *,
        exclude: Sequence[str] | None = None,
        max_pixels: int | None = None,
        include: Sequence[str] | None = None,
        embeddings: EmbeddingTables | None = None,
    ) -> indexing.IndexReport:
        """Brings the collection up to date with its folder; see `indexer.ingest.indexing.update`.

        Args:
            report: told how far the images are.
            preparing: told how far the search engine's index is, where it has to be built.
            exclude: patterns of files and folders to leave out from now on; those of before if left out.
            max_pixels: the largest image to read from now on; that of before if left out.
            include: patterns of hidden files and of folders made by a system to look into from now on; those of before
                if left out. A collection from before such folders were left out keeps those that hold labelled images.
            embeddings: made elsewhere, by this very encoder: images that they hold are not decoded.

        Raises:
            MasslError: another process is indexing it, or nothing can be written.
        """
        check_folder(self.root)
        settings = updating.UpdateSettings(exclude, include, max_pixels)
        with self.storage.held(), self._noted():
            return updating.update(
                self.storage, self.labels, self.journal, self.searcher, self._runtime, settings, embeddings, report,
                preparing,
            )  # fmt: skip

    @contextmanager
    def _noted(self) -> Iterator[None]:
        self.updating = True
        try:
            yield
        finally:
            self.updating = False

    def search(
        self,
        queries: Sequence[Query],
        k: int = 20,
        *,
        label: str | Sequence[str] = (),
        under: str | Sequence[str] = (),
        since: date | None = None,
        until: date | None = None,
        taken: tuple[date | None, date | None] = (None, None),
        quality: Sequence[str] = (),
        tags: Sequence[str] = (),
        any_tags: Sequence[str] = (),
        without_tags: Sequence[str] = (),
        camera: str | Sequence[str] = (),
        rating: int | None = None,
        orientation: str = "",
        named: Sequence[str] = (),
        exact: bool = False,
    ) -> list[Result]:
        """The `k` images most like the queries taken together, best first.

        Several queries are averaged; those with a negative weight are subtracted. An image that is itself a query is
        left out of the results. Scores are exact cosines with the catalog's embeddings, whichever engine found them.

        Args:
            queries: at least one with a positive weight.
            k: how many results, at least 1.
            label: only images that carry this label, or one of these.
            under: only images below this folder, or one of these; relative to the root.
            since: only images whose file was last modified on this day or later, in local time.
            until: only those whose file was last modified on this day or earlier.
            taken: only images that were taken from the first of these days to the second, by the camera's clock.
            quality: only images that one of these hints is about; see `indexer.store.quality.HINTS`.
            tags: only images that carry all of these tags.
            any_tags: only images that carry one of these tags.
            without_tags: only images that carry none of these tags.
            camera: only images by this camera, or one of these: its name, or a part of it.
            rating: only images with so many stars or more, 1 to 5.
            orientation: only images of one of `indexer.store.filters.ORIENTATIONS`.
            named: only images whose path has each of these words, in capitals or not.
            exact: compare with every image, whatever it takes; else the collection's engine may miss a few.

        Raises:
            MasslError: no positive query, an image that the collection doesn't hold, or a filter that none passes.
        """
        wanted = self.images.filter(
            label=label, under=under, since=since, until=until, taken=taken,
            quality=quality, tags=tags, any_tags=any_tags, without_tags=without_tags,
            camera=camera, rating=rating, orientation=orientation, named=named,
        )  # fmt: skip
        return self.searcher.describe(self.searcher.rank(queries, max(1, k), wanted, exact=exact))
