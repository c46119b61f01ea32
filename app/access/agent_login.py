"""How agents log in: with the page's name and password in every request's `Authorization` header (RFC 7617)."""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable

import anyio

from app.access.login_attempts import LONGEST, REMEMBERED, Attempts
from app.access.upload_folder import Refused


class AgentLogin:
    """Checks the header, and slows wrong ones down as the page's form does.

    An address that was let in is checked at once from then on, until it is wrong: agents send the header with every
    request, and a guess must cost time before it is checked.

    Args:
        right: whether a name and a password are the page's.
        attempts: of all who log in, by form or by header.
    """

    def __init__(self, right: Callable[[str, str], bool], attempts: Attempts) -> None:
        self._right = right
        self._attempts = attempts
        self._let_in: OrderedDict[str, None] = OrderedDict()

    async def check(self, header: str | None, sender: str) -> None:
        """Returns if a header names the page's name and password.

        Args:
            header: of the request; None for none.
            sender: see `app.access.origin.client_of`.

        Raises:
            Refused: there is none, it is wrong, or too many were.
        """
        if header is None:
            raise Refused(401, "log in: send the page's name and password in the header Authorization: Basic")
        if self._let_in.pop(sender, False) is False:
            wait = self._attempts.wait(sender)
            if wait is None:
                raise Refused(429, f"too many attempts to log in; try again in {LONGEST:.0f} seconds")
            await anyio.sleep(wait)
        if not self._right(*_read(header)):
            raise Refused(401, "the name or the password in the header Authorization is wrong")
        self._attempts.succeeded(sender)
        self._let_in[sender] = None
        while len(self._let_in) > REMEMBERED:
            self._let_in.popitem(last=False)


def _read(header: str) -> tuple[str, str]:
    """Name and password of a header; empty ones, which are always wrong, of a malformed one."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password
