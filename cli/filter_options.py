"""Options that say which images of a collection are meant, and what the indexer makes of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.options import folder_of

if TYPE_CHECKING:
    from datetime import date

    from indexer import Collection


class Lying(StrEnum):
    """How a picture lies; see `indexer.store.filters.ORIENTATIONS`."""

    landscape = "landscape"
    portrait = "portrait"
    square = "square"


def _day(which: str, side: str) -> Any:
    return typer.Option(metavar="DAY", help=f"Only {which} on this day, YYYY-MM-DD, or {side}.")


Under = Annotated[
    list[str] | None,
    typer.Option("--under", metavar="FOLDER", help="Only below this folder, or one of several.", show_default=False),
]
OnlyLabels = Annotated[
    list[str] | None,
    typer.Option("--label", help="Only images with this label, or one of several.", show_default=False),
]
Named = Annotated[
    list[str] | None,
    typer.Option(
        "--named",
        metavar="WORD",
        help="Only images with this word in their path, such as a place. Several: with all of them.",
        show_default=False,
    ),
]
Since = Annotated[str | None, _day("files modified", "later")]
Until = Annotated[str | None, _day("files modified", "earlier")]
TakenSince = Annotated[str | None, _day("pictures taken", "later")]
TakenUntil = Annotated[str | None, _day("pictures taken", "earlier")]
Camera = Annotated[
    list[str] | None,
    typer.Option("--camera", help="Only pictures by this camera: its name or a part of it. Several: by one of them."),
]
Rating = Annotated[
    int | None, typer.Option("--rating", min=1, max=5, help="Only pictures with this many stars or more.")
]
Orientation = Annotated[Lying | None, typer.Option("--orientation", help="Only pictures that lie so.")]
Quality = Annotated[
    list[str] | None,
    typer.Option(
        "--quality",
        metavar="HINT",
        help="Only pictures that are blurred, dark, overexposed, low-contrast, one-colour, tiny, elongated or unusual.",
    ),
    Harmless(),
]
WithTag = Annotated[
    list[str] | None,
    typer.Option("--tag", help="Only images with this tag. Several: with all of them.", show_default=False),
]
AnyTag = Annotated[
    list[str] | None,
    typer.Option("--any-tag", metavar="TAG", help="Only images with one of these tags.", show_default=False),
]
WithoutTag = Annotated[
    list[str] | None,
    typer.Option("--without-tag", metavar="TAG", help="Only images with none of these tags.", show_default=False),
]

# What the indexer calls what an option asks for, where that is called otherwise.
_CALLED = {"tag": "tags", "any_tag": "any_tags", "without_tag": "without_tags"}
_AS_THEY_STAND = ("label", "quality", "camera", "rating", "named", *_CALLED)


def filters_of(context: typer.Context, root: Path) -> dict[str, Any]:
    """The filters among a command's options, as `indexer.storage.folder_images.FolderImages.filter` takes them.

    Raises:
        BadParameter: a day is none.
    """
    given = context.params
    found = {_CALLED.get(name, name): given.get(name) for name in _AS_THEY_STAND}
    found |= {name: _read_day(given.get(name)) for name in ("since", "until")}
    taken = _read_day(given.get("taken_since")), _read_day(given.get("taken_until"))
    found["taken"] = taken if any(taken) else None
    found["under"] = [folder_of(text, root) for text in given.get("under") or ()]
    found["orientation"] = str(given.get("orientation") or "")
    return {name: value for name, value in found.items() if value}


def compare_if_needed(collection: Collection, filters: dict[str, Any], quiet: bool) -> None:
    """Compares all images, and says how far that is, where a filter asks for those that are unusual."""
    from cli.terminal import ProgressLine
    from indexer.store.quality import UNUSUAL

    if UNUSUAL in filters.get("quality", ()):
        with ProgressLine("comparing", "images", quiet) as line:
            collection.anomalies.by_image(line.update)


def _read_day(text: str | None) -> date | None:
    from indexer.store.filters import day
    from massl.core.errors import MasslError

    try:
        return day(text) if text else None
    except MasslError as error:
        raise typer.BadParameter(str(error)) from None
