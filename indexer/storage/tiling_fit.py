"""Whether a collection can be cut into the tiles that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from indexer.storage.index_command import index_command
from indexer.store import tiles
from indexer.store.catalog import Catalog
from indexer.store.tiling import Tiling
from massl.core.errors import MasslError


class TilesMismatch(MasslError):
    """The pictures of a collection were cut into other tiles than are asked for."""

    exit_code = 4


def take(
    catalog: Catalog,
    root: Path,
    folder: Path,
    tiling: Tiling | None,
    held: Callable[[], AbstractContextManager[object]],
) -> None:
    """Checks that the collection has these tiles; takes its tiles away if none are asked for.

    Args:
        catalog: the collection's.
        root: its folder of images.
        folder: the catalog's.
        tiling: what is asked for; None for what the collection has.
        held: keeps other processes from indexing meanwhile.

    Raises:
        TilesMismatch: its pictures were cut into others, or into none.
    """
    now = catalog.meta().tiles
    if tiling is None or tiling == now:
        return
    if not tiling:
        with held():
            tiles.drop(catalog)
        return
    command = index_command(root, folder, tiles=str(tiling))
    was = f"with tiles of {now} pixels" if now else "without tiles"
    raise TilesMismatch(
        f"{root} was indexed {was}, not with tiles of {tiling}; to embed it again and keep its labels, run: {command}"
    )
