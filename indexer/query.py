"""What is searched by and what is found: example pictures, their one vector, the filters, the results."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.catalog import Catalog, in_parts, to_bytes
from indexer.encoder import Encoder
from indexer.labels import counts as label_counts
from indexer.ladder import unit
from massl.errors import MasslError
from massl.images import ImageError, decode, read_bytes


@dataclass(frozen=True)
class Query:
    """One example to search by, wanted (weight 1) or unwanted (weight -1): a file's content or an image's id."""

    data: bytes | None = None
    image: int | None = None
    weight: float = 1.0
    crop: tuple[int, int, int, int] | None = None
    name: str = "the picture"

    @classmethod
    def of_file(cls, path: Path | str, weight: float = 1.0, crop: tuple[int, int, int, int] | None = None) -> Query:
        """A file anywhere on this machine; `crop` is x, y, width, height in pixels of the upright image.

        Raises:
            MasslError: it is missing, empty or can't be read.
        """
        try:
            return cls(read_bytes(Path(path)), None, weight, crop, str(path))
        except ImageError as error:
            reason = error if os.path.lexists(path) else "there is no such file"
            raise MasslError(f"{path} can't be used as a query: {reason}") from None

    def picture(self, shortest: int) -> Image.Image:
        """Its pixels, cropped, decoded as the indexer would for an encoder that needs `shortest` pixels.

        Raises:
            MasslError: it is no image, or the crop lies outside it.
        """
        try:
            picture = decode(self.data or b"", None if self.crop else shortest).picture
        except ImageError as error:
            raise MasslError(f"{self.name} can't be used as a query: {error}") from None
        if self.crop is None:
            return picture
        x, y, width, height = self.crop
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > picture.width or y + height > picture.height:
            raise MasslError(
                f"the crop {x},{y},{width},{height} is not inside {self.name}, "
                f"which is {picture.width} x {picture.height} pixels"
            )
        return picture.crop((x, y, x + width, y + height))


@dataclass(frozen=True)
class Result:
    """An image found: `path` relative to the root, `score` the cosine similarity, `label` a person's label or None.

    `match` is `same`, `alike` or `weak`, from this collection's own calibration; `false_matches` is how many images
    of the collection one would expect above this score if none had to do with the query.
    """

    rank: int
    image: int
    path: str
    score: float
    match: str
    false_matches: float
    label: str | None


def embed(queries: Sequence[Query], catalog: Catalog, encoder: Callable[[], Encoder]) -> NDArray[np.float32]:
    """The queries' weighted sum, float32 `[D]` of unit length. The encoder is asked for only if a file is among them.

    Raises:
        MasslError: an image that the catalog doesn't hold, a file that is none, or a sum of nothing.
    """
    total = np.zeros(int(catalog.meta()["dim"]), np.float32)
    for query in queries:
        if query.data is not None:
            picture = query.picture(encoder().resize)
            vector = encoder().embed(encoder().prepare(picture)[None])[0]
        else:
            row = next(
                catalog.read(
                    "SELECT embedding FROM images WHERE id = ? AND state = 'ready' AND embedding IS NOT NULL",
                    [query.image],
                ),
                None,
            )
            if row is None:
                raise MasslError("that image is no longer in the collection; search again from another one")
            vector = np.frombuffer(row[0], np.float16).astype(np.float32)
        total += query.weight * vector
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise MasslError("the wanted and the unwanted examples cancel each other out; change one of them")
    return total / length


def among(catalog: Catalog, labels: Sequence[str], folders: Sequence[str]) -> NDArray[np.int64] | None:
    """Rising ids of the images with one of these labels, below one of these folders; None when there is no filter.

    Raises:
        MasslError: no image carries one of the labels, or lies below one of the folders.
    """
    passing: list[NDArray[np.int64]] = []
    if labels:
        passing.append(np.concatenate([_labelled(catalog, label) for label in labels]))
    if folders:
        passing.append(np.concatenate([_below(catalog, folder) for folder in folders]))
    return functools.reduce(np.intersect1d, passing[1:], np.unique(passing[0])) if passing else None


def _labelled(catalog: Catalog, label: str) -> NDArray[np.int64]:
    query = "SELECT image FROM labels JOIN images ON images.id = image WHERE label = ? AND state = 'ready'"
    ids = np.fromiter((image for (image,) in catalog.read(query, [label])), np.int64)
    if not len(ids):
        known = ", ".join(repr(name) for name in label_counts(catalog)) or "none"
        raise MasslError(f"no image has the label {label!r}; the labels are: {known}")
    return ids


def _below(catalog: Catalog, folder: str) -> NDArray[np.int64]:
    prefix = posixpath.normpath(folder.strip("/") or ".")
    query = "SELECT id FROM images WHERE state = 'ready'"
    if prefix == ".":
        return np.fromiter((image for (image,) in catalog.read(query)), np.int64)
    # Everything that begins with "prefix/": a range of bytes, so that the index on paths serves.
    span = [to_bytes(prefix + "/"), to_bytes(prefix + "0")]  # "0" is the byte after "/"
    ids = np.fromiter((image for (image,) in catalog.read(query + " AND path >= ? AND path < ?", span)), np.int64)
    if not len(ids):
        raise MasslError(f"no image lies below a folder {folder!r}; give one relative to the folder that was indexed")
    return ids


def about(
    catalog: Catalog, ids: NDArray[np.int64], target: NDArray[np.float32]
) -> list[tuple[int, str, float, str | None]]:
    """Id, path, cosine similarity to `target` and human label of these images, as the catalog has them, best first."""
    found: list[tuple[int, bytes, str | None, bytes]] = []
    for part in in_parts(ids.tolist()):
        marks = ", ".join("?" * len(part))
        found += catalog.read(
            "SELECT images.id, path, label, embedding FROM images LEFT JOIN labels ON labels.image = images.id "
            f"WHERE state = 'ready' AND embedding IS NOT NULL AND images.id IN ({marks})",
            part,
        )
    packed = np.frombuffer(b"".join(row[3] for row in found), np.float16).reshape(len(found), len(target))
    scores = unit(packed) @ target
    order = np.argsort(-scores, kind="stable")
    return [(found[row][0], os.fsdecode(found[row][1]), float(scores[row]), found[row][2]) for row in order]
