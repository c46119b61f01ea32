"""What the catalog says of its vectors' index, whichever engine keeps it, and which images changed since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from indexer.store import meta
from indexer.store.catalog import Catalog
from indexer.store.meta import Meta, Written


@dataclass(frozen=True)
class IndexState:
    """What the catalog says at one moment.

    Attributes:
        kept: the engine's own words on where it keeps the index; empty where there is none.
        own: the engine's own words on what outlives the index; see `Meta.engine_kept`.
        measured: how it answers, as `indexer.search.engines.interface.Measured` writes it.
        since: the number of the last change that the index has.
        last: the number of the last change of all.
        changed: rising ids of the images that changed between the two.
    """

    kept: str
    own: str
    measured: str
    since: int
    last: int
    changed: tuple[int, ...]


class Overtaken(Exception):
    """Another process has built a newer index meanwhile, or taken another encoder."""


def last_change(catalog: Catalog) -> int:
    """The number of the last change of a vector; 0 where there was none."""
    return next(catalog.read("SELECT seq FROM sqlite_sequence WHERE name = 'changes'"), (0,))[0]


def read(catalog: Catalog, since: int = 0) -> IndexState:
    """The state now; changes are told from the number `since` on if that is after what the index has."""
    with catalog.snapshot():
        facts = catalog.meta()
        if not catalog.notes_changes():  # an older one that can't be written, and so doesn't change
            return IndexState("", facts.engine_kept, "", 0, 0, ())
        since = max(since, facts.vectors_change)
        rows = catalog.read("SELECT DISTINCT image FROM changes WHERE number > ? ORDER BY image", [since])
        changed = tuple(image for (image,) in rows)
        last = last_change(catalog)
    kept = facts.vectors_kept or _before(facts.facts)
    return IndexState(kept, facts.engine_kept, facts.vectors_measured, since, last, changed)


def _before(facts: Mapping[str, str]) -> str:
    """`Meta.vectors_kept` of a collection from before there was that fact: every index was a file then."""
    if "vectors_file" not in facts:
        return ""
    return json.dumps({"file": facts["vectors_file"], "sha256": facts.get("vectors_sha256", "")})


def take(catalog: Catalog, kept: str, measured: str, last: int, made_with: str, more: Iterable[Written] = ()) -> None:
    """Names an index that was built or brought up to date, and forgets the changes that it has.

    Args:
        catalog: is written.
        kept: where it is, in the engine's own words.
        measured: how it answers.
        last: the number of the last change that it has.
        made_with: what `Meta.embedded_by` was when its vectors were read.
        more: facts to write with it.

    Raises:
        Overtaken: it is outdated already; nothing was written.
        MasslError: nothing can be written.
    """
    with catalog.writing() as connection:
        now = catalog.meta()
        if now.vectors_change > last or now.embedded_by != made_with:
            raise Overtaken
        meta.write(
            connection,
            [
                Meta.vectors_kept.to(kept),
                Meta.vectors_measured.to(measured),
                Meta.vectors_change.to(last),
                *more,
            ],
        )
        connection.execute("DELETE FROM meta WHERE key IN ('vectors_file', 'vectors_sha256')")  # of before, see `read`
        connection.execute("DELETE FROM changes WHERE number <= ?", [last])
