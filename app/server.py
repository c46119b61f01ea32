"""Serving the page: on which address, behind which door, and what is cleared away afterwards."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.access.origin import is_loopback
from massl.core.errors import MasslError
from massl.core.files.temporary_folders import TemporaryFolder

if TYPE_CHECKING:
    from indexer import Collection
    from indexer.ingest.background_update import BackgroundUpdate

AT_ONCE = 4  # events worked on at the same time
WAITING = 64  # events that may wait; later ones are told that the page is busy
_SEGMENT = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")  # what proxies and browsers all pass on as it is
# The first parts of the page's own addresses.
_OWN: tuple[str, ...] = (
    "api",
    "assets",
    "config",
    "download",
    "favicon.ico",
    "gradio_api",
    "login",
    "logout",
    "manifest.json",
    "mcp",
    "monitoring",
)
_OWN += ("openapi.json", "preview", "pwa_icon", "robots.txt", "script", "static", "svelte", "theme.css", "thumbnail")


class Agents(StrEnum):
    """What programs that speak MCP may do: nothing, look, or label as well."""

    none = "none"
    read = "read"
    write = "write"


class Address:
    """Where a running page is. `str()` of it is the URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._closed = threading.Event()

    def __str__(self) -> str:
        return self._url

    def wait(self) -> None:
        """Blocks until the page is closed or the process interrupted (KeyboardInterrupt)."""
        # In slices, as on Windows an endless wait can't be interrupted from the keyboard.
        while not self._closed.wait(0.5):
            pass


def check_address(host: str, auth: str | None) -> tuple[str, str] | None:
    """Parses `user:password`, and makes sure that a page open to a network has one.

    Raises:
        MasslError: `auth` is no `user:password`, or `host` is not this machine alone and there is no `auth`.
    """
    login = None
    if auth is not None:
        user, colon, password = auth.partition(":")
        if not (user and colon and password):
            raise MasslError("--auth takes a name and a password with a colon between them, as in --auth ada:secret")
        login = user, password
    if login is None and not is_loopback(host):
        raise MasslError(
            f"{host} can be reached by others: add --auth USER:PASSWORD, or leave --host out to keep the page to "
            "this machine"
        )
    return login


def check_agents(mcp: bool, write: bool) -> Agents:
    """What agents may do.

    Raises:
        MasslError: the package that speaks MCP is missing.
    """
    if not (mcp or write):
        return Agents.none
    if find_spec("mcp") is None:
        flag = "--mcp-write" if write else "--mcp"
        raise MasslError(f"{flag} needs a package that isn't installed; run: pip install 'massl[mcp]'")
    return Agents.write if write else Agents.read


def check_root_path(path: str) -> str:
    """The path below which a proxy shows the page, as `/photos`; empty for none.

    Raises:
        MasslError: it is no path, has characters that a proxy may write anew, or begins as an address of the page's.
    """
    segments = path.strip("/").split("/") if path.strip("/") else []
    if not path.startswith("/") or not all(map(_SEGMENT.fullmatch, segments)):
        raise MasslError(
            f"--root-path takes the path that the proxy shows the page at, as in /photos: letters, digits and -_.~ "
            f"between slashes; not {path[:60]!r}"
        )
    if segments and segments[0] in _OWN:
        raise MasslError(f"--root-path can't begin with /{segments[0]}, as addresses of the page do; choose another")
    return "".join(f"/{segment}" for segment in segments)


@contextlib.contextmanager
def serve(
    collection: Collection,
    host: str,
    port: int,
    login: tuple[str, str] | None,
    updating: BackgroundUpdate | None = None,
    root_path: str = "",
    agents: Agents = Agents.none,
) -> Iterator[Address]:
    """Serves the page of a collection without blocking, and closes it on the way out.

    Args:
        collection: what is shown.
        host: the address to listen on; one that `check_address` passed.
        port: 0 for any free one.
        login: name and password asked for at the door.
        updating: what brings the collection up to date; begun as soon as the page can be had, stopped with it.
        root_path: where a proxy shows the page, as `check_root_path` returns it. The page answers there and at `/`.
        agents: what programs that speak MCP may do, at `/mcp`.

    Raises:
        MasslError: the address can't be listened on, or the package for `agents` is missing.
    """
    port = free_port(host, port)
    with TemporaryFolder("uploads") as scratch:  # readable by its owner alone; Gradio's own would be shared
        uploads = str(Path(scratch, "uploads"))
        Path(uploads).mkdir(mode=0o700)
        with _environment(host, uploads):
            # Only now: importing Gradio takes seconds, and it reads the environment as it loads.
            from app import page
            from app.access.request_filter import Gate
            from app.access.retention import Lifetime
            from app.access.root_path import BelowPath
            from app.access.upload_folder import Inbox
            from app.agents.tools import AgentTools

            if agents is not Agents.none:
                from app.agents import mcp_server

            inbox = Inbox(Path(uploads))
            write = agents is Agents.write
            tools = AgentTools(collection, inbox.folder, write) if agents is not Agents.none else None
            blocks = page.build(collection, Path(uploads), updating, tools)
            blocks.queue(default_concurrency_limit=AT_ONCE, max_size=WAITING, api_open=False)

            @contextlib.asynccontextmanager
            async def lifespan(app: Any) -> AsyncIterator[None]:
                # Around all else: Gradio's own middleware, which gives other sites leave to read, must lie behind it.
                lifetime = Lifetime(app, inbox)
                if tools is not None:
                    mcp_server.restrict(blocks)
                gate = Gate(
                    app.middleware_stack, collection, is_loopback(host), login, inbox, lifetime, tools is not None
                )
                app.middleware_stack = BelowPath(gate, root_path) if root_path else gate
                async with lifetime.running():
                    yield

            _launch(blocks, collection, host, port, login, lifespan, root_path, tools is not None)
            address = Address(str(blocks.local_url).rstrip("/") + root_path + "/")
            if updating is not None:
                updating.start()
            try:
                yield address
            finally:
                address._closed.set()
                if updating is not None:
                    updating.stop()
                collection.map.stop()
                blocks.close(verbose=False)


