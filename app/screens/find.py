"""The screen "Search": all pictures, or the most similar ones to some examples, with details."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.formatting import no_pictures, plural, readable, sentence
from app.screens.job_status import asked as job_asked
from app.screens.label_actions import LabelActions
from app.screens.listings import (
    MOST_SUBSET,
    TITLES,
    WAYS,
    Comparing,
    Listing,
    not_compared,
    proposed,
    sorted_by,
    subset,
    time_line,
    unusual,
    with_unusual,
)
from app.screens.match_texts import BANDS, chance, heat_words, levels, match_tile
from app.screens.picture_details import details, proposed_tags, where_unusual
from app.screens.screen import Action, Aside, Screen
from app.screens.search_request import MOST_EXAMPLES, NOTHING, Example, Part, Question, pixels, question, tagging
from app.screens.tiles import MOST, Tile, section, tile, with_ratios
from app.session import Payload, Session, images, number
from app.uploads import Remembered, take
from indexer import Collection, Query
from indexer.search.query import Ranking
from indexer.store import quality
from indexer.store.filters import ORIENTATIONS
from indexer.store.quality import QualityBound
from indexer.store.revision import Revision
from massl.core.errors import MasslError

PAGE = 48  # tiles that are fetched at a time, as one scrolls
PATIENCE = 1.0  # seconds that an order waits for pictures to be compared; then the page looks again
MOST_UPLOADS = 24  # pictures of one's own that a session remembers
_MOST_FOLDERS = 600  # to choose from
_MOST_TAGS = 600
_MOST_CAMERAS = 200
_NONE_UNUSUAL = "No picture that passes the other filters is unusual. Remove one."


@dataclass
class Finding:
    """The search of one session.

    Attributes:
        question: what was asked last.
        ranking: its answer; None where all pictures are looked at.
        listing: what is listed in place of these, where it has an order of its own.
        listed: the part of the collection's revision that `ranking` and `listing` are answers for.
        reachable: how many pictures the browser may ask for.
        shown: how many it has.
        line: the time line, with what it was made for.
        ends: for the pictures in order, number of them to the path of the last, at each page's end.
        uploads: tokens of its own pictures, the latest last; see `app.uploads.Remembered`.
        note: what is to be said of the examples.
        serial: counts questions, so that the browser sees whether an answer belongs to the one that it shows.
    """

    question: Question = NOTHING
    ranking: Ranking | None = None
    listing: Listing | None = None
    listed: Hashable = None
    reachable: int = 0
    shown: int = PAGE
    line: tuple[Hashable, list[dict[str, Any]]] = (None, [])
    ends: dict[int, str] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    note: str = ""
    serial: int = 0


class FindScreen(Screen):
    """Search by pictures, and label what was found."""

    key = "find"
    title = "Search"

    def __init__(self, collection: Collection, uploads: Path) -> None:
        super().__init__(collection, uploads)
        self._labelling = LabelActions(collection)
        self._uploads = Remembered()
        self._comparing = self.job(lambda report: self.collection.anomalies.by_image(partial(report, "comparing")))

    @property
    def actions(self) -> Mapping[str, Action]:
        return {
            "ask": self._ask,
            "upload": self._upload,
            "similar": self._similar,
            "subset": self._subset,
            "browse": self._browse,
            **self._labelling.actions,
        }

    @property
    def asides(self) -> Mapping[str, Aside]:
        return {
            "more": self._more,
            "details": self._details,
            "proposed tags": partial(proposed_tags, self.collection),
            "why": self._why,
        }

    def draw(self, session: Session) -> dict[str, Any]:
        finding = session.of(Finding)
        asked, wanted = finding.question.examples, finding.question.wanted
        total = len(self.collection)
        pending = finding.listing is not None and finding.listing.pending
        if pending or finding.listed != self.revision(session).listed or self._all_answered(finding):
            self._rank(session)  # images came or went since, or the answers tell which others to propose
        found = self.collection.images.count(wanted) if wanted else total
        shown = finding.shown  # once: the next page may be fetched while this is drawn
        tiles = self._tiles(finding, 0, shown)
        listing = finding.listing.open(self.collection) if finding.listing else None
        reachable = min(
            len(listing.rows) if listing else found if finding.ranking is None else len(finding.ranking), MOST
        )
        finding.reachable = reachable
        which = f"{found:,} of {total:,} pictures" if wanted else f"{total:,} pictures"
        if listing:
            title, note = listing.title, listing.note
        elif finding.ranking is None:
            title, note = "Filtered pictures" if wanted else "All pictures", which
            if found > MOST:
                note += f"; the first {MOST:,} are listed. Use filters or a search to see others"
        else:
            title, note = "Most similar first", which if reachable < MOST else f"the first {reachable:,} of {which}"
        return {
            **self._labelling.shown(session),
            "serial": finding.serial,
            "asked": {"examples": [self._drawn(finding, example) for example in asked], "note": finding.note}
            if asked
            else None,
            "filters": {
                "labels": list(wanted.labels),
                "folders": list(wanted.folders),
                "quality": [bound.name for bound in wanted.quality],
                **tagging(wanted),
                "cameras": list(wanted.cameras),
                "rating": wanted.rating or 0,
                "orientation": wanted.orientation,
                "named": " ".join(wanted.named),
                "since": str(wanted.taken_since or ""),
                "until": str(wanted.taken_until or ""),
            },
            "listing": {"sort": finding.question.sort, "proposed": finding.question.proposed},
            "orders": [{"key": "", "name": "Most similar first" if asked else "By path", "group": ""}]
            + [
                {"key": key, "name": name, "group": "Quality" if key in quality.NAMES else ""}
                for key, name in TITLES.items()
            ],
            "months": self._months(session),
            "choices": self._choices(self.revision(session)),
            "subset": {"most": MOST_SUBSET, "ways": list(WAYS), "shown": finding.question.subset is not None},
            "waiting": listing is not None and listing.pending,
            "levels": [] if listing else levels(finding.ranking),
            "sections": [section("all", title, note, tiles, shown < reachable)],
            "empty": ""
            if tiles
            else no_pictures(self.collection)
            if not total
            else (listing and listing.empty) or "No picture matches all of these filters. Remove one.",
        }

    def reset(self, session: Session) -> None:
        # Nothing is looked up: the collection itself may be gone.
        finding = session.of(Finding)
        finding.question, finding.ranking, finding.listing, finding.listed = NOTHING, None, None, None
        finding.shown, finding.ends = PAGE, {}
        finding.serial += 1

    def search_with(self, session: Session, images: Sequence[int]) -> int:
        """Makes images of the collection the session's question, for another screen; returns how many were taken."""
        taken = self.collection.map.typical(images, MOST_EXAMPLES)
        finding = session.of(Finding)
        self._put(session, Question(tuple(Example(image=image) for image in taken)))
        if len(taken) < len(images):
            finding.note = f"Searching with the {len(taken)} most typical of {len(images):,} pictures."
        return len(taken)

    def best(self, session: Session, count: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids, int64, and similarities, float32, of what fits the session's question best; None if there is none."""
        ranking = session.of(Finding).ranking
        return None if ranking is None else (ranking.images[:count], ranking.scores[:count])

    # Asking -------------------------------------------------------------------------------------------------------

    def _ask(self, session: Session, payload: Payload) -> None:
        finding = session.of(Finding)
        asked = question(payload, self.collection.images.of_content, self._hints)
        if any(example.upload and example.upload not in finding.uploads for example in asked.examples):
            raise MasslError("An uploaded picture is kept only while the page is open; choose it again")
        self._put(session, asked)

    def _upload(self, session: Session, payload: Payload) -> None:
        finding = session.of(Finding)
        name = str(payload.get("name") or "your picture")[:200]
        resize, rendering = self.collection.encoder.resize, self.collection.meta.rendering
        upload = take(payload.get("path"), self.uploads, resize, f"“{name}”", rendering)
        token = self._uploads.put(name, upload)
        finding.uploads = [*finding.uploads, token]
        example = Example(upload=token, weight=-1.0 if payload.get("weight") == -1 else 1.0)
        before = finding.question.examples if payload.get("add") else ()
        self._put(session, replace(finding.question, examples=(*before, example)))
        used = {example.upload for example in finding.question.examples}
        spare = max(0, len(finding.uploads) - MOST_UPLOADS)
        for old in [token for token in finding.uploads if token not in used][:spare]:
            finding.uploads.remove(old)
            self._uploads.forget(old)

    def _similar(self, session: Session, payload: Payload) -> None:
        finding = session.of(Finding)
        image = number(payload.get("image"))
        self.collection.images.paths_of([image])
        self._put(session, replace(finding.question, examples=(Example(image=image),)))

    def _subset(self, session: Session, payload: Payload) -> str:
        """Chooses a subset of the selected pictures, or else of those that are listed."""
        finding = session.of(Finding)
        asked = finding.question
        selected = images(payload) if payload.get("images") else None
        count, by = number(payload.get("n")), str(payload.get("by"))
        chosen = subset(self.collection, count, by, asked.wanted, self._queries(finding), selected)
        self._put(session, replace(asked, sort="", proposed=False, subset=chosen))
        finding.shown = max(PAGE, len(chosen.rows))  # all of it is selected
        return f"Selected {plural(len(chosen.rows), 'picture', 'pictures')}: {chosen.note}"

    def _browse(self, session: Session, payload: Payload) -> None:
        self._put(session, NOTHING)

    def _put(self, session: Session, asked: Question) -> None:
        """Makes something the session's question; if it has no answer, the one before stays."""
        finding = session.of(Finding)
        before = finding.question
        finding.question = asked
        try:
            self._rank(session)
        except MasslError:
            finding.question = before
            raise
        finding.shown, finding.ends, finding.note = PAGE, {}, ""
        finding.serial += 1

    def _hints(self, names: Sequence[str]) -> tuple[QualityBound, ...]:
        """The bounds of hints; `_rank` finds that of the one for which all pictures must be compared."""
        measured = self.collection.images.quality_bounds([name for name in names if name != quality.UNUSUAL])
        return (*measured, quality.NOT_COMPARED) if quality.UNUSUAL in names else measured

    def _compared(self) -> Comparing:
        return job_asked(self._comparing, self.collection.revision().embedded, PATIENCE)

    def _rank(self, session: Session) -> None:
        finding = session.of(Finding)
        listed = self.revision(session).listed
        if any(bound.name == quality.UNUSUAL for bound in finding.question.wanted.quality):
            comparing = self._compared()
            wanted = with_unusual(finding.question.wanted, comparing)
            if wanted is None:
                finding.ranking, finding.listing = None, not_compared("Unusual pictures", comparing)
                finding.listed, finding.ends = listed, {}
                return
            finding.question = replace(finding.question, wanted=wanted)
            if not self.collection.images.count(wanted):
                finding.ranking, finding.listing = None, Listing("Unusual pictures", "", (), empty=_NONE_UNUSUAL)
                finding.listed, finding.ends = listed, {}
                return
        asked = finding.question
        if asked.examples:
            queries = self._queries(finding)
            finding.ranking = self.collection.searcher.rank(queries, MOST, asked.wanted)
        else:
            self.collection.images.check(asked.wanted)
            finding.ranking = None
        if asked.subset is not None:
            finding.listing = asked.subset
        elif asked.proposed:
            finding.listing = proposed(self.collection, asked.wanted)
        else:
            finding.listing = self._sorted(asked, finding.ranking) if asked.sort else None
        finding.listed, finding.ends = listed, {}

    def _sorted(self, asked: Question, ranking: Ranking | None) -> Listing:
        if asked.sort == "unusual":
            return unusual(self.collection, asked.wanted, ranking, self._compared())
        return sorted_by(asked.sort, self.collection, asked.wanted, ranking)

    def _all_answered(self, finding: Finding) -> bool:
        listing = finding.listing
        return listing is not None and bool(listing.rows) and not listing.open(self.collection).rows

    def _queries(self, finding: Finding) -> list[Query]:
        return [self._query(finding, example) for example in finding.question.examples]

    def _query(self, finding: Finding, example: Example) -> Query:
        if example.upload is not None:
            name, upload = self._uploads.get(example.upload)
            if example.part is None:
                return replace(upload.query, weight=example.weight, name=name)
            crop = pixels(example.part, *upload.size)
            return Query(upload.large, None, example.weight, crop, name, upload.reduced)
        if example.part is None:
            return Query(image=example.image, weight=example.weight)
        facts = self.collection.images.facts(example.image or 0)
        crop = pixels(example.part, facts.width, facts.height)
        return Query(image=example.image, weight=example.weight, crop=crop)

    # Drawing ------------------------------------------------------------------------------------------------------

    def _tiles(self, finding: Finding, first: int, last: int) -> list[Tile]:
        """The pictures from place `first` up to before `last`."""
        if finding.listing is not None:
            return finding.listing.open(self.collection).tiles(self.collection, first, last)
        if finding.ranking is not None:
            found = self.collection.searcher.describe(finding.ranking, first, last)
            return with_ratios(self.collection, [match_tile(result) for result in found])
        after = finding.ends.get(first, "") if first else ""
        rows = self.collection.images.browse(finding.question.wanted, after, last - first)
        if rows:
            finding.ends[first + len(rows)] = rows[-1][1]
        return with_ratios(self.collection, [tile(*row) for row in rows])

    def _drawn(self, finding: Finding, example: Example) -> dict[str, Any]:
        """An example as the browser shows it, and as it sends it back."""
        shown: dict[str, Any] = {"weight": example.weight, "part": example.part}
        if example.upload is not None:
            name, upload = self._uploads.get(example.upload)
            return shown | {"upload": example.upload, "name": name, "src": upload.preview, "large": upload.preview}
        facts = self.collection.images.facts(example.image or 0)
        return shown | {
            "image": facts.image,
            "content": facts.content[:16],
            "name": readable(facts.path),
            "src": f"thumbnail/{facts.image}",
            "large": f"preview/{facts.image}",
        }

    def _months(self, session: Session) -> list[dict[str, Any]]:
        """The time line of the pictures that pass all filters but that of days."""
        finding = session.of(Finding)
        if finding.question.proposed or finding.question.subset is not None:
            return []
        wanted = replace(finding.question.wanted, taken_since=None, taken_until=None)
        made_for = self.revision(session).listed, self.revision(session).labels, self.revision(session).tags, wanted
        if finding.line[0] != made_for:
            steps = time_line(self.collection.images.months(wanted))
            finding.line = made_for, [vars(step) for step in steps]
        return finding.line[1]

    def _choices(self, now: Revision) -> dict[str, Any]:
        outline = self.collection.images.outline(now)
        folders, depth = outline.folders, 0
        # Of very many folders, the upper ones.
        while len(folders) > _MOST_FOLDERS:
            depth = max(path.count("/") for path in folders) if not depth else depth - 1
            folders = {path: images for path, images in outline.folders.items() if path.count("/") < depth}
        cameras = sorted(sorted(outline.cameras.items(), key=lambda item: -item[1])[:_MOST_CAMERAS])
        return {
            "folders": [{"path": path, "name": readable(path), "count": images} for path, images in folders.items()],
            "quality": list(quality.NAMES),
            "tags": [{"name": tag, "count": images} for tag, images in self._tags()],
            "cameras": [{"name": camera, "count": images} for camera, images in cameras],
            "stars": outline.stars,
            "orientations": list(ORIENTATIONS),
            "first": str(outline.first or ""),
            "last": str(outline.last or ""),
        }

    def _tags(self) -> list[tuple[str, int]]:
        """The commonest tags, in order."""
        counts = self.collection.tags.counts()
        return sorted(sorted(counts.items(), key=lambda item: -item[1])[:_MOST_TAGS])

    # Besides ------------------------------------------------------------------------------------------------------

    def _more(self, session: Session, payload: Payload) -> dict[str, Any]:
        finding = session.of(Finding)
        serial = finding.serial  # of before: another question may be asked while this is answered
        first = number(payload.get("from"))
        nobodys = {"from": first, "tiles": [], "more": False, "serial": None}
        by_path = finding.ranking is None and finding.listing is None
        known = first in finding.ends if by_path else first <= finding.shown
        if payload.get("serial") != finding.serial or not known or first >= MOST:
            return nobodys
        tiles = self._tiles(finding, first, min(first + PAGE, MOST))
        if payload.get("serial") != finding.serial:
            return nobodys  # any more: something else was asked meanwhile
        finding.shown = max(finding.shown, first + PAGE)
        more = first + PAGE < finding.reachable and len(tiles) > 0
        return {"from": first, "tiles": tiles, "more": more, "serial": serial}

    def _details(self, session: Session, payload: Payload) -> dict[str, Any]:
        finding = session.of(Finding)
        facts = self.collection.images.facts(number(payload.get("image")))
        answer = details(self.collection, facts)
        # The middle square has no part in what a tile was found by.
        matched = finding.ranking is not None and facts.image not in finding.ranking.boxes
        answer["why"] = matched or _is_by_unusualness(finding)
        if finding.ranking is not None and len(at := np.flatnonzero(finding.ranking.images == facts.image)):
            score = float(finding.ranking.scores[at[0]])
            likely = chance(finding.ranking.false_matches(score, facts.image), int(at[0]) + 1)
            match = finding.ranking.match(score, facts.image)
            similar = f"{BANDS[match]}, similarity" if match in BANDS else "Similarity"
            answer["match"] = f"{similar} {score:z.2f}. {likely}."
        return answer

    def _why(self, session: Session, payload: Payload) -> dict[str, Any]:
        finding = session.of(Finding)
        image = number(payload.get("image"))
        if _is_by_unusualness(finding):
            return where_unusual(self.collection, image)
        try:
            heat = self.collection.searcher.heat(self._queries(finding), image)
        except MasslError as error:
            return {"image": image, "said": sentence(str(error))}
        part: Part = heat.part
        return {
            "image": image,
            "cosines": [[round(float(cosine), 3) for cosine in row] for row in heat.cosines],
            "part": [round(share, 4) for share in part],
            "said": heat_words(heat.cosines, part),
        }


def _is_by_unusualness(finding: Finding) -> bool:
    return finding.listing is not None and finding.listing.framed
