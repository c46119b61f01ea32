"""Which images a search is confined to, by what people said of them, where they lie and what they bring with them.

And these in order, where none is searched.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.store import cameras
from indexer.store.catalog import READY, Catalog, to_bytes
from indexer.store.label_spelling import spellings
from indexer.store.paths import folded, from_bytes
from indexer.store.quality import QualityBound
from indexer.store.tags import MAX_TAG, Tags
from massl.core.errors import MasslError

UNKNOWN = -1  # of a file's time of modification, in the catalog
_NANOSECONDS = 10**9
_NAMED = 30  # tags that a message lists
_METADATA = "JOIN file_metadata ON file_metadata.image = images.id"
# How a picture lies, as it is looked at, as SQL.
ORIENTATIONS: Mapping[str, str] = {
    "landscape": "width > height",
    "portrait": "width < height",
    "square": "width = height",
}
_CALLED = {"landscape": "wider than high", "portrait": "higher than wide", "square": "as wide as high"}
_YEARS = (1678, 2261)  # what nanoseconds since 1970 reach in 64 bits, in whole years


@dataclass(frozen=True)
class Filter:
    """What an image must be to be searched. Several labels or folders widen the choice, the kinds together narrow it.

    Attributes:
        labels: it carries one of these.
        folders: it lies below one of these, relative to the root.
        since, until: its file was last modified on this day or later, or earlier; both days count, in the local time
            of this machine.
        labelled: it carries a label, whichever.
        taken_since, taken_until: it was taken on this day or later, or earlier, by the camera's clock; both days count.
        or_modified: where it isn't known when it was taken, the day its file was last modified counts in place of that;
            else such images don't pass.
        quality: one of these hints is about it; see `indexer.store.quality.bounds`.
        tags: it carries all of these.
        any_tags: it carries one of these.
        without_tags: it carries none of these.
        cameras: one of these took it; see `indexer.store.cameras`.
        rating: it has so many stars or more, 1 to 5.
        orientation: one of `ORIENTATIONS`, as it is looked at; empty: any.
        named: its path, relative to the root, contains each of these, in capitals or not.
    """

    labels: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    labelled: bool = False
    taken_since: date | None = None
    taken_until: date | None = None
    or_modified: bool = False
    quality: tuple[QualityBound, ...] = ()
    tags: tuple[str, ...] = ()
    any_tags: tuple[str, ...] = ()
    without_tags: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    rating: int | None = None
    orientation: str = ""
    named: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.folders or self.since or self.until or not self.of_files_alone)

    @property
    def _of_taking(self) -> bool:
        return bool(self.taken_since or self.taken_until)

    @property
    def _of_tags(self) -> bool:
        return bool(self.tags or self.any_tags or self.without_tags)

    @property
    def _of_picture(self) -> bool:
        return bool(self.cameras or self.rating is not None or self.orientation)

    @property
    def of_files_alone(self) -> bool:
        """Whether `paths` and `times` say all of it."""
        of_people = self.labels or self.labelled or self._of_tags
        return not (of_people or self._of_taking or self.quality or self._of_picture or self.named)

    def check(self, catalog: Catalog) -> None:
        """Raises a `MasslError` unless some image carries each label, lies in each folder, and has such a date."""
        for first, last in ((self.since, self.until), (self.taken_since, self.taken_until)):
            if first and last and first > last:
                raise MasslError(f"no day is after {first} and before {last}; change one of the two dates")
        for label in self.labels:
            if not exists(catalog, Filter(labels=(label,))):
                known = ", ".join(map(repr, _labels(catalog))) or "none"
                raise MasslError(f"no image has the label {label!r}; the labels are: {known}")
        self._check_tags(catalog)
        self._check_picture(catalog)
        for folder in self.folders:
            if _prefix(folder) and not exists(catalog, Filter(folders=(folder,))):
                raise MasslError(
                    f"no image lies below a folder {folder!r}; give one relative to the folder that was indexed"
                )
        if (self.since or self.until) and not exists(catalog, Filter(since=self.since, until=self.until)):
            first, last = dates(catalog)
            there = f"the files are from {first} to {last}" if first else "no file's date is known"
            raise MasslError(f"no image was modified {_span(self.since, self.until)}; {there}")
        if self.quality and not exists(catalog, Filter(quality=self.quality)):
            raise MasslError(f"no picture is {' or '.join(bound.name for bound in self.quality)}, nor nearly so")
        taking = Filter(taken_since=self.taken_since, taken_until=self.taken_until, or_modified=self.or_modified)
        if taking and not exists(catalog, taking):
            first, last = days(catalog) if self.or_modified else days_taken(catalog)
            what = "the pictures" if self.or_modified else "the pictures that say it"
            there = f"{what} are from {first} to {last}" if first else "no picture says when it was taken"
            raise MasslError(f"no picture was taken {_span(self.taken_since, self.taken_until)}; {there}")

    def _check_tags(self, catalog: Catalog) -> None:
        for tag in (*self.tags, *self.any_tags, *self.without_tags):
            if not exists(catalog, Filter(tags=(tag,))):
                known = Tags(catalog).counts()
                named = ", ".join(map(repr, list(known)[:_NAMED])) or "none"
                more = f" and {len(known) - _NAMED:,} more" if len(known) > _NAMED else ""
                raise MasslError(f"no image has the tag {tag[:MAX_TAG]!r}; the tags are: {named}{more}")
        of_tags = Filter(tags=self.tags, any_tags=self.any_tags, without_tags=self.without_tags)
        if of_tags and not exists(catalog, of_tags):
            asked = [repr(tag) for tag in self.tags]
            asked += [f"one of {', '.join(map(repr, self.any_tags))}"] if self.any_tags else []
            asked += [f"no {tag!r}" for tag in self.without_tags]
            raise MasslError(f"no image has {' and '.join(asked)}; leave one of these filters out")

    def _check_picture(self, catalog: Catalog) -> None:
        for camera in self.cameras:
            if not exists(catalog, Filter(cameras=(camera,))):
                raise cameras.unknown(camera, cameras.counts(catalog))
        if self.rating is not None and not exists(catalog, Filter(rating=self.rating)):
            ((most,),) = catalog.read(f"SELECT max(rating) FROM images {_METADATA} WHERE {READY}")
            there = "no picture has a rating" if most is None or most < 1 else f"the best rated one has {most}"
            raise MasslError(f"no picture has {self.rating} stars or more; {there}")
        if self.orientation:
            if self.orientation not in ORIENTATIONS:
                known = ", ".join(ORIENTATIONS)
                raise MasslError(f"there is no orientation {self.orientation[:20]!r}; there are: {known}")
            if not exists(catalog, Filter(orientation=self.orientation)):
                raise MasslError(f"no picture is {_CALLED[self.orientation]}; leave that filter out")
        if self.named and not exists(catalog, Filter(named=self.named)):
            words = " and ".join(repr(word[:40]) for word in self.named)
            raise MasslError(f"no image has {words} in its path, relative to the folder that was indexed")

    def where(self) -> tuple[str, list[Any]]:
        """The condition on `images` as SQL, and its values."""
        terms, values = [READY], list[Any]()
        if self.labels:
            ways = [way for label in self.labels for way in spellings(label)]
            marks = ", ".join("?" * len(ways))
            terms.append(f"images.id IN (SELECT image FROM labels WHERE label IN ({marks}))")
            values += ways
        if self.labelled:
            terms.append("images.id IN (SELECT image FROM labels)")
        for tag in self.tags:
            terms.append("images.id IN (SELECT image FROM tags WHERE tag = ?)")
            values.append(tag)
        for tags, negated in ((self.any_tags, ""), (self.without_tags, "NOT ")):
            if tags:
                marks = ", ".join("?" * len(tags))
                terms.append(f"images.id {negated}IN (SELECT image FROM tags WHERE tag IN ({marks}))")
                values += tags
        if ranges := self.paths():
            # So that the index on paths serves.
            terms.append("(" + " OR ".join(["path >= ? AND path < ?"] * len(ranges)) + ")")
            for first, end in ranges:
                values += [first, end]
        if times := self.times():
            terms.append(f"mtime_ns <> {UNKNOWN} AND mtime_ns >= ? AND mtime_ns < ?")
            values += times
        if self._of_taking:
            term, of_term = self._taken()
            terms.append(term)
            values += of_term
        if self.quality:
            hints = [bound.where() for bound in self.quality]
            terms.append("(" + " OR ".join(term for term, _ in hints) + ")")
            values += [value for _, of_hint in hints for value in of_hint]
        if self.cameras:
            marks = ", ".join("?" * len(self.cameras))
            terms.append(f"images.id IN (SELECT image FROM file_metadata WHERE {cameras.CAMERA} IN ({marks}))")
            values += self.cameras
        if self.rating is not None:
            terms.append("images.id IN (SELECT image FROM file_metadata WHERE rating >= ?)")
            values.append(self.rating)
        if self.orientation:
            terms.append(ORIENTATIONS.get(self.orientation, "FALSE"))
        for word in self.named:
            terms.append("instr(folded(path), ?)")
            values.append(folded(word))
        return " AND ".join(terms), values

    def _taken(self) -> tuple[str, list[Any]]:
        # A time follows its day, as in 2024-05-01T12:00:00, and "U" follows "T".
        day_or_time = [str(self.taken_since or ""), f"{self.taken_until or date.max}U"]
        term = "images.id IN (SELECT image FROM file_metadata WHERE taken >= ? AND taken < ?)"
        if not self.or_modified:
            return term, day_or_time
        unknown = "images.id NOT IN (SELECT image FROM file_metadata WHERE taken IS NOT NULL)"
        span = _times(self.taken_since, self.taken_until)
        term = f"({term} OR (mtime_ns <> {UNKNOWN} AND mtime_ns >= ? AND mtime_ns < ? AND {unknown}))"
        return term, [*day_or_time, *span]

    def paths(self) -> list[tuple[bytes, bytes]]:
        """What paths must lie in one of, from the first up to before the second; empty where any path will do."""
        prefixes = [_prefix(folder) for folder in self.folders]
        if not all(prefixes):
            return []
        # Everything that begins with "prefix/": "0" is the byte after "/".
        return [(to_bytes(prefix + "/"), to_bytes(prefix + "0")) for prefix in prefixes]

    def times(self) -> tuple[int, int] | None:
        """The nanoseconds that a file's time must lie in, which must be known; None where any time will do."""
        if not (self.since or self.until):
            return None
        return _times(self.since, self.until)


