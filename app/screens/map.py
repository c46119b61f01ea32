"""The screen "Map": all pictures in the plane, like ones together; select some to search with or to name."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.formatting import no_pictures, plural, readable, sentence
from app.progress import duration
from app.screens.find import FindScreen
from app.screens.job_status import asked
from app.screens.label_actions import LabelActions
from app.screens.listings import MOST_SUBSET, WAYS, subset
from app.screens.screen import Action, Screen
from app.screens.tiles import tile
from app.session import Payload, Session, images, number
from indexer import Collection
from indexer.anomalies.collection_anomalies import bands
from indexer.projection.categories import NONE, OTHERS, Kinds
from indexer.projection.collection_map import Making, Map
from indexer.projection.point_clusters import hues
from indexer.store.filters import EVERYTHING
from indexer.store.revision import Revision
from massl.core.errors import MasslError

KINDS = 11  # that have a colour of their own
MATCHES = 1_000  # of the best matches, that are coloured
SHOWN = 48  # of the selected pictures, that are shown below the map
HUES = 12  # of the script, that tell groups apart
BY = {"label": "Label", "folder": "Folder", "group": "Group", "match": "Search similarity", "unusual": "Unusualness"}
UNUSUAL = {"the most unusual 1 %": 0.01, "the next 4 %": 0.04, "the next 15 %": 0.15}  # share of the pictures
PATIENCE = 5.0  # seconds that the colours wait for pictures to be compared


@dataclass
class MapView:
    """The map's view of one session."""

    by: str = ""  # empty: by label where there are any, else by folder where there are several, else by group
    go: str = ""  # the title of the tab to go to next
    chosen: tuple[int, ...] = ()  # the subset that is to be selected next


