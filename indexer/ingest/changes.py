"""What happened to a folder since its catalog was written: a comparison of paths, sizes, times and contents.

An image is its content: a file that moved, was renamed or changed places with another takes its identity, and with it
its labels, along. Only an edit keeps the identity under new content: the file stays where it was, its old content is
nowhere else, and its new content was never seen before.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from indexer.store.catalog import to_bytes
from indexer.store.images import ImageRow
from massl.core.files.scan import ImageFile


class Todo(NamedTuple):
    """A file to be embedded, and the row that it fills: None for one that is to be made.

    `was` is the state in which its path was before: `ready`, `skipped`, `gone` (also where there was none), or `same`
    and `moved` where only the embedding is missing.
    """

    file: ImageFile
    row: ImageRow | None = None
    was: str = "gone"


@dataclass
class Changes:
    """What to write. Together with what is left alone, every file below the root appears exactly once.

    Attributes:
        kept: files with the content of before, whose times changed or which have come back.
        moved: rows whose content now lies under another path.
        vanished: rows without a file.
        displaced: rows without a file, whose path another file has taken.
        todo: files to be read and embedded.
        removed: how many images that could be found are nowhere any more.
    """

    kept: list[tuple[ImageRow, ImageFile]] = field(default_factory=list)
    moved: list[tuple[ImageRow, ImageFile]] = field(default_factory=list)
    vanished: list[ImageRow] = field(default_factory=list)
    displaced: list[ImageRow] = field(default_factory=list)
    todo: list[Todo] = field(default_factory=list)
    removed: int = 0


def compare(
    touched: Sequence[tuple[ImageRow, ImageFile]],
    new: Sequence[ImageFile],
    lost: Iterable[ImageRow],
    taken: Collection[bytes],
    known_hashes: Callable[[Collection[bytes]], set[bytes]],
    hash_of: Callable[[Sequence[ImageFile]], list[bytes | None]],
) -> Changes:
    """Finds which content went where.

    Args:
        touched: files whose size or times are not those of the row under their path, or whose row was gone.
        new: files whose path has no row.
        lost: rows with their hashes: whose path has no image any more, and those that went in earlier runs.
        taken: which paths of `lost` are now something else that has to be listed there.
        known_hashes: which of these contents the catalog has.
        hash_of: reads files and gives their contents' hashes, None for one that can't be read.

    Only `touched` files, and `new` ones of a size that a lost or overwritten image had, are read here.
    """
    changes = Changes()
    lost = list(lost)
    hashed = list(zip(touched, hash_of([file for _, file in touched]), strict=True))
    leaving = {(row.hash, row.mtime_ns) for row in lost if row.state != "gone"}
    leaving |= {(row.hash, row.mtime_ns) for (row, _), digest in hashed if row.state != "gone" and digest != row.hash}
    replaced: list[tuple[ImageRow, ImageFile, bytes | None]] = []
    for (row, file), digest in hashed:
        # Not the file of before, but a copy of it that lay elsewhere until now and was given its name: as old as that.
        back = row.state == "gone" and (digest, file.mtime_ns) in leaving and not row.is_as(file)
        if digest is not None and digest == row.hash and not back:
            changes.kept.append((row, file))
        else:
            replaced.append((row, file, digest))

    # What lies there and can't be read has not gone: a copy of what it was takes nothing of it.
    homeless = [*lost, *(row for row, _, digest in replaced if digest is not None)]
    sizes = {row.size for row in homeless if row.hash is not None}
    candidates = [file for file in new if file.size in sizes]
    found = dict(zip((file.path for file in candidates), hash_of(candidates), strict=True))
    places = [(file, digest) for _, file, digest in replaced]
    places += [(file, found.get(file.path)) for file in new]
    changes.moved = _pair(homeless, places)
    gone_elsewhere = {row.id for row, _ in changes.moved}
    arrived = {file.path for _, file in changes.moved}

    changes.todo += [Todo(file) for file in new if file.path not in arrived]
    unmatched = {digest for _, file, digest in replaced if digest is not None and file.path not in arrived}
    copies = known_hashes(unmatched)
    for row, file, digest in replaced:
        if file.path in arrived:
            if row.id not in gone_elsewhere:
                changes.displaced.append(row)
                changes.removed += row.state == "ready"
        elif row.id in gone_elsewhere:
            changes.todo.append(Todo(file))
        elif row.state == "gone" or digest in copies:
            changes.displaced.append(row)
            changes.todo.append(Todo(file, None, row.state))
        else:
            changes.todo.append(Todo(file, row, row.state))
    for row in lost:
        if row.id in gone_elsewhere:
            continue
        if row.path in taken:
            changes.displaced.append(row)
        elif row.state != "gone":
            changes.vanished.append(row)
        changes.removed += row.state == "ready"
    return changes


def _pair(
    rows: Iterable[ImageRow], places: Iterable[tuple[ImageFile, bytes | None]]
) -> list[tuple[ImageRow, ImageFile]]:
    """Which row each content belongs to: of several alike, first those that have only just gone, and by name.

    Copies of one content can carry different labels, and a folder of them may be renamed.
    """
    by_hash: dict[bytes, list[ImageRow]] = defaultdict(list)
    for row in rows:
        if row.hash is not None:
            by_hash[row.hash].append(row)
    wanting: dict[bytes, list[ImageFile]] = defaultdict(list)
    for file, digest in places:
        if digest in by_hash:
            wanting[digest].append(file)
    pairs: list[tuple[ImageRow, ImageFile]] = []
    for digest, files in wanting.items():
        rows_of = sorted(by_hash[digest], key=lambda row: row.path)
        long_gone = [row for row in rows_of if row.state == "gone"]
        just_gone, files = _by_name([row for row in rows_of if row.state != "gone"], files, pairs)
        claimed = {posixpath.basename(row.path) for row in long_gone}
        files.sort(key=lambda file: to_bytes(posixpath.basename(file.path)) in claimed)
        pairs += zip(just_gone, files, strict=False)
        long_gone, files = _by_name(long_gone, files[len(just_gone) :], pairs)
        pairs += zip(long_gone, files, strict=False)
    return pairs


def _by_name(
    rows: Sequence[ImageRow], files: Sequence[ImageFile], pairs: list[tuple[ImageRow, ImageFile]]
) -> tuple[list[ImageRow], list[ImageFile]]:
    """Adds to `pairs` what has the same path, then what has the same name; returns the others."""
    left = list(rows)
    for of in (bytes, posixpath.basename):
        named: dict[bytes, list[ImageRow]] = defaultdict(list)
        for row in left:
            named[of(row.path)].append(row)
        rest: list[ImageFile] = []
        for file in files:
            if namesakes := named.get(of(to_bytes(file.path))):
                pairs.append((namesakes.pop(0), file))
            else:
                rest.append(file)
        left, files = list(chain.from_iterable(named.values())), rest
    return left, list(files)
