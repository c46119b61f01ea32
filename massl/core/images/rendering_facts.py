"""How deep files and stacks were shown, as files about embeddings and runs tell it, and as commands ask for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from massl.core.errors import MasslError
from massl.core.images.rendering import (
    BY_COLLECTION,
    BY_FILE,
    Limits,
    Rendering,
    RenderingChoice,
    check_channels,
    check_plane,
    check_range,
    given_limits,
)

_LONGEST = 100  # characters of a kind's name, which may hold that of a channel


@dataclass(frozen=True)
class ShownAs:
    """A rendering in plain values.

    Attributes:
        range: as `check_range` returns it.
        channels, plane: as `Rendering` has them.
        limits: by kind of numbers, what becomes 0 and what becomes 255, as far as it was measured.
    """

    range: str
    channels: tuple[str, ...]
    plane: str
    limits: Mapping[str, Limits]

    @classmethod
    def of(cls, rendering: Rendering) -> ShownAs:
        """Of a rendering; `bits=12` is told as `0:4095`."""
        fixed = rendering.fixed
        told = BY_FILE if fixed is None else f"{fixed[0]:.15g}:{fixed[1]:.15g}"
        if fixed is None and (rendering.measuring or rendering.limits):
            told = BY_COLLECTION
        return cls(told, rendering.channels, rendering.plane, dict(rendering.limits))

    @classmethod
    def read(cls, facts: Mapping[str, object]) -> ShownAs:
        """Of `facts`; what they don't tell is as by each file itself, as before there were ranges.

        Raises:
            ValueError: they are none.
        """
        told, channels, plane = (facts.get(name, "") for name in ("range", "channels", "plane"))
        limits = facts.get("limits", {})
        if not (isinstance(told, str) and isinstance(channels, list | str) and isinstance(plane, str)):
            raise ValueError("no range, channels or plane")
        if not isinstance(limits, Mapping):
            raise ValueError("no limits")
        try:
            names = check_channels(channels if isinstance(channels, str) else ",".join(map(str, channels)))
            of_range, of_plane = check_range(told or BY_FILE), check_plane(plane)
        except MasslError as error:
            raise ValueError(str(error)) from None
        return cls(of_range, names, of_plane, {_kind(kind): _limits(pair) for kind, pair in limits.items()})

    def facts(self) -> dict[str, object]:
        """The reverse of `read`, of texts, lists and numbers."""
        limits = {kind: list(pair) for kind, pair in sorted(self.limits.items())}
        return {"range": self.range, "channels": list(self.channels), "plane": self.plane, "limits": limits}

    def rendering(self, measuring: bool = False) -> Rendering:
        """The same as a `Rendering`; with `measuring` kinds that aren't known yet are to be measured, if any are."""
        measures = measuring and self.range == BY_COLLECTION
        return Rendering(self.limits, given_limits(self.range), measures, self.channels, self.plane)

    def changed(self, choice: RenderingChoice) -> ShownAs:
        """The same but for what somebody asks for; limits that were measured go where it is shown otherwise."""
        asked = {
            name: value
            for name in ("range", "channels", "plane")
            if (value := getattr(choice, name)) is not None and value != getattr(self, name)
        }
        return replace(self, **asked, limits={}) if asked else self

    def has_range_of(self, other: ShownAs) -> bool:
        """Whether both have the same range, but for limits that were measured: `bits=12` is `0:4095`."""
        return (given_limits(self.range) or self.range) == (given_limits(other.range) or other.range)

    def options(self) -> str:
        """As options of the command line."""
        return RenderingChoice(self.range, self.channels or None, self.plane or None).options()


AS_AN_INDEX = ShownAs(BY_COLLECTION, (), "", {})
"""What a new collection has."""

BY_EACH_FILE = ShownAs(BY_FILE, (), "", {})
"""Each file by its own numbers, of stacks the first page: as before there were ranges."""


def _kind(kind: object) -> str:
    if not isinstance(kind, str) or not kind.isprintable() or len(kind) > _LONGEST:
        raise ValueError("no kind of numbers")
    return kind


def _limits(pair: object) -> Limits:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(each, int | float) for each in pair):
        raise ValueError("no limits")
    low, high = float(pair[0]), float(pair[1])
    if not (low < high and math.isfinite(high - low)):
        raise ValueError("no limits")
    return low, high
