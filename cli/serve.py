"""`massl serve`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import EncoderFile, Images, IndexDir, Quiet, Verbose

if TYPE_CHECKING:
    from indexer import Collection

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
    """Open the web page of a collection: search, label, classify.

    Examples: massl serve ./photos · massl serve ./photos --port 8000
    """
    from app.server import check_address
    from cli.index import summary, update
    from cli.terminal import say
    from indexer import Collection, CollectionBusy, Encoder

    login = check_address(host, auth)
    collection = Collection.create(images, Encoder.load(encoder) if encoder else None, index_dir)
    try:
        say(summary(update(collection, quiet)), quiet)
    except CollectionBusy as error:
        say(f"{error}; showing what is indexed so far", quiet)
    open_page(collection, host, port, login)


def open_page(collection: Collection, host: str, port: int, login: tuple[str, str] | None) -> None:
    """Serves until interrupted or told to end, and says where."""
    from app.server import serve
    from cli.terminal import say

    # Whoever stops a service sends SIGTERM: end as on Ctrl-C, so that the folder of uploads is cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serve(collection, host, port, login) as address:
        say(f"\n  Open {address} in a browser. Ctrl-C ends it.\n")
        try:
            address.wait()
        except KeyboardInterrupt:
            say("Closed.")
