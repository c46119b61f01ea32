"""What the screen "Label" advises, without a screen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.screens.classification_advice import advise, doubt, estimate, percent, shares, summary
from indexer.fewshot.classification import Classification, classify
from indexer.store.labels import NONE_OF_THESE
from tests.indexer.kinds import kinds, labels_of


@pytest.mark.parametrize(
    ("classes", "doubtful", "view", "text"),
    [
        ({}, 0, "groups", "Name the first class"),
        ({"flag": 7}, 0, "groups", "Name a second class"),
        ({"flag": 7, "fruit": 1}, 1, "different", "Label a second picture “fruit”"),
        ({"flag": 7, "fruit": 7}, 1, "check", "Check 1 label that looks wrong"),
        ({"flag": 7, "fruit": 7}, 1_200, "check", "Check 1,200 labels that look wrong"),
        ({"flag": 70, "fruit": 30}, 0, "class", "Everything is labelled"),
        ({"flag": 7, "fruit": 2}, 0, "different", "Label diverse pictures"),
        ({"flag": 7, "fruit": 7}, 0, "unsure", "Label uncertain pictures"),
        ({"flag": 7, "fruit": 7, "none of these": 1}, 0, "unsure", "Label uncertain pictures"),
    ],
)
def test_what_to_do_next_follows_from_the_labels(classes: dict[str, int], doubtful: int, view: str, text: str) -> None:
    advice = advise(100, classes, None, doubtful)
    assert (advice["view"], advice["text"]) == (view, text)
    assert advice["why"]


def _result(named: int, drawn: int = 0) -> Classification:
    """From ten labels of each of so many of eight kinds, and of so many images of a random sample."""
    ids, vectors, targets = kinds(500, 8, seed=4, dim=48, spread=0.5)
    some = targets < named
    labels = labels_of(ids[some], targets[some], 10)
    free = np.flatnonzero(~np.isin(ids, list(labels)))
    sample = np.random.default_rng(0).choice(free, drawn, replace=False)
    answers = {int(ids[row]): "abcdefgh"[targets[row]] if some[row] else NONE_OF_THESE for row in sample}
    return classify(ids, vectors, labels | answers, drawn=set(answers))


def test_every_kind_is_asked_for_and_a_random_sample_labelled_before_any_figure_is_shown() -> None:
    result = _result(8)
    classes = result.counts
    asked = advise(500, classes, result, 0)
    assert (asked["text"], asked["question"]) == ("Does every kind of picture have a class?", "kinds")
    answered = advise(500, classes, result, 0, complete=True)
    assert (answered["view"], answered["text"]) == ("drawn", "Label a random sample")
    assert "%" not in summary(result, 0.5)[0]
    unknown = estimate(result, 0.5)
    assert (unknown["share"], unknown["why"]) == (None, "Label a page of the random sample to measure it.")
    sampled = _result(8, drawn=24)
    assert advise(500, sampled.counts, sampled, 0)["view"] in ("sure", "unsure", "different")
    known, expected = estimate(sampled, 0.5), sampled.expected(0.5)
    assert expected is not None
    assert known["share"] == f"{percent(expected.accuracy)} %"
    assert known["about"] == f"of the {expected.images} proposals should be right"
    low, high = (round(100 * share) for share in expected.interval)
    assert known["interval"] == f"95 % interval: {low} to {high} %"
    assert summary(sampled, 0.5)[0].startswith("Measured on 24 pictures of the random sample")


def test_kinds_without_a_name_are_noticed_whatever_was_answered() -> None:
    result = _result(3)
    strange = int((~result.familiar).sum())
    advice = advise(max(500, 5 * strange), result.counts, result, 0, complete=True)
    assert (advice["view"], advice["text"]) == ("drawn", "Some kinds of pictures seem to have no class yet")
    told = estimate(result, 0.5)
    assert (told["share"], told["strange"]) == (None, int((~result.familiar & ~result.labelled).sum()))
    assert told["strange"] > 0


def test_the_bar_and_what_unfolds_below_it_give_one_number_of_unlike_pictures() -> None:
    result = _result(3)
    odd = int(np.flatnonzero(result.labelled)[0])  # "none of these" is often unlike all others
    result = replace(result, familiar=np.where(np.arange(len(result.images)) == odd, False, result.familiar))
    strange = estimate(result, 0.5)["strange"]
    assert any(line.startswith(f"{strange} pictures differ from all labelled ones") for line in summary(result, 0.5))


def test_a_sample_that_leaves_half_of_all_open_shows_no_figure() -> None:
    result = replace(_result(8, drawn=24), interval=(0.2, 0.8))
    assert "are too few" in estimate(result, 0.5)["why"]
    assert estimate(result, 0.5)["share"] is None


def test_a_bar_stands_for_each_class_and_none_of_these_is_no_class() -> None:
    result = _result(3, drawn=24)
    assert NONE_OF_THESE in result.classes
    bars = shares(result, 0.5)
    assert [bar["name"] for bar in bars] == ["a", "b", "c"]
    assert [bar["labelled"] for bar in bars] == [result.counts[name] for name in "abc"]
    has = result.sure(0.5) & ~result.labelled & result.familiar
    named = [result.classes.index(name) for name in "abc"]
    assert [bar["proposed"] for bar in bars] == [int((has & (result.predicted == at)).sum()) for at in named]
    told = {item.label: item for item in result.proposals(0.5)}
    assert result.estimated_accuracy is not None
    known = estimate(result, 0.5)["share"] is not None
    for bar in bars:
        item = told[bar["name"]]
        about = f", about {item.right:,.0f} right" if item.proposed and known else ""
        assert bar["expect"] == (f"{item.proposed:,} proposed{about}")
        assert not bar["too_many"]


def test_a_class_that_is_proposed_too_often_is_warned_of() -> None:
    # The sample of 24 has no "c": at most some three in twenty can be one, and far more are proposed here.
    result = _result(3, drawn=24)
    often = replace(
        result,
        predicted=np.full_like(result.predicted, result.classes.index("c")),
        probability=np.full_like(result.probability, 0.9),
        sampled={"a": 12, "b": 12, "c": 0},
    )
    (bar,) = [bar for bar in shares(often, 0.5) if bar["name"] == "c"]
    (item,) = [item for item in often.proposals(0.5) if item.label == "c"]
    assert bar["too_many"]
    assert bar["expect"] == (
        f"{item.proposed:,} proposed, too often: the random sample (0 of 24) allows at most {item.at_most:,}. "
        "Label some of these."
    )


def test_an_unlikely_proposal_says_why() -> None:
    assert doubt(familiar=False, probability=0.05) == {"doubt": "unlike all labelled"}
    assert doubt(familiar=True, probability=0.4) == {"doubt": "between classes"}
    assert doubt(familiar=True, probability=0.9) == {}


def test_what_is_only_likely_is_never_called_certain() -> None:
    assert [percent(share) for share in (0.0, 0.004, 0.5, 0.996, 1.0)] == [1, 1, 50, 99, 99]
