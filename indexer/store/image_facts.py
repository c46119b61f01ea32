"""What the catalog knows of one image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from massl.core.files.scan import storable
from massl.core.images.measures import Measures
from massl.core.images.metadata import Metadata


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
        metadata: what the picture brings with it; None where nobody looked yet.
        measures: what its pixels tell; None where nobody looked yet.
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
    metadata: Metadata | None = None
    measures: Measures | None = None


def is_unchanged(found: os.stat_result, size: int, mtime_ns: int) -> bool:
    """Whether a file is the one of which the catalog holds these, as far as its size and time tell."""
    return found.st_size == size and mtime_ns in (-1, storable(found.st_mtime_ns))
