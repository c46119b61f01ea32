"""What the catalog says of an index of its vectors, whichever engine keeps it, and what changed since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from indexer.store import meta
from indexer.store.catalog import Catalog
from indexer.store.meta import Fact, Meta, Written


@dataclass(frozen=True)
class IndexState:
    """What the catalog says at one moment.

    Attributes:
        kept: the engine's own words on where it keeps the index; empty where there is none.
        own: the engine's own words on what outlives the index; see `Meta.engine_kept`.
        measured: how it answers, as `indexer.search.engines.interface.Measured` writes it.
        since: the number of the last change that the index has.
        last: the number of the last change of all.
        changed: rising ids of the images, or tiles, that changed between the two.
    """

    kept: str
    own: str
    measured: str
    since: int
    last: int
    changed: tuple[int, ...]


@dataclass(frozen=True)
class ChangeLog:
    """Of what an index is kept, and where changes of it are noted.

    Attributes:
        table: of the changes.
        column: of it, that holds the id of what changed.
        kept, own, measured, change: facts of the collection, as the attributes of `IndexState` but for their `since`.
    """

    table: str
    column: str
    kept: Fact[str]
    own: Fact[str]
    measured: Fact[str]
    change: Fact[int]


IMAGES = ChangeLog("changes", "image", Meta.vectors_kept, Meta.engine_kept, Meta.vectors_measured, Meta.vectors_change)
TILES = ChangeLog(
    "tile_changes",
    "tile",
    Meta.vectors_tiles_kept,
    Meta.engine_kept_tiles,
    Meta.vectors_tiles_measured,
    Meta.vectors_tiles_change,
)


class Overtaken(Exception):
    """Another process has built a newer index meanwhile, or taken another encoder."""


def last_change(catalog: Catalog, log: ChangeLog = IMAGES) -> int:
    """The number of the last change of a vector; 0 where there was none."""
    return next(catalog.read("SELECT seq FROM sqlite_sequence WHERE name = ?", [log.table]), (0,))[0]


def read(catalog: Catalog, since: int = 0, log: ChangeLog = IMAGES) -> IndexState:
    """The state now; changes are told from the number `since` on if that is after what the index has."""
    with catalog.snapshot():
        facts = catalog.meta()
        if not catalog.notes_changes():  # an older one that can't be written, and so doesn't change
            return IndexState("", log.own.of(facts.facts), "", 0, 0, ())
        since = max(since, log.change.of(facts.facts))
        rows = catalog.read(f"SELECT DISTINCT {log.column} FROM {log.table} WHERE number > ? ORDER BY 1", [since])
        changed = tuple(identity for (identity,) in rows)
        last = last_change(catalog, log)
    kept = log.kept.of(facts.facts) or (_before(facts.facts) if log is IMAGES else "")
    return IndexState(kept, log.own.of(facts.facts), log.measured.of(facts.facts), since, last, changed)


def _before(facts: Mapping[str, str]) -> str:
    """`Meta.vectors_kept` of a collection from before there was that fact: every index was a file then."""
    if "vectors_file" not in facts:
        return ""
    return json.dumps({"file": facts["vectors_file"], "sha256": facts.get("vectors_sha256", "")})


def take(
    catalog: Catalog,
    kept: str,
    measured: str,
    last: int,
    made_with: str,
    more: Iterable[Written] = (),
    log: ChangeLog = IMAGES,
    again: Iterable[int] = (),
) -> None:
    """Names an index that was built or brought up to date, and forgets the changes that it has.

    Args:
        catalog: is written.
        kept: where it is, in the engine's own words.
        measured: how it answers.
        last: the number of the last change that it has.
        made_with: what `Meta.embedded_by` was when its vectors were read.
        more: facts to write with it.
        log: of what it is.
        again: ids that changed and that it lacks all the same: they stay noted as changed.

    Raises:
        Overtaken: it is outdated already; nothing was written.
        MasslError: nothing can be written.
    """
    with catalog.writing() as connection:
        now = catalog.meta()
        if log.change.of(now.facts) > last or now.embedded_by != made_with:
            raise Overtaken
        meta.write(
            connection,
            [
                log.kept.to(kept),
                log.measured.to(measured),
                log.change.to(last),
                *more,
            ],
        )
        connection.execute("DELETE FROM meta WHERE key IN ('vectors_file', 'vectors_sha256')")  # of before, see `read`
        connection.execute(f"DELETE FROM {log.table} WHERE number <= ?", [last])
        connection.executemany(f"INSERT INTO {log.table} ({log.column}) VALUES (?)", ((one,) for one in again))
