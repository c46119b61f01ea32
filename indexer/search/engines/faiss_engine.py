"""FAISS behind the interface of `indexer.search.engines.interface`: exact, a fast scan with re-ranking, and cells.

All three rank by inner product, keep ids beside the vectors, confine a filtered search inside FAISS, and open their
file memory-mapped where FAISS can, so that opening costs milliseconds and all processes that search share its memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# The threads of OpenMP wait for each other by spinning unless told otherwise, which makes building twenty times slower
# wherever another process wants the same cores. Read when FAISS is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.search.engines.engine_selection import Ladder
from indexer.search.engines.interface import Preparing, VectorIndex
from indexer.store.vectors import LAST_ID, VectorSource
from massl.core.errors import MasslError
from massl.core.machine import cores

MANY = 16  # queries from which several threads pay; one is 4 to 5 times slower on two threads than on one
TRAINING = 32_768  # vectors that the codes of a fast scan are learnt from
PER_CELL = 48  # vectors that a cell's centre is learnt from; FAISS warns below 39
TUNED_FOR = 20  # results for which `effort` is meant; it grows in proportion for more
SPARSE = 0.1  # share of the vectors up to which a filtered search looks at all that pass, as a fast scan can't skip


class FaissIndex:
    """A FAISS index with ids of our own beside it. See `indexer.search.engines.interface.VectorIndex`.

    Attributes:
        stored: what is written: FAISS's map of ids around its index.
        ids: int64 `[N]`, rising, of its rows.
    """

    def __init__(self, stored: Any) -> None:
        self.effort = 0
        self.stored = stored
        self._rows = faiss.downcast_index(stored.index)
        # Rising, so that rows are found by bisection: FAISS's own map from ids to rows takes seconds to build.
        self.ids: NDArray[np.int64] = faiss.vector_to_array(stored.id_map)

    def __len__(self) -> int:
        return len(self.ids)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `VectorIndex.search`."""
        queries = np.ascontiguousarray(queries, np.float32)
        passing = None if among is None else self._passing(among)
        count = len(self) if passing is None else int(passing.sum())
        k = min(k, count)
        if k <= 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        # A setting of the calling thread's, not of the process.
        faiss.omp_set_num_threads(1 if len(queries) < MANY else cores())
        bits, selector = None, None
        if passing is not None:
            bits = np.packbits(passing, bitorder="little")  # FAISS keeps a pointer to it
            selector = faiss.IDSelectorBitmap(bits)
        scores, found = self._nearest(queries, k, selector, count)
        return scores, np.where(found >= 0, self.ids[found], -1)

    def _passing(self, among: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows are of these ids, bool `[N]`."""
        last = int(self.ids[-1]) if len(self) else -1
        # By a table of all ids: of a million, looking each up by bisection took fifteen times as long as the search.
        table = np.zeros(last + 1, bool)
        table[among[: np.searchsorted(among, last, "right")]] = True
        return table[self.ids]

    def _nearest(
        self, queries: NDArray[np.float32], k: int, selector: Any, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows; `count` rows pass the selector."""
        return self._rows.search(queries, k, params=faiss.SearchParameters(sel=selector))

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `VectorIndex.holds`."""
        rows = np.searchsorted(self.ids, ids)
        return np.append(self.ids, -1)[rows] == ids


class RefinedIndex(FaissIndex):
    """Turned vectors: a scan of 4-bit codes for candidates, ranked again by 8-bit codes; in one cell or many."""

    def __init__(self, stored: Any, cells: bool) -> None:
        super().__init__(stored)
        self._cells = cells
        if not isinstance(self._rows, faiss.IndexPreTransform):
            raise OSError("an index of another form")
        self._turn = faiss.downcast_VectorTransform(self._rows.chain.at(0))
        self._turned = faiss.downcast_index(self._rows.index)
        self._codes = faiss.downcast_index(self._turned.base_index)
        self._refined = faiss.downcast_index(self._turned.refine_index)

    def _nearest(
        self, queries: NDArray[np.float32], k: int, selector: Any, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        queries = self._turn.apply(_padded(queries, self._rows.d))
        more = max(1.0, k / TUNED_FOR)
        probes = min(self._codes.nlist, round(self.effort * more)) if self._cells else 1
        candidates = (candidates_in_cells(self.effort) if self._cells else self.effort) * more
        if candidates > len(self) / 10 or (selector is not None and count < SPARSE * len(self)):
            return self._refined.search(queries, k, params=faiss.SearchParameters(sel=selector))
        if selector is not None and self._cells:
            probes = min(self._codes.nlist, round(probes * len(self) / count))
        scan = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        parameters = faiss.IndexRefineSearchParameters(k_factor=candidates / k, base_index_params=scan)
        return self._turned.search(queries, k, params=parameters)


def candidates_in_cells(probes: int) -> int:
    """How many candidates are ranked again where so many cells are looked into.

    Codes of 4 bits miss some of the nearest among many vectors, however many cells are looked into. Among ten million,
    recall stayed below the floor with 800 candidates.
    """
    return max(800, 25 * probes)


class Exact:
    """Every vector, as half-precision numbers: what the catalog holds, to the bit."""

    name = "exact"
    how = "every picture is compared"
    exact = True
    efforts: tuple[int, ...] = (0,)

    def build(self, source: VectorSource, preparing: Preparing) -> VectorIndex:
        """See `IndexKind.build`."""
        # Half-precision numbers are scanned twice as fast as single ones, which wait for memory.
        return FaissIndex(_filled(faiss.IndexScalarQuantizer(source.dim, _FP16, _IP), source, preparing))

    def write(self, index: VectorIndex, path: Path) -> None:
        """See `IndexKind.write`."""
        _write(index, path)

    def read(self, path: Path, dim: int) -> VectorIndex:
        """See `IndexKind.read`."""
        return FaissIndex(_read(path, dim))


class FastScan:
    """Product quantisation to 4 bits, scanned by shuffles in registers (André et al., 2017); ranked again by 8 bits.

    Vectors are turned at random first (Jégou et al., 2010): a code of four numbers can't tell apart much of the first
    components of an embedding that is whitened by half, and has little to tell of the last ones.

    A few thousand vectors a core second to build, a thirtieth of an exact search's time; every code is looked at.
    """

    name = "fast scan"
    how = "a fast scan, its best ranked again"
    exact = False
    efforts: tuple[int, ...] = (200, 300, 400, 600, 800, 1200, 1600, 3200)  # candidates ranked again
    _many_cells = False

    def build(self, source: VectorSource, preparing: Preparing) -> VectorIndex:
        """See `IndexKind.build`."""
        cells = self._cells(len(source))
        _, vectors = source.sample(max(TRAINING, PER_CELL * cells if self._many_cells else 0))
        preparing("learning", 0, len(source))
        dim = _padded_dim(source.dim)
        turn = faiss.RandomRotationMatrix(dim, dim)
        turn.init(0)
        codes = faiss.index_factory(dim, _codes(dim, cells), _IP)
        index = faiss.IndexPreTransform(turn, codes)
        # Of one cell it is learnt in a core second, in thousands of steps too small to share out.
        faiss.omp_set_num_threads(cores() if self._many_cells else 1)
        index.train(_padded(vectors.astype(np.float32), index.d))
        return RefinedIndex(_filled(index, source, preparing), self._many_cells)

    def _cells(self, count: int) -> int:
        return 1

    def write(self, index: VectorIndex, path: Path) -> None:
        """See `IndexKind.write`."""
        _write(index, path)

    def read(self, path: Path, dim: int) -> VectorIndex:
        """See `IndexKind.read`."""
        return RefinedIndex(_read(path, _padded_dim(dim)), self._many_cells)


class Cells(FastScan):
    """The same in cells (an inverted file), of which a search looks into the nearest few only."""

    name = "cells"
    how = "only the nearest cells are searched"
    efforts: tuple[int, ...] = (16, 32, 64, 128, 256)  # cells looked into
    _many_cells = True

    def _cells(self, count: int) -> int:
        # Around four times the square root of their number, as FAISS's guidelines have it.
        return int(2 ** np.clip(round(np.log2(4 * max(1, count) ** 0.5)), 4, 17))


_IP = faiss.METRIC_INNER_PRODUCT
_FP16 = faiss.ScalarQuantizer.QT_fp16
_WIDTH = 4  # numbers that share a code of 4 bits


def _padded_dim(dim: int) -> int:
    return -(-dim // _WIDTH) * _WIDTH


def _padded(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Zeros after each vector, which no inner product notices: codes take their numbers in fours."""
    missing = dim - vectors.shape[1]
    return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, missing))) if missing else vectors)


