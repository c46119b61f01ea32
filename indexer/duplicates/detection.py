"""Duplicates: exact ones by content, near ones by embedding and then by pixels, in groups with one to keep each.

Embeddings propose: of every image's nearest neighbours those that stand out from its neighbourhood, the most
outstanding first. So do perceptual hashes, which know turned, mirrored and bordered pictures again. Pixels decide
(`indexer.search.pixel_verification`): how well a pair must coincide is found from how well unrelated images in the same
collection coincide, so that of the pairs called near duplicates few are expected to be false.

Every image of a group has itself been compared with the one to keep. Groups joined by any chain of pairs would not do:
frames of one film, each like the next, would become one group and all but one of them be proposed for removal.
Nothing here writes to, moves or deletes an image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.duplicates.borders import Version, bordered
from indexer.duplicates.candidates import FEWEST_LOOKS, candidates, unrelated
from indexer.duplicates.hash_candidates import hash_candidates
from indexer.duplicates.origin import UNRANKED, Origins, Rank
from indexer.search.calibration import IDENTICAL
from indexer.search.engines.interface import CurrentIndex
from indexer.search.pixel_verification import Looks
from indexer.store.catalog import Catalog
from indexer.store.decisions import Decided, Decisions
from indexer.store.filters import Filter
from indexer.store.image_facts import is_unchanged
from indexer.store.images import Images, StoredFile
from indexer.store.paths import below, from_bytes
from indexer.store.picture_facts import PictureFacts
from indexer.store.vectors import CatalogVectors
from massl.core.images import plane_files

IDLE = 100  # looks in a row, of which fewer than `YIELD` were duplicates, end the looking
YIELD = 0.02
LOWEST = 0.75  # agreement under which nothing is called a duplicate, however unlike unrelated images are
ENOUGH = 20  # looks at unrelated neighbours, under which they tell nothing,
UNKNOWN = 0.9  # and the agreement that is asked for then
BY_HASH = 0.92  # agreement under which pictures that only their hashes propose are none: forms filled in differently
JOINED = 0.92  # agreement of two pictures with a third one from which they need not be compared with each other
AT_ONCE = 32  # pairs that are compared before it is seen which of the next ones are joined by then
FALSE = 0.02  # of the near pairs, how many may be expected to be false

Place = TypeVar("Place")


SEVERAL = "holds several pictures"


@dataclass(frozen=True)
class Duplicate:
    """A file of a group.

    Attributes:
        image, path: its id, and its path relative to the root.
        kind: `keep`, or how it duplicates the one to keep: `exact` (byte for byte) or `near`.
        score: how well its pixels agree with the kept one's, at most 1; 1 for `keep` and `exact`.
        false_matches: of all pairs that were compared, how many unrelated ones are expected to agree so well; None in
            a collection too small to tell.
        bytes, width, height: of the file, and of the image in pixels.
        mtime_ns: when the file was last written to, nanoseconds since 1970.
        chosen: someone decided to keep it.
        decided: someone decided about it: to keep it, or another one in its place.
        edit: what was done to make it of the one to keep, or the reverse, as `mirrored`; empty where nothing that is
            more than scaling and compression is seen. See `indexer.search.pixel_verification.edit_between`. `SEVERAL`
            of a file of which only the first picture was compared.
        rank: how much the file looks like an edited one.
        content: SHA-256 of the file, in hexadecimal.
    """

    image: int
    path: str
    kind: str
    score: float
    false_matches: float | None
    bytes: int
    width: int
    height: int
    mtime_ns: int
    chosen: bool = False
    decided: bool = False
    edit: str = ""
    rank: Rank = UNRANKED
    content: str = ""


@dataclass(frozen=True)
class Duplicates:
    """What was found. In each group the one to keep comes first.

    Attributes:
        groups: by path of the one to keep.
        images: how many were searched.
        compared: pairs whose pixels were compared.
        threshold: the agreement from which a pair counted as near duplicates; None if none were sought.
        kept_both: pairs passed over because someone decided to keep both.
        stale: files that would be in a group, but have gone or changed since they were indexed.
    """

    groups: tuple[tuple[Duplicate, ...], ...]
    images: int
    compared: int
    threshold: float | None
    kept_both: int
    stale: int

    @property
    def removable(self) -> int:
        """How many files the groups hold beside those to keep."""
        return sum(len(group) - 1 for group in self.groups)

    @property
    def removable_bytes(self) -> int:
        """Their size."""
        return sum(item.bytes for group in self.groups for item in group[1:])


@dataclass(frozen=True)
class _File(StoredFile):
    chosen: bool = False
    link: bool = False
    rank: Rank = UNRANKED

    @property
    def worth(self) -> tuple[object, ...]:
        """What to keep first: the chosen, what got no border, most pixels, what looks like the original, no link, the
        oldest, most bytes, the shortest path.
        """
        last = (self.link, self.mtime_ns, -self.size, len(self.path), self.path)
        return (not self.chosen, self.rank.bordered, -self.pixels, self.rank, *last)

    @property
    def pixels(self) -> int:
        return self.width * self.height


def find(
    root: Path,
    catalog: Catalog,
    index: Callable[[], CurrentIndex],
    *,
    exact_only: bool = False,
    under: str | None = None,
    threshold: float | None = None,
    report: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Duplicates:
    """Finds the duplicates in a collection.

    Args:
        root: the collection's folder, to look at pixels.
        catalog: its catalog.
        index: gives its vectors; called only if near duplicates are sought.
        exact_only: only files with the same content.
        under: only among images below this folder, relative to the root.
        threshold: the agreement from which a pair counts as near duplicates, above 0 and at most 1; found from the
            collection if left out.
        report: is told the step, and how much of it is done, of how much.
    """
    copies = _by_content(catalog, under, embedded=not exact_only)
    images = sum(len(files) for files in copies.values())
    decisions = Decisions(catalog).decided({file.image: file.hash for files in copies.values() for file in files})
    for files in copies.values():
        files[:] = [replace(file, chosen=file.image in decisions.chosen) for file in files]
        files.sort(key=lambda file: file.worth)
    stale = _drop_stale(root, copies, [content for content, files in copies.items() if len(files) > 1])
    copies = {content: files for content, files in copies.items() if files}
    contents = sorted(copies)  # by hash: an order that no renaming changes
    position = {content: place for place, content in enumerate(contents)}
    pairs: dict[tuple[int, int], float] = {}
    paths = [below(root, from_bytes(copies[c][0].path)) for c in contents]
    looks = Looks(paths, [c.hex() for c in contents], {}, catalog.max_pixels, catalog.rendering)
    chance: NDArray[np.float64] = np.empty(0)
    compared = 0
    if not exact_only and len(contents) > 1:
        both = ((one, other) for one, other in decisions.contents if one in position and other in position)
        apart = {tuple(sorted((position[one], position[other]))) for one, other in both}
        ids = np.array([copies[content][0].image for content in contents], np.int64)
        whole = under is None and len(contents) == images
        joined = index(), CatalogVectors(catalog), ids, whole
        proposed = candidates(*joined, report)
        chance = _chance(looks, unrelated(*joined), report)
        telling = threshold or max(LOWEST, float(chance[-1]) if len(chance) >= ENOUGH else UNKNOWN)
        by_pixels = hash_candidates(*PictureFacts(catalog).hashes(ids), len(ids), report)
        joined_by: dict[int, set[int]] = {}
        wanted = [pair for pair in proposed if pair not in apart]
        seen = _look(looks, wanted, joined_by, telling, partial(report, "pairs"))
        new = [pair for pair in by_pixels if pair not in apart and pair not in seen]
        seen |= _agreeing(_look(looks, new, joined_by, max(telling, BY_HASH), partial(report, "pairs by hash")))
        compared = len(seen)
        if threshold is None:
            threshold = _threshold(np.array(list(seen.values())), chance)
        pairs = {pair: score for pair, score in seen.items() if score >= threshold}
    placed = {position[content]: files for content, files in copies.items()}
    stale += _drop_stale(root, placed, {place for pair in pairs for place in pair})
    pairs = {pair: score for pair, score in pairs.items() if placed[pair[0]] and placed[pair[1]]}
    placed = {place: files for place, files in placed.items() if files}
    _rank(placed, _linked(pairs), looks, Origins(root), threshold or 1.0)
    groups = _groups(placed, pairs, decisions, looks, threshold or 1.0)

    several = PictureFacts(catalog).with_several_planes()

    def edit(first: int, file: _File) -> str:
        return SEVERAL if file.image in several else looks.edit(first, position[file.hash])

    def described(files: list[tuple[_File, str, float]]) -> tuple[Duplicate, ...]:
        first = position[files[0][0].hash]
        return tuple(
            Duplicate(
                file.image, from_bytes(file.path), kind, score,
                _expected(score, chance, max(1, compared)) if kind == "near" else 0.0,
                file.size, file.width, file.height, file.mtime_ns, file.chosen,
                decisions.over(files[0][0].image, files[0][0].hash, file.hash),
                edit(first, file) if kind == "near" else "", file.rank, file.hash.hex(),
            )
            for file, kind, score in files
        )  # fmt: skip

    found = tuple(described(group) for group in groups)
    found = tuple(sorted(found, key=lambda group: group[0].path))
    return Duplicates(found, images, compared, None if exact_only else threshold, len(decisions.images), stale)


# Deciding -------------------------------------------------------------------------------------------------------------


def _look(
    looks: Looks,
    candidates: list[tuple[int, int]],
    joined_by: dict[int, set[int]],
    lowest: float,
    report: Callable[[int, int], None],
) -> dict[tuple[int, int], float]:
    """The agreement of candidates, until hardly any is a duplicate any more.

    Of many copies of one picture each two are a candidate. Those that agree well with one of the others are passed
    over: the groups reach them by that one (see `_groups`), and the looks are left to other pictures.

    Args:
        looks: compares.
        candidates: pairs of positions, the most promising first.
        joined_by: of each position the others that agree well with it; added to.
        lowest: the agreement from which a pair counts as duplicates.
        report: is told how many candidates are done, of how many.
    """
    seen: dict[tuple[int, int], float] = {}
    hits: list[bool] = []
    for start in range(0, len(candidates), AT_ONCE):
        some = candidates[start : start + AT_ONCE]
        some = [(a, b) for a, b in some if joined_by.get(a, set()).isdisjoint(joined_by.get(b, set()))]
        with closing(looks.agreements(some)) as agreements:
            for pair, agreement in zip(some, agreements, strict=False):
                seen[pair] = agreement
                hits.append(agreement >= lowest)
                if agreement >= max(lowest, JOINED):
                    for one, other in (pair, pair[::-1]):
                        joined_by.setdefault(one, set()).add(other)
                if len(hits) >= FEWEST_LOOKS and sum(hits[-IDLE:]) < YIELD * IDLE:
                    report(len(candidates), len(candidates))  # what was left needs no look
                    return seen
        report(min(start + AT_ONCE, len(candidates)), len(candidates))
    return seen


def _agreeing(seen: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """The same for pairs that only hashes proposed: what doesn't agree well is no copy.

    Hashes, too, tell how well two pictures coincide. So pictures that they propose agree better than unrelated ones
    that embeddings propose, by which the threshold is found: those on one form, or in one frame.
    """
    return {pair: agreement if agreement >= BY_HASH else 0.0 for pair, agreement in seen.items()}


def _chance(looks: Looks, far: list[tuple[int, int]], report: Callable[[str, int, int], None]) -> NDArray[np.float64]:
    """The rising agreement of unrelated neighbours."""
    found = np.empty(len(far))
    for place, agreement in enumerate(looks.agreements(far)):
        found[place] = agreement
        if place % 50 == 0:
            report("unrelated pairs", place, len(far))
    return np.sort(found)


def _expected(score: float, chance: NDArray[np.float64], compared: int) -> float | None:
    """How many of `compared` unrelated pairs are expected to agree at least so well; None where nothing tells.

    Above all but a twentieth of the null its tail goes on as an exponential, as in `indexer.search.calibration`, in
    Fisher's z, the inverse hyperbolic tangent of a correlation, which has no upper end.
    """
    count = len(chance)
    if count < ENOUGH:
        return None
    tail = max(4, count // 20)
    knee = chance[-tail - 1]
    if score <= knee:
        return compared * (1 - float(np.searchsorted(chance, score)) / count)
    # By the median, not the mean: a few of these neighbours may be copies after all.
    fall = max(0.03, float(np.median(_z(chance[-tail:]) - _z(knee))) / float(np.log(2)))
    return compared * tail / count * float(np.exp((_z(knee) - _z(score)) / fall))


def _z(correlation: Any) -> Any:
    return np.arctanh(np.clip(correlation, -IDENTICAL, IDENTICAL))


def _threshold(agreements: NDArray[np.float64], chance: NDArray[np.float64]) -> float:
    """The lowest agreement at which few of the pairs that reach it are expected to be false.

    That is control of the false discovery rate by Benjamini and Hochberg's step-up rule (1995).
    """
    if len(chance) < ENOUGH:
        return UNKNOWN
    rising = np.sort(agreements[agreements >= LOWEST])
    if not len(rising):
        return LOWEST
    found = np.arange(len(rising), 0, -1)
    expected = np.array([_expected(float(score), chance, len(agreements)) for score in rising])
    passing = np.flatnonzero(expected <= FALSE * found)
    return float(rising[passing[0]]) if len(passing) else IDENTICAL


# Ranking --------------------------------------------------------------------------------------------------------------


def _rank(
    copies: dict[int, list[_File]],
    linked: dict[int, dict[int, float]],
    looks: Looks,
    origins: Origins,
    threshold: float,
) -> None:
    """Ranks the files of duplicates, and puts the one to keep of each content first."""
    for place in linked:
        copies[place] = [replace(file, rank=origins.rank(from_bytes(file.path))) for file in copies[place]]
    versions = {place: Version(copies[place][0].pixels, copies[place][0].rank.undated) for place in linked}
    with_border = bordered(versions, linked, looks, threshold)
    for place in linked:
        files = copies[place]
        if place in with_border:
            files[:] = [replace(file, rank=file.rank._replace(bordered=True)) for file in files]
        files.sort(key=lambda file: file.worth)


# Grouping -------------------------------------------------------------------------------------------------------------


def _groups(
    copies: dict[int, list[_File]],
    pairs: dict[tuple[int, int], float],
    decisions: Decided,
    looks: Looks,
    threshold: float,
) -> Iterator[list[tuple[_File, str, float]]]:
    """Groups around the one to keep: from the worthiest file down, each takes what duplicates it and is still free."""
    linked = _linked(pairs)
    free = set(copies)
    for centre in sorted(copies, key=lambda place: copies[place][0].worth):
        if centre not in free or (centre not in linked and len(copies[centre]) == 1):
            continue
        free.discard(centre)
        keep = copies[centre][0]
        group = [(keep, "keep", 1.0)]
        # What someone chose to keep is nowhere proposed for removal.
        exact = (file for file in copies[centre][1:] if not file.chosen and not decisions.both(keep.image, file.image))
        group += [(file, "exact", 1.0) for file in exact]
        near = linked.get(centre, {})
        alike: dict[int, float] = {}
        met: set[int] = set()
        # Steps away lies what was found beside a copy of the centre only: it must face the centre itself.
        reached = {place for step in near for place in (step, *linked[step])}
        while reached := reached & free - met:
            met |= reached
            facing = {
                place: near[place] if place in near else looks.agreement(centre, place)
                for place in reached
                if not copies[place][0].chosen and not decisions.apart(keep.hash, copies[place][0].hash)
            }
            alike |= (agreeing := {place: score for place, score in facing.items() if score >= threshold})
            reached = {further for place in agreeing for further in linked[place]}
        for place in sorted(alike, key=lambda place: copies[place][0].worth):
            free.discard(place)
            group += [(file, "near", alike[place]) for file in copies[place]]
        if len(group) > 1:
            yield group


def _linked(pairs: dict[tuple[int, int], float]) -> dict[int, dict[int, float]]:
    """Of each position what it duplicates, and how well they agree."""
    linked: dict[int, dict[int, float]] = {}
    for (one, other), score in pairs.items():
        linked.setdefault(one, {})[other] = score
        linked.setdefault(other, {})[one] = score
    return linked


def _drop_stale(root: Path, copies: dict[Place, list[_File]], of: Iterable[Place]) -> int:
    """Leaves, `of` these, files that lie there as they were indexed, and one name each; returns how many went stale.

    What is proposed for removal must have its like on the disk.
    """
    stale = 0
    for place in of:
        there = []
        for file in copies[place]:
            with contextlib.suppress(OSError):
                path = below(root, from_bytes(file.path))
                stack, plane = plane_files.split(path) or (path, 0)
                state = stack.stat()
                if is_unchanged(state, file.size, file.mtime_ns):
                    identity = (state.st_dev, state.st_ino, plane)
                    there.append((replace(file, link=stack.is_symlink()), identity))
        stale += len(copies[place]) - len(there)
        copies[place] = _apart(there)
    return stale


def _apart(files: list[tuple[_File, tuple[int, int, int]]]) -> list[_File]:
    """Files that are not one by two names, as by a link: removing one of those would free nothing, or lose both."""
    found: dict[tuple[int, int, int], _File] = {}
    for file, identity in sorted(files, key=lambda pair: pair[0].worth):
        found.setdefault(identity, file)
    return list(found.values())


def _by_content(catalog: Catalog, under: str | None, embedded: bool) -> dict[bytes, list[_File]]:
    """Every file, or every searchable one, by its content's hash, the one to keep first."""
    found: dict[bytes, list[_File]] = {}
    wanted = Filter(folders=() if under is None else (under,))
    wanted.check(catalog)
    for stored in Images(catalog).files(wanted, embedded):
        found.setdefault(stored.hash, []).append(_File(**vars(stored)))
    return found
