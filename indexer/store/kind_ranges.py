"""What a collection knows of its deep files: the range of each kind of their numbers, and how much lies beyond it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from massl.core.images.rendering import Limits


@dataclass(frozen=True)
class KindRange:
    """Of the files with one kind of numbers; see `massl.core.images.rendering.kind_of`.

    Attributes:
        low, high: what becomes black and what white; None where each file, or the person, says so.
        measured_on: files that both were measured on.
        masks: those of them that look like label masks; see `massl.core.images.rendering.Sampling`.
        files: that were embedded since the range is kept.
        later: those of them that came after it was measured.
        clipped: the share, 0 to 1, of the later files' numbers that lies beyond it, the mean of the files.
    """

    low: float | None = None
    high: float | None = None
    measured_on: int = 0
    files: int = 0
    later: int = 0
    clipped: float = 0.0
    masks: int = 0

    @property
    def limits(self) -> Limits | None:
        """Both ends; None where it has none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def are_masks(self) -> bool:
        """Whether most of the files that it was measured on look like label masks."""
        return self.masks > 0 and 2 * self.masks > self.measured_on

    def with_file(self, clipped: float | None) -> KindRange:
        """The same with one more file, which came later if the share of it that lies beyond is told."""
        if clipped is None:
            return replace(self, files=self.files + 1)
        mean = (self.clipped * self.later + clipped) / (self.later + 1)
        return replace(self, files=self.files + 1, later=self.later + 1, clipped=mean)


def read(text: str) -> dict[str, KindRange]:
    """By kind, from a catalog's text.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    told = json.loads(text)
    if not isinstance(told, dict):
        raise ValueError(text)
    found = {str(kind): KindRange(**known) for kind, known in told.items()}
    for known in found.values():
        limits = known.limits
        if limits is None and known.low is not known.high:
            raise ValueError(text)
        if limits and not (limits[0] < limits[1] and math.isfinite(limits[1] - limits[0])):
            raise ValueError(text)
        if not (0 <= known.clipped <= 1 and min(known.files, known.later, known.measured_on, known.masks) >= 0):
            raise ValueError(text)
    return found


def written(ranges: Mapping[str, KindRange]) -> str:
    """The reverse of `read`."""
    return json.dumps({kind: asdict(known) for kind, known in sorted(ranges.items())})
