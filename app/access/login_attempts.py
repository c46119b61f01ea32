"""Attempts to log in: slowed down after a few wrong ones, for each address and for all together."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE = 5  # wrong attempts of one address that cost no time
LONGEST = 30.0  # seconds that an attempt waits; more are refused
PER_SECOND = 1.0  # attempts of all addresses together, in the long run
BURST = 30  # of them that may come at once
REMEMBERED = 10_000  # addresses
FORGOTTEN = 3_600.0  # seconds after which an address begins anew


def checker(user: str, password: str) -> Callable[[str, str], bool]:
    """Compares a log-in in a time that says nothing about how much of it was right."""
    wanted = _digest(user), _digest(password)

    def right(user: str, password: str) -> bool:
        # Both always: no `and`, which would leave the second out.
        return bool(hmac.compare_digest(_digest(user), wanted[0]) & hmac.compare_digest(_digest(password), wanted[1]))

    return right


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclass
class _Sender:
    """What is remembered of an address.

    Attributes:
        tried: attempts since the last right one.
        free_at: when the next attempt may be checked, in seconds of the clock.
    """

    tried: int = 0
    free_at: float = 0.0


class Attempts:
    """Says how long an attempt has to wait. Nobody is ever locked out: the longest wait is `LONGEST`.

    Every attempt counts as a wrong one as soon as it comes, so that many at once gain nothing. An address from which
    somebody logged in before doesn't wait for others, so that attacks from elsewhere don't keep its users out.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._all_at = 0.0  # when all attempts so far are paid for, at PER_SECOND (a token bucket, as a time)

    def wait(self, client: str) -> float | None:
        """Seconds until an attempt may be checked, which counts from now on; None where it is refused."""
        now = self._clock()
        sender = self._senders.get(client)
        if sender is None or now - sender.free_at > FORGOTTEN:
            sender = _Sender()
        start = max(now, sender.free_at)
        paid = max(now, self._all_at) + 1 / PER_SECOND
        if client not in self._known:
            start = max(start, paid - BURST / PER_SECOND)
        if start - now > LONGEST:
            return None
        if client not in self._known:
            self._all_at = paid
        sender.tried += 1
        pause = min(LONGEST, 2.0 ** min(10, sender.tried - FREE)) if sender.tried >= FREE else 0.0
        sender.free_at = start + pause
        self._keep(self._senders, client, sender)
        return start - now

    def succeeded(self, client: str) -> None:
        """Forgets what an address tried before."""
        self._senders.pop(client, None)
        self._keep(self._known, client, None)

    @staticmethod
    def _keep(kept: OrderedDict[str, _Sender] | OrderedDict[str, None], client: str, value: object) -> None:
        kept[client] = value  # type: ignore[assignment]
        kept.move_to_end(client)
        if len(kept) > REMEMBERED:
            kept.popitem(last=False)
