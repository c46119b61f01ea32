"""Which of several versions of a picture looks like the original, by what the files themselves say.

Nothing here is proof. An original of a camera carries the date on which it was taken; many programs that edit or send
pictures drop it, or write another date of change beside it. A format made for web pages is seldom what a camera wrote.
A folder's originals come from a few devices, which compress all their pictures in the same way. And each further JPEG
compression is as coarse as its quantisation tables say (ITU-T T.81, section A.3.4).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from indexer.store.paths import below
from massl.core.images.decoding import header
from massl.core.images.formats import PICTURE, kind_of_name

SIBLINGS = 32  # other files of the same folder that are looked at, at most

_EXIF, _TAKEN, _CHANGED = 0x8769, 0x9003, 0x0132
_FOR_THE_WEB = frozenset({"WEBP", "AVIF", "GIF"})


class Rank(NamedTuple):
    """How much a file looks like an edited one; what is lower is kept. A border weighs more than pixels do."""

    bordered: bool = False
    undated: bool = False
    changed_since: bool = False
    for_the_web: bool = False
    unlike_its_folder: int = 0
    compression: int = 0


UNRANKED = Rank()

REASONS = {
    "bordered": "without a border",
    "undated": "has the date taken",
    "changed_since": "unchanged since it was taken",
    "for_the_web": "format of the original",
    "unlike_its_folder": "like the other files of its folder",
    "compression": "least compressed",
}
"""Why a file is kept rather than one of another rank, by the first part in which they differ."""


@dataclass(frozen=True)
class _Header:
    """What a file's header says: whether and when the picture was taken and the file changed, and how it is stored."""

    taken: str = ""
    changed: str = ""
    format: str = ""
    tables: tuple[tuple[int, ...], ...] = ()

    @property
    def device(self) -> str:
        """The same for files that were stored in the same way."""
        return self.format + hashlib.sha256(repr(self.tables).encode()).hexdigest()


@dataclass
class Origins:
    """Ranks files of a folder, each looked at once; only headers are read.

    Args:
        root: the collection's folder.
    """

    root: Path
    _ranks: dict[str, Rank] = field(default_factory=dict)
    _headers: dict[Path, _Header] = field(default_factory=dict)
    _siblings: dict[Path, list[Path]] = field(default_factory=dict)

    def rank(self, path: str) -> Rank:
        """The rank of a file by its path relative to the root; that of a file without any marks where it can't be read.

        The shares of its folder are in quarters, so that a few odd siblings decide nothing.
        """
        if path not in self._ranks:
            file = below(self.root, path)
            header = self._header(file)
            others = [self._header(other).device for other in self._near(file)]
            same = sum(device == header.device for device in others) / max(1, len(others)) if header.format else 0
            self._ranks[path] = Rank(
                False,
                not header.taken,
                bool(header.taken and header.changed and header.changed != header.taken),
                header.format in _FOR_THE_WEB,
                -round(4 * same),
                sum(map(sum, header.tables[:1])),
            )
        return self._ranks[path]

    def _near(self, file: Path) -> Sequence[Path]:
        """Pictures of the same folder, without the file itself, drawn evenly by name."""
        folder = file.parent
        if folder not in self._siblings:
            try:
                names = sorted(name for name in os.listdir(folder) if kind_of_name(name) == PICTURE)
            except OSError:
                names = []
            step = max(1, len(names) // SIBLINGS)
            self._siblings[folder] = [folder / name for name in names[::step][: SIBLINGS + 1]]
        return [other for other in self._siblings[folder] if other != file][:SIBLINGS]

    def _header(self, file: Path) -> _Header:
        if file not in self._headers:
            self._headers[file] = _read(file)
        return self._headers[file]


def _read(file: Path) -> _Header:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is not as it should be
            with header(file) as image:
                exif = image.getexif()
                taken, changed = exif.get_ifd(_EXIF).get(_TAKEN), exif.get(_CHANGED)
                tables = getattr(image, "quantization", None) or {}
                return _Header(
                    _date(taken),
                    _date(changed),
                    image.format or "",
                    tuple(tuple(tables[key]) for key in sorted(tables)),
                )
    except Exception:  # whatever a reader of damaged or hostile metadata may raise: then nothing is known
        return _Header()


def _date(value: object) -> str:
    """A date of EXIF; empty for one that is none, as cameras without a clock write it."""
    text = value.strip("\0 ") if isinstance(value, str) else ""
    return text if len(text) == 19 and text[:4].isdigit() and "1826" < text[:4] < "2200" else ""
