"""What people said of a file that is removed goes over to the one that is kept, and comes back from it."""

from __future__ import annotations

from datetime import UTC, datetime

from indexer.duplicates.acting import NotDone, PlannedFile
from indexer.duplicates.action_log import FileAct
from indexer.store import inheriting
from indexer.store.catalog import Catalog, to_bytes
from indexer.store.decisions import Decisions
from indexer.store.images import Images
from indexer.store.inheriting import Inherited, said_of
from indexer.store.tags import MAX_TAGS


class Inheritance:
    """Labels, tags, and decisions about them and about duplicates, of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._images = Images(catalog)
        self._decisions = Decisions(catalog)

    def of(self, item: PlannedFile) -> Inherited:
        """What the kept file is to take over of the other: what it doesn't have yet.

        Where one has a tag that was rejected for the other, the tag stays.

        Raises:
            NotDone: one of the files is not in the collection, both have labels that differ, or it would have more tags
                than an image may.
        """
        removed, keep = self._id(item.path), self._id(item.keep)
        said, had = said_of(self._catalog, removed), said_of(self._catalog, keep)
        if said.label and had.label and said.label[0] != had.label[0]:
            raise NotDone(
                f"is labelled {said.label[0]!r} and the file to keep {had.label[0]!r}; give both the same label"
            )
        tags = {tag: author for tag, author in said.tags.items() if tag not in had.tags}
        if len(had.tags) + len(tags) > MAX_TAGS:
            raise NotDone(f"{item.keep} would have more than {MAX_TAGS} tags; remove some first")
        has = had.tags | tags
        label = had.label or said.label
        beside = self._decisions.beside(removed, keep)
        paths = self._images.paths_of([other for other, _ in beside])
        return Inherited(
            datetime.now(UTC).isoformat(timespec="microseconds"),  # which nothing else has that is said
            None if had.label else said.label,
            tuple(tags.items()),
            tuple((tag, since) for tag, since in had.rejected_tags.items() if tag in tags),
            tuple(tag for tag in said.rejected_tags if tag not in has and tag not in had.rejected_tags),
            tuple(sorted(said.rejected_labels - had.rejected_labels - {label[0] if label else None})),
            tuple(sorted({label[0]} & said.confirmed_labels - had.confirmed_labels)) if label else (),
            tuple((path, contents) for path, (_, contents) in zip(paths, beside, strict=True)),
        )

    def give(self, act: FileAct) -> None:
        """Gives the kept file what it takes over."""
        taken = act.inherited
        inheriting.give(self._catalog, self._id(act.keep), taken, [self._id(path) for path, _ in taken.kept_both])

    def take_back(self, act: FileAct) -> tuple[int, int]:
        """Takes from the kept file what it took over and nobody changed since; returns how many labels and tags."""
        labels = tags = 0
        for image in inheriting.heirs(self._catalog, to_bytes(act.keep), bytes.fromhex(act.kept_content)):
            of_image = inheriting.take_back(self._catalog, image, act.inherited)
            labels, tags = labels + of_image[0], tags + of_image[1]
        return labels, tags

    def _id(self, path: str) -> int:
        found = self._images.at_path(path)
        if found is None or found[1] != "ready":
            raise NotDone(f"{path} is not in the index; run massl index first")
        return found[0]
