"""Files beside pictures, in which programs keep what they don't write into the picture itself."""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from massl.core.images.formats import PICTURE, RAW_SUFFIXES, kind_of_name

SUFFIX = ".xmp"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """An XMP file beside a picture: its path relative to the root, with forward slashes, its size and time."""

    path: str
    size: int
    mtime_ns: int

    @property
    def state(self) -> str:
        """Another text whenever it is another file, as far as size and time tell."""
        name = zlib.crc32(os.fsencode(self.path.rpartition("/")[2]))  # of a name that may be no text
        return f"{self.size} {self.mtime_ns} {name:08x}"


def beside(names: Iterable[str]) -> dict[str, str]:
    """Which sidecar belongs to which picture of one folder, by their names.

    `a.jpg.xmp` belongs to `a.jpg`. `a.xmp` belongs to the one picture that is called `a`; where there are several, to
    the RAW ones, as no program writes it for the others. It may still say that it is another's: see
    `massl.core.images.metadata.read`.
    """
    names = list(names)
    sidecars = {name.lower(): name for name in names if name.lower().endswith(SUFFIX)}
    if not sidecars:
        return {}
    pictures: dict[str, list[str]] = defaultdict(list)
    found: dict[str, str] = {}
    for name in names:
        if kind_of_name(name) != PICTURE:
            continue
        pictures[os.path.splitext(name)[0].lower() + SUFFIX].append(name)
        if own := sidecars.get(name.lower() + SUFFIX):
            found[name] = own
    for sidecar, called in pictures.items():
        of_camera = [name for name in called if os.path.splitext(name)[1].lower() in RAW_SUFFIXES]
        for name in called if len(called) == 1 else of_camera:
            if sidecar in sidecars:
                found.setdefault(name, sidecars[sidecar])
    return found


def place_for(name: str, names: Iterable[str]) -> str:
    """What the sidecar of a picture is called: the one that is there, else the one to make.

    Beside a RAW picture it is `a.xmp`, as Adobe's programs read no other; beside any other picture, and where several
    RAW ones are called `a`, it is `a.jpg.xmp`, which digiKam and darktable read.

    Args:
        name: the picture's, without its folder.
        names: all that the folder holds.
    """
    names = list(names)
    found = beside(names)
    if name in found:
        return found[name]
    stem, ending = os.path.splitext(name)
    alike = [each for each in names if os.path.splitext(each)[0].lower() == stem.lower() and each != name]
    of_camera = [each for each in alike if os.path.splitext(each)[1].lower() in RAW_SUFFIXES]
    return f"{stem}{SUFFIX}" if ending.lower() in RAW_SUFFIXES and not of_camera else f"{name}{SUFFIX}"
