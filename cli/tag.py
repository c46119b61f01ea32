"""`massl tag`: add, remove, list, propose, reject, import, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.configuration import Harmless
from cli.label import Paths, current_user, find_image, image_in_table, put_out
from cli.options import HELP_FLAGS, ImagesArgument, IndexDir, Json, Quiet, Verbose, open_embedded
from massl.core.printable import visible

app = typer.Typer(no_args_is_help=True, context_settings=HELP_FLAGS)

TagsArgument = Annotated[str, typer.Argument(metavar="TAGS", help="A tag, or several with commas between.")]
_SHOWN = 20  # files that were left out, a line each


@app.callback()
def root() -> None:
    """Tag images, any number of tags each, beside their one label; propose, import and export tags.

    Examples: massl tag add ./photos beach,sunset a.jpg b.jpg · massl tag propose ./photos · massl search ./photos
    a.jpg --tag beach
    """


@app.command()
def add(
    images: ImagesArgument,
    tags: TagsArgument,
    paths: Paths,
    accepted: Annotated[
        bool, typer.Option("--accepted", help="These were proposed: they are no evidence of how good proposals are.")
    ] = False,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Give images tags, beside those that they have.

    Examples: massl tag add ./photos beach a.jpg · massl tag add ./photos beach,sunset a.jpg b.jpg
    """
    from cli.terminal import print_json, say
    from indexer import Collection
    from indexer.store.labels import ACCEPTED

    collection = Collection.open(images, index_dir)
    author = ACCEPTED if accepted else current_user()
    count = len(collection.tags.give(_pairs(collection, tags, paths), author))
    if as_json:
        print_json({"tagged": count})
        return
    say("1 tag given" if count == 1 else f"{count:,} tags given", quiet)


