"""What the screen "Label" advises, without a screen."""

from __future__ import annotations

import pytest

from app.screens.classification_advice import advise, percent


@pytest.mark.parametrize(
    ("classes", "doubtful", "view", "text"),
    [
        ({}, 0, "groups", "Begin with a name"),
        ({"flag": 7}, 0, "groups", "Name a second class"),
        ({"flag": 7, "fruit": 1}, 1, "different", "Give “fruit” a second picture"),
        ({"flag": 7, "fruit": 7}, 1, "check", "Check 1 label that looks wrong"),
        ({"flag": 7, "fruit": 7}, 1_200, "check", "Check 1,200 labels that look wrong"),
        ({"flag": 70, "fruit": 30}, 0, "class", "Everything is labelled"),
        ({"flag": 7, "fruit": 2}, 0, "different", "Label what is most different"),
        ({"flag": 7, "fruit": 7}, 0, "unsure", "Label what is least sure"),
    ],
)
def test_what_to_do_next_follows_from_the_labels(classes: dict[str, int], doubtful: int, view: str, text: str) -> None:
    advice = advise(100, classes, None, doubtful)
    assert (advice["view"], advice["text"]) == (view, text)
    assert advice["why"]


def test_what_is_only_likely_is_never_called_certain() -> None:
    assert [percent(share) for share in (0.0, 0.004, 0.5, 0.996, 1.0)] == [1, 1, 50, 99, 99]
