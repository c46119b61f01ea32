"""Bringing a catalog up to date with a folder: what changed, decoded and embedded in batches, a transaction each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
from numpy.typing import NDArray

from indexer.encoder import small_batches
from indexer.encoder.contract import are_unit
from indexer.encoder.onnx_encoder import Embeds, Encoder
from indexer.encoder.runtimes import Runtime
from indexer.ingest.changes import Changes, Todo, compare
from indexer.ingest.embedding_table import EmbeddingTables
from indexer.ingest.fact_reading import metadata_of, read_missing
from indexer.ingest.ranges import CollectionRanges
from indexer.ingest.tile_embedding import TileEmbedder
from indexer.store import image_writes, tiles, vectors
from indexer.store.catalog import Catalog, to_bytes
from indexer.store.image_writes import EmbeddedFile, UnreadableFile
from indexer.store.images import ImageRow, Images
from indexer.store.meta import Written
from indexer.store.tiles import EmbeddedTile
from massl.core.files.scan import Contents, ImageFile, LeftOut, Skipped, walk
from massl.core.files.sidecars import Sidecar
from massl.core.images import dicom, raw, stacks
from massl.core.images.content import Content, sha256
from massl.core.images.decoding import MAX_PIXELS, READER, decode, within_memory
from massl.core.images.file_reading import open_content
from massl.core.images.image_errors import ImageError, TooLarge
from massl.core.images.measures import MEASURED_AT, Measures, measure
from massl.core.images.metadata import Metadata
from massl.core.images.ranges import Ranges
from massl.core.images.rendering import Unmeasured
from massl.core.lookahead import ahead
from massl.core.machine import cores

BATCH = 32  # images in a batch at least, and so in a transaction: what a kill can cost at most
GPU_BATCH = 256  # the same where a batch of 32 would leave most of the device idle
_TILED = 1_000  # pictures that an encoder is asked for where each may have many tiles
_EVERY = 500  # files that are walked by between two reports


IndexStage = Literal["look", "compare", "embed", "read", "measure"]


@dataclass(frozen=True)
class IndexProgress:
    """`done` of `total` files; `path` is one of the last.

    `stage` is `look` while the folder is walked (`total` is 0 then, as it can't be known), `compare` while the contents
    of touched files are compared with the catalog, then `embed`, which begins with 0 done. Of images of which something
    is not known yet, `read` follows (dates and words, of files) and `measure` (of pixels); `path` is empty then.
    """

    done: int
    total: int
    path: str
    stage: IndexStage = "embed"


@dataclass
class IndexReport:
    """What one run did, in files.

    `indexed` is how many can be searched now, `skipped` what can't and why, `left_out` how many of each kind were not
    looked at; see `massl.core.files.scan.LeftOut`.
    """

    indexed: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    kept_folders: tuple[str, ...] = ()  # made by a system, and looked into all the same: they hold labelled images
    taken: int = 0  # contents whose embeddings were made elsewhere; see `indexer.ingest.embedding_table`
    seconds: float = 0.0
    runtime: Runtime | None = None  # what computed the embeddings; None where there was nothing to embed

    @property
    def images_per_second(self) -> float:
        """Images embedded a second over the whole run, walking and writing included."""
        return self.embedded / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Loaded:
    """A file that was read: its pixels, or why there are none; neither where its content is embedded already."""

    file: ImageFile
    hash: bytes | None = None
    pixels: NDArray[np.uint8] | None = None
    width: int = 0
    height: int = 0
    reason: str | None = None
    lasting: bool = True  # whether the reason lies in the content, and so holds until the file changes
    metadata: Metadata | None = None
    measures: Measures | None = None
    clipped: Mapping[str, float | None] = field(default_factory=dict)  # see `massl.core.images.decoding.Decoded`
    tiles: Sequence[EmbeddedTile] | None = None  # None where nobody cut it; none where it is its only tile


def update(
    root: Path,
    catalog: Catalog,
    encoder: Callable[[int], Encoder],
    report: Callable[[IndexProgress], None],
    exclude: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    include: Sequence[str] = (),
    contents: Contents | None = None,
    embeddings: EmbeddingTables | None = None,
) -> IndexReport:
    """Makes the catalog say what is below `root` now.

    A file counts as unchanged while its size and its two times of change are. Images are followed by content (see
    `indexer.ingest.changes`). Rows of files that have gone are kept, out of sight, so that an unplugged disk costs
    nothing when it comes back.

    Args:
        root: the folder.
        catalog: what is known of it.
        encoder: gives the encoder for so many pictures; asked only where there is something to embed.
        report: told of every batch.
        exclude: patterns of what to leave out; see `massl.core.files.scan.walk`.
        max_pixels: larger images are skipped.
        include: patterns of what would be left out, and is wanted.
        contents: what is known of files whose names don't say what they are.
        embeddings: of contents that need not be decoded, as they were embedded elsewhere by the same encoder.
    """
    started = time.monotonic()
    result = IndexReport()
    _look_again_if_readers_changed(catalog, max_pixels)
    sidecars: dict[str, Sidecar] = {}
    walked = _with_sidecars(walk(root, exclude, include, contents), sidecars)
    changes, passed_over = _scan(root, catalog, report, walked, result)
    _apply(catalog, changes, passed_over)
    _embed(root, catalog, encoder, report, changes.todo, max_pixels, result, embeddings)
    read_missing(
        root, catalog, sidecars, max_pixels, lambda stage, done, total: report(IndexProgress(done, total, "", stage))
    )
    result.indexed = Images(catalog).count()
    result.skipped = Images(catalog).skipped()
    result.seconds = time.monotonic() - started
    return result


def _with_sidecars(
    walked: Iterable[ImageFile | Skipped | LeftOut], sidecars: dict[str, Sidecar]
) -> Iterator[ImageFile | Skipped | LeftOut]:
    """The same, noting the files beside pictures by the path of their picture."""
    for item in walked:
        if isinstance(item, ImageFile) and item.sidecar is not None:
            sidecars[item.path] = item.sidecar
        yield item


def _look_again_if_readers_changed(catalog: Catalog, max_pixels: int) -> None:
    """Has skipped files read anew when what reads them is another: a format, or a larger limit, may now do."""
    meta = catalog.meta()
    readers = f"pillow {PIL.__version__}, raw {raw.can_develop()}, dicom {dicom.can_read()}, massl {READER}"
    if meta.channels or meta.plane:
        readers += f", sci {stacks.can_read()}, channels {','.join(meta.channels)}, plane {meta.plane}"
    with_another = meta.readers != readers
    if with_another or meta.readers_max_pixels != max_pixels:
        image_writes.look_again(catalog, readers, max_pixels, too_large_only=not with_another)


def _scan(
    root: Path,
    catalog: Catalog,
    report: Callable[[IndexProgress], None],
    walked: Iterable[ImageFile | Skipped | LeftOut],
    result: IndexReport,
) -> tuple[Changes, list[Skipped]]:
    """Walks the folder beside the catalog. Files that are as they were cost a look at their size and times."""
    rows = Images(catalog).rows()
    unembedded = Images(catalog).without_embedding()
    kept: list[tuple[ImageRow, ImageFile]] = []
    touched: list[tuple[ImageRow, ImageFile]] = []
    new: list[ImageFile] = []
    todo: list[Todo] = []
    passed_over: list[Skipped] = []
    for seen, item in enumerate(walked):
        if seen % _EVERY == 0:
            report(IndexProgress(seen, 0, item.path, "look"))
        if isinstance(item, LeftOut):
            result.left_out[item.kind] += 1
            continue
        if isinstance(item, Skipped):
            passed_over.append(item)
            continue
        row = rows.pop(to_bytes(item.path), None)
        if row is None:
            new.append(item)
        elif not row.is_as(item) or (row.state == "gone" and row.id in unembedded):
            touched.append((row, item))
        elif row.state == "ready" and row.id in unembedded:
            todo.append(Todo(item, row, "same"))
        else:
            result.unchanged += row.state == "ready"
            result.added += row.state == "gone"
            if row.state == "gone" or row.ctime_ns == -1:
                kept.append((row, item))

    for item in passed_over:
        row = rows.get(to_bytes(item.path))
        if row and row.state == "skipped":
            del rows[row.path]
    taken = {to_bytes(item.path) for item in passed_over}
    hashes = Images(catalog).hashes([row.id for row, _ in touched] + [row.id for row in rows.values()])

    def hash_of(files: Sequence[ImageFile]) -> list[bytes | None]:
        found = []
        for digest in ahead(lambda file: _hash(root / file.path), files):
            found.append(digest)
            report(IndexProgress(len(found), len(files), files[len(found) - 1].path, "compare"))
        return found

    changes = compare(
        [(row._replace(hash=hashes[row.id]), item) for row, item in touched],
        new,
        [row._replace(hash=hashes[row.id]) for row in rows.values()],
        taken,
        lambda wanted: Images(catalog).known_hashes(wanted),
        hash_of,
    )
    result.unchanged += sum(row.state == "ready" and row.id not in unembedded for row, _ in changes.kept)
    result.added += sum(row.state == "gone" and row.id not in unembedded for row, _ in changes.kept)
    result.moved = sum(row.state == "ready" for row, _ in changes.moved)
    result.added += sum(row.state == "gone" and row.id not in unembedded for row, _ in changes.moved)
    result.removed = changes.removed
    # Content that is known, but has no embedding: after --rebuild, or of a file that could not be read before.
    for was, pairs in (("same", changes.kept), ("moved", changes.moved)):
        missing = [(row, item) for row, item in pairs if row.id in unembedded]
        todo += [Todo(item, row, was if row.state == "ready" else row.state) for row, item in missing]
    changes.kept += kept
    changes.todo += todo
    changes.todo.sort(key=lambda item: item.file.path)
    return changes, passed_over


def _apply(catalog: Catalog, changes: Changes, passed_over: Sequence[Skipped]) -> None:
    """Writes everything that needs no embedding; see `indexer.store.image_writes.write_places`."""
    if changes.kept or changes.moved or changes.vanished or changes.displaced or passed_over:
        image_writes.write_places(
            catalog, changes.moved, changes.kept, changes.vanished, changes.displaced, passed_over
        )


def _embed(
    root: Path,
    catalog: Catalog,
    encoder: Callable[[int], Encoder],
    report: Callable[[IndexProgress], None],
    todo: Sequence[Todo],
    max_pixels: int,
    result: IndexReport,
    embeddings: EmbeddingTables | None,
) -> None:
    if not todo:
        return
    report(IndexProgress(0, len(todo), todo[0].file.path))
    tiling = catalog.meta().tiles
    own = encoder(max(len(todo), _TILED) if tiling else len(todo))
    embedder = TileEmbedder(tiling, own) if tiling else None
    result.runtime = own.runtime
    remaining = iter(todo)
    done = 0
    with vectors.lookup(catalog) as is_embedded:
        files = [item.file for item in todo]
        ranges = CollectionRanges(root, catalog, files, max_pixels)
        if embeddings:
            ranges.keep(embeddings.fit(catalog.meta().shown_as))

        def needs_no_pixels(digest: bytes, data: Content) -> bool:
            known = embeddings and not tiling and embeddings.has(digest)
            return is_embedded(digest) or bool(
                known and embeddings and (embeddings.shows_alike(digest) or not ranges.concern(data))
            )

        def clipped_of(item: Loaded) -> Mapping[str, float | None]:
            if embeddings and item.hash is not None and item.pixels is None and not is_embedded(item.hash):
                return embeddings.clipped(item.hash)
            return item.clipped

        loaded = batches(root, files, own, max_pixels, needs_no_pixels, with_facts=True, ranges=ranges, tiles=embedder)
        with closing(loaded):  # its threads end before what they read from does
            for batch in loaded:
                pairs = list(zip(islice(remaining, len(batch)), batch, strict=True))
                with ranges.noting(map(clipped_of, batch)) as facts:
                    _commit(catalog, own, pairs, result, embeddings, facts, bool(tiling))
                done += len(batch)
                report(IndexProgress(done, len(todo), batch[-1].file.path))


def batches(
    root: Path,
    files: Sequence[ImageFile],
    encoder: Embeds,
    max_pixels: int = MAX_PIXELS,
    is_embedded: Callable[[bytes, Content], bool] = lambda digest, data: False,
    read: Callable[[ImageFile], bytes] | None = None,
    with_facts: bool = False,
    readers: int | None = None,
    ranges: Ranges | None = None,
    tiles: TileEmbedder | None = None,
) -> Generator[list[Loaded], None, None]:
    """Reads files in threads, ahead of the encoder but never by more than four batches.

    Args:
        root: the folder.
        files: what to read in it.
        encoder: what the pixels are for.
        max_pixels: larger images are skipped.
        is_embedded: whether a content needs no pixels, by its hash and itself.
        read: gives a file's content; from the folder if left out. Raises `ImageError` where there is none.
        with_facts: also read what a picture brings with it, and measure it.
        readers: threads that read and decode; one a core if left out. More help where reading is waiting.
        ranges: how deep files are shown; each by its own numbers if left out.
        tiles: embeds the tiles of each picture, too.
    """
    shown = ranges or Ranges()
    size = max(BATCH, small_batches.BATCH * cores()) if encoder.device == "cpu" else GPU_BATCH

    def load(file: ImageFile) -> Loaded:
        def content(file: ImageFile) -> AbstractContextManager[Content]:
            return nullcontext(read(file)) if read else open_content(root / file.path)

        while True:
            try:
                beside = root if with_facts else None
                return _load(file, encoder, max_pixels, is_embedded, content, beside, shown, tiles)
            except Unmeasured as numbers:
                shown.measure(numbers.kind)

    with closing(ahead(load, files, 4 * size, readers)) as loaded:
        while batch := list(islice(loaded, size)):
            yield batch


def _hash(path: Path) -> bytes | None:
    try:
        with within_memory(), open_content(path) as content:
            return sha256(content)
    except ImageError:
        return None


def _load(
    file: ImageFile,
    encoder: Embeds,
    max_pixels: int,
    is_embedded: Callable[[bytes, Content], bool],
    opened: Callable[[ImageFile], AbstractContextManager[Content]],
    beside: Path | None,
    ranges: Ranges,
    tiles: TileEmbedder | None,
) -> Loaded:
    """Reads one file; `beside` is the folder where its facts are read from too, None where they aren't.

    Raises:
        Unmeasured: its numbers have no range yet; no memory is held then, so that others can be read for one.
    """
    digest = None
    try:
        with within_memory(), opened(file) as data:
            digest = sha256(data)
            metadata = metadata_of(beside, file.path, file.sidecar, data) if beside else None
            if is_embedded(digest, data):
                return Loaded(file, digest, metadata=metadata)
            decoded = decode(data, encoder.resize, max_pixels, ranges.rendering)
            # A smaller picture would be measured as another one: `read_missing` decodes it once more.
            measures = measure(decoded.picture) if beside and encoder.resize >= MEASURED_AT else None
            pixels = encoder.prepare(decoded.picture)
            size, clipped = (decoded.width, decoded.height), decoded.clipped
            del decoded  # it may be large, and its tiles are read from the file
            cut = tiles.of(data, *size, max_pixels, ranges.rendering) if tiles else None
            return Loaded(file, digest, pixels, *size, metadata=metadata, measures=measures, clipped=clipped, tiles=cut)
    except TooLarge as error:
        return Loaded(file, digest, reason=f"{error}; --max-megapixels raises it")
    except ImageError as error:
        return Loaded(file, digest, reason=str(error), lasting=error.lasting)


def _commit(
    catalog: Catalog,
    encoder: Encoder,
    batch: list[tuple[Todo, Loaded]],
    result: IndexReport,
    embeddings: EmbeddingTables | None,
    facts: Sequence[Written],
    tiled: bool,
) -> None:
    """Embeds what of a batch is new content, and writes the whole batch in one transaction, with `facts`."""
    asked = [item.hash for _, item in batch if item.hash is not None and item.reason is None]
    known = vectors.of_contents(catalog, asked)
    if embeddings is not None:
        decoded = {item.hash for _, item in batch if item.pixels is not None}
        taken = embeddings.of_contents(digest for digest in asked if digest not in known and digest not in decoded)
        known |= taken
        result.taken += len(taken)
    new = {
        item.hash: item
        for _, item in batch
        if item.pixels is not None and item.hash is not None and item.hash not in known
    }
    if new:
        made = encoder.embed(np.stack([item.pixels for item in new.values() if item.pixels is not None]))
        fits = are_unit(made)
        for (digest, item), vector, fit in zip(new.items(), made.astype(np.float16), fits, strict=True):
            if fit:
                known[digest] = (vector.tobytes(), item.width, item.height)
        result.embedded += int(fits.sum())
    cut: dict[bytes, Sequence[EmbeddedTile]] = {}
    if tiled:
        cut |= tiles.of_contents(catalog, asked)
        cut |= {item.hash: item.tiles for _, item in batch if item.hash is not None and item.tiles is not None}
    written: list[EmbeddedFile | UnreadableFile] = []
    for todo, item in batch:
        if item.hash is None or item.hash not in known:
            # Of a picture that was read the encoder makes nothing; another one may.
            unfit = item.pixels is not None
            file = item.file if item.lasting and not unfit else replace(item.file, mtime_ns=-1)
            reason = item.reason or (
                "the encoder gives no valid embedding for it" if unfit else "changed while reading"
            )
            written.append(UnreadableFile(file, reason, item.hash))
            continue
        embedding, width, height = known[item.hash]
        row = todo.row.id if todo.row else None
        stored = (item.file, item.hash, width, height, embedding, item.metadata, item.measures)
        own = (cut.get(item.hash) or [EmbeddedTile((0, 0, width, height), embedding)]) if tiled else ()
        written.append(EmbeddedFile(row, *stored, own))
    image_writes.write_batch(catalog, written, facts)
    for (todo, _), done in zip(batch, written, strict=True):
        if isinstance(done, EmbeddedFile):
            result.unchanged += todo.was == "same"
            result.changed += todo.was == "ready"
            result.added += todo.was in ("gone", "skipped")
