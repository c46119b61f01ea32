"""Pictures as the page draws them, in plain values. `tiles.js` sets every text as text: nothing needs escaping."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from app.formatting import readable

PAGE_SIZES = (24, 48, 96, 192)
MOST = 5_000  # tiles of one screen; a browser gets slow beyond

Tile = dict[str, Any]


def tile(image: int, path: str, label: str | None) -> Tile:
    """One picture of the collection."""
    text = readable(path)
    return {
        "id": image,
        "src": f"thumbnail/{image}",
        "name": PurePosixPath(text).name,
        "path": text,
        "label": label,
    }


def section(key: str, title: str, note: str, tiles: Sequence[Tile], more: bool) -> dict[str, Any]:
    """Pictures below one heading; `more` says whether there are further ones to ask for."""
    return {"key": key, "title": title, "note": note, "tiles": tiles, "more": more}
