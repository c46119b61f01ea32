"""Work in the background as a screen shows it: begun when somebody asks, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from indexer.jobs.work import Result, Standing, Work


def asked(work: Work[Result], key: object, patience: float) -> Standing[Result]:
    """How far it is, begun if it wasn't, `patience` seconds later at most.

    What failed for this key isn't tried again at every look.
    """
    if work.standing(key).state != "failed":
        work.begin(key)
        work.wait(patience)
    return work.standing(key)


def running(standing: Standing[Any], what: str, steps: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """What is done at present, and how much of it; None if nothing is.

    Args:
        standing: how far the work is.
        what: the work, and what to call a step of it that has no name.
        steps: names of its steps.
    """
    if standing.state != "running":
        return None
    return {"step": (steps or {}).get(standing.step, what), "done": standing.done, "total": standing.total}