class MapScreen(Screen):
    """Every picture a point."""

    key = "map"
    title = "Map"

    def __init__(self, collection: Collection, uploads: Path) -> None:
        super().__init__(collection, uploads)
        self._labelling = LabelActions(collection)
        self._find = FindScreen(collection, uploads)
        self._comparing = self.job(lambda report: self.collection.anomalies.by_image(partial(report, "comparing")))

    @property
    def actions(self) -> Mapping[str, Action]:
        return {"by": self._by, "search": self._search, "subset": self._subset, **self._labelling.actions}

    @property
    def functions(self) -> Sequence[Callable[[Any], dict[str, Any]]]:
        return (self.status, self.points, self.kinds, self.pictures)

    def draw(self, session: Session) -> dict[str, Any]:
        looking, now = session.of(MapView), self.revision(session)
        total = len(self.collection)
        by = looking.by or self._usual(total)
        drawn: dict[str, Any] = {
            **self._labelling.shown(session),
            **self._status(now),
            "by": by,
            "ways": [{"key": key, "name": name} for key, name in BY.items()],
            # What the colours are of: the script asks for them anew when this changes.
            "coloured": self._coloured(by, now),
            "most": SHOWN,
            "go": looking.go,
            "subset": {"most": MOST_SUBSET, "ways": list(WAYS)},
            "chosen": list(looking.chosen),
            "sections": [],
            "empty": "" if total else no_pictures(self.collection),
        }
        looking.go, looking.chosen = "", ()
        if by == "match":
            drawn["match"] = self._match(session)
        return drawn

    def reset(self, session: Session) -> None:
        session.of(MapView).by = ""

    def _usual(self, total: int) -> str:
        """What the colours are of where nobody chose: what tells pictures apart."""
        if self.collection.labels.counts():
            return "label"
        several = any(count < total for count in self.collection.images.outline().folders.values())
        return "folder" if several else "group"

    # What the script asks for --------------------------------------------------------------------------------------

    def status(self, data: object) -> dict[str, Any]:
        """Which map there is, and how far a better one."""
        return self._status(self.collection.revision())

    def _status(self, now: Revision) -> dict[str, Any]:
        current = self._current(now)
        making = self.collection.map.making()
        return {
            "version": current.version,
            "count": len(current.ids),
            "note": _note(current, making, self.collection.updating, self.collection.map.trouble()),
            "making": making.done if making else None,
            "waiting": making is not None or self.collection.updating,
        }

    def points(self, data: object) -> dict[str, Any]:
        """All points, once a version: ids as 32-bit numbers, x and y as 16-bit ones, in base64."""
        current = self._current()
        places = np.round((current.points.astype(np.float64) + 1) / 2 * 65_535).astype("<u2")
        return {
            "version": current.version,
            "ids": _packed(current.ids.astype("<u4")),
            "places": _packed(places),
        }

    def kinds(self, data: object) -> dict[str, Any]:
        """The colour of each point, a byte each, in base64, and what the colours stand for."""
        current = self._current()
        by = data.get("by") if isinstance(data, dict) else None
        if by == "unusual":
            return self._unusual(current)
        if by == "group":
            return self._groups(current)
        found: Kinds = self.collection.map.kinds(current.ids, "folder" if by == "folder" else "label", KINDS)
        legend = [
            {"name": readable(name) or "not in a folder", "count": count, "kind": kind}
            for kind, (name, count) in enumerate(zip(found.names, found.counts, strict=True))
        ]
        if found.others[0]:
            what = "folders" if by == "folder" else "classes"
            legend.append({"name": f"{found.others[0]:,} other {what}", "count": found.others[1], "kind": OTHERS})
        if without := int((found.of == NONE).sum()):
            legend.append({"name": "unlabelled", "count": without, "kind": NONE})
        return {"version": current.version, "of": _packed(found.of), "legend": legend}

    def _groups(self, current: Map) -> dict[str, Any]:
        """The colours by the map's own clusters, the largest first; those near each other have different hues."""
        clusters = self.collection.map.clusters(current)
        sizes = np.bincount(clusters[clusters >= 0])
        legend = [{"name": f"Group {kind + 1}", "count": int(size), "kind": kind} for kind, size in enumerate(sizes)]
        if between := int((clusters < 0).sum()):
            legend.append({"name": "between groups", "count": between, "kind": NONE})
        of = np.where(clusters < 0, NONE, clusters).astype(np.uint8)
        return {
            "version": current.version,
            "of": _packed(of),
            "legend": legend,
            "hues": hues(current.points, clusters, HUES),
        }

    def _unusual(self, current: Map) -> dict[str, Any]:
        """The colours by how unusual pictures are, which takes a while to find out in a large collection."""
        comparing = asked(self._comparing, self.collection.revision().embedded, PATIENCE)
        of = np.full(len(current.ids), NONE, np.uint8)
        rest = "not compared yet: choose this colour again in a while"
        if comparing.result is not None:
            ids, scores = comparing.result
            rows = np.searchsorted(ids, current.ids).clip(0, max(0, len(ids) - 1))
            there = np.flatnonzero(ids[rows] == current.ids) if len(ids) else np.empty(0, np.int64)
            of[there] = bands(scores, list(UNUSUAL.values()))[rows[there]]
            of[of == len(UNUSUAL)] = NONE
            rest = "all others"
        counts = [(name, int((of == band).sum()), band) for band, name in enumerate(UNUSUAL)]
        legend = [{"name": name, "count": count, "kind": band} for name, count, band in counts if count]
        legend.append({"name": rest, "count": int((of == NONE).sum()), "kind": NONE})
        return {"version": current.version, "of": _packed(of), "legend": legend}

    def pictures(self, data: object) -> dict[str, Any]:
        """Names and labels of a few pictures; those that have gone are left out."""
        wanted = data.get("images") if isinstance(data, dict) else None
        if not isinstance(wanted, list) or len(wanted) > SHOWN:
            raise MasslError("The page sent something unexpected; reload it")
        found = self.collection.images.described([number(image) for image in wanted])
        return {"tiles": [tile(image, path, label) for image, path, label in found]}

    # What is done with a selection ----------------------------------------------------------------------------------

    def _by(self, session: Session, payload: Payload) -> None:
        by = str(payload.get("by"))
        session.of(MapView).by = by if by in BY else "label"

    def _search(self, session: Session, payload: Payload) -> str:
        chosen = images(payload)
        used = self._find.search_with(session, chosen)
        session.of(MapView).by = "match"
        session.of(MapView).go = FindScreen.title
        few = "" if used == len(chosen) else f" with the {used} most typical of them"
        return f"Searched{few}"

    def _subset(self, session: Session, payload: Payload) -> str:
        """Chooses a subset of the selected pictures, which are selected then."""
        count, by = number(payload.get("n")), str(payload.get("by"))
        found = subset(self.collection, count, by, EVERYTHING, (), images(payload))
        session.of(MapView).chosen = tuple(row.image for row in found.rows)
        return f"Selected {plural(len(found.rows), 'picture', 'pictures')}: {found.note}"

    # Drawing --------------------------------------------------------------------------------------------------------

    def _current(self, now: Revision | None = None) -> Map:
        return self.collection.map.get(not self.collection.updating, now)

    def _coloured(self, by: str, now: Revision) -> str:
        if by == "unusual":
            return f"unusual-{now.images}"
        return f"label-{now.images}-{now.labels}" if by == "label" else by

    def _match(self, session: Session) -> dict[str, Any]:
        found = self._find.best(session, MATCHES)
        if found is None:
            return {"ids": "", "scores": "", "said": "Search for something first. The map then colours its matches."}
        ids, scores = found
        low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
        shares = (scores - low) / max(high - low, 1e-6)
        return {
            "ids": _packed(ids.astype("<u4")),
            "scores": _packed(np.round(shares * 255).astype(np.uint8)),
            "said": f"The {len(ids):,} best matches, similarity {low:z.2f} to {high:z.2f}; all others are grey.",
            "low": f"{low:z.2f}",
            "high": f"{high:z.2f}",
        }


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _note(current: Map, making: Making | None, updating: bool, trouble: str | None) -> str:
    """The state of the map, as text."""
    total = len(current.ids)
    if current.kind == "principal":
        text = f"{total:,} pictures, a rough view by their first two principal components."
    else:
        text = f"{total:,} pictures; similar ones lie together. Distances between groups mean nothing."
        if current.laid_out < total:
            text += (
                f" {current.laid_out:,} of them were laid out; the others were placed beside their most similar ones."
            )
    if current.missing:
        text += f" {current.missing:,} new or changed ones are not on the map yet."
    if making is not None:
        left = f", {duration(making.seconds_left)} left" if making.seconds_left else ""
        text += f" A better map is being computed: {100 * making.done:.0f} %{left}."
    elif updating:
        text += " A better map is computed when all pictures are indexed."
    elif trouble:
        text += f" {sentence(trouble)}"
    return text
