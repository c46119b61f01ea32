"""What the screen "Label" says of a classification: what to do next, how good it is, how it was made."""

from __future__ import annotations

from collections.abc import Mapping

from indexer.fewshot.classification import EXAMPLES, SAMPLE, WIDEST, Classification
from indexer.store.labels import NONE_OF_THESE

DOUBT = "without a class"
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
    strange = int((~result.familiar).sum()) if result is not None else 0
    if not classes:
        return {
            "view": "groups",
            "text": "Begin with a name",
            "why": "These pictures look alike. Name a group, or select pictures and name those.",
        }
    if len(classes) == 1:
        return {
            "view": "groups",
            "text": "Name a second class",
            "why": f"So far every label is “{next(iter(classes))}”. With a second class the rest can be sorted.",
        }
    single = [name for name, number in classes.items() if number < 2 and name != NONE_OF_THESE]
    if single:
        return {
            "view": "different",
            "text": f"Give “{single[0]}” a second picture",
            "why": "Only then can anybody tell how well the classes are told apart.",
        }
    if doubtful:
        return {
            "view": "check",
            "text": "Check 1 label that looks wrong" if doubtful == 1 else f"Check {doubtful:,} labels that look wrong",
            "why": "The others would have named these pictures differently. One wrong label misleads many proposals.",
        }
    if labelled >= total:
        return {"view": "class", "text": "Everything is labelled", "why": "Export takes the labels away."}
    if labelled < 5 * len(classes) or strange > total / 5:
        return {
            "view": "different",
            "text": "Label what is most different",
            "why": "Many pictures are unlike all that you labelled so far. Is there a class among them without a name?"
            if strange > total / 5
            else "Pictures unlike those that you labelled teach most while there are few labels.",
        }
    if result is not None and not result.drawn and result.needs != EXAMPLES:
        return _before_figures(result, complete)
    expected = result.expected(_HALF) if result is not None else None
    if expected and expected.accuracy >= 0.9 and result and result.interval and result.interval[0] >= 0.8:
        return {
            "view": "sure",
            "text": "Accept what is most sure, page by page",
            "why": "The proposals are mostly right: select those that aren't and reject them, accept the others.",
        }
    return {
        "view": "unsure",
        "text": "Label what is least sure",
        "why": "That is where the classes touch, and where a label teaches most.",
    }


def _before_figures(result: Classification, complete: bool) -> dict[str, str]:
    """What to do before anything is said of how good the proposals are."""
    if result.needs == SAMPLE:
        return {
            "view": "drawn",
            "text": "Some kinds of pictures seem to have no name yet",
            "why": f"{percent(result.unnamed[0])} % or more of the pictures without a label are unlike all that you "
            f"labelled. Name those of a random sample, and give “{NONE_OF_THESE}” (key 0) to what fits no class.",
        }
    if not complete:
        return {
            "view": "drawn",
            "text": "Did you name every kind there is?",
            "why": "Every proposal is one of your classes. If kinds are missing, all proposals for these are wrong.",
            "question": "kinds",
        }
    return {
        "view": "drawn",
        "text": "Label a random sample",
        "why": "Pictures that nobody chose tell how good the proposals are. Label every one of a page; "
        f"“{NONE_OF_THESE}” (key 0) is for what fits no class.",
    }


def summary(result: Classification, sure: float) -> list[str]:
    """How good its proposals of at least this probability are, and how many there are, a sentence a line."""
    labelled = sum(result.counts.values())
    lines = []
    if result.needs == EXAMPLES:
        single = [name for name, number in sorted(result.counts.items()) if number < 2 and name != NONE_OF_THESE]
        lines.append(
            "How good are the proposals? That can't be said yet: give every class at least two labelled pictures "
            + (f"(so far only one: {', '.join(single)})." if single else "by hand, not by accepting proposals.")
        )
    elif not result.drawn or result.estimated_accuracy is None or result.interval is None:
        lines.append("How good are the proposals? That can be said once you labelled a page of the random sample.")
    elif not result.known_within(WIDEST):
        lines.append(
            f"How good are the proposals? {result.judged_on:,} pictures of the random sample tell too little yet: "
            "label another page of it."
        )
    else:
        if expected := result.expected(sure):
            likely, (low, high) = percent(expected.accuracy), (round(100 * share) for share in expected.interval)
            about = f"About {likely} % of the {expected.images:,} proposals should be right"
            if expected.images == 1:
                about = f"The one proposal should be right, by about {likely} %"
            lines.append(f"{about} (very likely {low} to {high} %).")
        hidden, (low, high) = percent(result.estimated_accuracy), (round(100 * share) for share in result.interval)
        lines.append(
            f"Of {result.judged_on:,} pictures of the random sample, each hidden in turn, "
            f"{hidden} % ({low} to {high} %)."
        )
    strange = int((~result.familiar).sum())
    if strange:
        many = "1 picture is" if strange == 1 else f"{strange:,} pictures are"
        lines.append(f"{many} unlike all that you labelled: nothing can be said of {'it' if strange == 1 else 'them'}.")
    has = int((result.sure(sure) & ~result.labelled).sum())
    left = len(result.images) - labelled - has
    lines.append(f"{labelled:,} labelled by hand, {has:,} proposed, {left:,} {DOUBT} as yet.")
    return lines


def methods(result: Classification) -> str:
    """How the classes were told apart, and how well other ways did."""
    if not result.compared:
        return f"Told apart by {result.method}."
    each = ", ".join(f"{item.method} {100 * item.accuracy:.0f} %" for item in result.compared)
    return (
        "Each labelled picture was hidden in turn and named from the others. Told apart by "
        f"{result.method}, which named most of them rightly ({each})."
    )


def percent(probability: float) -> int:
    """Whole percent; never 100 for what is only likely, never 0 for what is only unlikely."""
    return min(99, max(1, round(100 * probability)))
