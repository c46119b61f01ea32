"""How somebody who waits is told how far something is."""

from __future__ import annotations

from collections.abc import Callable

CountReport = Callable[[int, int], None]
"""Called with how many are done, of how many."""
