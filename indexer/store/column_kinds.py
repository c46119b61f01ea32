"""What kinds of values the columns of a catalog hold: SQLite keeps a value of any kind in any column."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

# What values of a column are, or of one that is called so; a join may have none.
_KINDS: dict[str, set[type]] = {
    "id": {int},
    "image": {int},
    "path": {bytes},
    "size": {int},
    "mtime_ns": {int},
    "ctime_ns": {int},
    "oldest": {int, type(None)},
    "newest": {int, type(None)},
    "hash": {bytes, type(None)},
    "width": {int, type(None)},
    "height": {int, type(None)},
    "state": {str},
    "reason": {str, type(None)},
    "embedding": {bytes, type(None)},
    "tile": {int},
    "x": {int},
    "y": {int},
    "label": {str, type(None)},
    "tag": {str},
    "author": {str, type(None)},
    "at": {str, type(None)},
    "other": {int},
    "content": {str},
    "contents": {str},
    "taken": {str, type(None)},
    "utc_offset": {int, type(None)},
    "make": {str},
    "model": {str},
    "orientation": {int},
    "rating": {int, type(None)},
    "keywords": {str},
    "planes": {int},
    "whole_hash": {bytes, type(None)},
    "trimmed_hash": {bytes, type(None)},
    "sharpness": {float},
    "brightness": {float},
    "overexposed": {float},
    "contrast": {float},
    "variety": {float},
}


def wrong(cursor: sqlite3.Cursor, rows: Sequence[tuple[Any, ...]]) -> str | None:
    """The first column of these rows that holds a value of another kind; None if all are as they must be.

    Keywords must also be a list of words.
    """
    for place, (name, *_) in enumerate(cursor.description or ()):
        kinds = _KINDS.get(name)
        if kinds and not {type(row[place]) for row in rows} <= kinds:
            return str(name)
        if name == "keywords" and not all(are_words(row[place]) for row in rows):
            return str(name)
    return None


def are_words(text: object) -> bool:
    """Whether a value is a JSON list of texts, all of which can be written as UTF-8."""
    try:
        words = json.loads(text) if isinstance(text, str) else None
        return isinstance(words, list) and all(isinstance(word, str) and word.encode() is not None for word in words)
    except (ValueError, RecursionError):
        return False
