"""A damaged catalog: a sound one is put in its place, of what can be read. The damaged file is kept."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from datetime import datetime
from pathlib import Path

from indexer.store import journal
from indexer.store.labels import Label
from indexer.store.meta import after_repair
from indexer.store.paths import from_bytes
from indexer.store.salvage import Salvaged, put_in_place, read

_LOG = logging.getLogger(__name__)


def repair(path: Path, facts: dict[str, str], comparable: bool) -> Salvaged:
    """Makes a sound catalog of what can be read of a damaged one, which stays beside it under another name.

    Args:
        path: of the damaged catalog; of the sound one afterwards.
        facts: what a new catalog's meta would be. What can be read takes its place, but the encoder is that of `facts`.
        comparable: whether the embeddings are by that very encoder, and at its size; else they are left out.

    Raises:
        OSError, MasslError: nothing can be written; the damaged catalog is then as it was.
    """
    found = read(path)
    wal = path.with_name(f"{path.name}-wal")
    kept = _free_name(path)
    shutil.copyfile(path, kept)
    if wal.exists():
        shutil.copyfile(wal, kept.with_name(f"{kept.name}-wal"))
    if not comparable:
        found.images = [(*row[:-1], None) for row in found.images]
    put_in_place(path, found, after_repair(facts, found.meta))
    _LOG.warning("the catalog was damaged and is made anew: %s; the damaged file is kept as %s", in_words(found), kept)
    return found


def _free_name(path: Path) -> Path:
    """Where a damaged catalog is kept: by the time, which may have been before, as clocks are set back."""
    time = f"catalog-damaged-{datetime.now():%Y%m%d-%H%M%S}"
    place = path.with_name(f"{time}.sqlite")
    numbers = itertools.count(2)
    while os.path.lexists(place):
        place = path.with_name(f"{time}-{next(numbers)}.sqlite")
    return place


def in_words(found: Salvaged) -> str:
    """What can be read, in a line."""
    tags = f", {found.tagged:,} tags" if found.tagged else ""
    said = (
        f"{len(found.images):,} images, {found.embedded:,} of them with their embedding, "
        f"{len(found.labels):,} labels{tags}"
    )
    lost = [(found.lost_images, "image"), (found.lost_labels, "label"), (found.lost_decisions, "decision")]
    told = ", ".join(f"{count:,} {what}{'s' if count > 1 else ''}" for count, what in lost if count)
    return f"{said} and {found.decided:,} decisions can be read" + (f"; changed: {told}" if told else "")


def labels(path: Path) -> list[Label]:
    """Every label of a damaged collection that can be read, of its catalog or else of its journal; by path.

    Raises:
        OSError: as `read`.
    """
    found = read(path)
    paths = {row[0]: from_bytes(row[1]) for row in found.images if row[8] != "gone"}
    said = journal.read(path.parent)
    given = {image.path: Label(image.path, label.label, label.author, label.at) for image, label in said.labels.items()}
    for image, label, author, at in found.labels:
        if image in paths:
            given[paths[image]] = Label(paths[image], label, author, at)
    return [given[name] for name in sorted(given) if not name.startswith("\0")]
