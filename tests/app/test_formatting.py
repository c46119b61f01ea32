"""Texts of the page: errors as sentences."""

from __future__ import annotations

import pytest

from app.formatting import of_readable, readable, sentence


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("too many uploads", "Too many uploads."),
        ("damaged: it ends early!", "Damaged: it ends early!"),
        ("near-copies aren't shown", "Near-copies aren't shown."),
        ("photos/.massl can't be written", "photos/.massl can't be written."),
        ("cat.jpg is not in the index", "cat.jpg is not in the index."),
        ("min_probability must be from 0 to 1", "min_probability must be from 0 to 1."),
        ("--port takes 0 to 65535", "--port takes 0 to 65535."),
        ("massl info says why", "massl info says why."),
        ("'x' is no label", "'x' is no label."),
        ("", "."),
    ],
)
def test_a_sentence_begins_with_a_capital_unless_it_begins_with_a_name(text: str, shown: str) -> None:
    assert sentence(text) == shown


def test_a_sentence_quotes_little() -> None:
    assert len(sentence(f"there is no label {'z' * 100_000!r}")) < 1_000
    assert len(sentence("there is no label " + "z z" * 100_000)) < 5_000


def test_bytes_that_are_no_utf8_come_back_from_text() -> None:
    for path in ("caf\udce9/\udcff\udc80.jpg", "plain.jpg", r"back\slash.jpg"):
        assert of_readable(readable(path)) == path