def _launch(
    blocks: Any,
    collection: Collection,
    host: str,
    port: int,
    login: tuple[str, str] | None,
    lifespan: Any,
    root_path: str,
    mcp: bool,
) -> None:
    """Has Gradio listen, without blocking.

    Raises:
        MasslError: the address can't be listened on.
    """
    from app import interface, page, scripts
    from app.access.login_attempts import checker
    from app.access.retention import SESSIONS
    from app.access.upload_folder import MAX_FILE

    try:
        # For agents Gradio prints an address of its own there, at which nobody is let in.
        with contextlib.redirect_stdout(io.StringIO()):
            blocks.launch(
                server_name=f"[{host}]" if ":" in host.strip("[]") and "[" not in host else host,
                server_port=port,
                auth=checker(*login) if login else None,
                auth_message="This collection requires a name and a password. After several wrong attempts, "
                "answers are delayed by up to half a minute.",
                max_file_size=MAX_FILE,
                state_session_capacity=SESSIONS,
                # Named outright, so that no GRADIO_* variable opens another door.
                root_path=root_path,
                allowed_paths=[str(collection.folder.resolve() / "thumbnails")],
                app_kwargs={
                    "lifespan": lifespan,
                    "routes": [scripts.route(), *interface.routes(page.name_of(collection), login is not None)],
                },
                share=False,
                ssr_mode=False,
                num_workers=0,
                mcp_server=mcp,
                pwa=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
                show_error=False,
                inbrowser=False,
                prevent_thread_lock=True,
                quiet=True,
                # Gradio would ask its own address whether it answers, and end where a busy machine takes 3 s for that.
                _frontend=False,
                **page.look(),
            )
    except OSError:
        raise MasslError(_busy(host, port)) from None


def free_port(host: str, port: int) -> int:
    """The port itself if nobody listens there, or a free one for 0.

    Raises:
        MasslError: somebody does, or the address is none of this machine's.
    """
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    with socket.socket(family) as listener:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((bare, port))
        except socket.gaierror:
            raise MasslError(
                f"{host} is not an address; --host takes an address of this machine, as in 127.0.0.1"
            ) from None
        except PermissionError:
            raise MasslError(f"port {port} needs administrator rights; choose one above 1023 with --port") from None
        except OverflowError:
            raise MasslError(f"{port} is not a port; --port takes 0 to 65535") from None
        except OSError as error:
            in_use = error.errno in (48, 98, 10048)  # EADDRINUSE on macOS, Linux, Windows
            raise MasslError(
                _busy(host, port) if in_use else f"{host} is not an address of this machine; choose another with --host"
            ) from None
        return int(listener.getsockname()[1])


def _busy(host: str, port: int) -> str:
    return f"port {port} of {host} is in use; choose another with --port, or --port 0 for any that is free"


_ENVIRONMENTS: list[dict[str, str]] = []  # of the servers that run in this process, the last one's in force
_BEFORE: dict[str, str | None] = {}  # the first of them was started
_ENTERING = threading.Lock()


@contextlib.contextmanager
def _environment(host: str, uploads: str) -> Iterator[None]:
    """What Gradio is told by environment, telemetry aside: no model hub, uploads to a private folder.

    Servers of one process may end in any order: the last one restores what was there before the first.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    # As it starts, Gradio asks its own address whether it answers: never through somebody's proxy.
    local = ",".join(dict.fromkeys(["127.0.0.1", "localhost", host.strip("[]")]))
    with _ENTERING:
        own = {"GRADIO_TEMP_DIR": uploads}
        for name in ("NO_PROXY", "no_proxy"):
            own[name] = ",".join(filter(None, [os.environ.get(name), local]))
        if not _ENVIRONMENTS:
            _BEFORE.update({name: os.environ.get(name) for name in own})
        _ENVIRONMENTS.append(own)
        os.environ.update(own)
    try:
        yield
    finally:
        with _ENTERING:
            _ENVIRONMENTS[:] = [each for each in _ENVIRONMENTS if each is not own]
            for name, value in (_ENVIRONMENTS[-1] if _ENVIRONMENTS else _BEFORE).items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
