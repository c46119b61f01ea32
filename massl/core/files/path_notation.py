"""Paths as tables and lists have them: with backslashes, with accents taken apart as macOS does, with `./` before."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from pathlib import Path

from massl.core.errors import MasslError

_BYTES = "bytes:"  # before the hexadecimal form of a path that is no UTF-8; no whole path begins so


def common_form(path: str) -> str:
    """What all ways to write a path have in common: slashes, no `./`, no spaces around, accents put together (NFC)."""
    return posixpath.normpath(unicodedata.normalize("NFC", path.strip().replace("\\", "/")))


def as_on_disk(root: Path, path: str) -> str:
    """A path, relative to `root` or absolute, as the file is called that it means.

    As it stands if there is such a file, or none that it could mean.

    Raises:
        MasslError: there is not such a file, but several that it could mean.
    """
    if os.path.lexists(root / path):
        return path
    plain = common_form(path)
    ways = dict.fromkeys([plain, unicodedata.normalize("NFD", plain), path.strip(), path.replace("\\", "/")])
    found = {os.path.realpath(root / way): way for way in ways if os.path.isfile(root / way)}
    if len(found) > 1:
        raise several(path, list(found.values()))
    return next(iter(found.values()), path)


def several(path: str, found: list[str]) -> MasslError:
    """What to say where a path could mean several files."""
    return MasslError(
        f"{path!a} could mean {' or '.join(ascii(other) for other in found[:3])}; write the exact file name"
    )


def not_utf8(text: str) -> bool:
    """Whether a text holds bytes that are no UTF-8, as Excel writes accents in its own code page."""
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def as_text(path: str) -> str:
    """A path as a catalog or a TOML file can hold it: its own text, or its bytes where those are no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + os.fsencode(path).hex()
    return path


def of_text(text: str) -> str:
    """What `as_text` made of a path, back; as it is if it isn't that."""
    try:
        return os.fsdecode(bytes.fromhex(text.removeprefix(_BYTES))) if text.startswith(_BYTES) else text
    except ValueError:
        return text
