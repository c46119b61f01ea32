"""Arrays in a file of a collection's folder: a cache, whole or not there, whose SHA-256 the catalog keeps."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.files.atomic_writing import remove_older, whole


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


def read(folder: Path, name: str, digest: str) -> dict[str, NDArray[np.generic]] | None:
    """The arrays in a file, by name; None where it is gone, is not as it was written, or holds no such arrays."""
    try:
        data = (folder / name).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != digest:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile):  # it came from somebody else
        return None
