"""Embeddings in Parquet files: what `massl embed` writes and `massl index --embeddings` takes.

A row is an image file: `hash` (SHA-256 of its content), `path`, `width`, `height` (pixels, upright), `vector` (float16,
of unit length but for rounding), or, where there is none, `reason`. Of a stack, or a file of more than 8 bits,
`clipped` tells which share of its numbers lies beyond the range, by their kind, as JSON. The file says which encoder
made it, at which size, and how such files are shown.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from indexer.encoder.contract import are_unit
from indexer.encoder.onnx_encoder import Encoder, EncoderMismatch
from massl.core.disk_errors import reason
from massl.core.errors import MasslError
from massl.core.images.rendering import Limits
from massl.core.images.rendering_facts import ShownAs
from massl.core.printable import visible
from massl.core.regular_files import open_regular

if TYPE_CHECKING:
    import pyarrow

FORMAT = "1"
_KEYS = ("format", "encoder_sha256", "encoder_name", "dim", "image_size")
SHOWN_AS = ("range", "channels", "plane", "limits")  # of files of more than 8 bits, and of stacks
_GROUPS = 8  # row groups whose vectors are kept in memory


NOT_DEEP: Mapping[str, float | None] = {}  # no proxy, which can't be sent to another process


class TableRow(NamedTuple):
    """One image file; `vector` is float16, packed, and `hash` None where the file could not even be read."""

    hash: bytes | None
    path: str
    width: int
    height: int
    vector: bytes | None
    reason: str | None
    clipped: Mapping[str, float | None] = NOT_DEEP


def check_installed() -> None:
    """Raises a `MasslError` where Parquet can't be read and written."""
    if importlib.util.find_spec("pyarrow") is None:
        raise MasslError("Parquet needs a package that isn't installed; run: pip install 'massl[parquet]'")


def made_by(encoder: Encoder) -> dict[str, str]:
    """What a table says of its encoder."""
    told = (FORMAT, encoder.sha256, encoder.name, encoder.dim, encoder.image_size)
    return dict(zip(_KEYS, map(str, told), strict=True))


def table_of(rows: Sequence[TableRow], dim: int, facts: Mapping[str, str]) -> pyarrow.Table:
    """Rows as a Parquet file has them, with facts that stand in its metadata as `massl.KEY`."""
    import pyarrow as pa

    none = bytes(2 * dim)
    packed = np.frombuffer(b"".join(row.vector or none for row in rows), np.float16)
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(packed, pa.float16()), dim, mask=pa.array([row.vector is None for row in rows], pa.bool_())
    )
    columns = {
        "hash": pa.array([row.hash for row in rows], pa.binary(32)),
        "path": pa.array([row.path for row in rows], pa.string()),
        "width": pa.array([row.width or None for row in rows], pa.int32()),
        "height": pa.array([row.height or None for row in rows], pa.int32()),
        "vector": vectors,
        "reason": pa.array([row.reason for row in rows], pa.string()),
        "clipped": pa.array([json.dumps(dict(row.clipped)) if row.clipped else None for row in rows], pa.string()),
    }
    return pa.table(columns).replace_schema_metadata({f"massl.{key}": value for key, value in facts.items()})


def written(shown: ShownAs) -> dict[str, str]:
    """What a table says of how its deep files are shown."""
    return {name: json.dumps(value) for name, value in shown.facts().items()}


AS_BEFORE = written(ShownAs.read({}))  # what a table of an earlier version doesn't tell


def shown_as(path: Path, facts: Mapping[str, str]) -> ShownAs:
    """How the deep files of a table of these facts are shown: each by its own numbers, in one of an earlier version.

    Raises:
        MasslError: the facts don't tell it.
    """
    try:
        told = {name: json.loads(facts[name]) for name in SHOWN_AS if name in facts}
        return ShownAs.read(told)
    except (ValueError, RecursionError):
        raise MasslError(f"{path} is damaged: it doesn't say how its images of more than 8 bits are shown") from None


