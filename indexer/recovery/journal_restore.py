"""Bringing back from the journal what people said, into a catalog that doesn't have it any more."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from indexer.store import journal
from indexer.store.catalog import Catalog
from indexer.store.decision_tables import is_of_two
from indexer.store.journal import Decision, Image, Made, Said
from indexer.store.labels import check
from indexer.store.meta import Meta
from indexer.store.restoring import restoring
from indexer.store.tags import checked
from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """What was brought back.

    Attributes:
        labels, tags, decisions: how many.
        left: labels and tags that were not, as (path, label or tag, why), by path.
        damaged: lines of the journal that could not be read.
    """

    labels: int
    tags: int
    decisions: int
    left: tuple[tuple[str, str, str], ...]
    damaged: int


class LabelJournal:
    """What people said, as the journal beside a catalog has it. Safe to share by threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def restore(self) -> Restored:
        """Gives images the labels, tags and decisions that the journal has for their content and the catalog doesn't.

        What the catalog says of an image stays. Doing it twice changes nothing more.

        Raises:
            MasslError: the journal can't be read, or the catalog can't be written.
        """
        folder = self._catalog.path.parent
        try:
            said = journal.read(folder)
        except OSError as error:
            raise MasslError(
                f"{folder / journal.NAME} can't be read: {(error.strerror or str(error)).lower()}"
            ) from None
        left: list[tuple[str, str, str]] = []
        labels = tags = decisions = 0
        with restoring(self._catalog) as write:
            missing = said.without(write.said())
            by_content = write.by_content({bytes.fromhex(image.hash) for image in _images(missing) if image.hash})
            taken = write.labelled()

            def find(image: Image, without: set[int]) -> int | None:
                there = by_content.get(image.hash, [])
                own = [identity for identity, path in there if path == image.path]
                others = [identity for identity, path in there if path != image.path and identity not in without]
                return next(iter(own or others), None)

            exact = {(path, digest) for digest, found in by_content.items() for _, path in found}
            # Those whose path is what it was come first, so that a copy doesn't get another's label.
            for image, given in sorted(missing.labels.items(), key=lambda item: (tuple(item[0]) not in exact, item[0])):
                identity = find(image, taken)
                try:
                    check(given.label)
                    check(given.author)
                except MasslError:
                    left.append((image.path, given.label, "it is no label"))
                    continue
                if identity is None or identity in taken:
                    why = "its image has another label" if identity else "no image has this content any more"
                    left.append((image.path, given.label, why))
                    continue
                taken.add(identity)
                write.label(identity, given, image)
                labels += 1
            given_tags = set(missing.tagged())
            for decision in sorted(given_tags, key=lambda tag: (tuple(tag.image) not in exact, tag[:3])):
                identity = find(decision.image, set())
                if identity is None or not _is_tag(decision, missing.decisions[decision]):
                    why = "no image has this content any more" if identity is None else "it is no tag"
                    left.append((decision.image.path, decision.about, why))
                else:
                    tags += write.tag(identity, decision.about, missing.decisions[decision], decision.image)
            for decision, made in missing.decisions.items():
                if decision in given_tags:
                    continue
                one = find(decision.image, set())
                other = find(decision.other, {one} if one else set()) if decision.other else None
                if one is not None and (other is not None) == is_of_two(decision.kind):
                    decisions += write.decide(decision.kind, decision.about, made.at, one, other)
        return Restored(labels, tags, decisions, tuple(sorted(left)), said.damaged)

    def settle(self, command: str) -> None:
        """After the images are indexed: has the journal and the catalog say the same.

        Of a catalog that was repaired, what it lost is brought back. Of any other, a line says what the journal has and
        the catalog doesn't, as the catalog may have been deleted on purpose.

        Args:
            command: brings back what is missing.
        """
        meta = self._catalog.meta()
        try:
            left = self._catalog.complete_journal()
        except OSError as error:
            _LOG.warning("%s", cannot_write(self._catalog.path.with_name(journal.NAME), error))
            return
        if meta.restore:
            done = self.restore()
            self._catalog.forget_meta(Meta.restore)
            if done.labels or done.tags or done.decisions:
                tags = f" {done.tags} tags," if done.tags else ""
                _LOG.warning(
                    "brought back from the journal: %d labels,%s %d decisions", done.labels, tags, done.decisions
                )
            for path, label, why in done.left:
                _LOG.warning("not brought back: %r of %s: %s", label, ascii(path)[1:-1], why)
        elif left.labels or left.tagged():
            counts = (len(left.labels), "labels"), (len(left.tagged()), "tags")
            missing = " and ".join(f"{count} {what}" for count, what in counts if count)
            _LOG.warning(
                "the journal has %s that the catalog doesn't have; to bring them back, run: %s", missing, command
            )
        if left.damaged:
            _LOG.warning("%d lines of the journal were damaged; it is written anew from the catalog", left.damaged)


def _is_tag(decision: Decision, made: Made) -> bool:
    try:
        check(made.author)
        return checked(decision.about) == decision.about
    except MasslError:
        return False


def _images(said: Said) -> list[Image]:
    images = list(said.labels)
    for decision in said.decisions:
        images += [decision.image] + ([decision.other] if decision.other else [])
    return images
