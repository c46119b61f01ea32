"""How a source's deep files and stacks are shown in training: as an index would show them, settled before a run."""

from __future__ import annotations

from massl.core.images.ranges import RangeSampler, settled
from massl.core.images.rendering_facts import ShownAs
from massl.data.sources import Source


def measured(source: Source, shown: ShownAs) -> ShownAs:
    """How its images are shown, with limits measured on them, as an index does; see `ranges.settled`."""
    return settled(shown, RangeSampler(len(source), source.name, source.read))
