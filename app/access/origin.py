"""Who sent a request: the page itself, a program, or a web page of somebody else."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


def foreign(method: str, path: str, headers: Headers, local: bool) -> str | None:
    """Why a request is refused because of where it comes from; None if it may pass.

    A browser says so itself in `Sec-Fetch-Site`, but only where it trusts the address (loopback, TLS). Everywhere it
    names a foreign sender of anything that can change or read something in `Origin`. Programs send neither.

    Args:
        method: of the request.
        path: of the request.
        headers: of the request.
        local: the page listens on this machine only. A request that names another host was led here by a foreign
            name server (DNS rebinding).
    """
    host = headers.get("host", "")
    named = _HOST.fullmatch(host)
    if local and not (named and is_loopback(named[1].lower())):
        return "this page answers to 127.0.0.1 and localhost only"
    if not named:
        return "the Host header is not valid"
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site == "same-origin":
        return None  # whatever Host says: a proxy may have written it anew, and no web page can write this header
    # A proxy says which host the browser named; a web page can't say so for it, as that takes leave to be asked for.
    if origin is not None and not any(_same(origin, name) for name in (host, headers.get("x-forwarded-host", ""))):
        return "the request came from another web site"
    if site in (None, "none"):
        return None
    # A link on another site may lead to the page. It may neither embed it nor fetch anything of it.
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return None if followed and method in ("GET", "HEAD") and path == "/" else "the request came from another web site"


def followed_link(headers: Headers) -> bool:
    """Whether somebody came here by a link on another site: a browser keeps the cookies back for that one request."""
    return headers.get("sec-fetch-site") in ("cross-site", "same-site")


def readable(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a request without those that Gradio fails on, or takes itself for another server by.

    The page never asks for parts of a file, and Gradio can't read several at once.
    """
    kept = []
    for name, value in headers:
        if name == b"x-forwarded-host":  # of several proxies the first knows what the browser named
            value = value.partition(b",")[0].strip()
            if not _HOST.fullmatch(value.decode("latin-1")):
                continue
        if name not in (b"range", b"if-range", b"x-gradio-server"):
            kept.append((name, value))
    return kept


def client_of(address: str | None) -> str:
    """What counts as one sender: an IPv4 address, or the 64 bits of an IPv6 address that one household has."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


def _same(origin: str, host: str) -> bool:
    """Whether an Origin is what a Host header names. Its scheme isn't compared: TLS may end at a proxy."""
    try:
        given = urlsplit(origin)
        default = _PORTS[given.scheme]
        here = urlsplit(f"//{host}")
        return given.hostname is not None and (given.hostname, given.port or default) == (
            here.hostname,
            here.port or default,
        )
    except (KeyError, ValueError):  # "null", another scheme, no port
        return False


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
