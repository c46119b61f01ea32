"""A collection's own facts, in the catalog's table `meta`: which there are, of what type, and what a wrong one does.

`catalog.meta().dim` reads one, `catalog.set_meta(Meta.dim.to(384))` writes it. The catalog keeps texts; a `Fact` says
how they are read and written. One that doesn't look as it can is damage (`CatalogDamaged`, by `is_fact`), and so is one
that its reader can't make sense of; but a cache (`Fact.cached`) counts as missing then, and is made anew.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from indexer.store import kind_ranges
from indexer.store.kind_ranges import KindRange
from indexer.store.tiling import Tiling
from massl.core.errors import MasslError
from massl.core.images.decoding import MAX_PIXELS
from massl.core.images.rendering import BY_FILE, Rendering, check_range
from massl.core.images.rendering_facts import ShownAs

Value = TypeVar("Value")

Written = tuple[str, str]
"""A fact as the catalog keeps it: its name and its text."""

_ANYTHING = "(?s:.*)"
_COUNT = "[0-9]{1,18}"


class Fact(Generic[Value]):
    """One fact of a collection, an attribute of `Meta`.

    Args:
        read: makes the value of its text; raises `ValueError` or `TypeError` where that is none.
        missing: the value where the catalog doesn't have the fact; left out where every collection has it.
        write: the reverse of `read`.
        pattern: a regular expression that its whole text matches.
        what: what its text is, for a person.
        cached: a wrong one counts as missing.
    """

    name: str

    def __init__(
        self,
        read: Callable[[str], Value],
        *missing: Value,
        write: Callable[[Value], str] = str,
        pattern: str = _ANYTHING,
        what: str = "value",
        cached: bool = False,
    ) -> None:
        self._read = read
        self._missing = missing
        self._write = write
        self._what = what
        self._cached = cached
        self.pattern = re.compile(pattern)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, meta: None, owner: type) -> Fact[Value]: ...

    @overload
    def __get__(self, meta: Meta, owner: type) -> Value: ...

    def __get__(self, meta: Meta | None, owner: type) -> Fact[Value] | Value:
        return self if meta is None else self.of(meta.facts)

    def of(self, facts: Mapping[str, str]) -> Value:
        """The value among facts as texts.

        Raises:
            MasslError: its text is none, or it is missing and must not be.
        """
        text = facts.get(self.name)
        if text is None:
            if not self._missing:
                raise _damaged(f"it doesn't tell its {self.name}")
            return self._missing[0]
        try:
            return self._read(text)
        except (ValueError, TypeError, KeyError, RecursionError):
            if self._cached and self._missing:
                return self._missing[0]
            raise _damaged(f"{text[:40]!r} is no {self._what}") from None

    def to(self, value: Value) -> Written:
        """The fact with this value, to be written."""
        return self.name, self._write(value)


def name_list(text: str) -> tuple[str, ...]:
    """A list of names that the catalog keeps as one text.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError(text)
    return tuple(found)


def _counts(text: str) -> dict[str, int]:
    found = json.loads(text)
    if not isinstance(found, dict) or not all(type(count) is int for count in found.values()):
        raise ValueError(text)
    return found


def _numbers(text: str) -> dict[str, float]:
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(number, int | float) for number in found.values()):
        raise ValueError(text)
    return found


def _range(text: str) -> str:
    try:
        return check_range(text)
    except MasslError:
        raise ValueError(text) from None


