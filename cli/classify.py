"""`massl classify`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.options import ImagesArgument, IndexDir, Json, Quiet, Verbose, open_embedded

if TYPE_CHECKING:
    from indexer.fewshot.classification import Classification

SHOWN = 10  # classes at most that are told of one by one


def command(
    images: ImagesArgument,
    min_probability: Annotated[
        float,
        typer.Option(
            "--min-probability",
            min=0.0,
            max=1.0,
            help="Minimum probability of a prediction. Less likely predictions, and images unlike all labelled ones, "
            "get no class.",
            show_default=False,
        ),
        Harmless(),
    ] = 0.0,
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Classify every image from the labels given so far.

    Examples: massl classify ./photos · massl classify ./photos --min-probability 0.9 · massl classify ./photos
    --json > all.json
    """
    from cli.terminal import print_json, print_line, say
    from indexer.fewshot.classification import SAMPLE
    from indexer.json_results import of_classification
    from massl.core.printable import visible

    collection = open_embedded(images, index_dir, quiet)
    result = collection.fewshot.classify()
    described = of_classification(collection, result, min_probability)
    if as_json:
        print_json(described)
        _warn(result, described, quiet)
        return
    for row in described["predictions"]:
        print_line(f"{visible(row['label'] or '')}\t{row['probability']:.3f}\t{visible(row['path'])}")
    counts = ", ".join(f"{label} {count}" for label, count in result.counts.items())
    say(f"from {sum(result.counts.values())} labels ({counts})", quiet)
    if described["unsure"]:
        say(f"{described['unsure']} below --min-probability, without a class", quiet)
    _tell_of_classes(result, min_probability, verbose, quiet)
    _warn(result, described, quiet)
    if result.estimated_accuracy is None or result.interval is None:
        say(f"no estimate of the accuracy: {described['needs']}", quiet)
        if result.needs == SAMPLE:
            say(f"to draw a sample: massl label sample {shlex.quote(str(images))} > sample.csv", quiet)
        return
    if not result.drawn:
        say("These figures hold only if every kind of image has a label:", quiet)
    if expected := result.expected(min_probability):
        low, high = expected.interval
        least = f" of at least {min_probability:.0%}" if min_probability else ", for images like the labelled ones"
        say(
            f"expected accuracy: {expected.accuracy:.0%} (95% interval {low:.0%} to {high:.0%}) of {expected.images} "
            f"predictions{least}",
            quiet,
        )
    low, high = result.interval
    estimate = f"{result.estimated_accuracy:.0%} ({low:.0%} to {high:.0%})"
    which = f"{result.judged_on} images of the random sample" if result.drawn else "your labelled images"
    say(f"cross-validated accuracy: {estimate}, on {which}", quiet)
    others = ", ".join(f"{other.method} {other.accuracy:.0%}" for other in result.compared[1:])
    say(
        f"classifier: {result.method}, chosen at {result.compared[0].accuracy:.0%} of held-out labels ({others})", quiet
    )


def _warn(result: Classification, described: Mapping[str, Any], quiet: bool) -> None:
    """What predictions are not to be believed, whoever reads them."""
    from cli.terminal import say
    from indexer.fewshot.classification import SAMPLE

    if described["unfamiliar"]:
        say(
            f"{described['unfamiliar']} of {len(result.images)} images are unlike all labelled ones; the estimate does "
            "not cover them, and --min-probability gives them no class; --json says which",
            quiet,
        )
    if result.needs == SAMPLE:
        say(f"{result.unnamed[0]:.0%} or more of the unlabelled images seem to be of kinds without a label", quiet)


def _tell_of_classes(result: Classification, min_probability: float, verbose: bool, quiet: bool) -> None:
    """How many images are proposed as each class, of which how many should be right; of few classes, or with -v."""
    from cli.terminal import say
    from massl.core.printable import visible

    classes = result.proposals(min_probability)
    for item in classes:
        if item.too_many:
            say(
                f"{visible(item.label)} is proposed too often: {item.proposed:,} times, while the random sample "
                f"({item.sampled:,} of {sum(result.sampled.values()):,}) allows at most {item.at_most:,}; label some "
                "of these",
                quiet,
            )
        elif len(classes) <= SHOWN or verbose:
            right = "" if item.right is None else f", of which about {item.right:,.0f} right"
            say(f"  {visible(item.label)}: {item.proposed:,} proposed{right}", quiet)
