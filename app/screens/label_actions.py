"""Labelling from the page, and taking it back: the same on every screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from app.formatting import count
from app.session import Payload, Session, Step, images
from indexer import Collection
from indexer.store.labels import ACCEPTED, NONE_OF_THESE, normalised
from indexer.store.tags import split
from massl.core.errors import MasslError

AUTHOR = "page"
_MOST_STEPS = 100  # that can be undone
_MOST_REMEMBERED = 200_000  # pictures of all these steps together, the latest aside
_MOST_NAMED = 3  # labels that are named when others take their place


class LabelActions:
    """The labelling actions on one collection. Holds no state of any session."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.actions = {
            "label": self.label,
            "unlabel": self._unlabel,
            "tag": self._tag,
            "untag": self._untag,
            "accept tag": self._accept_tag,
            "refuse tag": self._refuse_tag,
            "undo": self._undo,
        }

    def shown(self, session: Session) -> dict[str, Any]:
        """What the bar that labels shows."""
        counts = self.collection.labels.counts()
        none = counts.pop(NONE_OF_THESE, 0)
        return {
            "none": {"name": NONE_OF_THESE, "count": none},  # no class, and it has a key of its own
            # In an order that stays: their keys must not shift under anybody's fingers.
            "classes": [
                {"name": name, "count": counts[name]} for name in self.collection.labels.classes() if name in counts
            ],
            "undo": session.steps[-1].text if session.steps else None,
        }

    def give(self, session: Session, wanted: Mapping[int, str], text: str, author: str = AUTHOR) -> str:
        """Labels images, image to label, as one step called `text`; returns what was done as a sentence."""
        wanted = {image: normalised(label) for image, label in wanted.items()}
        before = self._labels_of(list(wanted))
        self.collection.labels.give(wanted, author)
        return self._remember(session, Step(text, before, {**wanted}))

    def reject(self, session: Session, wanted: Mapping[int, str], text: str) -> str:
        """Remembers that images don't have the labels that were proposed for them, as one step called `text`."""
        known = self.collection.rejections.by_image()
        new = {image: label for image, label in wanted.items() if label not in known.get(image, frozenset())}
        self.collection.rejections.add(new)
        return self._remember(session, Step(text, {}, {}, rejected=tuple(new.items())))

    def confirm(self, session: Session, ids: list[int]) -> str:
        """Remembers that images' labels are right although they looked wrong."""
        kept = tuple((image, label[0]) for image, label in self._labels_of(ids).items() if label is not None)
        self.collection.confirmations.add(kept)
        return self._remember(session, Step(f"kept the label of {count(ids)}", {}, {}, confirmed=kept))

    def label(self, session: Session, payload: Payload, author: str = AUTHOR) -> str:
        """Labels the pictures of `payload` by its `label`, as one step; returns what was done as a sentence."""
        name = normalised(str(payload.get("label") or ""))
        chosen = images(payload)
        before = Counter(had[0] for had in self._labels_of(chosen).values() if had and had[0] != name)
        said = self.give(session, dict.fromkeys(chosen, name), f"labelled {count(chosen)} “{name}”", author)
        return f"{said}, {_replaced(before, len(chosen))}" if before else said

    def _unlabel(self, session: Session, payload: Payload) -> str:
        before = self._labels_of(images(payload))
        had = {image: label for image, label in before.items() if label is not None}
        if not had:
            raise MasslError("None of these pictures has a label")
        self.collection.labels.remove(had)
        return self._remember(session, Step(f"unlabelled {count(had)}", dict(had.items()), dict.fromkeys(had)))

    def _tag(self, session: Session, payload: Payload, author: str = AUTHOR, did: str = "tagged") -> str:
        """Gives pictures the tags in `tags`, with commas between, as one step."""
        named, chosen = _tags(payload), images(payload)
        wanted = [(image, tag) for image in chosen for tag in named]
        rejected = {tag: self.collection.rejected_tags.of_tag(tag) for tag in named}
        new = self.collection.tags.give(wanted, author)
        text = f"{did} {count(chosen)} {_quoted(named)}"
        if not new:
            return f"{text[0].upper()}{text[1:]}, as they were before"
        untold = tuple((image, tag) for image, tag in new if image in rejected[tag])
        return self._remember(session, Step(text, {}, {}, tagged=tuple(new), untold=untold))

    def _untag(self, session: Session, payload: Payload) -> str:
        named, chosen = _tags(payload), images(payload)
        taken = self.collection.tags.remove((image, tag) for image in chosen for tag in named)
        if not taken:
            raise MasslError("None of these pictures has this tag")
        of = count(list(dict.fromkeys(image for image, *_ in taken)))
        return self._remember(session, Step(f"took {_quoted(named)} off {of}", {}, {}, untagged=tuple(taken)))

    def _accept_tag(self, session: Session, payload: Payload) -> str:
        """As `_tag`, of a tag that was proposed: no evidence of how good proposals are."""
        return self._tag(session, payload, ACCEPTED, "accepted for")

    def _refuse_tag(self, session: Session, payload: Payload) -> str:
        """Remembers that pictures don't have the proposed tags, as one step."""
        named, chosen = _tags(payload), images(payload)
        new = self.collection.rejected_tags.add((image, tag) for image in chosen for tag in named)
        text = f"{_quoted(named)} refused for {count(chosen)}"
        return self._remember(session, Step(text, {}, {}, refused=tuple(new)))

    def _undo(self, session: Session, payload: Payload) -> str:
        if not session.steps:
            raise MasslError(
                "There is nothing to undo; steps can be undone until the page is reloaded. To change labels, select "
                "the pictures and label them again, or remove their label"
            )
        step = session.steps[-1]
        kept = 0
        # A step is labels, or rejections, or confirmations, or tags: transactions that can each be repeated.
        if step.before:
            kept = self.collection.labels.restore(step.before, step.after)
        if step.rejected:
            self.collection.rejections.remove(step.rejected)
        if step.confirmed:
            self.collection.confirmations.remove(step.confirmed)
        if step.tagged:
            self.collection.tags.remove(step.tagged)
        if step.untold:
            self.collection.rejected_tags.add(step.untold)
        if step.refused:
            self.collection.rejected_tags.remove(step.refused)
        if step.untagged:
            authors = {(image, tag): author for image, tag, author in step.untagged}
            self.collection.tags.give(authors, authors)
        session.steps.pop()  # only now: what failed can be tried again
        return f"Undone: {step.text}" + (f" (others have changed {kept} since; these stay as they are)" if kept else "")

    def _remember(self, session: Session, step: Step) -> str:
        steps = [*session.steps[-_MOST_STEPS + 1 :], step]
        while len(steps) > 1 and sum(map(_pictures, steps)) > _MOST_REMEMBERED:
            del steps[0]
        session.steps = steps
        return step.text[0].upper() + step.text[1:]

    def _labels_of(self, ids: list[int]) -> dict[int, tuple[str, str] | None]:
        found = self.collection.labels.of(ids)
        return {image: (item.label, item.author) if item else None for image, item in found.items()}


def _pictures(step: Step) -> int:
    return sum(map(len, (step.before, step.rejected, step.confirmed, step.tagged, step.untagged, step.refused)))


def _tags(payload: Payload) -> list[str]:
    named = split(str(payload.get("tags") or ""))
    if not named:
        raise MasslError("Type a tag first")
    return named


def _quoted(tags: list[str]) -> str:
    return ", ".join(f"“{tag}”" for tag in tags)


def _replaced(before: Counter[str], images: int) -> str:
    """Which labels gave way, the commonest first: as `of which 34 “cardboard” before`."""
    shown = [f"{number:,} “{label}”" for label, number in before.most_common(_MOST_NAMED)]
    if rest := before.total() - sum(number for _, number in before.most_common(_MOST_NAMED)):
        shown.append(f"{rest:,} something else")
    if images == 1:
        return f"which was “{next(iter(before))}”"
    return f"of which {', '.join(shown)} before; Undo brings {'that' if before.total() == 1 else 'those'} back"
