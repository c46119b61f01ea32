"""The strip above the screens: the progress of indexing in the background, as text."""

from __future__ import annotations

from typing import Any

from app.formatting import sentence
from indexer import Collection, IndexReport
from indexer.ingest.background_update import BackgroundUpdate, Update


class ProgressStrip:
    """What the strip's script asks for: often while there is something to wait for, and from time to time always.

    Args:
        collection: what is looked at.
        updating: what brings it up to date; None where nothing does.
    """

    def __init__(self, collection: Collection, updating: BackgroundUpdate | None) -> None:
        self._collection = collection
        self._updating = updating

    def progress(self, data: object) -> dict[str, Any]:
        """In plain values: `text` (empty: nothing to say), `kind` (`running`, `done`, `error`), `share`, `indexed`,
        `generation` (another whenever pictures came, went or changed, whoever did that).
        """
        state = self._updating.state() if self._updating else None
        indexed, revision = len(self._collection), self._collection.revision()
        now = {"indexed": indexed, "generation": f"{revision.images}.{revision.moves}"}
        notice = self._collection.images.thumbnails.notice()
        notice = sentence(notice) if notice else ""
        if state is None:
            return {"text": notice, "kind": "done", "share": None, **now}
        kind = "running" if state.running else "error" if state.stage == "failed" else "done"
        share = state.done / state.total if state.total else None
        old = state.stage == "done" and state.listed != revision.listed  # indexed again since, from a terminal say
        text = "" if old else describe(state, indexed)
        if not state.running:  # the strip shows a text once: closed, it stays closed
            text = " ".join(filter(None, (text, notice)))
        return {"text": text, "kind": kind, "share": share, **now}


def describe(state: Update, indexed: int) -> str:
    """One or two sentences; empty if there was nothing to do."""
    if state.stage == "looking":
        return f"Looking for new pictures: {state.done:,} files so far." if state.done else "Looking for new pictures …"
    if state.stage == "comparing":
        return f"Comparing touched files with the index: {state.done:,} of {state.total:,}."
    if state.stage == "indexing":
        pictures = "1 new or changed picture" if state.total == 1 else f"{state.total:,} new or changed pictures"
        so_far = f"{indexed:,} can be searched and labelled already." if indexed else "The first can be searched soon."
        return f"Indexed {state.done:,} of {pictures}{_pace(state)}. {so_far}"
    if state.stage == "reading":
        return f"Reading dates and keywords: {state.done:,} of {state.total:,} pictures."
    if state.stage == "measuring":
        return f"Measuring pictures: {state.done:,} of {state.total:,}{_pace(state)}."
    if state.stage == "preparing":
        return f"Preparing the search index: {state.done:,} of {state.total:,}."
    if state.stage == "done":
        return _summary(state.report) if state.report else ""
    if state.stage == "stopped":
        return "Indexing was stopped. Indexed pictures are kept; run massl serve or massl index to continue."
    so_far = " The page shows what is indexed so far." if state.stage == "busy" else ""
    return sentence(state.message) + so_far


def _pace(state: Update) -> str:
    rate, left = state.per_second, state.seconds_left
    if not rate or not left:
        return ""
    speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    return f", {speed} a second, {duration(left)} left"


def duration(seconds: float) -> str:
    """About how long, in words."""
    if seconds < 50:
        return f"about {max(5, 5 * round(seconds / 5))} seconds"
    for unit, length, limit in (("minute", 60, 50 * 60), ("hour", 3600, 36 * 3600)):
        if seconds < limit:
            count = max(1, round(seconds / length))
            return f"about {count} {unit}{'s' if count > 1 else ''}"
    return f"about {round(seconds / 86400)} days"


def _summary(report: IndexReport) -> str:
    kinds = ("added", "changed", "moved", "removed")
    parts = [f"{count:,} {kind}" for kind in kinds if (count := getattr(report, kind))]
    if not parts:
        return ""
    skipped = len(report.skipped)
    left_out = f" {skipped:,} file{'s' if skipped > 1 else ''} could not be read." if skipped else ""
    return f"Indexing is done: {report.indexed:,} pictures ({', '.join(parts)}).{left_out}"
