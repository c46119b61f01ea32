"""What the catalog knows of one image."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from indexer.store.catalog import READY, Catalog
from indexer.store.filters import modified
from indexer.store.paths import below, from_bytes
from massl.core.errors import MasslError
from massl.core.files.scan import storable

_FEWEST_DIGITS = 12  # of a content's name: fewer might mean several


@dataclass(frozen=True)
class Facts:
    """One image.

    Attributes:
        image: its id.
        path: relative to the root.
        content: SHA-256 of the file, in hexadecimal.
        size: of the file, in bytes.
        changed: when the file was last modified, in local time; None if that is not known.
        width, height: in pixels, upright.
        label, author: the label that somebody gave it, and who; None where nobody did.
    """

    image: int
    path: str
    content: str
    size: int
    changed: datetime | None
    width: int
    height: int
    label: str | None
    author: str | None


def facts(catalog: Catalog, image: int) -> Facts:
    """What is known of an image.

    Raises:
        MasslError: it is no longer in the collection.
    """
    rows = catalog.read(
        "SELECT path, hash, size, mtime_ns, width, height, label, author FROM images "
        f"LEFT JOIN labels ON labels.image = images.id WHERE images.id = ? AND {READY}",
        [image],
    )
    for path, content, size, mtime_ns, width, height, label, author in rows:
        if content is None:
            raise catalog.damaged("an image has no hash")
        changed = None if mtime_ns == -1 else modified(mtime_ns)
        return Facts(image, from_bytes(path), content.hex(), size, changed, width, height, label, author)
    raise MasslError("this picture is no longer in the collection; look at it afresh")


def file_state(catalog: Catalog, root: Path, image: int) -> Literal["there", "gone", "changed"]:
    """Whether an image's file still lies below the root as it was indexed, by its size and time.

    Raises:
        MasslError: the image is no longer in the collection.
    """
    (path,) = catalog.paths_of([image])
    try:
        found = below(root, path).stat()
    except OSError:
        return "gone"
    ((size, mtime_ns),) = catalog.read("SELECT size, mtime_ns FROM images WHERE id = ?", [image])
    return "there" if is_unchanged(found, size, mtime_ns) else "changed"


def is_unchanged(found: os.stat_result, size: int, mtime_ns: int) -> bool:
    """Whether a file is the one of which the catalog holds these, as far as its size and time tell."""
    return found.st_size == size and mtime_ns in (-1, storable(found.st_mtime_ns))


def image_of(catalog: Catalog, content: str) -> int:
    """The id of an image with this content: the first 12 or more hexadecimal digits of its SHA-256.

    Of several copies, the first by path.

    Raises:
        MasslError: no image of the collection has it.
    """
    if re.fullmatch(rf"[0-9a-f]{{{_FEWEST_DIGITS},64}}", content):
        span = [bytes.fromhex(content.ljust(64, digit)) for digit in "0f"]
        rows = catalog.read(f"SELECT id FROM images WHERE hash BETWEEN ? AND ? AND {READY} ORDER BY path LIMIT 1", span)
        for (image,) in rows:
            return image
    raise MasslError("the picture that this search began with is no longer in the collection")
