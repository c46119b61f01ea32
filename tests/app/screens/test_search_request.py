"""What an address or a script may ask for, and what is said where it makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from app.screens.search_request import question
from massl.core.errors import MasslError


def asked(**payload: Any) -> Any:
    return question(payload, lambda content: 1, lambda names: ())


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ({"sort": "zzz"}, "no order 'zzz' .sort= in the address.; there are: newest"),
        ({"examples": [{"content": "1", "part": [None, None, 1, 1]}]}, "A part of a picture .after the @"),
        ({"examples": [{"content": "1", "part": [0, 0, 1]}]}, "A part of a picture .after the @"),
        ({"examples": [{"content": "1", "part": [0, 0, 1, 10**400]}]}, "A part of a picture .after the @"),
        ({"examples": [{"content": "1", "part": [0, 0, 1, float("inf")]}]}, "A part of a picture .after the @"),
        ({"labels": ["a\0"]}, "No label is called 'a.'; change it in the address"),
        ({"folders": ["x" * 5_000]}, "No folder is called 'xxxxxxxxxxxxxxxxxxxx'; change"),
        ({"tags": ["x"] * 1_001}, "at most 1,000 labels"),
        ({"since": "1999"}, "a date is written YYYY-MM-DD"),
        ({"since": "x" * 5_000}, "No date is called"),
    ],
)
def test_what_an_address_asks_in_vain_is_named(payload: dict[str, Any], named: str) -> None:
    with pytest.raises(MasslError, match=named):
        asked(**payload)


def test_a_part_is_kept_within_its_picture() -> None:
    (example,) = asked(examples=[{"content": "1", "part": [0.5, -1, 2, 0.5]}], sort="newest").examples
    assert example.part == (0.5, 0.0, 0.5, 0.5)
