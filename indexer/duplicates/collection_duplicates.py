"""The duplicates of a collection: found, and seen again after somebody decided about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from indexer.duplicates import detection
from indexer.duplicates.acting import Outcome, Plan, act
from indexer.duplicates.action_log import begun, continued, read
from indexer.duplicates.detection import Duplicate, Duplicates
from indexer.duplicates.inheritance import Inheritance
from indexer.duplicates.undoing import undo
from indexer.search.engines.interface import CurrentIndex
from indexer.search.pixel_verification import Looks
from indexer.store.catalog import Catalog
from indexer.store.decisions import Decided, Decisions, hashes_of
from indexer.store.images import Images
from indexer.store.paths import below
from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import temporary


class CollectionDuplicates:
    """Finds duplicates, and does what a plan says. Safe to share by threads. Decisions: `indexer.store.decisions`.

    Args:
        root: the folder of images.
        catalog: what is known of it.
        index: gives the vectors, ready to search.
    """

    def __init__(self, root: Path, catalog: Catalog, index: Callable[[], CurrentIndex]) -> None:
        self._root = root
        self._catalog = catalog
        self._index = index

    def find(
        self,
        *,
        exact_only: bool = False,
        under: str | None = None,
        threshold: float | None = None,
        report: Callable[[str, int, int], None] = lambda step, done, total: None,
    ) -> Duplicates:
        """Exact and near duplicates in groups; see `indexer.duplicates.detection.find`."""
        return detection.find(
            self._root,
            self._catalog,
            self._index,
            exact_only=exact_only,
            under=under,
            threshold=threshold,
            report=report,
        )

    def apply(
        self,
        plan: Plan,
        by: str,
        folder: Path | None,
        log: Path,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> Outcome:
        """Does what a plan says; see `indexer.duplicates.acting.act`. The catalog learns of it by the next update.

        Args:
            plan: see `indexer.duplicates.acting.read_plan`.
            by: one of `indexer.duplicates.action_log.WAYS`.
            folder: where files are moved to, for `move`.
            log: the file that tells what was done, by which it can be undone; it must not be there yet, and is not
                kept where nothing remains done.
            report: is told how many are done, of how many.

        Raises:
            MasslError: the log or the folder can't be written, or the folder lies in the collection's.
        """
        if folder is not None and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(self._root)):
            raise MasslError(f"{folder} lies in {self._root}, where the files would be found again; name one elsewhere")
        if folder is not None:
            folder = Path(os.path.abspath(folder))  # the log may be read from elsewhere
            _make(folder)
        with begun(log, self._root) as writer:
            outcome = act(self._root, plan.removals, by, folder, writer, Inheritance(self._catalog), report)
        if not writer.standing:
            log.unlink()
        outcome.undecided = plan.undecided
        return outcome

    def undo(self, log: Path, folder: Path | None = None) -> Outcome:
        """Undoes what a log tells of; see `indexer.duplicates.undoing.undo`.

        Args:
            log: the file that `apply` wrote.
            folder: where files were moved to, if they were; a log may come from somebody else, and name any file.

        Raises:
            MasslError: it is no log, about another folder, or tells of files that were moved elsewhere.
        """
        done = read(log)
        with continued(log) as writer:
            return undo(self._root, done, folder, writer, Inheritance(self._catalog))

    def settled(self, found: Duplicates) -> Duplicates:
        """What was found, with the decisions since: nothing is sought again.

        Files that moved are where they are now; those that have gone or changed leave their groups, and so do those
        that are to be kept beside the one to keep. Another one to keep comes first in its group; what doesn't duplicate
        it as well as it did the former leaves.
        """
        with self._catalog.snapshot():
            hashes = hashes_of(self._catalog, (item.image for group in found.groups for item in group))
            paths = dict(zip(hashes, Images(self._catalog).paths_of(list(hashes)), strict=True))  # some may have moved
        decisions = Decisions(self._catalog).decided(hashes)
        meta = self._catalog.meta()

        def opened(group: Sequence[Duplicate]) -> Looks:
            files = [below(self._root, item.path) for item in group]
            return Looks(files, [hashes[item.image].hex() for item in group], {}, meta.max_pixels, meta.rendering)

        now = [
            tuple(replace(item, path=paths[item.image]) for item in group if item.image in paths)
            for group in found.groups
        ]
        groups = tuple(_settled(group, hashes, decisions, found.threshold, opened) for group in now if group)
        return replace(found, groups=tuple(group for group in groups if group), kept_both=len(decisions.images))

    def kept_together(self) -> list[tuple[Duplicate, ...]]:
        """Images that are to be kept all, in groups; see `indexer.store.decisions.Decisions.kept_together`."""
        groups = Decisions(self._catalog).kept_together()
        files = Images(self._catalog).file_facts([image for group in groups for image in group])

        def kept(image: int) -> Duplicate:
            file = files[image]
            return Duplicate(image, file.path, "keep", 1.0, 0.0, file.size, file.width, file.height, file.mtime_ns)

        return [tuple(map(kept, group)) for group in groups]


def _make(folder: Path) -> None:
    """Makes the folder that files are moved to; what is wrong with it is told once, and not of each file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary(folder) as probe:
            probe.touch()
    except OSError as error:
        raise cannot_write(folder, error, "name another folder after move:") from None


def _settled(
    group: tuple[Duplicate, ...],
    hashes: dict[int, bytes],
    decisions: Decided,
    threshold: float | None,
    opened: Callable[[Sequence[Duplicate]], Looks],
) -> tuple[Duplicate, ...]:
    """A group as it is now; empty where there is nothing left to decide."""
    before = group[0]
    group = tuple(replace(item, chosen=item.image in decisions.chosen) for item in group if item.image in hashes)
    if not group:
        return ()
    keep = next((item for item in group if item.chosen), group[0])
    looks = opened(group)
    rest = []
    for place, item in enumerate(group):
        one, other = hashes[keep.image], hashes[item.image]
        if item is keep or item.chosen or decisions.both(keep.image, item.image) or decisions.apart(one, other):
            continue
        item = replace(item, decided=decisions.over(keep.image, one, other))
        if one == other:
            rest.append(replace(item, kind="exact", score=1.0, false_matches=0.0, edit=""))
        elif keep.image == before.image or hashes.get(before.image) == one:
            rest.append(item)
        else:
            score = looks.agreement(group.index(keep), place)
            if score >= (threshold or 1.0):
                # Of the pair that was compared then this is known; of another one not.
                known = keep.false_matches if item.image == before.image else None
                edit = looks.edit(group.index(keep), place)
                rest.append(replace(item, kind="near", score=score, false_matches=known, edit=edit))
    first = replace(keep, kind="keep", score=1.0, false_matches=0.0, edit="", decided=keep.chosen)
    return (first, *rest) if rest else ()
