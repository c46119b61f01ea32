"""The command `massl`, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import (
    classify,
    configuration,
    demo,
    doctor,
    dupes,
    embed,
    evaluate,
    export,
    index,
    info,
    label,
    odd,
    search,
    select,
    serve,
    tag,
    train,
)
from cli.options import HELP_FLAGS
from cli.terminal import say
from massl.core import disk_errors
from massl.core.errors import MasslError
from massl.core.printable import shortened, visible

# What typer raises for wrong usage: click's ClickException, of the click that typer brings or depends on.
_ShownByTyper: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="massl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP_FLAGS,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"massl {importlib.metadata.version('massl')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Learn an encoder from your own images, search them by image, label them from a handful of examples.

    Examples: massl demo · massl index ./photos · massl search ./photos query.jpg · massl serve ./photos
    """
    words = [word for word in context.obj or [] if not word.startswith("-")]
    settings = configuration.read(context.command, context, words[: 2 if words[:1] in (["label"], ["tag"]) else 1])
    context.default_map = dict(settings.defaults)
    for notice in settings.notices:
        say(f"massl: {visible(notice)}")


app.command("train")(train.command)
app.command("export")(export.command)
app.command("eval")(evaluate.command)
app.command("index")(index.command)
app.command("embed")(embed.command)
app.command("search", cls=search.SearchCommand)(search.command)
app.command("dupes")(dupes.command)
app.command("odd")(odd.command)
app.command("select")(select.command)
app.add_typer(label.app, name="label")
app.add_typer(tag.app, name="tag")
app.command("classify")(classify.command)
app.command("serve")(serve.command)
app.command("info")(info.command)
app.command("doctor")(doctor.command)
app.command("demo")(demo.command)


def main(arguments: list[str] | None = None) -> None:
    """Runs `massl` and exits: 0 done, 1 failed, 2 usage, 4 index and encoder don't fit, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us
        silent = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
        sys.stdout, sys.stderr = sys.stdout or silent, sys.stderr or silent
    try:
        code = app(arguments, standalone_mode=False, obj=list(arguments))
        sys.stdout.flush()
        if code == 130:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except MasslError as error:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and os.environ.get("LOCAL_RANK", "0") != "0":
            sys.exit(error.exit_code)  # one of several ranks that train together; the first one of a machine says it
        _fail(str(error), error.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except KeyboardInterrupt:
        again = "go on without --rebuild" if "--rebuild" in arguments else "run it again to go on"
        kept = f"; what was finished is kept, {again}" if arguments[:1] == ["index"] else ""
        _fail(f"interrupted{kept}", 130)
    except _ShownByTyper as error:
        error.message = visible(shortened(error.message), keep="\n")
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output (`massl search … | head`) has gone: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _fail("not enough memory; try smaller batches or fewer workers", 1)
    except Exception as error:  # the edge: no traceback reaches a person who didn't ask for one
        if "-v" in arguments or "--verbose" in arguments:
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno is not None:
            if error.filename is None:
                _fail(str(disk_errors.cannot_write("the output", error)), 1)
            _fail(f"{error.filename}: {disk_errors.reason(error)}; {disk_errors.remedy(error)}", 1)
        reason = " ".join(str(error).split()) or type(error).__name__
        _fail(f"{type(error).__name__}: {reason}; run it again with -v for the details", 1)


def _fail(message: str, code: int) -> None:
    # One line whatever the message holds: file names may contain anything.
    print(f"massl: {visible(shortened(message))}", file=sys.stderr)
    sys.exit(code)
