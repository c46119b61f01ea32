"""What is searched by and what is found: example pictures, their one vector, the results in their order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.encoder.contract import are_unit
from indexer.encoder.onnx_encoder import Encoder
from indexer.search.calibration import Calibration
from indexer.store.catalog import Catalog
from indexer.store.images import Images
from indexer.store.meta import Meta
from indexer.store.paths import below
from indexer.store.picture_facts import PictureFacts
from indexer.store.tiling import Box, Tiling
from indexer.store.vectors import of_contents, several, stored, unit, unpacked
from massl.core.errors import MasslError
from massl.core.images import plane_files
from massl.core.images.cutting import BoxesOf, cut
from massl.core.images.decoding import MAX_PIXELS, decode, within_memory
from massl.core.images.file_reading import keep_memory, read_bytes
from massl.core.images.fitting import fit
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import EACH_FILE, Rendering

_SMALLEST = 8  # pixels of a crop's side: fewer hold no more than a colour
_MOST_TILES = 32  # of a large part, by which it is searched


@dataclass(frozen=True)
class Query:
    """One example to search by, wanted (weight 1) or unwanted (weight -1): a file's content or an image's id.

    `crop` is x, y, width, height in pixels of the upright image: only this part of it is searched by. Of a smaller copy
    of a picture, `reduced` says how many pixels of the picture's side one of the copy stands for, and `digest` is the
    SHA-256 of the picture's own content.
    """

    data: bytes | None = None
    image: int | None = None
    weight: float = 1.0
    crop: tuple[int, int, int, int] | None = None
    name: str = "the picture"
    reduced: float = 1.0
    digest: bytes | None = None

    @classmethod
    def of_file(cls, path: Path | str, weight: float = 1.0, crop: tuple[int, int, int, int] | None = None) -> Query:
        """A file anywhere on this machine; `crop` is x, y, width, height in pixels of the upright image.

        Raises:
            MasslError: it is missing, empty or can't be read.
        """
        try:
            return cls(read_bytes(Path(path)), None, weight, crop, str(path))
        except ImageError as error:
            reason = error if os.path.lexists(plane_files.file_of(Path(path))) else "there is no such file"
            raise MasslError(f"{path} can't be used as a query: {reason}") from None

    @contextmanager
    def picture(
        self, shortest: int, max_pixels: int = MAX_PIXELS, rendering: Rendering = EACH_FILE
    ) -> Iterator[Image.Image]:
        """Its pixels, cropped, decoded as the indexer would for an encoder that needs `shortest` pixels.

        It may be as large as any image may usually be, also where those of the collection may have only `max_pixels`.
        `rendering` says how deep files are shown. To the end of the block it counts as memory in use.

        Raises:
            MasslError: it is no image, it can't be read any more, the crop lies outside it, or the memory is too small.
        """
        try:
            with within_memory():
                if (crop := self.crop) is None:
                    yield decode(self.data or b"", shortest, max(MAX_PIXELS, max_pixels), rendering).picture
                else:
                    ((_, part),) = self.parts(lambda width, height: [crop], max_pixels, rendering)
                    keep_memory(4 * part.width * part.height)
                    yield part
        except ImageError as error:
            raise MasslError(f"{self.name} can't be used as a query: {error}") from None

    def parts(
        self, boxes: BoxesOf, max_pixels: int = MAX_PIXELS, rendering: Rendering = EACH_FILE
    ) -> Iterator[tuple[Box, Image.Image]]:
        """Parts of it, as `massl.core.images.cutting.cut` gives them: large pictures are read a few rows at a time.

        Args:
            boxes: says which, by the picture's width and height, once it is known that `crop` lies inside of it.
            max_pixels: as for `picture`.
            rendering: likewise.

        Raises:
            ImageError: it is no image, or the memory is too small.
            MasslError: the crop lies outside of it, or has a side of less than 8 pixels.
        """

        def checked(width: int, height: int) -> Sequence[Box]:
            if self.crop is not None:
                self._check(self.crop, width, height)
            return boxes(width, height)

        return cut(self.data or b"", checked, max(MAX_PIXELS, max_pixels), rendering)

    def _check(self, crop: Box, width: int, height: int) -> None:
        x, y, across, down = crop
        if x < 0 or y < 0 or across < 1 or down < 1 or x + across > width or y + down > height:
            raise MasslError(
                f"the crop {x},{y},{across},{down} is not inside {self.name}, which is {width} x {height} pixels"
            )
        if across < min(_SMALLEST, width) or down < min(_SMALLEST, height):
            raise MasslError(
                f"the crop {x},{y},{across},{down} is too small to show anything; give {_SMALLEST} x {_SMALLEST} "
                "pixels or more"
            )


@dataclass(frozen=True)
class Result:
    """An image found: `path` relative to the root, `score` the cosine similarity, `label` a person's label or None.

    `match` is `same`, `alike` or `weak`, from this collection's own calibration; `false_matches` is how many images
    of the collection one would expect above this score if none had to do with the query. `taken` is when it was taken;
    see `massl.core.images.metadata.Metadata`. `box` is the tile that scores so, x, y, width and height in pixels of the
    upright image; None where it is the image as a whole.
    """

    rank: int
    image: int
    path: str
    score: float
    match: str
    false_matches: float
    label: str | None
    taken: str | None = None
    box: Box | None = None


@dataclass(frozen=True)
class TileChance:
    """What the score of an image's best tile means.

    Attributes:
        calibration: of best tiles; see `indexer.search.tile_calibration`.
        crowd: what those of the query's farther neighbours score.
        images: how many the collection holds.
    """

    calibration: Calibration
    crowd: float | None
    images: int


@dataclass(frozen=True, eq=False)
class Ranking:
    """Images in the order of their similarity to a query.

    Attributes:
        images: ids, int64 `[n]`.
        scores: cosine similarities, float32 `[n]`, falling.
        calibration: what scores mean in this collection.
        crowd: the query's neighbourhood, see `indexer.search.calibration.neighbourhood`; None where there is nothing
        to tell. among: how many images the collection holds, and tiles.
        boxes: of the images that a tile of theirs won, by id.
        of_tiles: what their scores mean; as those of whole images if left out.
    """

    images: NDArray[np.int64]
    scores: NDArray[np.float32]
    calibration: Calibration
    crowd: float | None
    among: int
    boxes: Mapping[int, Box] = field(default_factory=dict)
    of_tiles: TileChance | None = None

    def __len__(self) -> int:
        return len(self.images)

    def match(self, score: float, image: int | None = None) -> str:
        """`same`, `alike` or `weak`; of an image that a tile of its won, by what tiles score."""
        if self.of_tiles and image in self.boxes:
            return self.of_tiles.calibration.match(score, self.of_tiles.images, self.of_tiles.crowd)
        return self.calibration.match(score, self.among, self.crowd)

    def false_matches(self, score: float, image: int | None = None) -> float:
        """How many images of the collection one would expect above a score if none had to do with the query."""
        if self.of_tiles and image in self.boxes:
            return self.of_tiles.calibration.false_matches(score, self.of_tiles.images, self.of_tiles.crowd)
        return self.calibration.false_matches(score, self.among, self.crowd)

    def above(self, score: float) -> int:
        """How many of the images score this or more."""
        return int(np.searchsorted(-self.scores, -np.float32(score), side="right"))


def with_content(query: Query, catalog: Catalog, root: Path) -> Query:
    """The query with its file's content, where it is an image of the collection that was given by its id.

    Raises:
        MasslError: the catalog doesn't hold it, or the file can't be read any more.
    """
    if query.data is not None:
        return query
    (path,) = Images(catalog).paths_of([query.image or 0])
    return replace(Query.of_file(below(root, path), query.weight, query.crop), image=query.image, name=path)


def embed(
    queries: Sequence[Query], catalog: Catalog, root: Path, encoder: Callable[[], Encoder]
) -> NDArray[np.float32]:
    """The queries' weighted sum, float32 `[D]` of unit length. The encoder is asked for only if pixels are needed.

    A file whose content the catalog holds is searched by what is stored of it: it may have been embedded by another
    runtime, whose numbers differ a little, and a copy would then be more like the file than the file is like itself.

    Raises:
        MasslError: an image that the catalog doesn't hold, a file that is none, or a sum of nothing.
    """
    total = np.zeros(catalog.meta().dim, np.float32)
    for query in queries:
        known = _of_content(query, catalog)
        if known is not None:
            vector = known
        elif query.data is not None or query.crop is not None:
            vector = _embedded(with_content(query, catalog, root), encoder(), catalog.meta())
        else:
            vector = stored(catalog, query.image)
        total += query.weight * vector
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise MasslError("the wanted and the unwanted examples cancel each other out; change one of them")
    return total / length


def _of_content(query: Query, catalog: Catalog) -> NDArray[np.float32] | None:
    """The stored embedding of a query's whole content, float32 `[D]`; None where the catalog has none."""
    if query.data is None or query.crop is not None:
        return None
    digest = query.digest or hashlib.sha256(query.data).digest()
    known = of_contents(catalog, [digest])
    return unit(unpacked(catalog, [known[digest][0]], catalog.meta().dim))[0] if digest in known else None


