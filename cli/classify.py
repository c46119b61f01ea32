"""`massl classify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.options import Images, IndexDir, Json, Quiet, Verbose

if TYPE_CHECKING:
    from indexer import Collection
    from indexer.classify import Classification


def command(
    images: Images, index_dir: IndexDir = None, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Classify every image from the labels given so far.

    Examples: massl classify ./photos · massl classify ./photos --json > predictions.json
    """
    from cli.terminal import print_json, print_line, say
    from indexer import Collection

    collection = Collection.open(images, index_dir)
    result = collection.classify()
    described = describe(collection, result)
    if as_json:
        print_json(described)
        return
    for row in described["predictions"]:
        print_line(f"{row['label']}\t{row['probability']:.3f}\t{row['path']}")
    counts = ", ".join(f"{label} {count}" for label, count in result.counts.items())
    say(f"from {sum(result.counts.values())} labels ({counts})", quiet)
    if result.estimated_accuracy is None:
        say("no estimate of the accuracy: give every class at least two examples", quiet)
    else:
        say(f"estimated accuracy {result.estimated_accuracy:.0%}, by cross-validation on the labels", quiet)


def describe(collection: Collection, result: Classification) -> dict[str, Any]:
    """The JSON of a classification."""
    rows = zip(collection.paths_of(result.images.tolist()), result.predicted, result.probability, strict=True)
    return {
        "labels": result.counts,
        "estimated_accuracy": result.estimated_accuracy,
        "predictions": [
            {"path": path, "label": result.classes[label], "probability": round(float(probability), 4)}
            for path, label, probability in rows
        ],
    }
