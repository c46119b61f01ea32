"""How a source's deep files and stacks are shown in training: as an index would show them, settled before a run."""

from __future__ import annotations

from dataclasses import replace

from massl.core.images.ranges import MeasuredRanges, RangeSampler
from massl.core.images.rendering_facts import ShownAs
from massl.data.sources import Source


def measured(source: Source, shown: ShownAs) -> ShownAs:
    """The same, with the limits of the numbers that are not known yet, where all files share a range.

    They are measured on up to 2,048 of the files, as an index does. Numbers of a kind that none of these has are shown
    by each file's own range.
    """
    rendering = shown.rendering(measuring=True)
    if not rendering.measuring:
        return shown
    ranges = MeasuredRanges(rendering, RangeSampler(len(source), source.name, source.read))
    ranges.measure_all()
    return replace(shown, limits=ranges.limits)
