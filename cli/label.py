"""`massl label`: add, remove, list, import, export, check."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.configuration import Harmless
from cli.options import HELP_FLAGS, ImagesArgument, IndexDir, Json, Quiet, Verbose, below, open_embedded
from massl.core.printable import visible

if TYPE_CHECKING:
    from indexer import Collection
    from indexer.store.damage import CatalogDamaged
    from indexer.store.labels import Label

app = typer.Typer(no_args_is_help=True, context_settings=HELP_FLAGS)

LabelArgument = Annotated[str, typer.Argument(metavar="LABEL", help="The name of the class.")]
Paths = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Images, as paths or relative to IMAGES.", show_default=False)
]


@app.callback()
def root() -> None:
    """Label images by hand; import, export and check labels.

    Examples: massl label add ./photos cat a.jpg b.jpg · massl label export ./photos > labels.csv
    """


@app.command()
def add(
    images: ImagesArgument,
    label: LabelArgument,
    paths: Paths,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Give images a label, in place of the one they had.

    Examples: massl label add ./photos cat a.jpg pets/b.jpg
    """
    from cli.terminal import print_json, say
    from indexer import Collection

    collection = Collection.open(images, index_dir)
    count = collection.labels.add(label, [find_image(collection, path) for path in paths], current_user())
    if as_json:
        print_json({"labelled": count})
        return
    say(f"{count} labelled {label.strip()!r}", quiet)