def _embedded(query: Query, own: Encoder, meta: Meta) -> NDArray[np.float32]:
    """The vector of a picture's pixels, float32 `[D]` of unit length; of a part as tiles are, if there are any."""
    with within_memory():
        if query.crop is not None and meta.tiles:
            pixels = _as_tiles(query, query.crop, meta, own)
        else:
            with query.picture(own.resize, meta.max_pixels, meta.rendering) as picture:
                pixels = own.prepare(picture)[None]
    rows = own.embed(pixels)
    if not are_unit(rows).all():
        raise MasslError(f"the encoder {own.name} gives no embedding for that picture; search with another one")
    total = rows.sum(0)
    return rows[0] if len(rows) == 1 else total / max(1e-6, float(np.linalg.norm(total)))


def _as_tiles(query: Query, crop: Box, meta: Meta, own: Encoder) -> NDArray[np.uint8]:
    """A part of a picture as the tiles of the collection show it, at their scale, `[n, S, S, 3]`.

    Of a part that is smaller than a tile, what a tile around it shows: alone, it would be shown far larger than any
    tile shows such a thing. Of a larger one, the tiles that it can be cut into, or some of them, evenly spread.
    """
    tiling, side = Tiling(max(1, round(meta.tiles.size / query.reduced))), own.image_size

    def boxes(width: int, height: int) -> list[Box]:
        x, y, across, down = tiling.about(crop, width, height, side)
        cut_into = tiling.boxes(across, down, side)
        found = [(x + left, y + top, wide, high) for left, top, wide, high in cut_into]
        return found[:: -(-len(found) // _MOST_TILES)]

    try:
        # The whole of a tile, as `indexer.ingest.tile_embedding` has it.
        shown = [np.asarray(fit(part, side, side)) for _, part in query.parts(boxes, meta.max_pixels, meta.rendering)]
    except ImageError as error:
        raise MasslError(f"{query.name} can't be used as a query: {error}") from None
    return np.stack(shown)


def ranked(
    catalog: Catalog, ids: NDArray[np.int64], target: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Those of these ids that can be searched, with their cosine similarity to `target`, by the catalog; best first."""
    found, packed = several(catalog, ids.tolist(), len(target))
    scores = unit(packed) @ target
    order = np.argsort(-scores, kind="stable")
    return found[order], scores[order]


def described(catalog: Catalog, ranking: Ranking, first: int = 0, last: int | None = None) -> list[Result]:
    """The results from the place `first` (from 0) up to before `last`, without those that have gone since."""
    images = ranking.images[first:last].tolist()
    known = Images(catalog).with_labels(images)
    taken = PictureFacts(catalog).taken(images)
    scores = ranking.scores[first:last].tolist()
    return [
        Result(
            rank,
            image,
            known[image][0],
            score,
            ranking.match(score, image),
            ranking.false_matches(score, image),
            known[image][1],
            taken.get(image),
            ranking.boxes.get(image),
        )
        for rank, (image, score) in enumerate(zip(images, scores, strict=True), first + 1)
        if image in known
    ]
