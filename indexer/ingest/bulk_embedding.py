"""Embedding without a collection: images in, a Parquet file out, a block at a time, so that a kill costs one block."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.encoder.contract import are_unit
from indexer.encoder.onnx_encoder import Encoder
from indexer.ingest.embedding_table import (
    AS_BEFORE,
    TableRow,
    check_installed,
    facts_of,
    made_by,
    shown_as,
    table_of,
    written,
)
from indexer.ingest.indexing import Loaded, batches
from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import whole
from massl.core.files.path_notation import as_text
from massl.core.files.scan import ImageFile, Skipped
from massl.core.images.content import Content
from massl.core.images.decoding import MAX_PIXELS
from massl.core.images.ranges import MeasuredRanges, Ranges, RangeSampler
from massl.core.images.rendering_facts import ShownAs

BLOCK = 4_096  # images; a whole number of batches, so that they are embedded as an index would embed them


class ImageSource(Protocol):
    """Images by number, in an order that stays the same: see `massl.data.sources.Source`."""

    @property
    def where(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def read(self, index: int) -> bytes: ...


@dataclass
class EmbedReport:
    """What a run did: `images` are the rows of the file, `embedded` those that this run computed a vector for."""

    images: int = 0
    embedded: int = 0
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class BlockWork:
    """What embeds any block, and knows nothing of the others: a worker anywhere can do it.

    Attributes:
        source: the images.
        max_pixels: larger images are skipped.
        readers: threads that read and decode; one a core if left out. More help where reading is waiting.
        ranges: how deep files are shown. Who measures them measures the same ones, whichever blocks it embeds.
    """

    source: ImageSource
    max_pixels: int = MAX_PIXELS
    readers: int | None = None
    ranges: Ranges = field(default_factory=Ranges)

    @classmethod
    def shown(
        cls, source: ImageSource, shown: ShownAs, max_pixels: int = MAX_PIXELS, readers: int | None = None
    ) -> BlockWork:
        """With deep files shown so; limits that `shown` doesn't know are measured on the source's files."""
        sampler = RangeSampler(len(source), source.name, source.read, max_pixels, readers)
        return cls(source, max_pixels, readers, MeasuredRanges(shown.rendering(measuring=True), sampler))

    @property
    def shown_as(self) -> ShownAs:
        """How deep files are shown, with what was measured so far."""
        return replace(ShownAs.of(self.ranges.rendering), limits=self.ranges.limits)

    def rows(self, numbers: range, encoder: Encoder, seen: Callable[[int], None]) -> list[TableRow]:
        """A block, embedded as an index would: in batches of files, each content once.

        Args:
            numbers: of the images.
            encoder: what embeds them.
            seen: told how many are done.

        Raises:
            MasslError: the source can't be read any more.
        """
        files = [ImageFile(str(number), 0, 0) for number in numbers]
        rows: list[TableRow] = []
        known: dict[bytes, TableRow] = {}

        def read(file: ImageFile) -> bytes:
            return self.source.read(int(file.path))

        def is_known(digest: bytes, data: Content) -> bool:
            return digest in known

        loaded = batches(
            Path(), files, encoder, self.max_pixels, is_known, read, readers=self.readers, ranges=self.ranges
        )
        with closing(loaded):
            for batch in loaded:
                _embed(batch, encoder, known)
                for item in batch:
                    path = as_text(self.source.name(int(item.file.path)))
                    if item.hash in known:
                        rows.append(known[item.hash]._replace(path=path))
                    else:
                        why = item.reason or "the encoder gives no valid embedding for it"
                        rows.append(TableRow(item.hash, path, item.width, item.height, None, why))
                seen(len(rows))
        return rows


class BlockEngine(Protocol):
    """What has blocks embedded: this process, or several."""

    def __call__(
        self, work: BlockWork, blocks: Sequence[range], seen: Callable[[int], None]
    ) -> Iterator[tuple[range, list[TableRow]]]:
        """Yields blocks with their rows, in any order, each once; `seen` is told how many images of others are done."""


def in_this_process(encoder: Encoder) -> BlockEngine:
    """Embeds blocks one after the other."""

    def engine(
        work: BlockWork, blocks: Sequence[range], seen: Callable[[int], None]
    ) -> Iterator[tuple[range, list[TableRow]]]:
        for numbers in blocks:
            yield numbers, work.rows(numbers, encoder, seen)

    return engine


def embed_source(
    work: BlockWork,
    encoder: Encoder,
    out: Path,
    report: Callable[[int, int], None],
    part: tuple[int, int] = (1, 1),
    engine: BlockEngine | None = None,
) -> EmbedReport:
    """Embeds images to a Parquet file; blocks that an earlier run finished are kept.

    Args:
        work: the images, and how they are read.
        encoder: what embeds them.
        out: the file to write. Until all is done its blocks lie beside it, in a folder of its name and `.blocks`.
        report: told how many of how many are done.
        part: K and N: only the K-th of N equal parts of the blocks, for one of several workers.
        engine: what has the blocks embedded; this process if left out.

    Raises:
        MasslError: pyarrow is missing, `out` or its blocks are of other images or another encoder, the images can't be
            read any more, or nothing can be written.
    """
    check_installed()
    source = work.source
    facts = made_by(encoder) | {"images": source.identity, "part": f"{part[0]}/{part[1]}"} | written(work.shown_as)
    folder = out.with_name(out.name + ".blocks")
    every = range(0, len(source), BLOCK)
    mine = every[len(every) * (part[0] - 1) // part[1] : len(every) * part[0] // part[1]]
    blocks = {range(first, min(len(source), first + BLOCK)): folder / f"{first:012d}.parquet" for first in mine}
    total = sum(map(len, blocks))
    result = EmbedReport()
    try:
        if out.exists():
            _check_same(out, facts, "name another file, or remove it")
            work.ranges.adopt(shown_as(out, facts_of(out)).limits)
        else:
            folder.mkdir(exist_ok=True)
            missing = []
            for numbers, place in blocks.items():
                if place.exists():
                    _check_same(place, facts, f"remove {folder}, or name another file")
                    work.ranges.adopt(shown_as(place, facts_of(place)).limits)  # measured before some files changed
                else:
                    missing.append(numbers)
            done = total - sum(map(len, missing))
            report(done, total)
            finished = (engine or in_this_process(encoder))(work, missing, lambda seen: report(done + seen, total))
            for numbers, rows in finished:
                result.embedded += sum(row.vector is not None for row in rows)
                facts |= written(work.shown_as)
                _write(blocks[numbers], rows, encoder.dim, facts)
                done += len(numbers)
                report(done, total)
            _join(out, list(blocks.values()), encoder.dim, facts | written(work.shown_as))
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise MasslError(f"{cannot_write(out, error, 'name another file')}; finished blocks are kept") from None
    result.images, result.skipped = _told(out)
    return result


def _embed(batch: Sequence[Loaded], encoder: Encoder, known: dict[bytes, TableRow]) -> None:
    """Adds what a batch holds of new contents, as rows without a path."""
    new = {
        item.hash: item
        for item in batch
        if item.pixels is not None and item.hash is not None and item.hash not in known
    }
    if not new:
        return
    vectors = encoder.embed(np.stack([item.pixels for item in new.values() if item.pixels is not None]))
    for (digest, item), vector, fit in zip(new.items(), vectors.astype(np.float16), are_unit(vectors), strict=True):
        if fit:
            known[digest] = TableRow(digest, "", item.width, item.height, vector.tobytes(), None, item.clipped)


def _check_same(path: Path, facts: Mapping[str, str], remedy: str) -> None:
    found = facts_of(path)
    if found["encoder_sha256"] != facts["encoder_sha256"] or found["image_size"] != facts["image_size"]:
        raise MasslError(f"{path} already exists, with another encoder or size; {remedy}")
    if any(found.get(key) != facts[key] for key in ("images", "part")):
        raise MasslError(f"{path} already exists, with other images or another part of them; {remedy}")
    if any(found.get(key, AS_BEFORE[key]) != facts[key] for key in ("range", "channels", "plane")):
        raise MasslError(f"{path} already exists, with another range, other channels or another plane; {remedy}")


def _write(path: Path, rows: Sequence[TableRow], dim: int, facts: Mapping[str, str]) -> None:
    import pyarrow.parquet as pq

    with whole(path) as file:
        pq.write_table(table_of(rows, dim, facts), file, compression="zstd", write_page_checksum=True)


def _join(out: Path, places: Sequence[Path], dim: int, facts: Mapping[str, str]) -> None:
    """Puts blocks into one file, a row group each."""
    import pyarrow.parquet as pq

    schema = table_of([], dim, facts).schema
    with (
        whole(out) as target,
        pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as file,
    ):
        for place in places:
            file.write_table(pq.read_table(place, page_checksum_verification=True))


def _told(out: Path) -> tuple[int, list[Skipped]]:
    """How many rows a file has, and which have no vector."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(out)
    skipped = []
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, ["path", "reason"])
        pairs = zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True)
        skipped += [Skipped(path, why) for path, why in pairs if why is not None]
    return file.metadata.num_rows, skipped
