"""How labels are written: those that look the same are one."""

from __future__ import annotations

import unicodedata

NONE_OF_THESE = "none of these"  # label of images that are of no class which somebody named: exports leave it out


def normalised(label: str) -> str:
    """A label as it is kept and compared: without spaces around it, in Unicode's composed form.

    macOS and some keyboards write an accent as a character of its own, which looks the same. `NONE_OF_THESE` is the
    same in whatever case.
    """
    label = unicodedata.normalize("NFC", label.strip())
    return NONE_OF_THESE if label.casefold() == NONE_OF_THESE else label


def spellings(label: str) -> tuple[str, ...]:
    """The ways in which a catalog may hold a label, which an earlier version may have written."""
    kept = normalised(label)
    return tuple(dict.fromkeys((kept, label, unicodedata.normalize("NFD", kept))))
