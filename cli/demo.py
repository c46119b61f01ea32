"""`massl demo`: the whole product in one command, on the pictures and with the encoder that come with it, offline."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Quiet, RuntimeName, RuntimeOption, Verbose
from cli.serve import Auth, Host, Port

if TYPE_CHECKING:
    from indexer import Collection

EXAMPLES = 5  # labels a class


def command(
    headless: Annotated[
        bool, typer.Option("--headless", help="Print one JSON object and end, without the page.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Keep the demo's pictures and index in this new folder."),
    ] = None,
    runtime: RuntimeOption = RuntimeName.auto,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    auth: Auth = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Index, search, label and classify the bundled pictures, then open the web page. Needs no network.

    Examples: massl demo · massl demo --headless · massl demo --dir my-demo
    """
    import cli.index
    from app.server import check_address, free_port
    from cli.serve import end_cleanly, open_page
    from cli.terminal import print_json, say
    from indexer import Collection, Query
    from indexer.fewshot.classification import WIDEST
    from indexer.json_results import of_classification, of_search

    login = None
    if not headless:  # before anything that takes time
        login = check_address(host, auth)
        port = free_port(host, port)
    end_cleanly()
    with _pictures(folder) as root:
        collection = Collection.create(root, runtime=runtime.value)
        report = cli.index.update(collection, quiet)
        say(cli.index.summary(report), quiet)

        query = root / collection.images.ready(1)[0][1]
        started = time.perf_counter()
        results = collection.search([Query.of_file(query)], 10)
        found = of_search(results, started)
        say(f"Searched by {query.relative_to(root)}: {', '.join(result.path for result in results[1:4])}, …", quiet)

        _label(collection)
        classified = collection.fewshot.classify()
        truth = [path.split("/")[0] for path in collection.images.paths_of(classified.images.tolist())]
        right = sum(classified.classes[label] == name for label, name in zip(classified.predicted, truth, strict=True))
        given = sum(classified.counts.values())
        beforehand = "before that, so few labels could not tell"
        if classified.interval and classified.known_within(WIDEST):
            low, high = classified.interval
            beforehand = f"estimated beforehand: {low:.0%} to {high:.0%}"
        say(
            f"Classified all from {EXAMPLES} labels a class: {(right - given) / (len(truth) - given):.0%} of the "
            f"{len(truth) - given} unlabelled pictures right ({beforehand})",
            quiet,
        )
        if headless:
            print_json(
                {
                    "index": {"schema": 1, **cli.index.describe(collection, report)},
                    "search": {"schema": 1, **found},
                    "classify": {"schema": 1, **of_classification(collection, classified)},
                }
            )
            return
        open_page(collection, host, port, login)


@contextlib.contextmanager
def _pictures(folder: Path | None) -> Iterator[Path]:
    """A copy of the bundled pictures, in a temporary folder unless one is given."""
    from massl.core.disk_errors import remedy
    from massl.core.errors import MasslError
    from massl.core.files.temporary_folders import TemporaryFolder

    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(TemporaryFolder("demo")), "pictures")
        elif folder.is_dir() and any(folder.iterdir()):
            raise MasslError(f"{folder} is not empty; give --dir a new folder, or run: massl serve {folder}")
        new = not os.path.lexists(folder)
        with importlib.resources.as_file(importlib.resources.files("cli") / "pictures") as bundled:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copytree(bundled, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
            except BaseException as error:
                if new:  # what is half there is in the way of the next demo
                    shutil.rmtree(folder, ignore_errors=True)
                if not isinstance(error, OSError):
                    raise
                # Of several files, each with a reason that names both paths, the first.
                why = error.strerror or str(error.args[0][0][2]).split(": ")[0]
                raise MasslError(
                    f"{folder} can't be written ({why}); {remedy(error, 'give --dir another folder')}"
                ) from None
        yield folder


def _label(collection: Collection) -> None:
    """Labels a few pictures of each kind, spread evenly over it, with its name."""
    kinds: dict[str, list[int]] = {}
    for image, path in collection.images.ready():
        kinds.setdefault(path.split("/")[0], []).append(image)
    for kind, images in kinds.items():
        collection.labels.add(kind, images[:: max(1, len(images) // EXAMPLES)][:EXAMPLES], "demo")