def _runs(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((str(at), int(last)) for at, last in json.loads(text))


def _of_generation(text: str) -> tuple[int, str]:
    generation, _, rest = text.partition(" ")
    return int(generation), rest


def _tiling(text: str) -> Tiling:
    try:
        return Tiling.of(text)
    except MasslError as error:
        raise ValueError(text) from error


def _patterns(given: Iterable[str]) -> str:
    return json.dumps([pattern for pattern in given if pattern])


@dataclass(frozen=True)
class Meta:
    """The facts of a collection at one moment; `facts` are their texts by name."""

    facts: Mapping[str, str]

    # The encoder that made the embeddings. Collections of earlier versions don't tell the size.
    encoder_sha256 = Fact[str](str, pattern="[0-9a-f]{64}")
    encoder_name = Fact[str](str)
    dim = Fact[int](int, pattern="[1-9][0-9]{0,5}")
    image_size = Fact[int | None](int, None, pattern="[1-9][0-9]{0,3}")
    encoder_path = Fact[str](str, "")  # where its file lay, from which a damaged copy can be made anew
    encoder_bytes = Fact[str | None](str, None)  # of that file

    created = Fact[str](str)  # this and the next two: when, ISO 8601 in UTC
    updated = Fact[str | None](str, None)  # images came, went or changed
    checked = Fact[str | None](str, None)  # the folder was walked
    verified = Fact[str | None](str, None)  # the day on which all of the catalog was examined
    root = Fact[str](str, "")  # the folder of images, in `path_notation`
    identity = Fact[str](str, "")  # another text for every catalog that was made
    format = Fact[str](str, "")  # the number of the catalog's format, once more
    holder = Fact[str](str, "another process")  # who indexes, or did so last
    restore = Fact[bool](lambda text: True, False, write=lambda value: "1")  # labels are to be brought back
    builtin_told = Fact[str](str, "")  # SHA-256 of the built-in encoder that somebody was told of

    square_told = Fact[bool](lambda text: True, False, write=lambda value: "1")  # that much lies outside of the square

    tiles_told = Fact[bool](lambda text: True, False, write=lambda value: "1")  # that tiles would see more
    tiles = Fact[Tiling](_tiling, Tiling(), pattern="none|[0-9]{2,5}(:[0-9]{1,5})?", what="size of tiles")

    generation = Fact[int](int, 0, pattern=_COUNT)  # another number whenever images came, went or changed
    moves = Fact[int](int, 0, pattern=_COUNT)  # another one whenever some moved

    # What the indexer obeys, and what it found.
    exclude = Fact[tuple[str, ...]](name_list, (), write=_patterns, what="list of names")
    include = Fact[tuple[str, ...] | None](
        name_list, None, write=lambda given: _patterns(given or ()), what="list of names"
    )
    max_pixels = Fact[int](int, MAX_PIXELS, pattern=_COUNT)
    # How files of more than 8 bits are shown. Collections of earlier versions have a range for each file.
    display_range = Fact[str](
        _range, BY_FILE, pattern="collection|file|bits=[0-9]{1,2}|[^:]{1,30}:[^:]{1,30}", what="range"
    )
    kind_ranges = Fact[dict[str, KindRange]](kind_ranges.read, {}, write=kind_ranges.written, what="table of ranges")
    channels = Fact[tuple[str, ...]](name_list, (), write=json.dumps, what="list of names")  # of stacks
    plane = Fact[str](str, "", pattern="|max|middle|each|[1-9][0-9]{0,5}")
    left_out = Fact[dict[str, int]](_counts, {}, write=json.dumps, what="table of counts")
    readers = Fact[str](str, "")  # what read the images, with versions
    readers_max_pixels = Fact[int](int, 0, pattern=_COUNT)
    arrivals = Fact[tuple[tuple[str, int], ...]](_runs, (), write=json.dumps, what="list of runs")
    classes = Fact[tuple[str, ...] | None](name_list, None, write=json.dumps, what="list of names")

    # The search engine, as `indexer.search.engines.engine_choice` reads it; and what it has to know of its own data,
    # which outlives a change of the encoder.
    engine = Fact[str](str, "", pattern="[a-z]{0,20}")
    engine_address = Fact[str](str, "")
    engine_kept = Fact[str](str, "")
    engine_kept_tiles = Fact[str](str, "")  # the same of the tiles

    # Caches. The texts are those that their owners write: `Calibration`, `Looks`, `Drift`, `Measured`.
    calibration = Fact[str | None](str, None)
    calibration_tiles = Fact[str | None](str, None)  # the same of the best tiles of pictures
    calibrated_generation = Fact[int | None](int, None, cached=True)
    calibration_looks = Fact[dict[str, float]](_numbers, {}, write=json.dumps, cached=True)
    drift = Fact[tuple[int, str]](_of_generation, (-1, ""), write=lambda of: f"{of[0]} {of[1]}", cached=True)
    vectors_kept = Fact[str](str, "")  # where a search engine keeps its index of the vectors, in its own words
    vectors_measured = Fact[str](str, "")
    vectors_change = Fact[int](int, 0, pattern=_COUNT)
    vectors_tiles_kept = Fact[str](str, "")  # the same three of the tiles' index
    vectors_tiles_measured = Fact[str](str, "")
    vectors_tiles_change = Fact[int](int, 0, pattern=_COUNT)
    map_format = Fact[str](str, "")
    map_file = Fact[str](str, pattern=r"map[-0-9a-f]*\.npz")
    map_sha256 = Fact[str](str)
    map_encoder = Fact[str](str)
    map_laid_out = Fact[int](int, what="number")
    unusual_file = Fact[str](str, "", pattern=r"(unusual-[0-9a-f]{16}\.npz)?")
    unusual_sha256 = Fact[str](str, "")
    unusual_of = Fact[str](str, "")  # the revision that the scores in it are of

    @property
    def embedded_by(self) -> str:
        """Which encoder, at which size, made the embeddings: only alike ones are comparable.

        Collections of earlier versions don't tell the size, which is then the encoder's usual one.
        """
        facts = self.facts
        return f"{facts.get('encoder_sha256', '')} {facts.get('image_size', '')}".rstrip()

    @property
    def shown_as(self) -> ShownAs:
        """How files of more than 8 bits are shown, in plain values."""
        limits = {kind: known.limits for kind, known in self.kind_ranges.items() if known.limits}
        return ShownAs(self.display_range, self.channels, self.plane, limits)

    @property
    def rendering(self) -> Rendering:
        """The same to decode with; a kind of numbers that isn't known yet, by each file's own."""
        return self.shown_as.rendering()

    def __contains__(self, fact: Fact[Any]) -> bool:
        return fact.name in self.facts


FACTS: dict[str, Fact[Any]] = {name: fact for name, fact in vars(Meta).items() if isinstance(fact, Fact)}

# What a repaired catalog doesn't take from the damaged one: caches that hold numbers of changes, what is set anew.
_NOT_SALVAGED = ("vectors_", "map_", "unusual_", "verified", "format", "restore")
_OF_ENCODER = ("encoder_", "dim", "image_size")


def is_fact(key: str, value: object) -> bool:
    """Whether a fact of the collection looks as it can. One that this version doesn't know may look anyhow."""
    if not isinstance(value, str):
        return False
    return key not in FACTS or FACTS[key].pattern.fullmatch(value) is not None


def after_repair(new: Mapping[str, str], salvaged: Mapping[str, str]) -> dict[str, str]:
    """The facts of a repaired catalog: those that could be read, but of the encoder those that a `new` one has."""
    read = {key: value for key, value in salvaged.items() if not key.startswith(_NOT_SALVAGED)}
    encoder = {key: value for key, value in new.items() if key.startswith(_OF_ENCODER)}
    facts = {**new, **read, **encoder}
    return facts | dict([Meta.restore.to(True), Meta.generation.to(Meta.generation.of(facts) + 1)])


def write(connection: sqlite3.Connection, facts: Iterable[Written]) -> None:
    """Adds or replaces facts, within a transaction."""
    connection.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", list(facts))


def forget(connection: sqlite3.Connection, *facts: Fact[Any]) -> None:
    """Removes facts, within a transaction."""
    connection.executemany("DELETE FROM meta WHERE key = ?", [(fact.name,) for fact in facts])


def forget_embeddings(connection: sqlite3.Connection) -> None:
    """Removes all that follows from embeddings, within a transaction."""
    connection.execute("DELETE FROM meta WHERE key LIKE 'vectors_%' OR key LIKE 'calibrat%'")
    forget(connection, Meta.drift)


def _damaged(detail: str) -> MasslError:
    return MasslError(f"the index is damaged: {detail}; move it away and run `massl index` again")
