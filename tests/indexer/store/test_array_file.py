"""Files of arrays beside a catalog: what somebody else put there, with its digest, is not believed."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.store import array_file

KINDS: array_file.Kinds = {"ids": (np.int64, ()), "points": (np.float32, (2,))}
IDS, POINTS = np.arange(5), np.zeros((5, 2), np.float32)


def npz(*, packed: bool = False, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def claiming(shape: str) -> bytes:
    """An array whose header tells of more than there is."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    buffer = io.BytesIO(npz(ids=IDS))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("points.npy", array)
    return buffer.getvalue()


def read(folder: Path, data: bytes) -> dict[str, np.ndarray] | None:
    (folder / "map-0.npz").write_bytes(data)
    return array_file.read(folder, "map-0.npz", hashlib.sha256(data).hexdigest(), KINDS)


def test_arrays_are_read_as_they_were_kept(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    array_file.keep(tmp_path, "map", {"ids": IDS, "points": POINTS}, lambda *named: told.append(named))
    found = array_file.read(tmp_path, *told[0], KINDS)
    assert found is not None
    assert np.array_equal(found["ids"], IDS)
    assert np.array_equal(found["points"], POINTS)
    assert array_file.read(tmp_path, told[0][0], "0" * 64, KINDS) is None


@pytest.mark.parametrize(
    "data",
    [
        npz(ids=IDS),
        npz(ids=IDS, points=POINTS, more=IDS),
        npz(ids=IDS.astype(np.int32), points=POINTS),
        npz(ids=IDS, points=POINTS[:, :1]),
        npz(ids=np.int64(3), points=POINTS),
        npz(ids=IDS, points=POINTS + np.nan),
        npz(ids=IDS[::-1], points=POINTS),
        npz(ids=np.array([5, -(2**63) + 1]), points=POINTS),
        npz(ids=np.array(["a"], object), points=POINTS),
        claiming("(1000000000000, 2)"),
        claiming("(-1, 2)"),
        b"PK\x05\x06" + bytes(18),
        b"",
    ],
    ids=["one is missing", "one more", "of 32 bits", "one axis", "a number", "no numbers", "falling", "overflowing",
         "objects", "huge", "negative", "empty archive", "empty"],
)  # fmt: skip
def test_other_arrays_than_are_kept_are_none(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) is None


def test_a_packed_array_is_not_unpacked(tmp_path: Path) -> None:
    data = npz(packed=True, ids=np.zeros(20 << 20, np.int64), points=POINTS)
    tracemalloc.start()
    assert read(tmp_path, data) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(data) + (4 << 20)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("put", [sparse, Path.mkdir])
def test_what_is_no_such_file_is_none(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(tmp_path / "map-0.npz")
    assert array_file.read(tmp_path, "map-0.npz", "0" * 64, KINDS) is None
