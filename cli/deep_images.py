"""How `massl train` and `massl embed` are told to show images of more than 8 bits, and stacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from massl.core.images.rendering import RenderingChoice
    from massl.core.images.rendering_facts import ShownAs

ShownRange = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="RANGE",
        help="What becomes black and white in images of more than 8 bits: collection (the same for all), file, "
        "LOW:HIGH, or bits=12. Default: as the index of IMAGES shows them, else collection.",
        show_default=False,
    ),
]
ShownChannels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="NAMES",
        help="Channels of stacks to read, up to three (DAPI,GFP). Default: as the index, else the first.",
        show_default=False,
    ),
]
ShownPlane = Annotated[
    str | None,
    typer.Option(
        "--plane",
        metavar="PLANE",
        help="Plane of stacks to read: max, middle, a number from 1, or each (a picture of its own). Default: as the "
        "index, else the first.",
        show_default=False,
    ),
]


def chosen(range_: str | None, channels: str | None, plane: str | None) -> RenderingChoice:
    """How deep images and stacks are to be shown.

    Raises:
        BadParameter: it is no range, too many channels, or no plane.
    """
    from massl.core.errors import MasslError
    from massl.core.images.rendering import RenderingChoice, check_channels, check_plane, check_range

    option = "--range"
    try:
        range_ = None if range_ is None else check_range(range_)
        option = "--channels"
        names = None if channels is None else check_channels(channels)
        option = "--plane"
        return RenderingChoice(range_, names, None if plane is None else check_plane(plane))
    except MasslError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def shown_as(images: Path | None, choice: RenderingChoice) -> ShownAs:
    """As the index of a folder shows its images, where it has one, but for what is chosen; else as a new index would.

    Raises:
        MasslError: there is an index, and it can't be read.
    """
    from massl.core.files.scan import CATALOG, INDEX
    from massl.core.images.rendering_facts import AS_AN_INDEX

    if images is None or not (images / INDEX / CATALOG).exists():
        return AS_AN_INDEX.changed(choice)
    from indexer import Collection

    collection = Collection.open(images)
    try:
        return collection.meta.shown_as.changed(choice)
    finally:
        collection.close()
