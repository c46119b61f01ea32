"""Whether anything has changed since: one value that tells what a collection was at a moment, part by part.

Whoever keeps something that follows from a collection keeps it with the parts of the revision that it follows from, and
makes it anew when these differ. A revision is read before what it is kept with, so that what changes between the two
reads makes it look older than it is, never newer.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from indexer.store.catalog import Catalog
from indexer.store.meta import Meta

_FACTS = (Meta.identity, Meta.created, Meta.encoder_sha256, Meta.image_size, Meta.generation, Meta.moves, Meta.checked)
_QUERY = (
    f"SELECT 'meta' AS part, key, value FROM meta WHERE key IN ({', '.join(repr(fact.name) for fact in _FACTS)}) "
    "UNION ALL SELECT 'vectors', 'vectors', seq FROM sqlite_sequence WHERE name = 'changes' "
    "UNION ALL SELECT 'counted', subject, number FROM revisions"
)
_COUNTED = ("vectors", "labels", "rejections", "confirmations", "duplicates", "tags", "rejected_tags")


@dataclass(frozen=True)
class Revision:
    """What a collection was at one moment. Each part is another once what it stands for has changed.

    Attributes:
        collection: which collection it is: another once the index was deleted and made again. Its numbers then mean
            other images.
        encoder: which encoder, at which size, made the embeddings.
        images: which images there are, and their contents.
        moves: where they lie.
        vectors: their embeddings.
        labels: the labels that people gave.
        rejections: the labels that people rejected.
        confirmations: the labels that people confirmed.
        duplicates: what people decided about duplicates.
        tags: the tags that people gave.
        rejected_tags: the tags that people rejected.
        checked: when the folder was last walked; None for never.
    """

    collection: str
    encoder: str
    images: int
    moves: int
    vectors: int
    labels: int
    rejections: int
    confirmations: int
    duplicates: int
    tags: int
    rejected_tags: int
    checked: str | None

    @property
    def listed(self) -> Hashable:
        """Of which images there are, and where."""
        return self.collection, self.images, self.moves

    @property
    def embedded(self) -> Hashable:
        """Of what follows from embeddings alone."""
        return self.collection, self.encoder, self.images, self.vectors

    @property
    def labelled(self) -> Hashable:
        """Of what follows from embeddings and labels."""
        return self.embedded, self.labels

    @property
    def classified(self) -> Hashable:
        """Of what follows from embeddings, labels and rejected labels: a classification."""
        return self.labelled, self.rejections

    @property
    def tagged(self) -> Hashable:
        """Of what follows from embeddings, tags and rejected tags: proposals of tags."""
        return self.embedded, self.tags, self.rejected_tags

    @property
    def decided(self) -> Hashable:
        """Of what follows from images and the decisions about duplicates."""
        return self.listed, self.duplicates


def read(catalog: Catalog) -> Revision:
    """The revision now, in one query.

    Raises:
        MasslError: the catalog is damaged, or gone.
    """
    if not catalog.is_of_todays_format():
        # It counts nothing, and can't be written here: a write by anybody else counts as a change of all.
        written = catalog.written_ns()
        return _revision(catalog.meta(), dict.fromkeys(_COUNTED, written))
    rows = list(catalog.read(_QUERY))
    numbers = {key: number for part, key, number in rows if part != "meta"}
    if not all(isinstance(number, int) for number in numbers.values()):
        raise catalog.damaged("a count of changes is no number")
    return _revision(Meta({key: value for part, key, value in rows if part == "meta"}), numbers)


def _revision(facts: Meta, numbers: dict[str, int]) -> Revision:
    return Revision(
        facts.identity or facts.facts.get(Meta.created.name, ""),  # earlier versions gave no identity
        facts.embedded_by,
        facts.generation,
        facts.moves,
        numbers.get("vectors", 0),
        numbers.get("labels", 0),
        numbers.get("rejections", 0),
        numbers.get("confirmations", 0),
        numbers.get("duplicates", 0),
        numbers.get("tags", 0),
        numbers.get("rejected_tags", 0),
        facts.checked,
    )
