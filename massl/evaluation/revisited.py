"""Revisited Oxford and Paris: retrieval of landmarks, easy, medium and hard.

Radenović et al., "Revisiting Oxford and Paris: large-scale image retrieval benchmarking", CVPR 2018, section 3.3.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.regular_files import open_regular
from massl.core.similarities import Floats, similarities

# What a query should find, and what counts neither for nor against: the paper's three set-ups.
SETUPS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
AT = (1, 5, 10)
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class RevisitedQuery:
    """A query: its box in pixels (left, top, right, bottom), and rows of the database by what they are to it."""

    box: tuple[float, float, float, float]
    easy: NDArray[np.int64]
    hard: NDArray[np.int64]
    junk: NDArray[np.int64]


@dataclass(frozen=True)
class GroundTruth:
    """What `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl` says: names of images without suffix, and the queries."""

    images: tuple[str, ...]
    query_images: tuple[str, ...]
    queries: tuple[RevisitedQuery, ...]


@dataclass(frozen=True)
class Setup:
    """Figures of one set-up: mean average precision, mean precision at k, and how many queries count."""

    map: float
    precision_at: dict[int, float]
    queries: int


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads the benchmark's ground truth, `gnd_*.pkl` as published or the same as JSON.

    A pickle can run any code when it is read. This one is read by an unpickler that knows dictionaries, lists,
    numbers, strings and NumPy's arrays of numbers, and refuses everything else.

    Raises:
        MasslError: missing, unreadable, or not of that form.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MasslError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_BYTES:
        raise MasslError(f"{path} is too large for a ground truth of Revisited Oxford or Paris")
    try:
        if data.lstrip()[:1] == b"{" and path.suffix.lower() == ".json":
            told = json.loads(data)
        else:
            told = _Plain(io.BytesIO(data), encoding="latin1").load()
        images, query_images = tuple(map(str, told["imlist"])), tuple(map(str, told["qimlist"]))
        queries = tuple(
            RevisitedQuery(_box(entry["bbx"]), *(_rows(entry[kind], len(images)) for kind in ("easy", "hard", "junk")))
            for entry in told["gnd"]
        )
    except MasslError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise MasslError(f"{path} is not a ground truth of Revisited Oxford or Paris ({reason})") from None
    if not queries or len(queries) != len(query_images):
        raise MasslError(f"{path} has {len(query_images)} query images for {len(queries)} queries")
    return GroundTruth(images, query_images, queries)


def revisited(queries: Floats, images: Floats, truth: GroundTruth) -> dict[str, Setup]:
    """The benchmark's figures for each of easy, medium and hard.

    Average precision is the area under the precision-recall curve by trapezia; junk images are taken out of the
    ranking; queries without a match in a set-up do not count in it.

    Args:
        queries: `[Q, D]`, rows of unit length, in the ground truth's order.
        images: `[N, D]`, rows of unit length, likewise.
        truth: from `read_ground_truth`.
    """
    scores: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in SETUPS}
    for rows, block in similarities(queries, images):
        for i, row in enumerate(rows):
            ranking = np.argsort(-block[i], kind="stable")
            place = np.empty(len(ranking), np.int64)
            place[ranking] = np.arange(len(ranking))
            query = truth.queries[row]
            for name, (good_kinds, junk_kinds) in SETUPS.items():
                good = np.unique(np.concatenate([getattr(query, kind) for kind in good_kinds]))
                junk = np.unique(np.concatenate([getattr(query, kind) for kind in junk_kinds]))
                if len(good):
                    places = np.sort(place[good])
                    places -= np.searchsorted(np.sort(place[junk]), places)
                    scores[name].append((_average_precision(places), [_precision(places, k) for k in AT]))
    return {
        name: Setup(
            float(np.mean([average for average, _ in found])) if found else float("nan"),
            dict(zip(AT, np.mean([at for _, at in found], axis=0).tolist() if found else [0.0] * len(AT), strict=True)),
            len(found),
        )
        for name, found in scores.items()
    }


def _average_precision(places: NDArray[np.int64]) -> float:
    """The area by trapezia; `places`, from 0, of the matches, ascending, junk taken out."""
    before = np.arange(len(places))
    left = np.where(places == 0, 1.0, before / np.maximum(places, 1))
    right = (before + 1) / (places + 1)
    return float((left + right).mean() / 2)


def _precision(places: NDArray[np.int64], k: int) -> float:
    # The benchmark's own: k is cut to the place of the last match, so that few matches can still give 1.
    k = min(int(places[-1]) + 1, k)
    return float((places < k).sum() / k)


def _box(value: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(number) for number in value)
    return left, top, right, bottom


def _rows(value: Any, count: int) -> NDArray[np.int64]:
    rows = np.array([int(number) for number in value], np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise MasslError(f"the ground truth names image {int(rows.max())} of {count}")
    return rows


class _Plain(pickle.Unpickler):
    """Containers, numbers, strings; and stand-ins for how NumPy pickles arrays, so that none of its code runs."""

    def find_class(self, module: str, name: str) -> Any:
        known: Mapping[str, Any] = {
            "_reconstruct": lambda *ignored: _Array(),
            "ndarray": _Array,
            "dtype": _Kind,
            "scalar": lambda kind, data: kind.read(data)[0],
            "_frombuffer": lambda data, kind, *ignored: _Array(kind.read(data)),
        }
        if module.split(".")[0] == "numpy" and name in known:
            return known[name]
        # How Python 3 writes bytes, and no bytes at all, into a pickle of an old kind.
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")
        if (module, name) == ("__builtin__", "bytes"):
            return lambda: b""
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, which no ground truth needs")


class _Kind:
    """A NumPy number type by its name, as `i8`."""

    def __init__(self, name: str, *ignored: object) -> None:
        if name not in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"):
            raise pickle.UnpicklingError(f"arrays of {name!r} are no numbers")
        self.name = name
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def read(self, data: bytes | str) -> list[float]:
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        return np.frombuffer(raw, np.dtype(self.order + self.name)).tolist()


class _Array:
    """A pickled array, of which only the numbers are kept, one after the other."""

    def __init__(self, numbers: list[float] | None = None) -> None:
        self.numbers = numbers or []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, _, kind, _, data = state
        self.numbers = kind.read(data)

    def __iter__(self) -> Any:
        return iter(self.numbers)
