"""`massl serve`."""

from __future__ import annotations

import ipaddress
import signal
import socket
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from cli.interrupts import interrupt
from cli.options import EncoderFile, ImagesArgument, IndexDir, Quiet, RuntimeName, RuntimeOption, Verbose

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.server import Agents
    from indexer import Collection
    from indexer.ingest.background_update import BackgroundUpdate, Update

Host = Annotated[str, typer.Option("--host", envvar="MASSL_HOST", help="Address to listen on.")]
Port = Annotated[
    int, typer.Option("--port", envvar="MASSL_PORT", min=0, max=65535, help="Port to listen on; 0 takes any free one.")
]
Auth = Annotated[
    str | None,
    typer.Option(
        "--auth",
        envvar="MASSL_AUTH",
        metavar="USER:PASSWORD",
        help="Require this user name and password. On the command line, other users of this machine can see the "
        "password; in the variable or in your own settings file they can't.",
    ),
]
RootPath = Annotated[
    str,
    typer.Option(
        "--root-path",
        envvar="MASSL_ROOT_PATH",
        metavar="PATH",
        help="The path that a proxy shows the page at, as /photos in https://example.org/photos/.",
        show_default=False,
    ),
]

Mcp = Annotated[
    bool,
    typer.Option(
        "--mcp", help="Let programs that speak MCP search and classify, at the page's address followed by mcp."
    ),
]
McpWrite = Annotated[bool, typer.Option("--mcp-write", help="As --mcp, and let them label and tag.")]


def command(
    images: ImagesArgument,
    encoder: EncoderFile = None,
    index_dir: IndexDir = None,
    runtime: RuntimeOption = RuntimeName.auto,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    auth: Auth = None,
    root_path: RootPath = "/",
    mcp: Mcp = False,
    mcp_write: McpWrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Open the web page of a folder: search, label, classify. What isn't indexed yet, or comes later, is indexed.

    Examples: massl serve ./photos · massl serve ./photos --port 8000
    """
    from app.server import check_address, check_agents, check_root_path, free_port
    from cli.terminal import say
    from indexer import Collection
    from indexer.ingest.background_update import BackgroundUpdate

    login = check_address(host, auth)
    path = check_root_path(root_path)
    agents = check_agents(mcp, mcp_write)
    port = free_port(host, port)  # before anything that takes time
    end_cleanly()
    chosen = Collection.choose_encoder(images, encoder, None, index_dir)
    collection = Collection.create(images, chosen, index_dir, runtime=runtime.value)
    updating = BackgroundUpdate(collection, _teller(quiet), follow=True)
    say("The index is being updated; the page shows the progress.", quiet)
    open_page(collection, host, port, login, updating, path, agents)


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
    root_path: str = "",
    agents: Agents | None = None,
) -> None:
    """Serves until interrupted or told to end, and says where."""
    from app.server import Agents, serve
    from cli.terminal import say

    unfinished = False
    with serve(collection, host, port, login, updating, root_path, agents or Agents.none) as address:
        lines = [f"  {_where(str(address), host, login)} Ctrl-C ends it."]
        if agents in (Agents.read, Agents.write):
            lines.append(f"  Agents speak MCP at {address}mcp{' and may label' * (agents is Agents.write)}.")
        for line in ("", *lines, ""):
            say(line)
        try:
            address.wait()
        except KeyboardInterrupt:
            unfinished = updating is not None and updating.state().running
            say("Closing." if not unfinished else "Closing after the current pictures.")
    say("Closed." if not unfinished else "Closed. Run the command again to continue indexing.")


def _where(url: str, host: str, login: tuple[str, str] | None) -> str:
    """What to open in a browser, and who else can: by the address that is listened on."""
    from app.access.origin import is_loopback

    if is_loopback(host):
        return f"Open {url} in a browser."
    bare, port, path = host.strip("[]"), urlsplit(url).port, urlsplit(url).path
    every = bare in ("0.0.0.0", "::")
    names = ["127.0.0.1", *_addresses(bare == "::")] if every else [f"[{bare}]" if ":" in bare else bare]
    here, *elsewhere = [f"http://{name}:{port}{path}" for name in names]
    return (
        f"Open {here} in a browser"
        + (f", on other machines {' or '.join(elsewhere)}" if elsewhere else "")
        + f". The page is open to the network: everybody who can reach {'this machine' if every else host} can see it"
        + (f" with the password of {login[0]}" if login else "")
        + ". Nothing is encrypted."
    )


def _addresses(also_ipv6: bool) -> list[str]:
    """Addresses of this machine in networks, as they stand in a URL."""
    import psutil

    found = []
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            ipv6 = each.family == socket.AF_INET6
            if each.family == socket.AF_INET or (ipv6 and also_ipv6):
                plain = ipaddress.ip_address(each.address.split("%")[0])
                if not (plain.is_loopback or plain.is_link_local):
                    found.append(f"[{plain}]" if ipv6 else str(plain))
    return found


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
