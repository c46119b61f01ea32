"""How things are said on the page."""

from __future__ import annotations

from collections.abc import Sized


def readable(path: str) -> str:
    """A path as text: file names that are not UTF-8 come with bytes that no JSON can carry."""
    return path.encode("utf-8", "backslashreplace").decode()


def count(images: Sized) -> str:
    """`1 picture`, `2 pictures`."""
    return "1 picture" if len(images) == 1 else f"{len(images):,} pictures"


def sentence(text: str) -> str:
    """An error's text as a sentence of its own."""
    text = readable(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
