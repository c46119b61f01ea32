"""Work in the background as a screen shows it: begun when somebody asks, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from indexer.jobs.background import BackgroundJob, JobStatus, Outcome


def asked(job: BackgroundJob[Outcome], key: object, patience: float) -> JobStatus[Outcome]:
    """How far it is, begun if it wasn't, `patience` seconds later at most.

    What failed for this key isn't tried again at every look.
    """
    if job.status(key).state != "failed":
        job.begin(key)
        job.wait(patience)
    return job.status(key)


def running(status: JobStatus[Any], what: str, steps: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """What is done at present, and how much of it; None if nothing is.

    Args:
        status: how far the work is.
        what: the work, and what to call a step of it that has no name.
        steps: names of its steps.
    """
    if status.state != "running":
        return None
    return {"step": (steps or {}).get(status.step, what), "done": status.done, "total": status.total}
