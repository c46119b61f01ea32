"""The commands: parse, call, print."""

from cli.main import main

__all__ = ["main"]