def facts_of(path: Path) -> dict[str, str]:
    """What a file says of itself.

    Raises:
        MasslError: it can't be read, or massl did not write it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        open_regular(path).close()
        metadata = pq.read_schema(path).metadata or {}
    except OSError as error:
        if error.errno is None:
            raise MasslError(f"{path} is not a Parquet file, or damaged: {visible(str(error)[:120])}") from None
        raise MasslError(f"{path} can't be read: {reason(error)}") from None
    except (pa.ArrowException, ValueError) as error:
        raise MasslError(f"{path} is not a Parquet file, or damaged: {visible(str(error)[:120])}") from None
    text = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in metadata.items()}
    facts = {key.removeprefix("massl."): value for key, value in text.items() if key.startswith("massl.")}
    if missing := [key for key in _KEYS if key not in facts]:
        raise MasslError(f"{path} was not written by massl embed: its metadata has no {missing[0]}")
    if facts["format"] != FORMAT:
        raise MasslError(f"{path} is of format {visible(facts['format'][:20])}, from another version of massl")
    return facts


class EmbeddingTables:
    """Files of embeddings that one encoder made, asked by content. Safe to share by threads.

    Args:
        paths: the files.
        encoder: that which they must be of.

    Raises:
        EncoderMismatch: one is of another encoder, or another size.
        MasslError: one can't be read, or is none.
    """

    def __init__(self, paths: Sequence[Path], encoder: Encoder) -> None:
        check_installed()
        self._dim = encoder.dim
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._files: list[Any] = []
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self._clipped: dict[bytes, Mapping[str, float | None]] = {}  # of deep files alone
        self._shown: list[ShownAs] = []
        self._kinds: list[set[str]] = []  # of the numbers of each table's deep files
        self._alike: list[bool] = []  # whether a table shows deep files as the collection does
        self.paths = paths
        wanted = made_by(encoder)
        for number, path in enumerate(paths):
            facts = facts_of(path)
            if any(facts[key] != wanted[key] for key in ("encoder_sha256", "dim", "image_size")):
                raise EncoderMismatch(
                    f"{path} was embedded by {visible(facts['encoder_name'][:40])} ({facts['encoder_sha256'][:12]}, at "
                    f"{facts['image_size'][:8]} pixels), not by {encoder.name} ({encoder.sha256[:12]}, at "
                    f"{encoder.image_size}); embed again with --encoder {encoder.called}, or index with that one"
                )
            self._shown.append(shown_as(path, facts))
            self._kinds.append(set())
            self._open(number, path)
        self._alike = [False] * len(paths)

    def _open(self, number: int, path: Path) -> None:
        """Notes where each content with an embedding lies."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
            if file.schema_arrow.field("vector").type != pa.list_(pa.float16(), self._dim):
                raise MasslError(f"{path}: its vectors are not {self._dim} half-precision numbers")
            for group in range(file.num_row_groups):
                columns = [name for name in ("hash", "reason", "clipped") if name in file.schema_arrow.names]
                table = file.read_row_group(group, columns)
                hashes, reasons = table["hash"].to_pylist(), table["reason"].to_pylist()
                shares = table["clipped"].to_pylist() if "clipped" in columns else [None] * len(hashes)
                for row, (digest, why, clipped) in enumerate(zip(hashes, reasons, shares, strict=True)):
                    if why is None and isinstance(digest, bytes) and len(digest) == 32:
                        self._places.setdefault(digest, (number, group, row))
                        if clipped is not None and self._places[digest] == (number, group, row):
                            self._clipped[digest] = _shares(clipped)
                            self._kinds[number] |= self._clipped[digest].keys()
        except (OSError, KeyError, pa.ArrowException, ValueError) as error:
            raise MasslError(f"{path} is damaged: {visible(str(error)[:120])}") from None
        self._files.append(file)

    def __len__(self) -> int:
        return len(self._places)

    def fit(self, shown: ShownAs) -> dict[str, Limits]:
        """Finds which tables show deep files as a collection does. Returns the limits that it may take over.

        These are of kinds of numbers that the collection, which measures its ranges, has not met yet.

        Raises:
            EncoderMismatch: a table has embeddings of deep files that are shown otherwise.
        """
        taken: dict[str, Limits] = {}
        for number, (path, own) in enumerate(zip(self.paths, self._shown, strict=True)):
            difference = ""
            if (own.channels, own.plane) != (shown.channels, shown.plane):
                difference = "other channels or another plane"
            elif not own.has_range_of(shown):
                difference = f"the range {own.range}, and not {shown.range}"
            for kind in sorted(self._kinds[number]):
                limits, wanted = own.limits.get(kind), taken.get(kind, shown.limits.get(kind))
                if wanted is None and limits:
                    taken[kind] = limits
                elif limits != wanted:
                    difference = difference or f"another range of {kind}, measured on other files"
            if difference and self._kinds[number]:
                raise EncoderMismatch(
                    f"{path} shows its images of more than 8 bits with {difference}; to take it as it is, index with "
                    f"{own.options()} --rebuild, or embed them again with massl embed {shown.options()}"
                )
            self._alike[number] = not difference and "clipped" in self._files[number].schema_arrow.names
        return taken

    def shows_alike(self, digest: bytes) -> bool:
        """Whether this content is shown as in the collection that `fit` was told of, even if it is deep."""
        return digest in self._places and self._alike[self._places[digest][0]]

    def clipped(self, digest: bytes | None) -> Mapping[str, float | None]:
        """See `massl.core.images.rendering.Scaling`; empty for what isn't deep."""
        return self._clipped.get(digest or b"", NOT_DEEP)

    def has(self, digest: bytes) -> bool:
        """Whether there is an embedding of this content that can be used."""
        return digest in self._places and bool(self.of_contents([digest]))

    def of_contents(self, digests: Iterable[bytes]) -> dict[bytes | None, tuple[bytes, int, int]]:
        """Embedding, width and height of those of these contents that there are and that are of unit length.

        Raises:
            MasslError: a file is damaged.
        """
        found: dict[bytes | None, tuple[bytes, int, int]] = {}
        with self._lock:
            for digest in digests:
                if digest not in self._places:
                    continue
                number, group, row = self._places[digest]
                vectors, widths, heights = self._group(number, group)
                vector, width, height = vectors[row], widths[row], heights[row]
                if are_unit(vector[None].astype(np.float32)).all() and width and height:
                    found[digest] = vector.tobytes(), int(width), int(height)
        return found

    def _group(self, number: int, group: int) -> Any:
        """Vectors float16 `[n, D]`, widths and heights of a row group; the last few stay in memory."""
        import pyarrow as pa

        if (number, group) in self._groups:
            self._groups.move_to_end((number, group))
            return self._groups[number, group]
        try:
            table = self._files[number].read_row_group(group, ["vector", "width", "height"]).combine_chunks()
            vectors = np.zeros((len(table), self._dim), np.float16)
            column = table["vector"].chunk(0)
            present = ~np.asarray(column.is_null())
            vectors[present] = np.asarray(column.flatten()).reshape(-1, self._dim)
            sizes = [np.asarray(table[name].fill_null(0)) for name in ("width", "height")]
        except (OSError, pa.ArrowException, ValueError) as error:
            raise MasslError(f"{self.paths[number]} is damaged: {visible(str(error)[:120])}") from None
        self._groups[number, group] = vectors, *sizes
        while len(self._groups) > _GROUPS:
            self._groups.popitem(last=False)
        return self._groups[number, group]


def _shares(text: str) -> dict[str, float | None]:
    """What a row's `clipped` says.

    Raises:
        ValueError: nothing that there can be.
    """
    try:
        told = json.loads(text)
    except RecursionError:
        raise ValueError("nested") from None
    if not isinstance(told, dict) or not all(len(kind) <= 100 and kind.isprintable() for kind in told):
        raise ValueError(f"{text[:40]!r} tells no shares")
    for share in told.values():
        if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
            raise ValueError(f"{text[:40]!r} tells no shares")
    return told
