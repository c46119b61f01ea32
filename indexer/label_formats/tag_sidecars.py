"""Tags to the XMP files beside pictures, where other programs see them. No picture is ever written."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from indexer.store.catalog import Catalog
from indexer.store.images import Images
from indexer.store.paths import below
from indexer.store.picture_facts import PictureFacts
from indexer.store.tags import Tags
from massl.core.disk_errors import reason
from massl.core.files.atomic_writing import put, temporary
from massl.core.files.sidecars import beside, place_for
from massl.core.images import xmp
from massl.core.images.formats import RAW_SUFFIXES
from massl.core.images.xmp import XmpError
from massl.core.images.xmp_writing import with_keywords


@dataclass
class SidecarReport:
    """What became of the sidecars.

    Attributes:
        written: sidecars that are new or have more keywords, relative to the root.
        unchanged: how many had all tags already.
        left: pictures whose sidecar stays as it is, each with the reason.
    """

    written: list[str] = field(default_factory=list)
    unchanged: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)


def write(root: Path, catalog: Catalog) -> SidecarReport:
    """Adds each image's tags to the sidecar beside it, one after another, each whole or not at all.

    All that a sidecar holds stays. A new one also gets the words that the picture brings with it, as programs that find
    words in a sidecar don't look for others.
    """
    report = SidecarReport()
    tags = Tags(catalog).of(sorted(Tags(catalog).images()))
    facts = PictureFacts(catalog).metadata(list(tags))
    names_of: dict[Path, list[str]] = {}
    rows = sorted((path, image) for image, (path, *_) in Images(catalog).sides(list(tags)).items())
    for path, image in rows:
        try:
            picture = below(root, path)
            folder = picture.parent
            if folder not in names_of:
                names_of[folder] = sorted(os.listdir(folder))
            if picture.name not in names_of[folder]:
                raise XmpError("the picture is not there; run massl index")
            place = _place(picture, names_of[folder])
            known = facts[image].keywords if image in facts else ()
            if _add(place, picture, tags[image], known):
                report.written.append(f"{path[: len(path) - len(picture.name)]}{place.name}")
                if place.name not in names_of[folder]:
                    names_of[folder].append(place.name)
            else:
                report.unchanged += 1
        except XmpError as error:
            report.left.append((path, str(error)))
        except OSError as error:
            report.left.append((path, f"its sidecar can't be written: {reason(error)}"))
    return report


def _place(picture: Path, names: list[str]) -> Path:
    place = picture.with_name(place_for(picture.name, names))
    if Counter(beside(names).values())[place.name] > 1:
        raise XmpError(f"{place.name} belongs to several pictures")
    return place


def _add(place: Path, picture: Path, tags: tuple[str, ...], known: tuple[str, ...]) -> bool:
    """Adds tags to a sidecar; False if it has them all."""
    before = _state(place)
    data = None
    if before is not None:
        if not stat.S_ISREG(before.st_mode):
            raise XmpError(f"{place.name} is a link, or no file")
        if before.st_size > xmp.MOST_BYTES:
            raise XmpError(f"{place.name}: more than {xmp.MOST_BYTES >> 20} MiB")
        data = place.read_bytes()
    ending = picture.suffix[1:]
    try:
        said = xmp.read(data) if data is not None else None
        of = said.values.get("extension", "") if said else ""
        if of and of.lower() != ending.lower():
            raise XmpError(f"it says that it belongs to a .{of} file")
        words = tags if said and said.keywords else (*known, *tags)
        named = ending if picture.suffix.lower() in RAW_SUFFIXES and place.stem == picture.stem else ""
        done = with_keywords(data, words, named)
    except XmpError as error:
        raise XmpError(f"{place.name} stays as it is: {error}") from None
    if done is data:
        return False
    with temporary(place.parent) as written:
        written.write_bytes(done)
        if before is not None:
            written.chmod(stat.S_IMODE(before.st_mode))
        now = _state(place)
        if (before is None) != (now is None) or (before and now and _moment(before) != _moment(now)):
            raise XmpError(f"{place.name} was changed by another program just now; run it again")
        put(written, place)
    return True


def _state(place: Path) -> os.stat_result | None:
    try:
        return place.lstat()
    except FileNotFoundError:
        return None


def _moment(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_size, state.st_mtime_ns, state.st_ino
