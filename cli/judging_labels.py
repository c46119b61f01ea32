"""Which labels judge a training: those of `--labels`, or of the collection that the folder of images has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from massl.evaluation.datasets import LabelledFiles

ENOUGH = 10  # labelled images of a class: half of them are looked up among the others, so each tells a fifth or less
NONE = "none"  # of --labels: judge by none


def choose_labels(images: Path, given: Path | None, resume: Path | None) -> tuple[Path | LabelledFiles | None, str]:
    """What a run is judged by, and a line about that; the line is empty where there is nothing to say.

    Args:
        images: that are trained on.
        given: `--labels`.
        resume: a run to go on with. It stays with its own kind of labels unless a folder is given.

    Raises:
        MasslError: `given` holds too few labelled images, or can't be read.
        BadParameter: a run that goes on can't be judged by no labels if it began with some.
    """
    from massl.core.files.run_folder import describe_run
    from massl.core.files.scan import CATALOG, INDEX
    from massl.training.probe import OF_A_COLLECTION, find_classes

    if given is not None and str(given) != NONE:
        find_classes(given)
        return given, ""
    began_with = None
    if resume and (resume / "config.toml").exists():
        began_with = describe_run(resume).get("labels", "")
        if given and began_with:
            raise typer.BadParameter("a run that goes on is judged as it began; leave --labels none out")
    if given or began_with not in (None, OF_A_COLLECTION) or not (images / INDEX / CATALOG).exists():
        return None, ""
    return _of_collection(images)


def _of_collection(images: Path) -> tuple[LabelledFiles | None, str]:
    """The labels that people gave in the collection of a folder, of classes with enough images that are still there."""
    from indexer import Collection
    from indexer.store.labels import NONE_OF_THESE
    from massl.core.errors import MasslError
    from massl.core.files.scan import INDEX
    from massl.core.images.plane_files import is_there
    from massl.evaluation.datasets import LabelledFiles

    where = images / INDEX
    try:
        collection = Collection.open(images)
        try:
            labels = [label for label in collection.labels.every() if label.label != NONE_OF_THESE]
        finally:
            collection.close()
    except MasslError as error:  # which is no reason not to learn
        return None, f"not judged by the labels in {where}, which can't be read: {error}"
    if not labels:
        return None, ""
    given = len(labels)
    labels = [label for label in labels if is_there(images / label.path)]
    gone = f", {given - len(labels):,} of them of images that have gone" if len(labels) < given else ""
    counts = Counter(label.label for label in labels)
    kept = [label for label in labels if counts[label.label] >= ENOUGH]
    classes = len({label.label for label in kept})
    if classes < 2:
        return None, (
            f"not judged by the {given:,} labels in {where}{gone}: at least two classes must have {ENOUGH} labelled "
            "images each; massl label add gives more"
        )
    small = len(counts) - classes
    left_out = f"; {small:,} with fewer than {ENOUGH} images left out" if small else ""
    said = (
        f"judged by {len(kept):,} labels of {classes:,} classes in {where}{left_out}. It doesn't learn from them; "
        "--labels none ignores them"
    )
    paths, names = (tuple(getattr(label, name) for label in kept) for name in ("path", "label"))
    return LabelledFiles(f"the labels in {where}", images, paths, names), said