@app.command()
def remove(
    images: ImagesArgument,
    tags: TagsArgument,
    paths: Paths,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Take tags off images.

    Examples: massl tag remove ./photos beach a.jpg
    """
    from cli.terminal import print_json, say
    from indexer import Collection

    collection = Collection.open(images, index_dir)
    count = len(collection.tags.remove(_pairs(collection, tags, paths)))
    if as_json:
        print_json({"removed": count})
        return
    say("1 tag removed" if count == 1 else f"{count:,} tags removed", quiet)


@app.command()
def reject(
    images: ImagesArgument,
    tags: TagsArgument,
    paths: Paths,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say that images don't have a tag: it is not proposed for them again, and proposals learn from it.

    Giving the tag takes that back.

    Examples: massl tag reject ./photos beach c.jpg
    """
    from cli.terminal import print_json, say
    from indexer import Collection

    collection = Collection.open(images, index_dir)
    count = len(collection.rejected_tags.add(_pairs(collection, tags, paths)))
    if as_json:
        print_json({"rejected": count})
        return
    say("1 tag rejected" if count == 1 else f"{count:,} tags rejected", quiet)


@app.command("list")
def list_tags(
    images: ImagesArgument,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the tags given so far, a line for each tag of each image: tag, path and author.

    Examples: massl tag list ./photos
    """
    from cli.terminal import print_json, print_line
    from indexer import Collection

    found = Collection.open(images, index_dir).tags.every()
    if as_json:
        print_json({"tags": [vars(item) for item in found]})
        return
    for item in found:
        print_line(f"{visible(item.tag)}\t{visible(item.path)}\t{visible(item.author)}")


@app.command()
def propose(
    images: ImagesArgument,
    tags: Annotated[
        str | None,
        typer.Argument(metavar="TAGS", help="A tag, or several with commas between. Default: all.", show_default=False),
    ] = None,
    least: Annotated[
        float,
        typer.Option("--min-probability", min=0.0, max=1.0, help="The least probability that is listed."),
        Harmless(),
    ] = 0.5,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List images that probably have a tag too, the likeliest first: probability, tag and path, a line each.

    A probability is claimed from 10 images with the tag and 10 without it on, which were chosen by hand. Without it
    are images that have only other tags, and those it was rejected for. With fewer examples there is a dash (null in
    JSON) instead, and the order alone is meant.

    Examples: massl tag propose ./photos · massl tag propose ./photos beach --min-probability 0.8 --json
    """
    from cli.terminal import print_json, print_line, say
    from indexer.fewshot.tag_proposals import ENOUGH
    from indexer.store.tags import split
    from massl.core.errors import MasslError

    collection = open_embedded(images, index_dir, quiet)
    wanted = split(tags) if tags is not None else list(collection.tags.counts())
    if not wanted:
        raise MasslError(f"no image has a tag; give some: massl tag add {images} TAG PATH…")
    rows: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for tag in wanted:
        try:
            found = collection.tag_proposals.of(tag)
        except MasslError as error:
            if tags is not None:
                raise
            told.append({"tag": tag, "claimed": False, "reason": str(error)})
            continue
        likely = found.likely(least)
        paths = collection.images.paths_of([image for image, _ in likely])
        rows += [
            {"path": path, "tag": tag, "probability": None if value is None else round(value, 4)}
            for path, (_, value) in zip(paths, likely, strict=True)
        ]
        counts = {"examples": found.examples, "others": found.others}
        reason = "" if found.claimed else f"{ENOUGH} of each, chosen by hand, are needed for a probability"
        told.append({"tag": tag, "claimed": found.claimed, **counts, "reason": reason})
    if as_json:
        print_json({"proposals": rows, "tags": told})
        return
    for row in rows:
        value = "-" if row["probability"] is None else f"{row['probability']:.3f}"
        print_line(f"{value}\t{visible(row['tag'])}\t{visible(row['path'])}")
    for item in told:
        if "examples" in item:
            seen = f"{item['examples']:,} images have it, {item['others']:,} don't"
            say(f"{visible(item['tag'])}: {seen}{'; ' + item['reason'] if item['reason'] else ''}", quiet)
        else:
            say(f"nothing proposed: {visible(item['reason'])}", quiet)


@app.command("import")
def import_tags(
    images: ImagesArgument,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="A CSV file with the columns path and tag, a COCO file, or an export of Label Studio.",
            show_default=False,
        ),
    ] = None,
    from_files: Annotated[
        bool, typer.Option("--from-files", help="Take over the keywords that pictures and their sidecars bring.")
    ] = False,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read tags from a file, or take over the keywords that the pictures themselves bring.

    Keywords are those that the last `massl index` read, from XMP, IPTC and sidecars. Commas separate tags everywhere.

    Examples: massl tag import ./photos tags.csv · massl tag import ./photos --from-files
    """
    from cli.terminal import print_json, say
    from indexer import Collection
    from indexer.label_formats.tag_importing import of_keywords

    if (file is None) != from_files:
        raise typer.BadParameter("name a file, or give --from-files; one of the two")
    collection = Collection.open(images, index_dir)
    left: list[tuple[str, str]] = []
    if file is not None:
        wanted = _of_table(collection, file)
        count, found = len(collection.tags.give(wanted, wanted)), True
    else:
        keywords = collection.images.keywords()
        brought, left = of_keywords(keywords, collection.tags.of(list(keywords)))
        count, found = len(collection.tags.give(brought, "file")), bool(keywords)
    if as_json:
        print_json({"tagged": count, "left": [{"path": path, "reason": reason} for path, reason in left]})
        return
    told = "1 tag given" if count == 1 else f"{count:,} tags given"
    if not found:
        told += ": no picture brings keywords"
    say(told, quiet)
    _tell_left(left, quiet)


@app.command()
def export(
    images: ImagesArgument,
    kind: Annotated[
        str, typer.Option("--format", help="csv, coco, label-studio, or xmp: a sidecar beside each tagged picture.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; not for xmp.", show_default=False)
    ] = None,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export the tags: as CSV (path, tag, author, at), for another tool, or into sidecars beside the pictures.

    --format xmp writes dc:subject into a.jpg.xmp (a.xmp beside RAW), never into a picture. Of a sidecar that is there,
    only words go that massl wrote and that are no longer tags.

    Examples: massl tag export ./photos > tags.csv · massl tag export ./photos --format coco --out tags.json ·
    massl tag export ./photos --format xmp
    """
    from cli.terminal import print_json
    from indexer import Collection
    from indexer.label_formats.exporting import TAG_FORMATS
    from massl.core.files.atomic_writing import check_output

    if kind not in (*TAG_FORMATS, "xmp"):
        raise typer.BadParameter(f"there is no format {kind[:20]!r}; choose one of {', '.join(TAG_FORMATS)}, or xmp")
    if kind == "xmp" and out is not None:
        raise typer.BadParameter("sidecars lie beside the pictures; leave out --out")
    if kind not in ("csv", "xmp") and as_json and out is None:
        raise typer.BadParameter("--json prints the tags alone; leave it out, or name a file by --out")
    if out is not None:
        check_output(out)
    collection = Collection.open(images, index_dir)
    if kind == "xmp":
        _write_sidecars(collection, as_json, quiet)
    elif as_json and out is None:
        print_json({"tags": [vars(item) for item in collection.tags.every()]})
    else:
        put_out(collection.exports.tags(kind), kind, out, as_json, quiet)


def _write_sidecars(collection: Any, as_json: bool, quiet: bool) -> None:
    from app.formatting import plural
    from cli.terminal import print_json, say
    from massl.core.errors import MasslError

    done = collection.exports.write_sidecars()
    if as_json:
        left = [{"path": path, "reason": reason} for path, reason in done.left]
        values = {"written": done.written, "removed": done.removed}
        print_json(values | {"unchanged": done.unchanged, "left": left})
    else:
        gone = f", {len(done.removed):,} removed that held nothing else" if done.removed else ""
        written = plural(len(done.written), "sidecar", "sidecars")
        had = f", {done.unchanged:,} had all tags" if done.unchanged else ""
        say(f"{written} written{gone}{had}", quiet)
        _tell_left(done.left, quiet)
    if done.left:
        path, reason = done.left[0]
        pictures = plural(len(done.left), "picture", "pictures")
        raise MasslError(f"{pictures} got no tags in a sidecar, the first {path}: {reason}")


def _pairs(collection: Any, tags: str, paths: list[str]) -> list[tuple[int, str]]:
    """Images and tags, as they were named.

    Raises:
        MasslError: no tag, or no such image.
    """
    from indexer.store.tags import checked, split

    named = split(tags) or [checked("")]
    found = [find_image(collection, path) for path in paths]
    return [(image, tag) for image in found for tag in named]


def _of_table(collection: Any, file: Path) -> dict[tuple[int, str], str]:
    """Images and tags of a file, with their author, all or none."""
    from indexer.label_formats import tag_importing
    from indexer.label_formats.table_paths import TablePaths
    from indexer.store.labels import check as check_author
    from indexer.store.tags import split
    from massl.core.errors import MasslError
    from massl.core.files.path_notation import not_utf8

    paths = TablePaths(collection.root, collection.images, lambda path: image_in_table(collection, path))
    wanted: dict[tuple[int, str], str] = {}
    for at, path, text, author in tag_importing.read(file, collection.root.resolve().name):
        try:
            if not path.strip():
                raise MasslError("there is no path")
            if not_utf8(text):
                raise MasslError("the tag is not written in UTF-8; save the file in UTF-8")
            if author:
                check_author(author)
            named = split(text)
            if not named:
                raise MasslError("there is no tag")
            image = paths.image(path)
        except MasslError as error:
            raise MasslError(f"{at}: {error}; nothing was imported") from None
        wanted |= {(image, tag): author or current_user() for tag in named}
    return wanted


def _tell_left(left: list[tuple[str, str]], quiet: bool) -> None:
    from cli.terminal import say

    for path, reason in left[:_SHOWN]:
        say(f"left out: {visible(path)}: {visible(reason)}", quiet)
    if len(left) > _SHOWN:
        say(f"left out: {len(left) - _SHOWN:,} more; --json lists them", quiet)
