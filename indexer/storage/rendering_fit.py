"""Whether files of more than 8 bits can be shown as is asked for, without embedding a collection anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from indexer.encoder.onnx_encoder import EncoderMismatch
from indexer.storage.index_command import index_command
from indexer.store.catalog import Catalog
from indexer.store.images import Images
from indexer.store.meta import Meta, Written
from indexer.store.paths import below
from massl.core.errors import MasslError
from massl.core.files.scan import excluding
from massl.core.images import plane_files, stacks
from massl.core.images.decoding import decode_scaled
from massl.core.images.file_reading import read_bytes
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import BY_COLLECTION, EACH, Rendering, RenderingChoice, Sampling
from massl.core.printable import visible

STACKS = (".tif", ".tiff")
_LOOKED_AT = 16  # stacks, before it is said that none has what is asked for


class RenderingMismatch(EncoderMismatch):
    """A collection was embedded with its deep files shown otherwise."""


def take(
    catalog: Catalog,
    root: Path,
    folder: Path,
    shown: RenderingChoice,
    held: Callable[[], AbstractContextManager[object]],
) -> None:
    """Takes what somebody asks for where no embedding depends on it.

    Args:
        catalog: the collection's.
        root: its folder of images.
        folder: the catalog's.
        shown: what is asked for.
        held: keeps other processes from indexing meanwhile.

    Raises:
        RenderingMismatch: the collection was embedded otherwise.
    """
    meta = catalog.meta()
    asked = {
        "range": (meta.display_range, shown.range),
        "channels": (
            ", ".join(meta.channels) or "first",
            None if shown.channels is None else ", ".join(shown.channels),
        ),
        "plane": (meta.plane or "first", shown.plane),
    }
    others = {name: pair for name, pair in asked.items() if pair[1] is not None and pair[0] != (pair[1] or "first")}
    if not others:
        return
    # Collections of earlier versions don't know whether they hold deep files, and none whether it holds stacks.
    free = set(others) == {"range"} and Meta.display_range in meta and not meta.kind_ranges
    if not free and Images(catalog).count() > 0:
        was = " and ".join(f"the {name} {before}" for name, (before, _) in others.items())
        now_asked = " and ".join(str(wanted or "first") for _, wanted in others.values())
        command = index_command(root, folder, shown=shown)
        raise RenderingMismatch(
            f"{root} was indexed with {was}, not {now_asked}; to embed it again and keep its labels, run: {command}"
        )
    with held():
        catalog.set_meta(*facts(shown, meta))


def check_readable(catalog: Catalog, root: Path, shown: RenderingChoice, exclude: Sequence[str] = ()) -> None:
    """Looks at some stacks of a collection before its embeddings are given up for others of these channels and planes.

    Args:
        catalog: the collection's.
        root: its folder of images.
        shown: what is asked for.
        exclude: patterns of what is to be left out from now on, and isn't looked at.

    Raises:
        MasslError: none of them has what is asked for.
    """
    if not (shown.channels or shown.plane):
        return
    meta = catalog.meta()
    channels = meta.channels if shown.channels is None else shown.channels
    plane = meta.plane if shown.plane is None else shown.plane
    rendering = Rendering(channels=channels, plane=plane)
    reasons = []
    left_out = excluding(exclude)
    found = [path for _, path in Images(catalog).ready() if path.lower().endswith(STACKS) and not left_out(path)]
    # From all over the collection, in its order: the first folder may hold stacks of another kind than the rest.
    for path in (found[number] for number in _spread(len(found), _LOOKED_AT)):
        try:
            file = below(root, path)
            if plane == EACH and (plane_files.count(file, channels) or 0) > 1:
                return
            data = read_bytes(file)
            if not stacks.is_asked_for(data, rendering):
                continue
            decode_scaled(data, Sampling(1, rendering), 1, meta.max_pixels)
        except ImageError as error:
            reasons.append(f"{visible(path)}: {error}")
        else:
            return
    if reasons:
        several = f"none of the {len(reasons)} stacks that were looked at can be shown so, the first "
        one = "the stack that was looked at can't be shown so: "
        raise MasslError(f"{root} stays as it is: {several if len(reasons) > 1 else one}{reasons[0]}")


def _spread(count: int, most: int) -> list[int]:
    """At most so many positions of a list, evenly apart."""
    chosen = min(count, most)
    return [number * count // chosen for number in range(chosen)]


def facts(shown: RenderingChoice, meta: Meta | None) -> list[Written]:
    """How deep files are shown from now on: as is asked for, else as before; of a former version's, as in a new one."""
    before = meta.display_range if meta and Meta.display_range in meta else BY_COLLECTION
    channels = meta.channels if meta and shown.channels is None else shown.channels or ()
    plane = meta.plane if meta and shown.plane is None else shown.plane or ""
    told = [Meta.display_range.to(shown.range or before)]
    if channels or (meta and meta.channels):
        told.append(Meta.channels.to(channels))
    if plane or (meta and meta.plane):
        told.append(Meta.plane.to(plane))
    return told
