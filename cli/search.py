"""`massl search`."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from cli.configuration import Harmless
from cli.filter_options import (
    AnyTag,
    Camera,
    Named,
    OnlyLabels,
    Orientation,
    Quality,
    Rating,
    Since,
    TakenSince,
    TakenUntil,
    Under,
    Until,
    WithoutTag,
    WithTag,
    compare_if_needed,
    filters_of,
)
from cli.options import (
    ImagesArgument,
    IndexDir,
    Json,
    NulPaths,
    OnlyPaths,
    Quiet,
    Verbose,
    on_command_line,
    open_embedded,
)
from massl.core.printable import visible

_RESULTS = 20  # of a search
_MINUS = "\x00minus:"  # no file name holds a NUL
_LIKE_A_FILE = re.compile(r"-.*(/|\.[A-Za-z]\w*$)", re.DOTALL).match


class Sort(StrEnum):
    """The order of results; all but the first are those of `indexer.store.ordering`."""

    SIMILARITY = "similarity"
    TAKEN = "taken"
    NEWEST = "newest"
    OLDEST = "oldest"
    FOLDER = "folder"
    TAG = "tag"
    RATING = "rating"
    SIZE = "size"
    BLURRED = "blurred"
    DARK = "dark"
    OVEREXPOSED = "overexposed"
    LOW_CONTRAST = "low-contrast"
    ONE_COLOUR = "one-colour"
    TINY = "tiny"
    ELONGATED = "elongated"


class SearchCommand(typer.core.TyperCommand):
    """Takes `-less.jpg` as an example to stay away from, and not as options: also where it is misspelt."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Marks such arguments before the options are looked for."""
        flags = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        marked = [
            _MINUS + arg[1:]
            if arg not in flags and re.match("-[^-]", arg) and (Path(arg[1:]).exists() or _LIKE_A_FILE(arg))
            else arg
            for arg in args
        ]
        return super().parse_args(ctx, marked)


