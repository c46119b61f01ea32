"""`massl label`: add, remove, list, import, export."""

from __future__ import annotations

import csv
import getpass
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import HELP_FLAGS, Images, IndexDir, Json, Quiet, Verbose

if TYPE_CHECKING:
    from indexer import Collection

app = typer.Typer(no_args_is_help=True, context_settings=HELP_FLAGS)

Name = Annotated[str, typer.Argument(metavar="LABEL", help="The name of the class.")]
Paths = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Images, as paths or relative to IMAGES.", show_default=False)
]


@app.callback()
def root() -> None:
    """Label images by hand, and take the labels away.

    Examples: massl label add ./photos cat a.jpg b.jpg · massl label export ./photos > labels.csv
    """


@app.command()
def add(
    images: Images,
    label: Name,
    paths: Paths,
    index_dir: IndexDir = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Give images a label, in place of the one they had.

    Examples: massl label add ./photos cat a.jpg pets/b.jpg
    """
    from cli.terminal import say
    from indexer import Collection

    collection = Collection.open(images, index_dir)
    count = collection.add_labels(label, [find_image(collection, path) for path in paths], _author())
    say(f"{count} labelled {label!r}", quiet)


@app.command()
def remove(
    images: Images, paths: Paths, index_dir: IndexDir = None, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Take the labels off images.

    Examples: massl label remove ./photos a.jpg
    """
    from cli.terminal import say
    from indexer import Collection

    collection = Collection.open(images, index_dir)
    count = collection.remove_labels([find_image(collection, path) for path in paths])
    say(f"{count} labels removed", quiet)


@app.command("list")
def list_labels(
    images: Images, index_dir: IndexDir = None, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """List the labels given so far.

    Examples: massl label list ./photos
    """
    from cli.terminal import print_json, print_line
    from indexer import Collection

    labels = Collection.open(images, index_dir).labels()
    if as_json:
        print_json({"labels": [vars(item) for item in labels]})
        return
    for item in labels:
        print_line(f"{item.label}\t{item.path}")


@app.command("import")
def import_labels(
    images: Images,
    file: Annotated[Path, typer.Argument(metavar="CSV", help="A CSV file with the columns path and label.")],
    index_dir: IndexDir = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read labels from a CSV file with the columns path and label.

    Examples: massl label import ./photos labels.csv
    """
    from cli.terminal import say
    from indexer import Collection
    from massl.errors import MasslError

    collection = Collection.open(images, index_dir)
    by_label: dict[str, list[int]] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as rows:
            reader = csv.DictReader(rows)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise MasslError(f"{file} needs a first line that names the columns path and label")
            for row in reader:
                by_label.setdefault(row["label"] or "", []).append(find_image(collection, row["path"]))
    except OSError as error:
        raise MasslError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    count = sum(collection.add_labels(label, found, _author()) for label, found in by_label.items())
    say(f"{count} labelled", quiet)


@app.command()
def export(
    images: Images, index_dir: IndexDir = None, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Print the labels as CSV: path, label, author, at.

    Examples: massl label export ./photos > labels.csv
    """
    from cli.terminal import print_json, print_line
    from indexer import Collection

    labels = Collection.open(images, index_dir).labels()
    if as_json:
        print_json({"labels": [vars(item) for item in labels]})
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "author", "at"])
    writer.writerows((item.path, item.label, item.author, item.at) for item in labels)
    print_line(text.getvalue(), end="")


def find_image(collection: Collection, path: str) -> int:
    """The image that a path means: from here if it lies in the collection's folder, else relative to that folder."""
    root = os.path.realpath(collection.root)
    here = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
    if os.path.lexists(path) and here.startswith(root + os.sep):
        path = os.path.relpath(here, root)
    return collection.image_id(Path(path).as_posix())


def _author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        return "unknown"
