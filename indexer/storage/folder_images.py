"""The images of a collection: what its catalog knows of them, and what lies in its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexer.storage.collection_storage import Storage
from indexer.storage.index_command import index_command
from indexer.store import cameras, filters, quality, revision
from indexer.store.filters import Filter, Outline, among, several
from indexer.store.image_facts import is_unchanged
from indexer.store.images import Images
from indexer.store.ordering import months
from indexer.store.paths import below
from indexer.store.picture_facts import PictureFacts
from indexer.store.quality import QualityBound, Scores
from indexer.store.revision import Revision
from indexer.store.tags import normalised
from indexer.store.thumbnails import SIDE, Thumbnails
from massl.core.errors import MasslError
from massl.core.images import plane_files


class FolderImages(Images):
    """The catalog's images, with their files. Safe to share by threads.

    Args:
        storage: where they lie.
        unusual: says how unusual each of them is, for the hint of that name; may have to compare them all.
    """

    def __init__(self, storage: Storage, unusual: Callable[[], Scores]) -> None:
        super().__init__(storage.catalog)
        self._unusual = unusual
        self._root = storage.root
        self._folder = storage.folder
        self.thumbnails = Thumbnails(storage.folder)
        self._outline: tuple[Hashable, Outline] | None = None

    def __len__(self) -> int:
        return self.count()

    def filter(
        self,
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
    ) -> Filter:
        """What images must be, of what a person asks for; see `indexer.collection.Collection.search`.

        Raises:
            MasslError: there is no such quality hint, or no such camera.
        """
        meant = [name for text in several(camera) for name in cameras.meant(self._catalog, text)]
        all_of, any_of, none_of = (tuple(map(normalised, each)) for each in (tags, any_tags, without_tags))
        return Filter(
            several(label), several(under), since, until, False, *taken,
            quality=self.quality_bounds(quality), tags=all_of, any_tags=any_of, without_tags=none_of,
            cameras=tuple(dict.fromkeys(meant)), rating=rating, orientation=orientation, named=tuple(named),
        )  # fmt: skip

    def months(self, wanted: Filter) -> dict[str, int]:
        """How many images of each month pass; see `indexer.store.ordering.months`."""
        return months(self._catalog, wanted)

    def quality_bounds(self, names: Sequence[str]) -> tuple[QualityBound, ...]:
        """The bounds of these hints in the collection; see `indexer.store.quality.bounds`."""
        return quality.bounds(self._catalog, names, self._unusual)

    def quality_counts(self, unusual: bool) -> dict[str, tuple[int, float]]:
        """How many images each hint is about; see `indexer.store.quality.counts`.

        Args:
            unusual: whether also the one that all images may have to be compared for.
        """
        return quality.counts(self._catalog, self._unusual if unusual else None)

    def that_pass(self, wanted: Filter) -> NDArray[np.int64] | None:
        """Rising ids of the images that pass a filter; see `indexer.store.filters.among`."""
        return among(self._catalog, wanted)

    def keywords(self) -> dict[int, tuple[str, tuple[str, ...]]]:
        """Path and keywords of the searchable images whose files bring some, by id."""
        return PictureFacts(self._catalog).keywords()

    def unseen_share(self) -> float:
        """Which share of a picture the encoder isn't given, on average; see `indexer.store.quality.unseen`."""
        return quality.unseen(self._catalog)

    def several_planes(self) -> dict[int, int]:
        """How many images have so many pictures in their file, of those with more than one."""
        return PictureFacts(self._catalog).several_planes()

    def id_of(self, path: str) -> int:
        """The id of an image by its path relative to the root.

        Raises:
            MasslError: the collection doesn't hold it.
        """
        row = self.at_path(path)
        if row is None or row[1] == "gone":
            typed = self._root / path
            if plane_files.split(typed):
                raise MasslError(
                    f"the index of {self._root} holds no plane {path}: its stack has fewer, or is shown otherwise"
                )
            if not os.path.lexists(typed):
                raise MasslError(f"{typed}: there is no such image; paths are relative to {self._root}")
            command = index_command(self._root, self._folder)
            raise MasslError(f"{path} is not in the index of {self._root}; run: {command}")
        if row[1] == "skipped":
            raise MasslError(f"{path} could not be indexed: {row[2]}")
        return row[0]

    def file_state(self, image: int) -> Literal["there", "gone", "changed"]:
        """Whether an image's file still lies where it was indexed, and as it was, by its size and time.

        Raises:
            MasslError: the image is no longer in the collection.
        """
        (path,) = self.paths_of([image])
        try:
            found = plane_files.file_of(below(self._root, path)).stat()
        except OSError:
            return "gone"
        known = self.file_facts([image])[image]
        return "there" if is_unchanged(found, known.size, known.mtime_ns) else "changed"

    def thumbnail(self, image: int, side: int = SIDE) -> bytes | None:
        """A WebP thumbnail without metadata, made when it is first asked for; None if the original can't be read.

        Args:
            image: its id.
            side: pixels of the longer side.
        """
        file = self.file_of(image)
        if file is None:
            return None
        path, digest = file
        meta = self._catalog.meta()
        return self.thumbnails.get(below(self._root, path), digest.hex(), meta.max_pixels, side, meta.rendering)

    def outline(self, now: Revision | None = None) -> Outline:
        """What can be filtered by: folders, days, cameras and stars; kept until the folder is looked through again.

        Args:
            now: the collection's revision, if that was asked for just before.
        """
        current = now or revision.read(self._catalog)
        listed = current.listed, current.checked  # files beside pictures may have changed alone
        outline = self._outline
        if outline is None or outline[0] != listed:
            outline = listed, filters.outline(self._catalog)
            self._outline = outline
        return outline[1]
