"""Addresses of search engines that this user has named, on this machine.

A catalog may have come from somebody else. Were its address obeyed, the first search would send the embeddings of the
user's own pictures to its author, or write files there. So an address in a catalog counts only if this
user gave it once: it then stands in a file of the user's own, or in `MASSL_ENGINE_URI`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import platformdirs

from massl.core.errors import MasslError
from massl.core.files.atomic_writing import write

VARIABLE = "MASSL_ENGINE_URI"
_MOST = 1 << 20  # bytes


def file() -> Path:
    """Where they stand."""
    return platformdirs.user_config_path("massl", appauthor=False) / "engines.json"


def is_trusted(address: str) -> bool:
    """Whether this user named it."""
    return address == os.environ.get(VARIABLE) or address in _known()


def trust(address: str) -> None:
    """Remembers an address that this user names.

    Raises:
        MasslError: it can't be written down.
    """
    if is_trusted(address):
        return
    place = file()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write(place, json.dumps(sorted({*_known(), address}), indent=1).encode())
    except OSError as error:
        raise MasslError(
            f"{place} can't be written ({error.strerror or error}), where the addresses that you allow stand; set "
            f"{VARIABLE} instead"
        ) from None


def _known() -> list[str]:
    try:
        if file().stat().st_size > _MOST:
            return []
        found = json.loads(file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []
