"""What the catalog says of the file that holds its vectors' index, and which images changed since it was built."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.store import meta
from indexer.store.catalog import Catalog
from indexer.store.meta import Meta


@dataclass(frozen=True)
class IndexState:
    """What the catalog says at one moment.

    Attributes:
        file: name of the index's file; None where there is none.
        sha256: of that file.
        measured: how it answers, as `indexer.search.engines.engine_selection.Measured` writes it.
        since: the number of the last change that the file has.
        last: the number of the last change of all.
        changed: rising ids of the images that changed between the two.
    """

    file: str | None
    sha256: str
    measured: str
    since: int
    last: int
    changed: tuple[int, ...]


class Overtaken(Exception):
    """Another process has built a newer index meanwhile, or taken another encoder."""


def last_change(catalog: Catalog) -> int:
    """The number of the last change of a vector; 0 where there was none."""
    return next(catalog.read("SELECT seq FROM sqlite_sequence WHERE name = 'changes'"), (0,))[0]


def vectors_state(catalog: Catalog) -> tuple[str, int]:
    """Differs whenever a vector does, or which there are."""
    if not catalog.notes_changes():
        return str(catalog.meta().generation), 0
    return catalog.meta().embedded_by, last_change(catalog)


def read(catalog: Catalog, since: int = 0) -> IndexState:
    """The state now; changes are told from the number `since` on if that is after what the file has."""
    with catalog.snapshot():
        facts = catalog.meta()
        if not catalog.notes_changes():  # an older one that can't be written, and so doesn't change
            return IndexState(None, "", "", 0, 0, ())
        since = max(since, facts.vectors_change)
        rows = catalog.read("SELECT DISTINCT image FROM changes WHERE number > ? ORDER BY image", [since])
        changed = tuple(image for (image,) in rows)
        last = last_change(catalog)
    return IndexState(facts.vectors_file, facts.vectors_sha256, facts.vectors_measured, since, last, changed)


def take(catalog: Catalog, file: str, sha256: str, measured: str, last: int, made_with: str) -> None:
    """Names a file that was built as the index, and forgets the changes that it has.

    Args:
        catalog: is written.
        file: its name.
        sha256: of it.
        measured: how it answers.
        last: the number of the last change that it has.
        made_with: what `Meta.embedded_by` was when its vectors were read.

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
                Meta.vectors_file.to(file),
                Meta.vectors_sha256.to(sha256),
                Meta.vectors_measured.to(measured),
                Meta.vectors_change.to(last),
            ],
        )
        connection.execute("DELETE FROM changes WHERE number <= ?", [last])
