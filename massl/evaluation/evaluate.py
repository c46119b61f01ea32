"""One task on one set of images, by every encoder: what `massl eval` measures, from files to results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from massl.core.errors import MasslError
from massl.core.images.file_reading import read_bytes
from massl.core.images.ranges import RangeSampler, settled
from massl.core.images.rendering import Rendering
from massl.core.images.rendering_facts import BY_EACH_FILE, ShownAs
from massl.core.similarities import nearest
from massl.evaluation.copies import copy_detection, pairs
from massl.evaluation.datasets import (
    Embedded,
    LabelledFiles,
    is_pair_list,
    read_images,
    read_labelled,
    read_pairs,
    read_table,
)
from massl.evaluation.edits import EDITS
from massl.evaluation.edits import edited as edit
from massl.evaluation.encoders import EncoderUnderTest, OpenProgress
from massl.evaluation.results import EvaluationResult, Sought
from massl.evaluation.revisited import read_ground_truth
from massl.evaluation.tasks import Labelled, ProtocolOptions, TaskResult, describe_copies, measure, measure_revisited


def evaluate(
    task: str,
    path: Path,
    encoders: Sequence[EncoderUnderTest],
    choices: ProtocolOptions,
    ground_truth: Path | None,
    edited: int,
    min_images: int,
    progress: OpenProgress,
    shown: ShownAs = BY_EACH_FILE,
) -> list[EvaluationResult]:
    """What every encoder makes of one set of images, or of one table of embeddings.

    Args:
        task: one of `massl.evaluation.tasks.TASKS`, or `copies`.
        path: the set: a folder, a CSV file, a list of pairs, or an `.npz` table, which is its own encoder.
        encoders: those to measure; none where every set is a table.
        choices: what may be changed of the protocols.
        ground_truth: that of Revisited Oxford or Paris, `path` being its images.
        edited: of `copies`, how many images are edited.
        min_images: classes of fewer are left out.
        progress: begins a line of progress.
        shown: how deep files and stacks are shown; ranges that it doesn't know are measured on the set.

    Raises:
        MasslError: the set can't be read, or is not what the task needs.
    """
    if ground_truth:
        return [_revisited(path, tested, ground_truth, progress) for tested in encoders]
    if task == "copies":
        if path.suffix.lower() == ".npz":
            raise MasslError(f"{path}: `copies` needs pictures; give a folder of images, or a list of pairs")
        how = _pairs if is_pair_list(path) else _copies
        return [how(path, tested, edited, choices.seed, progress, shown) for tested in encoders]
    if path.suffix.lower() == ".npz":
        table = read_table(path)
        found = table.labelled(min_images)
        return [
            EvaluationResult(
                table.name, EncoderUnderTest(table.name, table), _run(task, found, choices, table.name, progress), found
            )
        ]
    if is_pair_list(path):
        raise MasslError(f"{path} is a list of pairs, which `massl eval copies` measures; {task} needs labels")
    files = read_labelled(path, shown).without_small(min_images)
    return evaluate_files(task, files, encoders, choices, progress, shown)


def evaluate_files(
    task: str,
    files: LabelledFiles,
    encoders: Sequence[EncoderUnderTest],
    choices: ProtocolOptions,
    progress: OpenProgress,
    shown: ShownAs = BY_EACH_FILE,
) -> list[EvaluationResult]:
    """What every encoder makes of labelled images; see `evaluate`."""
    rendering = _rendering(files.root, files.paths, shown)
    results = []
    for tested in (each.showing(rendering) for each in encoders):
        found = tested.embed(files, progress)
        measured = _run(task, found, choices, tested.name, progress)
        results.append(EvaluationResult(files.name, tested, measured, found, files.root))
    return results


def _rendering(root: Path, paths: Sequence[str], shown: ShownAs) -> Rendering:
    """With the ranges of these files, where they are to share one."""
    sampler = RangeSampler(len(paths), paths.__getitem__, lambda at: read_bytes(root / paths[at]))
    return settled(shown, sampler).rendering()


def _run(task: str, found: Embedded, choices: ProtocolOptions, name: str, progress: OpenProgress) -> TaskResult:
    data = Labelled(found.vectors, found.labels, found.classes, found.train)
    with progress(f"Measuring {name}", "rounds") as line:
        return measure(task, data, choices, line.update)


def _copies(
    path: Path, tested: EncoderUnderTest, edited: int, seed: int, progress: OpenProgress, shown: ShownAs
) -> EvaluationResult:
    """Edited copies of some of the images, looked for among all of them."""
    files = read_labelled(path) if path.suffix.lower() == ".csv" else read_images(path, shown)
    tested = tested.showing(_rendering(files.root, files.paths, shown))
    references, rows, skipped = tested.embed_paths(files.root, files.paths, progress)
    if len(rows) < 2:
        raise MasslError(f"{path} holds a single image; copies need other images to search among")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:edited])
    encoder = tested.encoder("copies are made from pictures")
    with progress(f"Editing for {tested.name}", "images") as line:
        edits = [lambda picture, row, name=name: edit(picture, name, seed, row) for name in EDITS]
        paths = [files.paths[rows[row]] for row in chosen]
        queries = encoder.embed_edited(files.root, paths, edits, line.update).reshape(-1, encoder.dim)
    groups = np.tile(np.arange(len(EDITS)), len(chosen))
    found = copy_detection(queries, np.repeat(chosen, len(EDITS)), references, groups)
    metrics = {
        **describe_copies(found[-1]),
        "queries": len(queries),
        "edits": {name: describe_copies(found[which]) for which, name in enumerate(EDITS)},
    }
    protocol = f"{len(chosen):,} images, each edited {len(EDITS)} ways by seed {seed}, sought among all {len(rows):,}"
    nothing = np.empty(0, np.int64)
    best, scores = nearest(queries, references, 1)

    def sought(query: int) -> Sought:
        number, name = query // len(EDITS), list(EDITS)[query % len(EDITS)]
        original = paths[number]
        return Sought(
            name, original, files.paths[rows[best[query, 0]]],
            float(queries[query] @ references[chosen[number]]), float(scores[query, 0]),
            lambda: edit(encoder.open_to_edit(files.root / original), name, seed, number),
        )  # fmt: skip

    return EvaluationResult(
        files.name, tested, TaskResult(metrics, protocol, nothing, nothing), None, files.root, len(rows), None,
        (*files.skipped, *skipped), [sought(query) for query in range(len(queries))],
    )  # fmt: skip


def _pairs(
    path: Path, tested: EncoderUnderTest, edited: int, seed: int, progress: OpenProgress, shown: ShownAs
) -> EvaluationResult:
    """Whether the images of a pair are the same, for a list of pairs."""
    listed = read_pairs(path)
    tested = tested.showing(_rendering(listed.root, listed.paths, shown))
    vectors, rows, skipped = tested.embed_paths(listed.root, listed.paths, progress)
    if skipped:
        raise MasslError(f"{path} names {skipped[0].path!r}, which can't be used: {skipped[0].reason}")
    scores = (vectors[listed.first] * vectors[listed.second]).sum(1)
    found, area = pairs(scores, listed.same)
    metrics = {**describe_copies(found), "roc_auc": area, "pairs": len(scores), "same": int(listed.same.sum())}
    nothing = np.empty(0, np.int64)
    protocol = f"{len(scores):,} pairs of {len(rows):,} images, {int(listed.same.sum()):,} of them the same"
    return EvaluationResult(
        listed.name, tested, TaskResult(metrics, protocol, nothing, nothing), None, listed.root, len(rows), None
    )


def _revisited(path: Path, tested: EncoderUnderTest, ground_truth: Path, progress: OpenProgress) -> EvaluationResult:
    """The published benchmark, on the user's copy of its images."""
    truth = read_ground_truth(ground_truth)
    images, queries = tested.embed_landmarks(path, truth, progress)
    landmarks = len({name.rstrip("0123456789").rstrip("_") for name in truth.query_images})
    measured = measure_revisited(queries, images, truth)
    return EvaluationResult(ground_truth.stem, tested, measured, None, path, len(images), landmarks)
