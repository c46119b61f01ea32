"""The commands: parse, call, print."""

from __future__ import annotations

import signal
import sys

from cli.interrupts import interrupt


def main(arguments: list[str] | None = None) -> None:
    """Runs `massl` and exits; see `cli.commands.main`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is another one under nohup, or a test's
        signal.signal(signal.SIGINT, interrupt)
    try:
        # Only now: it takes a moment, in which one may press Ctrl-C already.
        from cli.commands import main as run

        run(arguments)
    except KeyboardInterrupt:
        print("massl: interrupted", file=sys.stderr)
        sys.exit(130)


__all__ = ["main"]
