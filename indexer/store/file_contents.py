"""What the last run found in files: of what kind those are whose names don't say it, and how many planes stacks have.

A cache, so that the next run doesn't open them again. Without it, or with a damaged one, it does.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections import defaultdict
from pathlib import Path

from massl.core.files.atomic_writing import write
from massl.core.files.scan import Contents
from massl.core.images import plane_files
from massl.core.images.formats import RULES
from massl.core.images.rendering import Rendering
from massl.core.regular_files import read_regular

NAME = "contents.json"
_DIGEST = 8  # bytes
_MOST = 256 << 20  # bytes of the file: of some twenty million files


def read(folder: Path, rendering: Rendering) -> Contents:
    """What is known; nothing where the file is missing, damaged or by other rules.

    Args:
        folder: the collection's own.
        rendering: how its stacks are shown: each plane may be a file of its own.
    """
    known: dict[bytes, str] = {}
    try:
        noted = json.loads(read_regular(folder / NAME, _MOST))
        for kind, text in noted["kinds"].items() if noted["rules"] == RULES else ():
            digests = base64.b64decode(text, validate=True)
            known |= dict.fromkeys((digests[at : at + _DIGEST] for at in range(0, len(digests), _DIGEST)), str(kind))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return Contents(known, plane_files.counter(rendering.plane, rendering.channels))


def keep(folder: Path, contents: Contents) -> None:
    """Writes what is known now, if that is something new. A full disk costs the next run the opening."""
    if not contents.changed:
        return
    kinds: dict[str, list[bytes]] = defaultdict(list)
    for digest, kind in contents.now.items():
        kinds[kind].append(digest)
    text = {kind: base64.b64encode(b"".join(sorted(digests))).decode() for kind, digests in sorted(kinds.items())}
    with contextlib.suppress(OSError):
        write(folder / NAME, json.dumps({"schema": 1, "rules": RULES, "kinds": text}).encode())