def command(
    context: typer.Context,
    images: ImagesArgument,
    queries: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY…",
            help="Example images. +more.jpg adds one, -less.jpg subtracts one, - reads an image from standard input. "
            "Without any, --sort or a filter lists the images themselves.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "-k", min=1, max=10_000, help="Number of results. Default: 20, and all without QUERY.", show_default=False
        ),
        Harmless(),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option("--crop", metavar="X,Y,W,H", help="Search by this part of the first query, in pixels."),
    ] = None,
    label: OnlyLabels = None,
    under: Under = None,
    named: Named = None,
    since: Since = None,
    until: Until = None,
    taken_since: TakenSince = None,
    taken_until: TakenUntil = None,
    camera: Camera = None,
    rating: Rating = None,
    orientation: Orientation = None,
    quality: Quality = None,
    tag: WithTag = None,
    any_tag: AnyTag = None,
    without_tag: WithoutTag = None,
    sort: Annotated[
        Sort,
        typer.Option(
            "--sort",
            help="Order of the results: the most similar first; taken: by the date taken, others last; newest or "
            "oldest: the same, or by the file's date where there is none; folder; tag; rating: the best first; size: "
            "the largest file first; blurred, dark and so on: as --quality, the most so first.",
        ),
        Harmless(),
    ] = Sort.SIMILARITY,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Compare with every image, without the approximate engine."),
        Harmless(),
    ] = False,
    paths: OnlyPaths = False,
    nul: NulPaths = False,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Print absolute paths instead of paths relative to IMAGES.")
    ] = False,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find the images most like a picture, or list images by --sort and filters.

    Examples: massl search ./photos query.jpg · massl search ./photos a.jpg +b.jpg -c.jpg -k 50 --paths · massl search
    ./photos query.jpg -0 --absolute | xargs -0 cp -t found · curl -s URL | massl search ./photos - · massl search
    ./photos --sort newest --tag beach
    """
    from cli.listing import print_listing
    from cli.terminal import ProgressLine, at, print_json, print_line, say
    from indexer import Collection
    from indexer.json_results import of_search
    from massl.core.errors import MasslError

    box = _crop(crop) if crop else None
    filters = filters_of(context, images)
    if not queries:
        _check_listing(context, bool(filters))
    collection = open_embedded(images, index_dir, quiet) if queries else Collection.open(images, index_dir)
    compare_if_needed(collection, filters, quiet)
    if not queries:
        order = "folder" if sort == Sort.SIMILARITY else sort.value
        end = ("\0" if nul else "\n") if paths or nul else None
        print_listing(collection, order, filters, k, absolute=absolute, as_json=as_json, end=end, quiet=quiet)
        return
    examples = [_query(text, images, box if position == 0 else None) for position, text in enumerate(queries)]
    started = time.perf_counter()
    with ProgressLine("Preparing the search:", "vectors", quiet) as line:
        collection.searcher.index(lambda step, done, total: line.update(done, total, step))
    results = collection.search(examples, k or _RESULTS, **filters, exact=exact)
    results, days_of = _in_order(collection, results, sort)
    if absolute:
        results = [replace(result, path=str(collection.root.absolute() / result.path)) for result in results]
    described = of_search(results, started)
    if as_json:
        print_json(described)
        return
    if paths or nul:
        for result in results:
            print_line(result.path, "\0" if nul else "\n")
        return
    if not results:
        raise MasslError("nothing to search: no image passes the filters" if filters else "the index is empty")
    for result in results:
        labelled = f"  [{visible(result.label)}]" if result.label else ""
        day = f"{days_of.get(result.image, ''):<10}  " if days_of is not None else ""
        place = at(result.box)
        print_line(
            f"{result.rank:>3}  {result.score:z6.3f}  {result.match:<5}  {day}{visible(result.path)}{labelled}{place}"
        )
    say(f"{len(results)} of {len(collection):,} images in {described['milliseconds']:.0f} ms", quiet)


def _in_order(collection: Any, results: list[Any], sort: Sort) -> tuple[list[Any], dict[int, str] | None]:
    """Results in another order; and the day of each by its image, where they are ordered by days."""
    if sort == Sort.SIMILARITY:
        return results, None
    placed = collection.images.ordered(sort.value, images=[result.image for result in results])
    found = {result.image: result for result in results}
    by_days = sort in (Sort.TAKEN, Sort.NEWEST, Sort.OLDEST)
    days = {each.image: str(each.value or "")[:10] for each in placed} if by_days else None
    return [found[each.image] for each in placed], days


def _check_listing(context: typer.Context, filtered: bool) -> None:
    """Without a query, images are listed: raises a `BadParameter` where nothing says that this is meant."""
    for name in ("crop", "exact"):
        if on_command_line(context, name):
            raise typer.BadParameter(f"--{name} is about a query; name an example image after the folder")
    if not filtered and not on_command_line(context, "sort"):
        raise typer.BadParameter(
            "name an example image after the folder, or list the images themselves by --sort newest, or a filter"
        )


def _query(text: str, root: Path, crop: tuple[int, int, int, int] | None) -> Any:
    from indexer import Query
    from massl.core.images.plane_files import is_there

    weight = -1.0 if text.startswith(_MINUS) else 1.0
    name = text.removeprefix(_MINUS)
    if name == "-":
        return _standard_input(weight, crop)
    if name.startswith("+") and not Path(name).exists():
        name = name[1:]
    elif name.startswith("-") and not Path(name).exists():
        weight, name = -1.0, name[1:]
    path = Path(name)
    if not is_there(path) and is_there(root / name):
        path = root / name  # results are printed relative to the root: let them be used as queries as they stand
    return Query.of_file(path, weight, crop)


def _standard_input(weight: float, crop: tuple[int, int, int, int] | None) -> Any:
    from indexer import Query
    from massl.core.errors import MasslError
    from massl.core.images.file_reading import MAX_BYTES

    if sys.stdin.isatty():
        raise MasslError("- reads an image from standard input; pipe one, as in massl search IMAGES - < query.jpg")
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if not data or len(data) > MAX_BYTES:
        raise MasslError(
            "standard input is larger than the limit for an image"
            if data
            else "standard input is empty: pipe an image into it"
        )
    return Query(data, None, weight, crop, "standard input")


def _crop(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"--crop takes four whole numbers x,y,width,height, such as 10,20,300,200, not {text!r}"
        ) from None
    return x, y, width, height
