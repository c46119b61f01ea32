"""`massl classify`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from cli.configuration import Harmless
from cli.options import ImagesArgument, IndexDir, Json, Quiet, Verbose, open_embedded


def command(
    images: ImagesArgument,
    sure: Annotated[
        float,
        typer.Option(
            "--sure",
            min=0.0,
            max=1.0,
            help="The least probability of a prediction; less likely ones, and images unlike all labelled ones, are "
            "left without a class.",
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

    Examples: massl classify ./photos · massl classify ./photos --sure 0.9 · massl classify ./photos --json > all.json
    """
    from cli.terminal import print_json, print_line, say
    from indexer.fewshot.classification import SAMPLE
    from indexer.json_results import of_classification
    from massl.core.printable import visible

    collection = open_embedded(images, index_dir, quiet)
    result = collection.fewshot.classify()
    described = of_classification(collection, result, sure)
    if as_json:
        print_json(described)
        return
    for row in described["predictions"]:
        print_line(f"{visible(row['label'] or '')}\t{row['probability']:.3f}\t{visible(row['path'])}")
    counts = ", ".join(f"{label} {count}" for label, count in result.counts.items())
    say(f"from {sum(result.counts.values())} labels ({counts})", quiet)
    if described["unsure"]:
        say(f"{described['unsure']} left without a class", quiet)
    if described["unfamiliar"]:
        say(
            f"{described['unfamiliar']} of {len(result.images)} images are unlike all labelled ones: the estimate says "
            "nothing of them, and --sure leaves them without a class",
            quiet,
        )
    if result.needs == SAMPLE:
        say(f"{result.unnamed[0]:.0%} or more of the unlabelled images seem to be of kinds without a label", quiet)
    if result.estimated_accuracy is None or result.interval is None:
        say(f"no estimate of the accuracy: {described['needs']}", quiet)
        if result.needs == SAMPLE:
            say(f"to draw a sample: massl label sample {shlex.quote(str(images))} > sample.csv", quiet)
        return
    if not result.drawn:
        say("Did you name every kind there is? These figures hold only if you did:", quiet)
    if expected := result.expected(sure):
        low, high = expected.interval
        say(
            f"about {expected.accuracy:.0%} (very likely {low:.0%} to {high:.0%}) of the {expected.images} predictions "
            f"for {'images like the labelled ones' if not sure else f'which it is at least {sure:.0%} sure'} are right",
            quiet,
        )
    low, high = result.interval
    estimate = f"{result.estimated_accuracy:.0%} ({low:.0%} to {high:.0%})"
    which = f"{result.judged_on} images that chance has drawn" if result.drawn else "your own labelled images"
    say(f"on {which}, each hidden in turn: {estimate}, by cross-validation", quiet)
    others = ", ".join(f"{other.method} {other.accuracy:.0%}" for other in result.compared[1:])
    say(f"by {result.method}, right on {result.compared[0].accuracy:.0%} of held-out labels ({others})", quiet)
