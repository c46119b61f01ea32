"""Arrays in a file of a collection's folder: a cache, whole or not there, whose SHA-256 the catalog keeps."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.files.atomic_writing import remove_older, whole
from massl.core.regular_files import read_regular

Kinds: TypeAlias = Mapping[str, tuple[type[np.generic], tuple[int, ...]]]
"""Of arrays by name, the type of their numbers and the shape of a row."""

_MOST = 1 << 30  # bytes: of tens of millions of images


def keep(
    folder: Path, kind: str, arrays: Mapping[str, NDArray[np.generic]], remember: Callable[[str, str], None]
) -> None:
    """Writes arrays to a new file in place of the one before; a read-only or full disk costs the cache alone.

    Args:
        folder: the collection's.
        kind: what the file's name begins with.
        arrays: by name.
        remember: puts the file's name and SHA-256 into the catalog.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{kind}-{digest[:16]}.npz"
    try:
        with whole(path) as written:
            written.write_bytes(data)
        remember(path.name, digest)
    except (OSError, MasslError):
        return
    remove_older(path, f"{kind}-*.npz")


def read(folder: Path, name: str, digest: str, kinds: Kinds) -> dict[str, NDArray[Any]] | None:
    """The arrays in a file, by name.

    The file may be somebody else's, and the catalog that keeps its digest too. What is made of it takes no more than
    its size.

    Args:
        folder: the collection's.
        name: of the file.
        digest: its SHA-256.
        kinds: of each array that there must be, and no other: the type of its numbers, and the shape of a row. One is
            called `ids`.

    Returns:
        None where it is gone, is not as it was written, or holds other arrays. `ids` are rising, other numbers finite.
    """
    try:
        data = read_regular(folder / name, _MOST)
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            if any(member.compress_type != zipfile.ZIP_STORED for member in packed.infolist()):
                return None
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            if sorted(stored.files) != sorted(kinds):
                return None
            arrays: dict[str, NDArray[Any]] = {key: stored[key] for key in kinds}
    except (ValueError, TypeError, AttributeError, EOFError, OSError, MemoryError, KeyError, zipfile.BadZipFile):
        return None
    for key, (kind, row) in kinds.items():
        array = arrays[key]
        if array.dtype != kind or not array.ndim or array.shape[1:] != row or not np.isfinite(array).all():
            return None
    ids = arrays["ids"]
    return arrays if (ids[1:] > ids[:-1]).all() else None
