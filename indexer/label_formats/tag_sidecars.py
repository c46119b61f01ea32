"""Tags to the XMP files beside pictures, where other programs see them. No picture is ever written."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from indexer.store.catalog import Catalog
from indexer.store.images import Images
from indexer.store.paths import below, leads_out
from indexer.store.picture_facts import PictureFacts
from indexer.store.sidecar_keywords import SidecarKeywords
from indexer.store.tags import Tags, normalised
from massl.core.disk_errors import reason
from massl.core.files.atomic_writing import put, temporary
from massl.core.files.sidecars import beside, place_for
from massl.core.images import plane_files, xmp
from massl.core.images.formats import RAW_SUFFIXES
from massl.core.images.xmp import XmpError
from massl.core.images.xmp_writing import with_keywords, without_keywords

_AT_ONCE = 500  # pictures between two transactions


@dataclass
class SidecarReport:
    """What became of the sidecars.

    Attributes:
        written: sidecars that are new or have other keywords, relative to the root.
        removed: those that held nothing but keywords of ours, and are gone with them.
        unchanged: how many had all tags and no other keyword of ours.
        left: pictures whose sidecar stays as it is, each with the reason.
    """

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _TaggedPicture:
    """A picture with what its sidecar is to hold.

    Attributes:
        path: relative to the root.
        tags: that it has.
        own: keywords that massl wrote into the sidecar before, composed.
        known: other words that the picture brings with it.
    """

    path: str
    tags: tuple[str, ...]
    own: frozenset[str]
    known: tuple[str, ...]


@dataclass(frozen=True)
class _SidecarChange:
    """A sidecar before and after: its bytes, None for none, and the keywords of ours that it then has."""

    place: Path
    state: os.stat_result | None
    before: bytes | None
    after: bytes | None
    own: frozenset[str]


def write(root: Path, catalog: Catalog) -> SidecarReport:
    """Makes the sidecar beside each image hold the image's tags, one after another, each whole or not at all.

    All else that a sidecar holds stays. Of its keywords, those go that massl wrote and that are no longer tags. A new
    one also gets the words that the picture brings with it, as programs that find words in a sidecar don't look for
    others.
    """
    report = SidecarReport()
    memory = SidecarKeywords(catalog)
    own, tagged = memory.every(), Tags(catalog).images()
    wanted = sorted({*own, *tagged})
    tags = Tags(catalog).of(wanted)
    facts = PictureFacts(catalog).metadata(wanted)
    rows = sorted((path, image) for image, (path, *_) in Images(catalog).sides(wanted).items())
    names_of: dict[Path, list[str]] = {}
    for start in range(0, len(rows), _AT_ONCE):
        changes: dict[int, tuple[_TaggedPicture, _SidecarChange]] = {}
        outcome: dict[int, frozenset[str]] = {}
        for path, image in rows[start : start + _AT_ONCE]:
            has, had = tags.get(image, ()), own.get(image, frozenset())
            known = facts[image].keywords if image in facts else ()
            picture = _TaggedPicture(path, has, had, tuple(word for word in known if word not in had))
            with _told(report, path):
                sidecar = _planned(root, picture, names_of)
                if sidecar.after is sidecar.before:
                    report.unchanged += bool(has)
                    outcome[image] = sidecar.own
                else:
                    changes[image] = picture, sidecar
        # Before they are written: after a kill it must be known which keywords may be ours.
        memory.set({image: picture.own | sidecar.own for image, (picture, sidecar) in changes.items()})
        for image, (picture, sidecar) in changes.items():
            outcome[image] = picture.own
            with _told(report, picture.path):
                _put(sidecar, names_of[sidecar.place.parent])
                outcome[image] = sidecar.own
                folder = picture.path.rpartition("/")[0]
                done = report.written if sidecar.after is not None else report.removed
                done.append(f"{folder}/{sidecar.place.name}" if folder else sidecar.place.name)
        memory.set({image: words for image, words in outcome.items() if words != own.get(image) or image in changes})
    return report


@contextmanager
def _told(report: SidecarReport, path: str) -> Iterator[None]:
    """Tells why the sidecar of a picture stays as it is."""
    try:
        yield
    except XmpError as error:
        report.left.append((path, str(error)))
    except OSError as error:
        report.left.append((path, f"its sidecar can't be written: {reason(error)}"))


def _planned(root: Path, picture: _TaggedPicture, names_of: dict[Path, list[str]]) -> _SidecarChange:
    """What the sidecar of a picture is now and is to be.

    Raises:
        XmpError, OSError: it can't be, or must not be, changed.
    """
    file = below(root, picture.path)
    if leads_out(root, picture.path):
        raise XmpError("the picture lies outside of the folder, behind a link; nothing is written there")
    if plane_files.split(file):
        raise XmpError("it is a plane of a stack, and a sidecar would speak of all its planes")
    if file.parent not in names_of:
        names_of[file.parent] = sorted(os.listdir(file.parent))
    if file.name not in names_of[file.parent]:
        raise XmpError("the picture is not there; run massl index")
    place = _place(file, names_of[file.parent])
    state = _state(place)
    data = None
    if state is not None:
        if not stat.S_ISREG(state.st_mode):
            raise XmpError(f"{place.name} is a link, or no file")
        if state.st_size > xmp.MOST_BYTES:
            raise XmpError(f"{place.name}: more than {xmp.MOST_BYTES >> 20} MiB")
        data = place.read_bytes()
    ending = file.suffix[1:]
    named = ending if file.suffix.lower() in RAW_SUFFIXES and place.stem == file.stem else ""
    try:
        said = xmp.read(data) if data is not None else xmp.Xmp()
        of = said.values.get("extension", "")
        if of and of.lower() != ending.lower():
            raise XmpError(f"it says that it belongs to a .{of} file")
        after, own = _merged(data, said.keywords, picture, named)
    except XmpError as error:
        raise XmpError(f"{place.name} stays as it is: {error}") from None
    return _SidecarChange(place, state, data, after, own)


def _merged(
    data: bytes | None, had: Sequence[str], picture: _TaggedPicture, named: str
) -> tuple[bytes | None, frozenset[str]]:
    """A sidecar with the tags of a picture and without those of before, None for none; and what of it is ours.

    Args:
        data: the sidecar; None for none.
        had: its keywords.
        picture: whose it is.
        named: the ending that it is to name; see `with_keywords`.
    """
    tags = dict.fromkeys(map(xmp.clean, picture.tags))
    there = {normalised(word) for word in had}  # others may write them decomposed
    old = {word for word in had if normalised(word) in picture.own - {*tags}}
    new = [word for word in tags if word not in there]
    own = (picture.own & there & {*tags}) | {*new}
    if data is None and not new:
        return None, frozenset()
    known = () if set(had) - old else picture.known
    after = without_keywords(data, old) if data is not None else None
    if new:
        after = with_keywords(after, (*known, *new), named)
    if old and after == without_keywords(with_keywords(None, had, named), old) and not xmp.read(after).keywords:
        return None, own  # nobody but massl wrote into it
    return after, own - {*known}


def _place(picture: Path, names: list[str]) -> Path:
    place = picture.with_name(place_for(picture.name, names))
    if Counter(beside(names).values())[place.name] > 1:
        raise XmpError(f"{place.name} belongs to several pictures")
    return place


def _put(sidecar: _SidecarChange, names: list[str]) -> None:
    """Writes a sidecar, or removes it, unless another program has just changed it.

    Args:
        sidecar: what is to be written.
        names: what the folder holds; learns of a new one.

    Raises:
        XmpError, OSError: it stays as it is.
    """
    place = sidecar.place
    if sidecar.after is None:
        _check_unchanged(sidecar)
        place.unlink()
        names.remove(place.name)
        return
    with temporary(place.parent) as written:
        written.write_bytes(sidecar.after)
        if sidecar.state is not None:
            written.chmod(stat.S_IMODE(sidecar.state.st_mode))
        _check_unchanged(sidecar)
        put(written, place)
    if place.name not in names:
        names.append(place.name)


def _check_unchanged(sidecar: _SidecarChange) -> None:
    before, now = sidecar.state, _state(sidecar.place)
    if (before is None) != (now is None) or (before and now and _moment(before) != _moment(now)):
        raise XmpError(f"{sidecar.place.name} was changed by another program just now; run it again")


def _state(place: Path) -> os.stat_result | None:
    try:
        return place.lstat()
    except FileNotFoundError:
        return None


def _moment(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_size, state.st_mtime_ns, state.st_ino
