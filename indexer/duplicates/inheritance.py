"""What people said of a file that is removed goes over to the one that is kept."""

from __future__ import annotations

from indexer.duplicates.acting import NotDone, PlannedFile
from indexer.duplicates.action_log import FileAct
from indexer.store.catalog import Catalog
from indexer.store.confirmations import Confirmations
from indexer.store.decisions import Decisions, hashes_of
from indexer.store.images import Images
from indexer.store.labels import Labels
from indexer.store.rejections import Rejections
from indexer.store.tags import RejectedTags, Tags
from massl.core.errors import MasslError


class Inheritance:
    """Labels, tags, and decisions about them and about duplicates, of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._images = Images(catalog)
        self._rejected = Rejections(catalog).by_image()
        self._confirmed = Confirmations(catalog).every()
        self._tags = Tags(catalog)
        self._rejected_tags = RejectedTags(catalog)

    def label(self, item: PlannedFile) -> tuple[str, str] | None:
        """The label and its author that the kept file is to take over; None for none.

        Raises:
            NotDone: one of the files is not in the collection, or both have labels that differ.
        """
        label, author = self._label(item.path)
        kept, _ = self._label(item.keep)
        if label is None or author is None or label == kept:
            return None
        if kept is not None:
            raise NotDone(f"is labelled {label!r} and the file to keep {kept!r}; give both the same label")
        return label, author

    def carry(self, item: PlannedFile) -> None:
        """Gives the kept file the label of the other, and the decisions about it."""
        removed, keep = self._id(item.path), self._id(item.keep)
        taken = self.label(item)
        if taken is not None:
            Labels(self._catalog).give({keep: taken[0]}, taken[1])
        label, _ = self._label(item.keep)
        for rejected in self._rejected.get(removed, frozenset()) - {label}:
            Rejections(self._catalog).add({keep: rejected})
        if label is not None and (removed, label) in self._confirmed:
            Confirmations(self._catalog).add([(keep, label)])
        self._carry_tags(removed, keep)
        decisions = Decisions(self._catalog)
        for group in decisions.kept_together():
            if removed in group:
                decided = decisions.decided(hashes_of(self._catalog, group))
                for other in group:
                    if other not in (removed, keep) and decided.both(removed, other):
                        decisions.keep_both([keep, other])

    def _carry_tags(self, removed: int, keep: int) -> None:
        """The kept file gets the tags of both; where one has a tag and of the other it was rejected, the tag stays."""
        authors = self._tags.authors(removed)
        try:
            self._tags.give([(keep, tag) for tag in authors], {(keep, tag): author for tag, author in authors.items()})
        except MasslError as error:
            raise NotDone(str(error)) from None
        has = self._tags.authors(keep)
        self._rejected_tags.add([(keep, tag) for tag in self._rejected_tags.of_image(removed) if tag not in has])

    def give_back(self, act: FileAct) -> bool:
        """Takes the label that the kept file took over from it again, unless it has another one by now."""
        if act.label is None:
            return False
        try:
            keep = self._id(act.keep)
        except NotDone:
            return False
        return Labels(self._catalog).restore({keep: None}, {keep: act.label[0]}) == 0

    def _id(self, path: str) -> int:
        found = self._images.at_path(path)
        if found is None or found[1] != "ready":
            raise NotDone(f"{path} is not in the index; run massl index first")
        return found[0]

    def _label(self, path: str) -> tuple[str | None, str | None]:
        try:
            facts = self._images.facts(self._id(path))
        except MasslError:
            raise NotDone(f"{path} is not in the index; run massl index first") from None
        return facts.label, facts.author
