"""Text from files, folders and encoders, so that a terminal shows it and obeys none of it."""

from __future__ import annotations

import re

_LONGEST = 500  # letters of a word that are shown
_ENDS = 200
_MOST = 4_000  # letters of a text


def visible(text: str, keep: str = "") -> str:
    """One line of characters that have a shape; all others are written as Python escapes them, `\\x1b` or `\\u202e`.

    Those are control characters, marks that turn the direction of writing, line breaks, bytes that are no UTF-8
    (`\\xff`), and what Unicode, as this Python knows it, doesn't have.

    Args:
        text: any text, as a file's name.
        keep: what stays as it is all the same, as `"\\n"`.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1].replace("\\udc", "\\x")
        for letter in text
    )


def shortened(text: str) -> str:
    """The same without the middle of words of more than 500 letters, and of a text of more than 4,000.

    What fills a terminal, or is sent back as it came, hides what it is about.
    """
    text = re.sub(rf"\S{{{_LONGEST + 1},}}", lambda word: f"{word[0][:_ENDS]}…{word[0][-_ENDS:]}", text)
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]}…{text[-_MOST // 2 :]}"
