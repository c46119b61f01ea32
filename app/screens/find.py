"""The screen "Search and label": all pictures, or those most like the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.labelling import Labelling
from app.screens.screen import Action, Screen
from app.session import Payload, Session, number
from app.tiles import MOST, PAGE_SIZES, section, tile
from app.uploads import take
from app.words import no_pictures, readable
from indexer import Collection, Query

MOST_EXAMPLES = 16
BANDS = {"same": "Same", "alike": "Alike", "weak": "Weak"}


@dataclass
class Finding:
    """What one session looks for."""

    query: Query | None = None
    further: tuple[Query, ...] = ()
    asked: dict[str, str] | None = None  # what the query looks like: `name` and `src`
    page: int = PAGE_SIZES[0]
    shown: int = PAGE_SIZES[0]


class Find(Screen):
    """Search by a picture, and label what was found."""

    key = "find"
    title = "Search and label"
    scripts = ("elements", "board", "tiles", "labels")

    def __init__(self, collection: Collection, uploads: Path) -> None:
        super().__init__(collection, uploads)
        self._labelling = Labelling(collection)

    @property
    def actions(self) -> Mapping[str, Action]:
        return {
            "upload": self._upload,
            "similar": self._similar,
            "browse": self._browse,
            "size": self._size,
            "more": self._more,
            **self._labelling.actions,
        }

    def draw(self, session: Session) -> dict[str, Any]:
        finding = session.of(Finding)
        total = len(self.collection)
        if finding.query is None:
            labels = {item.path: item.label for item in self.collection.labels()}
            tiles = [tile(image, path, labels.get(path)) for image, path in self.collection.images(finding.shown)]
            title, note = "All pictures", f"{len(tiles):,} of {total:,}"
        else:
            tiles = []
            for found in self.collection.search([finding.query, *finding.further], finding.shown):
                drawn = tile(found.image, found.path, found.label)
                drawn |= {"score": f"{found.score:.2f}", "band": found.match, "bandName": BANDS[found.match]}
                drawn["hint"] = _chance(found.false_matches)
                tiles.append(drawn)
            title, note = "Most alike first", f"{len(tiles):,} of {total:,}"
        more = len(tiles) < min(total, MOST) and len(tiles) >= finding.shown
        return {
            **self._labelling.shown(session),
            "asked": finding.asked,
            "page": finding.page,
            "pages": PAGE_SIZES,
            "sections": [section("all", title, note, tiles, more)],
            "empty": "" if total else no_pictures(self.collection),
        }

    def search_with(self, session: Session, images: Sequence[int]) -> int:
        """Makes images of the collection the session's question; returns how many of them were taken."""
        taken = self.collection.typical(images, MOST_EXAMPLES)
        (path,) = self.collection.paths_of(taken[:1])
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        self._ask(session, Query(image=taken[0]), {"name": readable(path) + more, "src": f"thumbnail/{taken[0]}"})
        session.of(Finding).further = tuple(Query(image=image) for image in taken[1:])
        return len(taken)

    def best(self, session: Session, count: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids, int64, and similarities, float32, of what fits the session's question best; None if there is none."""
        finding = session.of(Finding)
        if finding.query is None:
            return None
        found = self.collection.search([finding.query, *finding.further], count)
        return np.array([item.image for item in found], np.int64), np.array([item.score for item in found], np.float32)

    def reset(self, session: Session) -> None:
        finding = session.of(Finding)
        finding.query, finding.asked = None, None

    def _upload(self, session: Session, payload: Payload) -> None:
        upload = take(payload.get("path"), self.uploads, self.collection.encoder.resize)
        name = str(payload.get("name") or "your picture")[:200]
        self._ask(session, upload.query, {"name": name, "src": upload.preview})

    def _similar(self, session: Session, payload: Payload) -> None:
        image = number(payload.get("image"))
        (path,) = self.collection.paths_of([image])
        self._ask(session, Query(image=image), {"name": readable(path), "src": f"thumbnail/{image}"})

    def _browse(self, session: Session, payload: Payload) -> None:
        self._ask(session, None, None)

    def _ask(self, session: Session, query: Query | None, asked: dict[str, str] | None) -> None:
        finding = session.of(Finding)
        finding.query, finding.asked, finding.shown, finding.further = query, asked, finding.page, ()

    def _size(self, session: Session, payload: Payload) -> None:
        finding = session.of(Finding)
        size = number(payload.get("size"))
        finding.page = finding.shown = size if size in PAGE_SIZES else PAGE_SIZES[0]

    def _more(self, session: Session, payload: Payload) -> None:
        finding = session.of(Finding)
        finding.shown = min(finding.shown + finding.page, MOST)


def _chance(false_matches: float) -> str:
    """What a score means, in words."""
    if false_matches < 0.1:
        return "Hardly a coincidence: an unrelated picture would almost never look this alike"
    return f"About {max(1, round(false_matches)):,} unrelated pictures of this folder would look this alike by chance"
