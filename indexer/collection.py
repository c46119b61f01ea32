"""A collection: a folder of images and the `.massl` folder that knows them. What the commands and the page call."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.duplicates import detection
from indexer.duplicates.detection import Duplicate, Duplicates
from indexer.encoder.former_builtin import is_former_builtin
from indexer.encoder.onnx_encoder import BUILTIN, Encoder
from indexer.encoder.runtimes import Wanted
from indexer.fewshot import onnx_export
from indexer.fewshot.classification import Classification, Classifier
from indexer.fewshot.clusters import GROUPS, Group
from indexer.fewshot.label_errors import Suspect
from indexer.fewshot.label_state import Labelling, LabellingState
from indexer.fewshot.learning_curve import LearningCurve
from indexer.index_command import index_command
from indexer.ingest import indexing
from indexer.label_formats import exporting
from indexer.monitoring import drift, encoder_comparison, health, trained_encoders
from indexer.monitoring.drift import Drift
from indexer.monitoring.encoder_comparison import Beside, Comparison
from indexer.monitoring.health import Health, Training
from indexer.monitoring.trained_encoders import Trained
from indexer.projection import categories
from indexer.projection.categories import Kinds
from indexer.projection.collection_map import CollectionMap
from indexer.recovery import journal_restore
from indexer.recovery.journal_restore import Restored
from indexer.search import calibration, query
from indexer.search.calibration import Calibration
from indexer.search.engines.engine_selection import MARGIN, Ladder, Measured, nearest
from indexer.search.engines.faiss_engines import LADDER
from indexer.search.engines.interface import Preparing
from indexer.search.heat_map import Heat, HeatMaps
from indexer.search.index import AmendedIndex, CollectionIndex
from indexer.search.query import Query, Ranking, Result
from indexer.storage import Home
from indexer.store import arrivals, confirmations, decisions, file_contents, images, labels, rejections
from indexer.store.catalog import now
from indexer.store.filters import EVERYTHING, Filter, Outline, among, dates, exists, folders, in_order
from indexer.store.image_facts import Facts, facts, file_state, image_of
from indexer.store.labels import Label
from indexer.store.meta import Meta
from indexer.store.paths import below
from indexer.store.thumbnails import SIDE, Thumbnails
from indexer.store.vectors import CatalogVectors, unit
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import remove_forgotten
from massl.core.files.scan import Skipped, check_folder


class Collection:
    """Opened by `Collection.open`, or by `Collection.create` if it need not be there yet. Safe to share by threads."""

    def __init__(self, home: Home, engines: Ladder = LADDER, runtime: Wanted = "auto") -> None:
        self.root = home.root
        self.folder = home.folder
        self.catalog = home.catalog
        self._home = home
        self._runtime = runtime
        self._index = CollectionIndex(self.catalog, self.folder, engines)
        self.map = CollectionMap(self.catalog, self.folder)
        self.updating = False  # whether this process is bringing it up to date
        self._labelling = Labelling(self.catalog)
        self._heat = HeatMaps(self.catalog, self.root)
        self._thumbnails = Thumbnails(self.folder)
        self._outline: tuple[str, Outline] | None = None

    # Opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        root: Path | str,
        index_dir: Path | str | None = None,
        *,
        engines: Ladder = LADDER,
        runtime: Wanted = "auto",
    ) -> Collection:
        """Opens the collection of a folder, to be searched by these engines; `runtime` is as for `create`.

        Raises:
            MasslError: the folder is missing, was never indexed, or its catalog can't be read.
        """
        return cls(Home.open(root, index_dir), engines, runtime)

    @classmethod
    def create(
        cls,
        root: Path | str,
        encoder: Encoder | None = None,
        index_dir: Path | str | None = None,
        rebuild: bool = False,
        *,
        engines: Ladder = LADDER,
        include: Sequence[str] = (),
        runtime: Wanted = "auto",
    ) -> Collection:
        """Opens the collection of a folder, or makes an empty one for this encoder (the built-in one if left out).

        Args:
            root: the folder of images.
            encoder: the encoder that the collection has or is to have, at the size that it is loaded for; any that it
                has if left out.
            index_dir: where the collection lies, if not in `root/.massl`.
            rebuild: forget every embedding of a collection that is there, and take this encoder. Update it next.
            engines: what it is searched with, by size.
            include: what would be left out and may be all that there is; see `update`, which remembers it.
            runtime: what embeds many pictures; see `Encoder.for_many`.

        Raises:
            EncoderMismatch: there is a collection already, made with another encoder, or at another size.
            MasslError: no folder, or nothing can be written.
        """
        return cls(Home.create(root, encoder, index_dir, rebuild, include), engines, runtime)

    @staticmethod
    def choose_encoder(
        root: Path | str,
        file: Path | None = None,
        image_size: int | None = None,
        index_dir: Path | str | None = None,
    ) -> Encoder | None:
        """The encoder that somebody asks for, ready for `create`, by its file, its size, or both.

        Args:
            root: the folder of images.
            file: the encoder's; the collection's own, or the built-in one for a new collection, if left out.
            image_size: side in pixels of the pictures that it looks at; if left out, that of the collection where it is
                the collection's own file, else the file's usual one.
            index_dir: where the collection lies, if not in `root/.massl`.

        Returns:
            None if neither is told.

        Raises:
            MasslError: no folder, an encoder that can't be used, or one that doesn't list the size.
        """
        return Home.choose_encoder(root, index_dir, file, image_size)

    def made_by(self, encoder: Encoder) -> bool:
        """Whether the collection was embedded by this very encoder, at the size that it is used at."""
        return self._home.made_by(encoder)

    def check_fits(self, encoder: Encoder | None) -> None:
        """Raises `EncoderMismatch` if the collection was embedded by another encoder, or at another size."""
        self._home.check_fits(encoder)

    @property
    def encoder(self) -> Encoder:
        """The encoder that the collection is made with now, at its size; a copy of it lies in the collection's folder.

        Raises:
            EncoderDamaged: the copy is damaged and can't be made anew.
        """
        return self._home.encoder

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the pictures that the encoder looks at; None if only its file tells and can't be read."""
        return self._home.image_size

    # Indexing -----------------------------------------------------------------------------------------------------

    def update(
        self,
        report: Callable[[indexing.Progress], None] = lambda progress: None,
        preparing: Preparing = lambda step, done, total: None,
        *,
        exclude: Sequence[str] | None = None,
        max_pixels: int | None = None,
        include: Sequence[str] | None = None,
    ) -> indexing.IndexReport:
        """Brings the collection up to date with its folder; see `indexer.ingest.indexing.update`.

        Args:
            report: told how far the images are.
            preparing: told how far the search engine's index is, where it has to be built.
            exclude: patterns of files and folders to leave out from now on; those of before if left out.
            max_pixels: the largest image to read from now on; that of before if left out.
            include: patterns of hidden files and of folders made by a system to look into from now on; those of before
                if left out. A collection from before such folders were left out keeps those that hold labelled images.

        Raises:
            MasslError: another process is indexing it, or nothing can be written.
        """
        check_folder(self.root)
        with self._home.held(), self._noted():
            started = time.monotonic()
            remove_forgotten(self.folder)
            self.catalog.seal()
            if exclude is not None:
                self.catalog.set_meta(Meta.exclude.to(tuple(exclude)))
            if max_pixels is not None:
                self.catalog.set_meta(Meta.max_pixels.to(max_pixels))
            kept_folders: tuple[str, ...] = ()
            if include is not None:
                self.catalog.set_meta(Meta.include.to(tuple(include)))
            elif self.catalog.meta().include is None:
                kept_folders = tuple(sorted(labels.system_folders(self.catalog)))
                self.catalog.set_meta(Meta.include.to(kept_folders))
            known = file_contents.read(self.folder)
            result = indexing.update(
                self.root,
                self.catalog,
                lambda count: self.encoder.for_many(count, self._runtime),
                report,
                self.exclude,
                self.max_pixels,
                self.include,
                known,
            )
            file_contents.keep(self.folder, known)
            self.catalog.set_meta(Meta.left_out.to(result.left_out))
            arrivals.note(self.catalog)
            self.catalog.set_meta(Meta.checked.to(now()))
            journal_restore.settle(self.catalog, f"massl label restore {shlex.quote(str(self.root))}")
            meta = self.catalog.meta()
            if meta.calibrated_generation != meta.generation:
                self.catalog.set_meta(
                    Meta.calibration.to(self._calibrate().to_json()),
                    Meta.calibrated_generation.to(meta.generation),
                    Meta.updated.to(now()),
                )
            if not self._index.is_current():
                self.index(preparing, tidy=True)
            return replace(result, seconds=time.monotonic() - started, kept_folders=kept_folders)

    @property
    def exclude(self) -> tuple[str, ...]:
        """Patterns of files and folders that are left out; see `massl.core.files.scan.walk`."""
        return self.catalog.meta().exclude

    @property
    def include(self) -> tuple[str, ...]:
        """Patterns of what would be left out, as hidden or made by a system, and is not; see
        `massl.core.files.scan.walk`.
        """
        return self.catalog.meta().include or ()

    @property
    def max_pixels(self) -> int:
        """The most pixels that an image may have."""
        return self.catalog.max_pixels

    @contextmanager
    def _noted(self) -> Iterator[None]:
        self.updating = True
        try:
            yield
        finally:
            self.updating = False

    def _calibrate(self) -> Calibration:
        return calibration.of_collection(self.root, self.catalog, self.encoder)

    # Searching ----------------------------------------------------------------------------------------------------

    def search(
        self,
        queries: Sequence[Query],
        k: int = 20,
        *,
        label: str | Sequence[str] = (),
        under: str | Sequence[str] = (),
        since: date | None = None,
        until: date | None = None,
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
            exact: compare with every image, whatever it takes; else the collection's engine may miss a few.

        Raises:
            MasslError: no positive query, an image that the collection doesn't hold, or a label, a folder or a range
                of dates without any.
        """
        wanted = Filter(_several(label), _several(under), since, until)
        return self.describe(self.rank(queries, max(1, k), wanted, exact=exact))

    def rank(self, queries: Sequence[Query], k: int, wanted: Filter = EVERYTHING, *, exact: bool = False) -> Ranking:
        """As `search`, but ids and scores alone, to be described a page at a time."""
        if not any(example.weight > 0 for example in queries):
            raise MasslError("give at least one example of what to look for")
        target = query.embed(queries, self.catalog, self.root, lambda: self.encoder)
        # A part of an image is searched by to find others that hold the same: its own whole is then no answer either.
        own = np.array([example.image for example in queries if example.image is not None], np.int64)
        passing = among(self.catalog, wanted)
        index = self.index()
        more = max(k, calibration.FAR[1]) + len(own) + MARGIN
        if exact and not index.exact:
            vectors = CatalogVectors(self.catalog)
            blocks = vectors.blocks() if passing is None else vectors.blocks_of(passing)
            _, ids = nearest(blocks, target[None], more)
        else:
            _, ids = index.search(target[None], more, passing)
        images, scores = query.ranked(self.catalog, ids[(ids >= 0) & ~np.isin(ids, own)], target)
        # What is usual for this query, among all images whatever the filter.
        if passing is None:
            usual = scores[None]
        else:
            nearby = index.search(target[None], calibration.FAR[1] + len(own))[0][:, len(own) :]
            usual = nearby[:, np.isfinite(nearby[0])]  # places of images that went come last
        crowd = float(calibration.neighbourhood(usual)[0]) if usual.size else None
        return Ranking(images[:k], scores[:k], self.calibration(), crowd, len(index))

    def describe(self, ranking: Ranking, first: int = 0, last: int | None = None) -> list[Result]:
        """Paths, labels and matches of a ranking's results, from place `first` (from 0) up to before `last`.

        Images that have gone since are left out.
        """
        return query.described(self.catalog, ranking, first, last)

    def heat(self, queries: Sequence[Query], image: int) -> Heat:
        """Which parts of an image are like what was searched by; see `indexer.search.heat_map`.

        Raises:
            MasslError: the encoder has no patch tokens, or the image is gone or can't be read any more.
        """
        return self._heat.of(queries, image, self.encoder)

    def labelled_like(self, image: int, k: int = 6) -> list[Result]:
        """The `k` labelled images most like an image, best first; none where nothing is labelled."""
        if not exists(self.catalog, Filter(labelled=True)):
            return []
        return self.describe(self.rank([Query(image=image)], k, Filter(labelled=True)))

    def facts(self, image: int) -> Facts:
        """What is known of an image.

        Raises:
            MasslError: it is no longer in the collection.
        """
        return facts(self.catalog, image)

    def file_state(self, image: int) -> Literal["there", "gone", "changed"]:
        """Whether an image's file still lies where it was indexed, and as it was.

        Raises:
            MasslError: the image is no longer in the collection.
        """
        return file_state(self.catalog, self.root, image)

    def image_of(self, content: str) -> int:
        """The id of an image by its content: the SHA-256 of the file in hexadecimal, or the first digits of it.

        Raises:
            MasslError: the collection doesn't hold it, or fewer than 12 digits.
        """
        return image_of(self.catalog, content)

    def browse(
        self, wanted: Filter = EVERYTHING, after: str = "", limit: int = 100
    ) -> list[tuple[int, str, str | None]]:
        """Id, path and label of images by path; see `indexer.store.filters.in_order`.

        Raises:
            MasslError: no image carries a label, or lies in a folder, that is filtered by.
        """
        wanted.check(self.catalog)
        return in_order(self.catalog, wanted, after, limit)

    def outline(self) -> Outline:
        """The folders and days that can be filtered by; looked up once for each state of the collection."""
        generation = self.generation
        outline = self._outline
        if outline is None or outline[0] != generation:
            outline = generation, Outline(folders(self.catalog), *dates(self.catalog))
            self._outline = outline
        return outline[1]

    @property
    def generation(self) -> str:
        """Another whenever images came, went, changed or moved."""
        meta = self.catalog.meta()
        return f"{meta.generation}.{meta.moves}"

    def calibration(self) -> Calibration:
        """What scores mean in this collection."""
        return Calibration.from_json(self.catalog.meta().calibration)

    def index(self, preparing: Preparing = lambda step, done, total: None, tidy: bool = False) -> AmendedIndex:
        """The vectors, ready to search; see `indexer.search.index.CollectionIndex.get`."""
        return self._index.get(preparing, tidy)

    def measured(self) -> Measured | None:
        """How the search engine's index answers, on these very vectors; None while there is none."""
        return self._index.measured()

    def image_id(self, path: str) -> int:
        """The id of an image by its path relative to the root.

        Raises:
            MasslError: the collection doesn't hold it.
        """
        row = images.at_path(self.catalog, path)
        if row is None or row[1] == "gone":
            if not os.path.lexists(self.root / path):
                raise MasslError(f"{self.root / path}: there is no such image; paths are relative to {self.root}")
            command = index_command(self.root, self.folder)
            raise MasslError(f"{path} is not in the index of {self.root}; run: {command}")
        if row[1] == "skipped":
            raise MasslError(f"{path} could not be indexed: {row[2]}")
        return row[0]

    def images(self, limit: int = -1, offset: int = 0) -> list[tuple[int, str]]:
        """Ids and paths of the images that can be searched, by path."""
        return images.ready(self.catalog, limit, offset)

    def identity(self) -> str:
        """Another text once the index was deleted and made again: its numbers then mean other images."""
        meta = self.catalog.meta()
        return meta.identity or meta.created

    def __len__(self) -> int:
        return images.count(self.catalog)

    @property
    def unembedded(self) -> int:
        """Images that have no embedding by the collection's encoder: a rebuild is under way, or was ended before."""
        return images.unembedded(self.catalog)

    def thumbnail(self, image: int, side: int = SIDE) -> bytes | None:
        """A WebP thumbnail without metadata, made when it is first asked for; None if the original can't be read.

        Args:
            image: its id.
            side: pixels of the longer side.
        """
        file = images.file_of(self.catalog, image)
        if file is None:
            return None
        return self._thumbnails.get(below(self.root, file[0]), file[1].hex(), self.max_pixels, side)

    def notice(self) -> str:
        """What can't be kept on the disk, and what to do about it; empty where all can."""
        return self._thumbnails.notice()

    # Labels -------------------------------------------------------------------------------------------------------

    def add_labels(self, label: str, images: Iterable[int], author: str) -> int:
        """Gives images a label, in place of the one they had; returns how many.

        Raises:
            MasslError: an empty label, one of more than 100 characters or with control characters.
        """
        return labels.add(self.catalog, label, images, author)

    def give_labels(self, wanted: Mapping[int, str], author: str | Mapping[int, str]) -> int:
        """Gives each image its own label, all of them or none; returns how many. Each may have its own author.

        Raises:
            MasslError: as `add_labels`.
        """
        return labels.give(self.catalog, wanted, author)

    def remove_labels(self, images: Iterable[int]) -> int:
        """Takes the labels off images; returns how many had one."""
        return labels.remove(self.catalog, images)

    def restore_labels(self, before: Mapping[int, tuple[str, str] | None], after: Mapping[int, str | None]) -> int:
        """Takes a step of labelling back, all of it or nothing; see `indexer.store.labels.restore`."""
        return labels.restore(self.catalog, before, after)

    def bring_back_labels(self) -> Restored:
        """Gives images what people said of them and the catalog doesn't have any more; see
        `indexer.recovery.journal_restore`.

        Raises:
            MasslError: the journal can't be read, or nothing can be written.
        """
        return journal_restore.restore(self.catalog)

    def labels(self) -> list[Label]:
        """Every label on a searchable image, by path."""
        return labels.every(self.catalog)

    def label_counts(self) -> dict[str, int]:
        """How many searchable images carry each label, by label."""
        return labels.counts(self.catalog)

    def classes(self) -> list[str]:
        """The classes in use, in the order in which they were first named: the same for everybody."""
        return labels.classes(self.catalog)

    def labels_of(self, images: Sequence[int]) -> dict[int, Label | None]:
        """The label of each of these images, or None.

        Raises:
            MasslError: one of them is no longer in the collection.
        """
        return labels.of(self.catalog, images)

    def classify(self) -> Classification:
        """Few-shot classification of every searchable image from the labels so far, less what was rejected.

        Kept until a label, a rejection or a vector changes.

        Raises:
            MasslError: labels of fewer than two classes.
        """
        return self._labelling.classify()

    def labelling_state(self) -> LabellingState:
        """All that a classification follows from: it differs whenever a vector, a label or a rejection does."""
        return self._labelling.labelling_state()

    def vectors_state(self) -> tuple[str, int]:
        """Differs whenever a vector does, or which there are."""
        return self._labelling.vectors_state()

    def reject_labels(self, rejected: Mapping[int, str]) -> int:
        """Remembers, image by image, a label that was proposed and is wrong; returns how many were not known yet.

        Raises:
            MasslError: one of the images is no longer in the collection.
        """
        return rejections.add(self.catalog, rejected)

    def forget_rejected(self, rejected: Iterable[tuple[int, str]]) -> int:
        """Forgets rejections, each an image and a label; returns how many there were."""
        return rejections.remove(self.catalog, rejected)

    def rejected_labels(self) -> dict[int, frozenset[str]]:
        """Image id to the labels that were rejected for it."""
        return rejections.by_image(self.catalog)

    def learning_curve(self, report: Callable[[int, int], None] = lambda done, total: None) -> LearningCurve:
        """How the accuracy grew with the labels, and how many more would help; see `indexer.fewshot.learning_curve`.

        Raises:
            MasslError: labels of fewer than two classes.
        """
        return self._labelling.learning_curve(report)

    def suspects(self) -> list[Suspect]:
        """Labels that are probably wrong, the most suspect first, without those that somebody confirmed.

        Raises:
            MasslError: labels of fewer than two classes.
        """
        return self._labelling.suspects()

    def confirm_labels(self, given: Iterable[tuple[int, str]]) -> None:
        """Remembers that labels, each an image and its label, are right although they are suspect."""
        confirmations.add(self.catalog, given)

    def confirmed_labels(self) -> set[tuple[int, str]]:
        """Those labels."""
        return confirmations.every(self.catalog)

    def forget_confirmed(self, given: Iterable[tuple[int, str]]) -> None:
        """Takes that back."""
        confirmations.remove(self.catalog, given)

    def different(self, count: int) -> list[int]:
        """Unlabelled images that are unlike the labelled ones and each other; see
        `indexer.fewshot.sampling.most_different`.
        """
        return self._labelling.different(count)

    def groups(self, count: int = GROUPS) -> list[Group]:
        """Groups of like images that nobody has labelled, the closest first; see `indexer.fewshot.clusters`."""
        return self._labelling.groups(count)

    def export_labels(self, kind: str, predictions: bool = False, sure: float = 0.0) -> str:
        """The labels as the text of a file.

        Args:
            kind: one of `indexer.label_formats.exporting.FORMATS`.
            predictions: with the predicted classes of images that nobody has labelled.
            sure: the least probability of those.

        Raises:
            MasslError: no such format, nothing labelled, or, for predictions, labels of fewer than two classes.
        """
        guesses = self._labelling.predictions(sure) if predictions else []
        return exporting.write(kind, exporting.rows(self.catalog, guesses), self.root.resolve().name)

    def export_classifier(self, path: Path | str) -> Classifier:
        """Writes the classifier that `classify` asks as an `.onnx` file that takes pictures; see
        `indexer.fewshot.onnx_export`.

        Raises:
            MasslError: labels of fewer than two classes, or the file can't be written.
        """
        fitted = self._labelling.classifier()
        onnx_export.write(fitted, self.encoder, Path(path))
        return fitted

    def paths_of(self, images: Sequence[int]) -> list[str]:
        """Paths, relative to the root, of searchable images by id, in the order given.

        Raises:
            MasslError: one of them is no longer in the collection.
        """
        return self.catalog.paths_of(images)

    # Looking ------------------------------------------------------------------------------------------------------

    def kinds(self, ids: NDArray[np.int64], by: Literal["label", "folder"], most: int) -> Kinds:
        """These images by label or folder, in at most about `most` kinds; see `indexer.projection.categories`."""
        return (categories.by_folder if by == "folder" else categories.by_label)(self.catalog, ids, most)

    def described(self, images: Sequence[int]) -> list[tuple[int, str, str | None]]:
        """Id, path and label of these images, in their order, without those that are not in the collection."""
        found = labels.beside_paths(self.catalog, images)
        return [(image, *found[image]) for image in images if image in found]

    def typical(self, images: Sequence[int], count: int) -> list[int]:
        """Of these images, the `count` that are most like all of them taken together.

        Raises:
            MasslError: none of them is in the collection.
        """
        ids, packed = CatalogVectors(self.catalog).of(np.unique(np.array(images, np.int64)))
        if not len(ids):
            raise MasslError("these images are no longer in the collection; look at it afresh")
        return ids[categories.typical(unit(packed), count)].tolist()

    # Duplicates ---------------------------------------------------------------------------------------------------

    def duplicates(
        self,
        *,
        exact_only: bool = False,
        under: str | None = None,
        threshold: float | None = None,
        report: Callable[[str, int, int], None] = lambda step, done, total: None,
    ) -> Duplicates:
        """Exact and near duplicates in groups, of which none is touched; see `indexer.duplicates.detection.find`."""
        return detection.find(
            self.root,
            self.catalog,
            self.index,
            exact_only=exact_only,
            under=under,
            threshold=threshold,
            report=report,
        )

    def settled(self, found: Duplicates) -> Duplicates:
        """What was found, with the decisions made since; see `indexer.duplicates.detection.settle`."""
        return detection.settle(self.root, self.catalog, found)

    def keep_both(self, images: Sequence[int]) -> int:
        """Remembers that each two of these are to be kept; see `indexer.store.decisions.keep_both`."""
        return decisions.keep_both(self.catalog, images)

    def choose(self, image: int, over: Sequence[int]) -> None:
        """Remembers that an image is to be kept in place of these; see `indexer.store.decisions.choose`."""
        decisions.choose(self.catalog, image, over)

    def kept_together(self) -> list[tuple[Duplicate, ...]]:
        """Images that are to be kept all, in groups; see `indexer.store.decisions.kept_together`."""
        return detection.described(self.catalog, decisions.kept_together(self.catalog))

    def forget_kept(self, images: Sequence[int] = ()) -> int:
        """Forgets such decisions; see `indexer.store.decisions.forget`."""
        return decisions.forget(self.catalog, images)

    # Drift --------------------------------------------------------------------------------------------------------

    def drift(self) -> Drift:
        """How unlike its encoder's training images, and its newest images the others; see `indexer.monitoring.drift`.

        Measured once for as long as the images stay the same.
        """
        meta = self.catalog.meta()
        known, measured = meta.drift
        if known == meta.generation:
            return Drift.from_json(measured)
        try:
            encoder = self.encoder
            whitening, mean = encoder.whitening, encoder.mean_embedding
        except MasslError:  # its copy is damaged: what it was trained on can't be told, all else can
            return drift.of_collection(self.catalog, 0.0)
        found = drift.of_collection(self.catalog, whitening, mean)
        with contextlib.suppress(MasslError):  # a read-only or full disk costs the measuring each time
            self.catalog.set_meta(Meta.drift.to((meta.generation, found.to_json())))
        return found

    def compare(self, other: Encoder, report: Callable[[int, int], None] = lambda done, total: None) -> Comparison:
        """Another encoder beside the collection's own, on its labelled images; see
        `indexer.monitoring.encoder_comparison.compare`.
        """
        return encoder_comparison.compare(self.root, self.catalog, other, report)

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
            return encoder_comparison.beside(self.root, self.catalog, self._home.encoder_at(other), report)
        encoder = Encoder.load(other.path)
        if encoder.sha256 != other.sha256:
            raise MasslError(f"{other.path} has changed since it was found; look again")
        return encoder_comparison.beside(self.root, self.catalog, encoder, report)

    def comparing_state(self) -> tuple[object, ...]:
        """Differs whenever what `compare` and `beside` say might: by a vector, a label or the encoder."""
        return self.catalog.meta().embedded_by, self.vectors_state(), labels.state(self.catalog)

    def tell_of_builtin(self) -> str:
        """What to say of a collection that a former built-in encoder made: once for each new one, else nothing.

        Raises:
            MasslError: nothing can be written.
        """
        meta = self.catalog.meta()
        if meta.builtin_told == BUILTIN or not is_former_builtin(meta.encoder_sha256, meta.encoder_name):
            return ""
        self.catalog.set_meta(Meta.builtin_told.to(BUILTIN))
        return (
            f"{self.root} is indexed with {meta.encoder_name}, the built-in encoder of an earlier version; that of "
            "this version is another and a better one. To switch, keeping the labels, run: "
            + index_command(self.root, self.folder, "builtin")
        )

    def trained(self, here: Path) -> tuple[Trained, ...]:
        """Encoders other than its own that somebody who works in the folder `here` trained; see
        `indexer.monitoring.trained_encoders`.
        """
        return trained_encoders.find(
            trained_encoders.places(here, self.root), self.root, self.catalog.meta().encoder_sha256
        )

    def health(
        self,
        report: Callable[[str, int, int], None] = lambda step, done, total: None,
        here: Path | None = None,
    ) -> Health:
        """What takes a moment to find out: drift, the encoder, the folder and the disk; see
        `indexer.monitoring.health`.

        Args:
            report: told the step, and how much of it is done, of how much.
            here: where somebody works, and may have trained an encoder; it is not looked for if left out.
        """
        report("catalog", 0, 0)
        self.catalog.examine(whole=True)
        report("drift", 0, 0)
        found = self.drift()
        training, sizes = self._encoder_file()
        since = health.behind(
            self.root, self.catalog, self.exclude, self.include, file_contents.read(self.folder), report
        )
        report("disk", 0, 0)
        waiting, images = self.unembedded, len(self)
        builtin = self.catalog.meta().encoder_sha256 == BUILTIN
        report("trained", 0, 0)
        others = self.trained(here) if here else ()
        on_these = any(other.on_these for other in others)
        advice = health.advise(self.root, self.folder, found, since, waiting, images, builtin, on_these)
        return Health(found, training, self.image_size, sizes, since, self._bytes(), advice, others)

    # About --------------------------------------------------------------------------------------------------------

    def skipped(self) -> list[Skipped]:
        """Files and folders that are passed over, with reasons."""
        return images.skipped(self.catalog)

    def left_out(self) -> dict[str, int]:
        """How many pictures that aren't read, and of what else the last update left out, by kind."""
        return self.catalog.meta().left_out

    def info(self) -> dict[str, Any]:
        """Counts, encoder, drift and disk use, in plain values.

        Raises:
            CatalogDamaged: something in the catalog is not as it was written.
        """
        self.catalog.examine(whole=True)
        meta = self.catalog.meta()
        training, sizes = self._encoder_file()
        return {
            "kind": "collection",
            "root": str(self.root),
            "folder": str(self.folder),
            "indexed": len(self),
            "unembedded": self.unembedded,
            "labels": len(self.labels()),
            "encoder": self.encoder_facts() | {"image_sizes": list(sizes)},
            "training": asdict(training) if training else None,
            "search": asdict(measured) if (measured := self.measured()) else None,
            "scores": self.calibration().bounds(len(self)),
            "drift": self._drift_in_brief(),
            "created": meta.created,
            "updated": meta.updated,
            "checked": meta.checked,
            "bytes": self._bytes(),
            "exclude": list(self.exclude),
            "include": list(self.include),
            "left_out": self.left_out(),
            "max_megapixels": self.max_pixels / 1e6,
            "skipped": [{"path": item.path, "reason": item.reason} for item in self.skipped()],
        }

    def encoder_facts(self) -> dict[str, Any]:
        """The encoder's name, identity and measures, in plain values."""
        meta = self.catalog.meta()
        return {
            "name": meta.encoder_name,
            "sha256": meta.encoder_sha256,
            "dim": meta.dim,
            "image_size": self.image_size,
        }

    def _encoder_file(self) -> tuple[Training | None, tuple[int, ...]]:
        """How its encoder came about, and the sizes that it can be used at; nothing if its copy can't be read."""
        try:
            return health.training(self.encoder), self.encoder.image_sizes
        except MasslError:
            return None, ()

    def _drift_in_brief(self) -> dict[str, Any]:
        found = asdict(self.drift())
        if found["newest"]:
            found["newest"].pop("examples")
        return found

    def _bytes(self) -> int:
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(OSError):  # it has gone meanwhile, as temporary files do
                    total += os.stat(os.path.join(folder, name)).st_size
        return total


def _several(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