@app.command("none")
def none_of_these(
    images: ImagesArgument,
    paths: Paths,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say that images are of no class that you named: classify learns what these look like, exports leave them out.

    They get the label "none of these". Naming a class for one of them later takes its place.

    Examples: massl label none ./photos a.jpg pets/b.jpg
    """
    from indexer.store.labels import NONE_OF_THESE

    add(images, NONE_OF_THESE, paths, index_dir, as_json, quiet, verbose)


@app.command()
def sample(
    images: ImagesArgument,
    count: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many images to draw."), Harmless()] = 24,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw unlabelled images at random, as a CSV table to fill in: their labels tell how good the predictions are.

    Give every image of the table its label; "none of these" where it is of no class that you named. Then import the
    table. From 20 such labels on, classify's estimates rest on these alone.

    Examples: massl label sample ./photos > sample.csv · massl label sample ./photos -n 48 > sample.csv
    """
    from cli.terminal import print_json, print_line, say
    from indexer import Collection
    from indexer.store.labels import DRAWN
    from massl.core.files.csv_tables import csv_text

    collection = Collection.open(images, index_dir)
    paths = collection.images.paths_of(collection.fewshot.random_sample(count))
    if as_json:
        print_json({"paths": paths, "author": DRAWN})
        return
    print_line(csv_text(["path", "label", "author", "at"], [[path, "", DRAWN, ""] for path in paths]), end="")
    advice = "fill in every label and keep the column author"
    say(f"{len(paths)} images drawn; {advice}, then run: massl label import {images} sample.csv", quiet)


@app.command()
def remove(
    images: ImagesArgument,
    paths: Paths,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Take the labels off images.

    Examples: massl label remove ./photos a.jpg
    """
    from cli.terminal import print_json, say
    from indexer import Collection

    collection = Collection.open(images, index_dir)
    count = collection.labels.remove([find_image(collection, path) for path in paths])
    if as_json:
        print_json({"removed": count})
        return
    say("1 label removed" if count == 1 else f"{count} labels removed", quiet)


@app.command("list")
def list_labels(
    images: ImagesArgument,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the labels given so far, a line each: label, path and author.

    Examples: massl label list ./photos
    """
    from cli.terminal import print_json, print_line

    labels, damaged = _readable_labels(images, index_dir)
    if as_json:
        print_json({"labels": [vars(item) for item in labels]})
    else:
        for item in labels:
            print_line(f"{visible(item.label)}\t{visible(item.path)}\t{visible(item.author)}")
    if damaged:
        raise damaged


@app.command("import")
def import_labels(
    images: ImagesArgument,
    file: Annotated[Path, typer.Argument(metavar="CSV", help="A CSV file with the columns path and label.")],
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read labels from a CSV file with the columns path and label.

    Examples: massl label import ./photos labels.csv
    """
    from cli.terminal import print_json, say
    from indexer import Collection
    from indexer.label_formats.table_paths import TablePaths
    from indexer.store.labels import PREDICTED, normalised
    from indexer.store.labels import check as check_label
    from massl.core.errors import MasslError
    from massl.core.files.csv_tables import read_csv
    from massl.core.files.path_notation import not_utf8

    collection = Collection.open(images, index_dir)
    paths = TablePaths(collection.root, collection.images, lambda path: image_in_table(collection, path))
    wanted: dict[int, str] = {}
    authors: dict[int, str] = {}
    guesses = 0
    for line, row in read_csv(file, ("path", "label")):
        at, path, label = f"{file}, line {line}", row["path"], normalised(row["label"])
        if not any(value.strip() for value in row.values()):
            continue  # an empty row, as spreadsheets leave them
        author = row.get("author", "").strip() if "at" in row else ""  # else no table of ours: it may be a painter
        if author == PREDICTED:  # of `label export --predictions`: nobody has looked at it
            guesses += 1
            continue
        try:
            if not path.strip():
                raise MasslError("there is no path")
            if not_utf8(label):
                raise MasslError("the label is not written in UTF-8; save the file as CSV in UTF-8")
            check_label(label)
            if author:
                check_label(author)  # as printable, and no longer
            image = paths.image(path)
        except MasslError as error:
            raise MasslError(f"{at}: {error}; nothing was imported") from None
        authors[image] = author or current_user()
        if wanted.setdefault(image, label) != label:
            raise MasslError(
                f"{at} gives {path} another label, {label[:40]!r} after {wanted[image][:40]!r}; "
                "nothing was imported: leave one of them"
            )
    count = collection.labels.give(wanted, authors)
    if as_json:
        print_json({"labelled": count, "left_out": guesses})
        return
    say(f"{count} labelled", quiet)
    if guesses:
        say(f"{guesses} left out, as massl's own predictions that nobody has looked at", quiet)


@app.command()
def export(
    images: ImagesArgument,
    kind: Annotated[
        str, typer.Option("--format", help="csv, imagefolder, coco, label-studio, or onnx: the classifier itself.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; required for onnx.", show_default=False)
    ] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Add predicted classes for all images without a label.")
    ] = False,
    min_probability: Annotated[
        float,
        typer.Option(
            "--min-probability",
            min=0.0,
            max=1.0,
            help="Minimum probability of --predictions. Less likely ones, and images unlike all labelled ones, are "
            "left out.",
            show_default=False,
        ),
        Harmless(),
    ] = 0.0,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export the labels: as CSV (path, label, author, at), or for another tool.

    Examples: massl label export ./photos > labels.csv · massl label export ./photos --format coco --out labels.json ·
    massl label export ./photos --format csv --predictions --min-probability 0.9 > all.csv · massl label export ./photos
    --format onnx --out classifier.onnx
    """
    from cli.terminal import print_json, say
    from indexer import Collection
    from indexer.label_formats import exporting
    from massl.core.errors import MasslError
    from massl.core.files.atomic_writing import check_output

    formats = exporting.FORMATS
    if kind not in (*formats, "onnx"):
        raise typer.BadParameter(f"there is no format {kind[:20]!r}; choose one of {', '.join(formats)}, or onnx")
    if as_json and out is None and (kind != "csv" or predictions):
        raise typer.BadParameter(
            "--json prints the labels alone; leave it out, or name a file by --out "
            "(predictions as JSON: massl classify --json)"
        )
    if kind == "onnx" and (predictions or min_probability):
        raise typer.BadParameter(
            "--predictions and --min-probability apply to tables; a classifier file outputs probabilities itself"
        )
    if out:
        check_output(out)
    learns = predictions or kind == "onnx"
    if kind == "csv" and not learns:
        labels, damaged = _readable_labels(images, index_dir)
        if as_json and out is None:
            print_json({"labels": [vars(item) for item in labels]})
        else:
            put_out(exporting.of_labels(labels), kind, out, as_json, quiet)
        if damaged:
            raise damaged
        return
    collection = open_embedded(images, index_dir, quiet) if learns else Collection.open(images, index_dir)
    if kind == "onnx":
        if out is None:
            raise MasslError("an .onnx file can't be printed; name a file with --out classifier.onnx")
        fitted = collection.fewshot.export(out, collection.encoder)
        if as_json:
            print_json({"written": str(out), "format": kind, "classes": list(fitted.classes)})
            return
        say(f"{out}: {', '.join(fitted.classes)}, by {fitted.choice.candidate.method}", quiet)
        return
    put_out(collection.exports.labels(kind, predictions, min_probability), kind, out, as_json, quiet)


@app.command()
def restore(
    images: ImagesArgument,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring labels and tags back from the journal beside the index, into one that was damaged, or deleted.

    Labels and tags that images have now stay. What finds no image any more is listed.

    Examples: massl label restore ./photos
    """
    from cli.terminal import print_json, say
    from indexer import Collection

    done = Collection.open(images, index_dir).journal.restore()
    if as_json:
        left = [{"path": path, "label": label, "reason": why} for path, label, why in done.left]
        told = {
            "labels": done.labels,
            "tags": done.tags,
            "decisions": done.decisions,
            "left": left,
            "damaged_lines": done.damaged,
        }
        print_json(told)
        return
    brought = f"{done.labels:,} labels, {done.tags:,} tags, {done.decisions:,} decisions about duplicates and proposals"
    say(f"brought back: {brought}", quiet)
    for path, label, why in done.left:
        say(f"not brought back: {visible(label)!r} of {visible(path)}: {why}", quiet)
    if done.damaged:
        say(f"{done.damaged:,} lines of the journal are damaged and say nothing", quiet)


@app.command()
def check(
    images: ImagesArgument,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List labels that are probably wrong, and say how many more would help.

    A line each: the label, how likely it is without itself, the class it looks like, how likely that is, the path.

    Examples: massl label check ./photos · massl label check ./photos --json
    """
    from dataclasses import asdict

    from cli.terminal import print_json, print_line, say

    collection = open_embedded(images, index_dir, quiet)
    found = collection.fewshot.suspects()
    curve = collection.fewshot.learning_curve()
    paths = collection.images.paths_of([suspect.image for suspect in found])
    if as_json:
        rows = []
        for path, suspect in zip(paths, found, strict=True):
            near = collection.images.paths_of([image for image, _ in suspect.neighbours])
            rows.append(
                {
                    "path": path,
                    "label": suspect.given,
                    "probability": round(suspect.probability, 4),
                    "looks_like": suspect.proposed,
                    "looks_like_probability": round(suspect.proposed_probability, 4),
                    "neighbours": [
                        {"path": name, "score": round(score, 4)}
                        for name, (_, score) in zip(near, suspect.neighbours, strict=True)
                    ],
                }
            )
        print_json({"suspects": rows, "learning_curve": asdict(curve)})
        return
    for path, suspect in zip(paths, found, strict=True):
        given, proposed = visible(suspect.given), visible(suspect.proposed)
        print_line(
            f"{given}\t{suspect.probability:.3f}\t{proposed}\t{suspect.proposed_probability:.3f}\t{visible(path)}"
        )
    wrong = "1 label looks wrong" if len(found) == 1 else f"{len(found):,} labels look wrong"
    say(wrong if found else "no label looks wrong", quiet)
    say(curve.advice, quiet)


def _readable_labels(images: Path, index_dir: Path | None) -> tuple[list[Label], CatalogDamaged | None]:
    """The labels; of a damaged catalog those that can be read, of it or of its journal, and that it is damaged."""
    from indexer import Collection
    from indexer.recovery import repair
    from indexer.store.damage import CatalogDamaged
    from massl.core.errors import MasslError

    try:
        return Collection.open(images, index_dir).labels.every(), None
    except CatalogDamaged as error:
        try:
            return repair.labels(error.path), error
        except OSError as trouble:
            raise MasslError(f"{error}; its labels can't be read here ({trouble.strerror or trouble})") from None


def put_out(text: str, kind: str, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Prints a table, or writes it to a file."""
    from cli.terminal import print_json, print_line, say
    from massl.core.disk_errors import cannot_write
    from massl.core.files.atomic_writing import write

    if out is None:
        print_line(text, end="")
        return
    try:
        write(out, os.fsencode(text))
    except OSError as error:
        raise cannot_write(out, error, "choose another --out") from None
    if as_json:
        print_json({"written": str(out), "format": kind})
        return
    say(f"{out} written", quiet)


def image_in_table(collection: Collection, path: str) -> int:
    """The image that a table's path means, which is relative to the collection's folder wherever the table is read."""
    from massl.core.errors import MasslError

    try:
        return collection.images.id_of(Path(path).as_posix())
    except MasslError:
        return find_image(collection, path)


def find_image(collection: Collection, path: str) -> int:
    """The image that a path means: from here if it lies in the collection's folder, else relative to that folder."""
    from massl.core.errors import MasslError
    from massl.core.images.plane_files import file_of

    here, there = (os.path.lexists(file_of(place)) for place in (Path(path), collection.root / path))
    inside = below(collection.root, path) if here or not there else path
    given, path = path, inside or path
    if os.path.isdir(os.path.join(collection.root, path)):
        raise MasslError(f"{path} is a folder; name its images, as {os.path.join(path, '*.jpg')}")
    try:
        return collection.images.id_of(Path(path).as_posix())
    except MasslError:
        if inside or here:
            raise
        raise MasslError(f"{given}: there is no such image, neither here nor in {collection.root}") from None


def current_user() -> str:
    """The author of what is said on the command line."""
    try:
        return visible(getpass.getuser())
    except (KeyError, OSError):  # a user id without a name, as in a container
        return "unknown"
