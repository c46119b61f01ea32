"""How numbers of more than 8 bits become the 8 bits of a picture: by a range that all files of a folder share.

By each file's own numbers, one hot pixel darkens a whole picture, and an exposure of a tenth looks like any other. So a
collection has one range for each kind of numbers (`uint16`, `float32 RGB`): a `Rendering` knows the ranges, a `Scaling`
applies them to one picture and notes what it cut off, a `Sampling` takes numbers by which `measured` finds a range.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from massl.core.errors import MasslError
from massl.core.images import bit_depth
from massl.core.images.bit_depth import Numbers

Limits = tuple[float, float]
"""The number that becomes 0, and the one that becomes 255."""

BY_COLLECTION, BY_FILE = "collection", "file"
EACH = "each"  # plane of a stack is a picture of its own; see `massl.core.images.plane_files`
SHARES = (0.1, 99.9)  # percentiles that are black and white; what is beyond them is clipped
FILES = 512  # that a range is measured on, at most
_NUMBERS = 1 << 22  # numbers that it is measured on, of all files together
_FLAT = 0.8  # of a mask's numbers are as their left neighbour: those of small objects too
_BITS = re.compile(r"bits=(\d{1,2})")
_NAMES = {"u": "uint", "i": "int", "f": "float", "b": "bool"}


class Unmeasured(Exception):
    """Numbers of a kind that has no range yet; see `Rendering.measuring`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def check_range(text: str) -> str:
    """A range as a person gives it, in the one way of writing it that collections keep.

    Args:
        text: `collection`, `file`, `LOW:HIGH` or `bits=12`.

    Raises:
        MasslError: it is none of these, or holds no two numbers of which the first is the smaller one.
    """
    text = text.strip()
    if text in (BY_COLLECTION, BY_FILE):
        return text
    if bits := _BITS.fullmatch(text):
        if not 1 <= int(bits[1]) <= 32:
            raise MasslError(f"a range of {bits[1]} bits is none that files have; give bits=1 to bits=32")
        return f"bits={int(bits[1])}"
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise MasslError(
            f"{text!r} is no range; give collection, file, LOW:HIGH (as 100:4000) or the depth (as bits=12)"
        ) from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise MasslError(f"the range {text} has no end; give two numbers, as 100:4000")
    if low >= high:
        why = "holds only one value" if low == high else "begins above its end"
        raise MasslError(f"the range {text} {why}; give the darkest number first, as 100:4000")
    return f"{low:.15g}:{high:.15g}"


def check_channels(text: str) -> tuple[str, ...]:
    """The channels of stacks that a person names, divided by commas; none in an empty text.

    Raises:
        MasslError: there are more than three, or two the same.
    """
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    if len(names) > 3:
        raise MasslError(f"{len(names)} channels are too many: three become red, green and blue; name up to three")
    if not all(names) or len({name.casefold() for name in names}) < len(names):
        raise MasslError(f"{text!r} names a channel twice, or none between commas; give names or numbers, as DAPI,GFP")
    return names


def check_plane(text: str) -> str:
    """The plane of stacks that a person names: `max`, `middle`, `each` or a number from 1; an empty text stays one.

    Raises:
        MasslError: it is none of these.
    """
    text = text.strip()
    if text in ("", "max", "middle", EACH):
        return text
    if not re.fullmatch("0*[1-9][0-9]{0,5}", text):
        raise MasslError(f"{text!r} is no plane; give max, middle, each, or a number from 1")
    return str(int(text))


def given_limits(text: str) -> Limits | None:
    """The limits of `LOW:HIGH` and `bits=N`, as `check_range` returns them; None for the others."""
    if text.startswith("bits="):
        return 0.0, 2.0 ** int(text.removeprefix("bits=")) - 1
    if ":" in text:
        low, high = text.split(":")
        return float(low), float(high)
    return None


@dataclass(frozen=True)
class RenderingChoice:
    """What a person asks for; None for what is to stay as it is.

    Attributes:
        range, channels, plane: as `check_range`, `check_channels` and `check_plane` return them.
    """

    range: str | None = None
    channels: tuple[str, ...] | None = None
    plane: str | None = None

    def options(self) -> str:
        """As options of the command line."""
        told = {"range": self.range, "plane": self.plane}
        if self.channels is not None:
            told["channels"] = ",".join(self.channels)
        return " ".join(f"--{name} {shlex.quote(value)}" for name, value in told.items() if value is not None)


AS_BEFORE = RenderingChoice()


def kind_of(number: str, bits: int, colours: int) -> str:
    """What numbers of a file share a range: of the same type and depth, of colours or of greys.

    Args:
        number: numpy's letter of their type: `u`, `i` or `f`.
        bits: of one of them, as the file stores it.
        colours: channels that make the picture.
    """
    return f"{_NAMES[number]}{bits}" + (" RGB" if colours == 3 else "")


