"""Texts of the screen "Label" about a classification: what to do next, its accuracy, its method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from indexer.fewshot.classification import EXAMPLES, NONE, SAMPLE, WIDEST, Classification, ClassProposals
from indexer.store.labels import NONE_OF_THESE

DOUBT = "below the minimum probability"
UNLIKELY = 0.1  # probability under which no class is proposed for what is unlike all labelled
_HALF = 0.5  # probability from which a proposal is rather right than wrong


def advise(
    total: int, classes: Mapping[str, int], result: Classification | None, doubtful: int, complete: bool = False
) -> dict[str, str]:
    """What to do next, why, and in which view.

    Args:
        total: pictures in the collection.
        classes: how many of them carry each label.
        result: what was learnt from these, if there are two classes.
        doubtful: labels that look wrong.
        complete: whether somebody said that every kind there is has a name.

    Returns:
        `view`, `text` and `why`; and `question` where it is one that is answered by yes or no.
    """
    labelled = sum(classes.values())
    strange = _strange(result) if result is not None else 0
    if not classes:
        return {
            "view": "groups",
            "text": "Name the first class",
            "why": "The pictures of a group look similar. Name a group, or select pictures and name those.",
        }
    if len(classes) == 1:
        return {
            "view": "groups",
            "text": "Name a second class",
            "why": f"All labels so far are “{next(iter(classes))}”. Proposals need two classes.",
        }
    single = [name for name, number in classes.items() if number < 2 and name != NONE_OF_THESE]
    if single:
        return {
            "view": "different",
            "text": f"Label a second picture “{single[0]}”",
            "why": "The accuracy can only be measured with two labelled pictures of every class.",
        }
    if doubtful:
        return {
            "view": "check",
            "text": "Check 1 label that looks wrong" if doubtful == 1 else f"Check {doubtful:,} labels that look wrong",
            "why": "The other labels predict a different class here. One wrong label can cause many wrong proposals.",
        }
    if labelled >= total:
        return {"view": "class", "text": "Everything is labelled", "why": "Use Export to save the labels."}
    if labelled < 5 * len(classes) or strange > total / 5:
        return {
            "view": "different",
            "text": "Label diverse pictures",
            "why": "Many pictures differ from all labelled ones. Do some belong to a class that has no name yet?"
            if strange > total / 5
            else "With few labels, pictures that differ from the labelled ones help most.",
        }
    if result is not None and not result.drawn and result.needs != EXAMPLES:
        return _before_figures(result, complete)
    expected = result.expected(_HALF) if result is not None else None
    if expected and expected.accuracy >= 0.9 and result and result.interval and result.interval[0] >= 0.8:
        return {
            "view": "sure",
            "text": "Accept confident proposals, page by page",
            "why": "Most proposals are right. Select and reject the wrong ones, then accept the rest.",
        }
    return {
        "view": "unsure",
        "text": "Label uncertain pictures",
        "why": "They lie between classes, where a label helps most.",
    }


def _before_figures(result: Classification, complete: bool) -> dict[str, str]:
    """What to do before an accuracy is shown."""
    if result.needs == SAMPLE:
        return {
            "view": "drawn",
            "text": "Some kinds of pictures seem to have no class yet",
            "why": f"At least {percent(result.unnamed[0])} % of the unlabelled pictures differ from all labelled ones. "
            f"Label a random sample, and use “{NONE_OF_THESE}” (key 0) for pictures that fit no class.",
        }
    if not complete:
        return {
            "view": "drawn",
            "text": "Does every kind of picture have a class?",
            "why": "Every proposal is one of your classes. If a kind has no class, all its proposals are wrong.",
            "question": "kinds",
        }
    return {
        "view": "drawn",
        "text": "Label a random sample",
        "why": "Randomly chosen pictures measure how accurate the proposals are. Label every picture of the page; "
        f"“{NONE_OF_THESE}” (key 0) is for pictures that fit no class.",
    }


def estimate(result: Classification, sure: float) -> dict[str, Any]:
    """How right its proposals of at least this probability are: the number, what it is of, or why there is none.

    Returns:
        `share` and `interval`, in text, with `about`; or `why` there is none. `strange`: how many unlabelled pictures
        the number says nothing about, as they are unlike all labelled ones.
    """
    strange = _strange(result)
    missing = _missing(result)
    expected = None if missing else result.expected(sure)
    if expected is None:
        return {"share": None, "why": missing or "There is no proposal at this minimum.", "strange": strange}
    low, high = (round(100 * share) for share in expected.interval)
    return {
        "share": f"{percent(expected.accuracy)} %",
        "interval": f"95 % interval: {low} to {high} %",
        "about": f"of the {expected.images:,} proposals should be right"
        if expected.images != 1
        else "is how likely the one proposal is right",
        "strange": strange,
    }


def shares(result: Classification, sure: float) -> list[dict[str, Any]]:
    """Of each class, how many pictures carry its label and for how many it is proposed, in the order of the classes.

    Proposals are counted of pictures like the labelled ones, as the accuracy is. `NONE_OF_THESE` is no class.

    Returns:
        `name`, `labelled`, `proposed`, what to `expect` of the proposals as text, and whether they are `too_many`.
    """
    known = not _missing(result)  # as for the large number
    return [
        {
            "name": item.label,
            "labelled": int(result.counts.get(item.label, 0)),
            "proposed": item.proposed,
            "expect": _expect(item, sum(result.sampled.values()), known),
            "too_many": item.too_many,
        }
        for item in result.proposals(sure)
        if item.label != NONE_OF_THESE
    ]


def _expect(item: ClassProposals, sampled: int, known: bool) -> str:
    if item.too_many:
        return (
            f"{item.proposed:,} proposed, too often: the random sample ({item.sampled:,} of {sampled:,}) allows "
            f"at most {item.at_most:,}. Label some of these."
        )
    right = "" if item.right is None or not item.proposed or not known else f", about {item.right:,.0f} right"
    return f"{item.proposed:,} proposed{right}"


def doubt(familiar: bool, probability: float) -> dict[str, str]:
    """Why a proposal is unlikely, as `doubt`; nothing where it is likely."""
    if not familiar:
        return {"doubt": "unlike all labelled"}
    return {"doubt": "between classes"} if probability < _HALF else {}


def proposal(result: Classification, row: int) -> dict[str, str]:
    """The class that is proposed for a picture as `guess`, its probability as `score`, and why it is unlikely.

    Without `guess` where there is none: somebody rejected every class, or the picture is so unlike all labelled ones
    that any class would be chance, and be accepted with its page.
    """
    if result.predicted[row] == NONE:
        return {"hint": "You rejected every class"}
    probability = float(result.probability[row])
    why = doubt(bool(result.familiar[row]), probability)
    if not result.familiar[row] and probability < UNLIKELY:
        return why
    return {"guess": result.classes[result.predicted[row]], "score": f"{percent(probability)} %"} | why


def _missing(result: Classification) -> str:
    """What it takes until an accuracy is shown; empty where nothing is missing."""
    if result.needs == EXAMPLES:
        single = [name for name, number in sorted(result.counts.items()) if number < 2 and name != NONE_OF_THESE]
        return "Label at least two pictures of every class " + (
            f"(only one so far: {', '.join(single)})." if single else "by hand; accepted proposals do not count."
        )
    if not result.drawn or result.estimated_accuracy is None or result.interval is None:
        return "Label a page of the random sample to measure it."
    if not result.known_within(WIDEST):
        return f"{result.judged_on:,} pictures of the random sample are too few; label another page of it."
    return ""


def _strange(result: Classification) -> int:
    """How many unlabelled pictures are unlike all labelled ones: one number, wherever the screen says it."""
    return int((~result.familiar & ~result.labelled).sum())


def summary(result: Classification, sure: float) -> list[str]:
    """How the accuracy was measured, and how many pictures have which state, one sentence per line."""
    labelled = sum(result.counts.values())
    lines = []
    if missing := _missing(result):
        lines.append(f"Accuracy: not known yet. {missing}")
    elif result.estimated_accuracy is not None and result.interval is not None:
        low, high = (round(100 * share) for share in result.interval)
        lines.append(
            f"Measured on {result.judged_on:,} pictures of the random sample, each predicted from the other labels: "
            f"{percent(result.estimated_accuracy)} % ({low} to {high} %)."
        )
    strange = _strange(result)
    if strange:
        many = "1 picture differs" if strange == 1 else f"{strange:,} pictures differ"
        lines.append(
            f"{many} from all labelled ones; the accuracy says nothing about {'it' if strange == 1 else 'them'}."
        )
    has = int((result.sure(sure) & ~result.labelled).sum())
    left = len(result.images) - labelled - has
    lines.append(f"{labelled:,} labelled by hand, {has:,} proposed, {left:,} {DOUBT}.")
    return lines


def methods(result: Classification) -> str:
    """The classifier, and the accuracy of the others."""
    if not result.compared:
        return f"Classifier: {result.method}."
    each = ", ".join(f"{item.method} {100 * item.accuracy:.0f} %" for item in result.compared)
    return (
        f"Classifier: {result.method}. It was right most often when each labelled picture was predicted from the "
        f"others ({each})."
    )


def percent(probability: float) -> int:
    """Whole percent; never 100 for what is only likely, never 0 for what is only unlikely."""
    return min(99, max(1, round(100 * probability)))