EVERYTHING = Filter()


def among(catalog: Catalog, wanted: Filter) -> NDArray[np.int64] | None:
    """Rising ids of the images that pass; None where nothing is filtered by.

    Raises:
        MasslError: see `Filter.check`.
    """
    if not wanted:
        return None
    wanted.check(catalog)
    where, values = wanted.where()
    rows = catalog.read(f"SELECT id FROM images WHERE {where}", values)
    return np.sort(np.fromiter((image for (image,) in rows), np.int64))


def in_order(catalog: Catalog, wanted: Filter, after: str = "", limit: int = 100) -> list[tuple[int, str, str | None]]:
    """Id, path and label of the images that pass, by path: `limit` of them, those that come after the path `after`.

    However far down the list, it costs the same: it is read on from there, not from its beginning.
    """
    where, values = wanted.where()
    rows = catalog.read(
        "SELECT images.id, path, label FROM images LEFT JOIN labels ON labels.image = images.id "
        f"WHERE {where} AND path > ? ORDER BY path LIMIT ?",
        [*values, to_bytes(after), limit],
    )
    return [(image, from_bytes(path), label) for image, path, label in rows]


def passing(catalog: Catalog, wanted: Filter, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of some ids that pass, rising."""
    where, values = wanted.where()
    marks = ", ".join(map(str, np.unique(ids).tolist()))
    rows = catalog.read(f"SELECT id FROM images WHERE {where} AND id IN ({marks}) ORDER BY id", values)
    return np.fromiter((image for (image,) in rows), np.int64)


def exists(catalog: Catalog, wanted: Filter) -> bool:
    """Whether any image passes."""
    where, values = wanted.where()
    return any(catalog.read(f"SELECT 1 FROM images WHERE {where} LIMIT 1", values))


def count(catalog: Catalog, wanted: Filter) -> int:
    """How many images pass."""
    where, values = wanted.where()
    ((found,),) = catalog.read(f"SELECT count(*) FROM images WHERE {where}", values)
    return found


def folders(catalog: Catalog) -> dict[str, int]:
    """Every folder that holds images, itself or further below, with how many; by path, relative to the root."""
    found: dict[str, int] = {}
    for (path,) in catalog.read("SELECT path FROM images WHERE state = 'ready' ORDER BY path"):
        for parent in _above(from_bytes(path)):
            found[parent] = found.get(parent, 0) + 1
    return found


@dataclass(frozen=True)
class Outline:
    """What a collection can be filtered by.

    Attributes:
        folders: as by `folders`.
        first, last: as by `days`.
        cameras: as by `cameras.counts`.
        stars: the most that an image has, 0 where none has any.
    """

    folders: dict[str, int]
    first: date | None
    last: date | None
    cameras: dict[str, int]
    stars: int


def outline(catalog: Catalog) -> Outline:
    """What a collection can be filtered by."""
    ((most,),) = catalog.read(f"SELECT max(rating) FROM images {_METADATA} WHERE {READY}")
    return Outline(folders(catalog), *days(catalog), cameras.counts(catalog), max(0, most or 0))


def dates(catalog: Catalog) -> tuple[date | None, date | None]:
    """The days on which the oldest and the newest file were last modified."""
    ((first, last),) = catalog.read(
        "SELECT min(mtime_ns) AS oldest, max(mtime_ns) AS newest FROM images "
        f"WHERE state = 'ready' AND mtime_ns <> {UNKNOWN}"
    )
    return (None, None) if first is None else (modified(first).date(), modified(last).date())


def days_taken(catalog: Catalog) -> tuple[date | None, date | None]:
    """The days on which the first and the last of the images were taken that say so."""
    ((first, last),) = catalog.read(
        "SELECT min(taken) AS taken, max(taken) FROM file_metadata "
        f"JOIN images ON images.id = image WHERE {READY} AND taken IS NOT NULL"
    )
    return (None, None) if first is None else (day(first[:10]), day(last[:10]))


def days(catalog: Catalog) -> tuple[date | None, date | None]:
    """The first and the last day of `Filter.or_modified`."""
    ((first, last),) = catalog.read(
        "SELECT min(mtime_ns) AS oldest, max(mtime_ns) AS newest FROM images "
        f"WHERE {READY} AND mtime_ns <> {UNKNOWN} "
        "AND images.id NOT IN (SELECT image FROM file_metadata WHERE taken IS NOT NULL)"
    )
    found = [] if first is None else [modified(first).date(), modified(last).date()]
    found += [each for each in days_taken(catalog) if each is not None]
    return (min(found), max(found)) if found else (None, None)


def modified(mtime_ns: int) -> datetime:
    """A file's time of modification, in the local time of this machine; in UTC where it knows none."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=mtime_ns // _NANOSECONDS)
    try:
        return moment.astimezone()
    except (OSError, OverflowError, ValueError):  # Windows knows none before 1970
        return moment


def day(text: str) -> date:
    """Reads a day written as YYYY-MM-DD.

    Raises:
        MasslError: it is not written so, or there is no such day.
    """
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise MasslError(f"a date is written YYYY-MM-DD, as in 2026-01-31, not {text[:20]!r}") from None


def _labels(catalog: Catalog) -> list[str]:
    """Those of searchable images, in order."""
    query = f"SELECT DISTINCT label FROM labels JOIN images ON images.id = image WHERE {READY} ORDER BY label"
    return [label for (label,) in catalog.read(query)]


def _prefix(folder: str) -> str:
    """A folder as paths in the catalog begin, without the slash; empty for the root."""
    prefix = posixpath.normpath(folder.strip("/") or ".")
    return "" if prefix == "." else prefix


def _above(path: str) -> Iterator[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def _span(since: date | None, until: date | None) -> str:
    return " and ".join(text for text, day in ((f"since {since}", since), (f"until {until}", until)) if day)


def _times(since: date | None, until: date | None) -> tuple[int, int]:
    """The nanoseconds from the beginning of a day up to before the end of another, in local time."""
    first = _begins(since) if since else -(2**63)
    return first, _begins(until + timedelta(1)) if until and until < date.max else 2**63 - 1


def _begins(which: date) -> int:
    """Nanoseconds since 1970 at which a day begins."""
    if not _YEARS[0] <= which.year <= _YEARS[1]:
        return -(2**63) if which.year < _YEARS[0] else 2**63 - 1
    midnight = datetime.combine(which, time.min)
    try:
        seconds = midnight.timestamp()
    except (OSError, OverflowError, ValueError):  # as in `modified`
        seconds = midnight.replace(tzinfo=UTC).timestamp()
    return int(seconds) * _NANOSECONDS


def several(given: str | Sequence[str]) -> tuple[str, ...]:
    """One label or folder, or some."""
    return (given,) if isinstance(given, str) else tuple(given)
