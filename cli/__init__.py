"""The commands: parse, call, print."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Runs `massl` and exits; see `cli.commands.main`."""
    try:
        # Only now: it takes a moment, in which one may press Ctrl-C already.
        from cli.commands import main as run

        run(arguments)
    except KeyboardInterrupt:
        print("massl: interrupted", file=sys.stderr)
        sys.exit(130)


__all__ = ["main"]