def _codes(dim: int, cells: int) -> str:
    return f"IVF{cells},PQ{dim // _WIDTH}x4fs,Refine(SQ8)"


def _filled(index: Any, source: VectorSource, preparing: Preparing) -> Any:
    stored = faiss.IndexIDMap(index)
    index.this.disown()
    stored.own_fields = True
    faiss.omp_set_num_threads(cores())
    for ids, vectors in source.blocks():
        stored.add_with_ids(_padded(vectors.astype(np.float32), index.d), ids)
        preparing("adding", int(stored.ntotal), len(source))
    return stored


def _write(index: VectorIndex, path: Path) -> None:
    assert isinstance(index, FaissIndex)
    try:
        if _is_utf8(path):
            faiss.write_index(index.stored, str(path))
            return
        with path.open("wb") as file:
            faiss.write_index(index.stored, faiss.PyCallbackIOWriter(file.write))
    except RuntimeError as error:
        raise OSError(str(error)) from None


def _read(path: Path, dim: int) -> Any:
    """FAISS's map of ids around an index of so many numbers a vector, as `_filled` makes it.

    Raises:
        OSError: it can't be read, or is another.
    """
    try:
        stored = _loaded(path)
    except RuntimeError as error:
        raise OSError(str(error)) from None
    if not isinstance(stored, faiss.IndexIDMap) or {stored.d, stored.index.d} != {dim}:
        raise OSError("an index of another form")
    ids = faiss.vector_to_array(stored.id_map)
    rising = (ids[1:] > ids[:-1]).all() and (not len(ids) or 0 <= ids[0] <= ids[-1] <= LAST_ID)
    if not rising or {stored.ntotal, stored.index.ntotal} != {len(ids)}:
        raise OSError("an index of other numbers than its own")
    return stored


def _loaded(path: Path) -> Any:
    if not _is_utf8(path):  # into memory, as FAISS can't map what Python has opened
        with path.open("rb") as file:
            return faiss.read_index(faiss.PyCallbackIOReader(file.read))
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:  # until 1.14.2 FAISS can't map a file on macOS
        return faiss.read_index(str(path))


LADDER = Ladder(((0, Exact()), (100_000, FastScan()), (4_000_000, Cells())))
"""What a collection uses unless it is told otherwise."""


def engine(address: str) -> Ladder:
    """See `indexer.search.engines.engine_choice`.

    Raises:
        MasslError: an address, where there is none to be given.
    """
    if address:
        raise MasslError("FAISS keeps its index beside the catalog: --engine-uri is for another --engine")
    return LADDER


def _is_utf8(path: Path) -> bool:
    """Whether FAISS can be given a path; of other names it takes no bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