@dataclass(frozen=True)
class Rendering:
    """How the deep files of a folder are shown.

    Attributes:
        limits: by kind of numbers; see `kind_of`.
        fixed: those of every kind that `limits` doesn't name.
        measuring: a kind without limits is to be measured: `Unmeasured` is raised. Else each file has its own.
        channels: of stacks, up to three by name or number, which become red, green and blue; the first if empty.
        plane: of stacks, `max`, `middle`, `each` or a number; the first if empty.
    """

    limits: Mapping[str, Limits] = field(default_factory=dict)
    fixed: Limits | None = None
    measuring: bool = False
    channels: tuple[str, ...] = ()
    plane: str = ""

    @property
    def picks(self) -> bool:
        """Whether it says what to show of a stack."""
        return bool(self.channels or self.plane)

    @property
    def key(self) -> str:
        """A short text that differs where pictures do; empty where each file has its own range."""
        told = (sorted(self.limits.items()), self.fixed, self.channels, self.plane)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12] if any(told) else ""

    def of_kind(self, kind: str) -> Limits | None:
        """The limits of a kind of numbers; None: each file has its own.

        Raises:
            Unmeasured: they are to be measured.
        """
        found = self.limits.get(kind, self.fixed)
        if found is None and self.measuring:
            raise Unmeasured(kind)
        return found


EACH_FILE = Rendering()


class Scaling:
    """The deep numbers of one picture on their way to 8 bits.

    Attributes:
        rendering: how files are shown.
        clipped: by kind of the numbers, the share of them, 0 to 1, that lies beyond the limits; None where the file's
            own limits were taken.
    """

    def __init__(self, rendering: Rendering = EACH_FILE) -> None:
        self.rendering = rendering
        self.clipped: dict[str, float | None] = {}

    def limits(self, values: Numbers, kind: str, no_data: float | None = None) -> Limits | None:
        """What becomes 0 and what 255; None where this picture's own numbers are to say so.

        Raises:
            Unmeasured: nobody knows yet.
        """
        found = self.rendering.of_kind(kind)
        self.clipped[kind] = None if found is None else _share_beyond(values, found, no_data)
        return found

    def leaves_to_the_file(self, kind: str) -> bool:
        """Whether a picture's own numbers say what becomes 0 and 255, of which nobody else needs to know more.

        Raises:
            Unmeasured: nobody knows yet.
        """
        if self.rendering.of_kind(kind) is not None:
            return False
        self.clipped[kind] = None
        return True


class Uncounted(Scaling):
    """Where nobody asks what was cut off, which takes a look at all numbers."""

    def limits(self, values: Numbers, kind: str, no_data: float | None = None) -> Limits | None:
        """See `Scaling.limits`."""
        return self.rendering.of_kind(kind)


class Sampling(Scaling):
    """Takes some of a picture's numbers.

    Attributes:
        taken: by kind, at most `most` finite numbers each, float64.
        masks: the kinds whose numbers lie in areas of one number each, as those of objects do in a label mask.
    """

    def __init__(self, most: int, rendering: Rendering = EACH_FILE) -> None:
        super().__init__(rendering)
        self.most = most
        self.taken: dict[str, NDArray[np.float64]] = {}
        self.masks: set[str] = set()

    def limits(self, values: Numbers, kind: str, no_data: float | None = None) -> Limits | None:
        """None, once numbers were taken."""
        flat = _drawn(values, self.most)
        self.taken[kind] = _numbers(flat, no_data).astype(np.float64)
        if _is_mask(values):
            self.masks.add(kind)
        return None

    def leaves_to_the_file(self, kind: str) -> bool:
        """False: all numbers are needed."""
        return False


def numbers_per_file(files: int) -> int:
    """How many numbers of each of so many files a range is measured on."""
    return _NUMBERS // max(1, min(files, FILES))


def measured(samples: Iterable[NDArray[np.float64]]) -> Limits:
    """The range of samples of files' numbers, from one of `SHARES` to the other; of one value only if they are."""
    pool = np.concatenate([np.empty(0), *samples])
    if not pool.size:
        return 0.0, 0.0
    low, high = map(float, np.percentile(pool, SHARES))
    # Where nearly all is background, whatever else there is.
    return (low, high) if low < high else (float(pool.min()), float(pool.max()))


def _drawn(values: Numbers, most: int) -> NDArray[Any]:
    """All numbers, or `most` of them, the same ones of every picture of a size."""
    if isinstance(values, np.ndarray):
        flat = values.reshape(-1)
        return flat if flat.size <= most else flat[_places(flat.size, most)]
    places = np.arange(values.size) if values.size <= most else _places(values.size, most)
    found, start = [np.empty(0, values.dtype)], 0
    for rows in values:
        here = places[slice(*np.searchsorted(places, (start, start + rows.size)))]
        found.append(rows.reshape(-1)[here - start])
        start += rows.size
    return np.concatenate(found)


def _places(count: int, most: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(0).integers(0, count, most))


def _is_mask(values: Numbers) -> bool:
    """Whether nearly every number that isn't 0 is that of its left neighbour; a camera's have noise."""
    if values.dtype.kind not in "ui":
        return False
    block = bit_depth.middle(values)
    block = block.reshape(block.shape[0], block.shape[1], -1)[..., 0]
    left, right = block[:, :-1], block[:, 1:]
    inside = right != 0
    count = np.count_nonzero(inside)
    return bool(count and np.count_nonzero(inside & (left == right)) > _FLAT * count and np.unique(block).size > 1)


def _numbers(values: NDArray[Any], no_data: float | None) -> NDArray[Any]:
    if no_data is not None:
        values = values[values != no_data]
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _share_beyond(values: Numbers, limits: Limits, no_data: float | None) -> float:
    beyond = count = 0
    for block in bit_depth.blocks(values):
        numbers = _numbers(block.reshape(-1), no_data)
        count += numbers.size
        beyond += int(np.count_nonzero((numbers < limits[0]) | (numbers > limits[1])))
    return beyond / count if count else 0.0
