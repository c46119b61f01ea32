"""Pictures as the page draws them, in plain values. `tiles.js` sets every text as text: nothing needs escaping."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from app.formatting import readable
from indexer import Collection

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


def with_ratios(collection: Collection, tiles: list[Tile]) -> list[Tile]:
    """The tiles with `ratio`, the pictures' width by their height; 1 where a side isn't known.

    `box`, where one has it, becomes shares of the picture's sides.
    """
    sides = collection.images.sides([tile["id"] for tile in tiles])
    for each in tiles:
        _, width, height = sides.get(each["id"], ("", 0, 0))
        each["ratio"] = round(width / height, 4) if width and height else 1.0
        if each.get("box") and width and height:
            x, y, across, down = each["box"]
            each["box"] = [x / width, y / height, across / width, down / height]
    return tiles


def with_worst_tiles(collection: Collection, tiles: list[Tile]) -> list[Tile]:
    """The tiles with `box`, the most unusual part of pictures that were cut into parts; see `with_ratios`."""
    return [each | {"box": box} if (box := collection.anomalies.worst_tile(each["id"])) else each for each in tiles]


def section(key: str, title: str, note: str, tiles: Sequence[Tile], more: bool) -> dict[str, Any]:
    """Pictures below one heading; `more` says whether there are further ones to ask for."""
    return {"key": key, "title": title, "note": note, "tiles": tiles, "more": more}
