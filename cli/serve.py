"""`massl serve`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from cli.interrupts import interrupt
from cli.options import EncoderFile, Images, IndexDir, Quiet, Verbose

if TYPE_CHECKING:
    from collections.abc import Callable

    from indexer import Collection
    from indexer.background import BackgroundUpdate, Update

Host = Annotated[str, typer.Option("--host", envvar="MASSL_HOST", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--port", envvar="MASSL_PORT", min=0, max=65535, help="0: any free one.")]
Auth = Annotated[
    str | None,
    typer.Option("--auth", envvar="MASSL_AUTH", metavar="USER:PASSWORD", help="Ask for this at the door."),
]


def command(
    images: Images,
    encoder: EncoderFile = None,
    index_dir: IndexDir = None,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    auth: Auth = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Open the web page of a folder: search, label, classify. What isn't indexed yet is indexed meanwhile.

    Examples: massl serve ./photos · massl serve ./photos --port 8000
    """
    from app.server import check_address, free_port
    from cli.terminal import say
    from indexer import Collection, Encoder
    from indexer.background import BackgroundUpdate

    login = check_address(host, auth)
    port = free_port(host, port)  # before anything that takes time
    end_cleanly()
    collection = Collection.create(images, Encoder.load(encoder) if encoder else None, index_dir)
    updating = BackgroundUpdate(collection, _teller(quiet))
    say("The index is brought up to date meanwhile; the page shows how far it is.", quiet)
    open_page(collection, host, port, login, updating)


def end_cleanly() -> None:
    """Makes the signals of whoever stops a service, or closes a terminal, end as Ctrl-C does, and clear up."""
    for name in ("SIGTERM", "SIGHUP"):
        which = getattr(signal, name, None)
        if which is not None and signal.getsignal(which) != signal.SIG_IGN:  # nohup wants to go on
            signal.signal(which, interrupt)


def open_page(
    collection: Collection,
    host: str,
    port: int,
    login: tuple[str, str] | None,
    updating: BackgroundUpdate | None = None,
) -> None:
    """Serves until interrupted or told to end, and says where."""
    from app.server import serve
    from cli.terminal import say

    unfinished = False
    with serve(collection, host, port, login, updating) as address:
        for line in ("", f"  Open {address} in a browser. Ctrl-C ends it.", ""):
            say(line)
        try:
            address.wait()
        except KeyboardInterrupt:
            unfinished = updating is not None and updating.state().running
            say("Closing." if not unfinished else "Closing, after the pictures at hand.")
    say("Closed." if not unfinished else "Closed. Run it again to go on with the index.")


def _teller(quiet: bool) -> Callable[[Update], None]:
    """Says in the terminal what the page can't once it is closed: how it ended, and why it waits."""
    from cli.index import summary
    from cli.terminal import say

    said = ""

    def tell(update: Update) -> None:
        nonlocal said
        text = summary(update.report) if update.report else update.message
        if text and text != said:
            said = text
            say(text, quiet)

    return tell
