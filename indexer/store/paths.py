"""Paths of images as a catalog holds them: relative to its folder, and never out of it.

A catalog may come from somebody else, who would like another file to be read, shown or searched by. So a path of it is
one that walking the folder could have found, or it is refused. Links within the folder are followed, as walking follows
them: they are the folder's own, and not the catalog's.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from massl.core.errors import MasslError


def from_bytes(stored: object) -> str:
    """A path that the catalog stores, relative to the folder. See `indexer.store.catalog.to_bytes` for the reverse.

    Raises:
        MasslError: it is none, or leads out of the folder.
    """
    if not isinstance(stored, bytes):
        raise _refused(repr(stored)[:80])
    return checked(os.fsdecode(stored))


def below(root: Path, path: str) -> Path:
    """Where the image with this path lies, in the folder `root`.

    Raises:
        MasslError: the path leads out of the folder.
    """
    return root / checked(path)


def leads_out(root: Path, path: str) -> bool:
    """Whether the folder in which the image with this path lies, or is to lie, is outside of `root`, behind a link.

    Walking follows such links, but nothing is to be written there.

    Raises:
        MasslError: the path itself leads out of the folder.
    """
    return not Path(os.path.realpath(below(root, path).parent)).is_relative_to(os.path.realpath(root))


def checked(path: str) -> str:
    """The same path, if walking a folder could have found it; the empty one is the folder's own.

    Raises:
        MasslError: it is absolute or climbs, or no file can be called so.
    """
    out = not can_name_a_file(path) or (path and any(part in ("", ".", "..") for part in path.split("/")))
    # On Windows a drive, a stream of a file and another machine are named by these.
    if out or (os.name == "nt" and ("\\" in path or ":" in path)):
        raise _refused(repr(path)[:200])
    return path


def can_name_a_file(path: str) -> bool:
    """Whether some file could be called so.

    None can be that has a NUL in its name, or half of a character that JSON writes as two, as `\\ud800`.
    """
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def folded(path: object) -> str:
    """A path that a catalog stores, or a part of one as text, as it is compared where capitals don't matter."""
    text = os.fsdecode(path) if isinstance(path, bytes) else str(path)
    return unicodedata.normalize("NFKC", text).casefold().encode("utf-8", "replace").decode()


def _refused(shown: str) -> MasslError:
    return MasslError(
        f"the index names an image {shown}, which is outside of its folder, so it was not made by massl: it is not "
        "read; run `massl index` again"
    )
