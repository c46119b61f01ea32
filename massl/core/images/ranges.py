"""The ranges of files, each measured when numbers of its kind are met for the first time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

from massl.core.images.content import Content
from massl.core.images.decoding import MAX_PIXELS, decode_scaled, depends_on, within_memory
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import (
    EACH_FILE,
    FILES,
    Limits,
    Rendering,
    Sampling,
    measured,
    numbers_per_file,
)
from massl.core.images.rendering_facts import ShownAs
from massl.core.lookahead import ahead

LOOKED_AT = 4 * FILES  # files at most, to find `FILES` with numbers of one kind
_AHEAD = 32  # files that are read before their numbers are taken over
_SMALL = 64  # pixels of the shorter side of what is decoded for its numbers alone
_NEVER_DEEP = (".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".heic", ".heif", ".avif")


class Ranges:
    """How deep files are shown: as somebody told, or each by its own numbers."""

    def __init__(self, rendering: Rendering = EACH_FILE) -> None:
        self.rendering = rendering

    @property
    def limits(self) -> dict[str, Limits]:
        """Those that other files may be shown by, too."""
        return dict(self.rendering.limits)

    def measure(self, kind: str) -> None:
        """Finds the range of a kind of numbers that `rendering` doesn't know; there is none here."""
        raise AssertionError(kind)

    def adopt(self, limits: Mapping[str, Limits]) -> None:
        """Takes over what was measured before, of the kinds that aren't known yet; here none is asked for."""


@dataclass(frozen=True)
class RangeSampler:
    """Takes numbers of some files, always of the same ones, whatever the order in which the files come.

    Attributes:
        count: of the files.
        name: gives that of a file by its number.
        read: gives the content of a file by its number. Raises `ImageError` where there is none.
        opened: likewise, for the time of a block; in place of `read`.
        max_pixels: larger images are not looked at.
        threads: that read and decode; one a core if left out.
    """

    count: int
    name: Callable[[int], str]
    read: Callable[[int], bytes]
    max_pixels: int = MAX_PIXELS
    threads: int | None = None
    opened: Callable[[int], AbstractContextManager[Content]] | None = None

    def of_kind(self, kind: str, rendering: Rendering) -> list[Sampling]:
        """Numbers of up to `FILES` files that have numbers of this kind, of the first `LOOKED_AT` files.

        Where none of these has any, of the first file that has. `rendering` says what is read of stacks.
        """
        found: list[Sampling] = []
        with closing(self._samples(rendering, self._order)) as samples:
            for seen, sample in enumerate(samples, 1):
                if kind in sample.taken:
                    found.append(sample)
                if len(found) == FILES or (found and seen >= LOOKED_AT):
                    break
        return found

    def of_all(self, rendering: Rendering) -> dict[str, list[Sampling]]:
        """As `of_kind`, of each kind that the first files have: of all `LOOKED_AT` unless one kind fills them."""
        found: dict[str, list[Sampling]] = {}
        with closing(self._samples(rendering, self._order[:LOOKED_AT])) as samples:
            for sample in samples:
                for kind in sample.taken:
                    if len(known := found.setdefault(kind, [])) < FILES:
                        known.append(sample)
                if found and min(map(len, found.values())) == FILES:
                    break
        return found

    def _samples(self, rendering: Rendering, numbers: Sequence[int]) -> Generator[Sampling, None, None]:
        """One a file, in this order; an empty one of a file that isn't deep, or can't be read."""
        most = numbers_per_file(len(self._order))

        def sample(number: int) -> Sampling:
            sampling = Sampling(most, rendering)
            try:
                with within_memory(), self._open(number) as data:
                    if depends_on(rendering, data):
                        decode_scaled(data, sampling, _SMALL, self.max_pixels)
            except ImageError:
                return Sampling(most, rendering)  # whoever uses the file will say why
            return sampling

        with closing(ahead(sample, numbers, _AHEAD, self.threads)) as samples:
            yield from samples

    def _open(self, number: int) -> AbstractContextManager[Content]:
        return self.opened(number) if self.opened else nullcontext(self.read(number))

    @cached_property
    def _order(self) -> list[int]:
        """Of the files that may be deep, in an order that their names alone decide."""
        digests = [
            (hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest(), number)
            for number, name in enumerate(map(self.name, range(self.count)))
            if not name.lower().endswith(_NEVER_DEEP)
        ]
        return [number for _, number in sorted(digests)]


def settled(shown: ShownAs, sampler: RangeSampler) -> ShownAs:
    """The same, with the limits of the numbers that are not known yet, where all files share a range.

    They are measured on up to 2,048 of the sampler's files. Numbers of a kind that none of these has are shown by each
    file's own range.
    """
    rendering = shown.rendering(measuring=True)
    if not rendering.measuring:
        return shown
    ranges = MeasuredRanges(rendering, sampler)
    ranges.measure_all()
    return replace(shown, limits=ranges.limits)


class MeasuredRanges(Ranges):
    """Those of some files, measured on them as kinds of numbers are met. Safe to share by threads.

    Args:
        rendering: what is known before.
        sampler: takes the numbers.
    """

    def __init__(self, rendering: Rendering, sampler: RangeSampler) -> None:
        super().__init__(rendering)
        self._sampler = sampler
        self._flat: set[str] = set()
        self._lock = threading.RLock()

    @property
    def limits(self) -> dict[str, Limits]:
        """What is known, without kinds of numbers that were all the same, which say nothing of other files."""
        with self._lock:
            return {kind: pair for kind, pair in self.rendering.limits.items() if kind not in self._flat}

    def measure(self, kind: str) -> None:
        """Finds the range of a kind of numbers. Where all its numbers are the same, its pictures are black."""
        with self._lock:
            if kind not in self.rendering.limits:  # else another thread has been at it
                self._take(kind, self._sampler.of_kind(kind, self.rendering))

    def measure_all(self) -> None:
        """Finds those of all kinds that the first files have and that aren't known yet, in one pass over the files."""
        with self._lock:
            for kind, samples in sorted(self._sampler.of_all(self.rendering).items()):
                if kind not in self.rendering.limits:
                    self._take(kind, samples)

    def adopt(self, limits: Mapping[str, Limits]) -> None:
        """Takes over what was measured before, of the kinds that aren't known yet."""
        with self._lock:
            self.rendering = replace(self.rendering, limits={**limits, **self.rendering.limits})

    def _take(self, kind: str, samples: Sequence[Sampling]) -> Limits:
        """Notes the range of a kind by samples of its numbers; returns it as it was measured."""
        low, high = measured(sample.taken[kind] for sample in samples)
        limits: Limits = (low, high) if low < high else (low, low + 1)
        if low == high:
            self._flat.add(kind)
        self.rendering = replace(self.rendering, limits={**self.rendering.limits, kind: limits})
        return low, high

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
