"""`massl eval`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import Harmless
from cli.options import Json, Quiet, Runtime, RuntimeOption, Verbose

if TYPE_CHECKING:
    from cli.encoders import Judge
    from cli.report import Result
    from massl.evaluation.tasks import Choices


class Task(StrEnum):
    """What is measured."""

    knn = "knn"
    linear = "linear"
    fewshot = "fewshot"
    low_shot = "low-shot"
    retrieval = "retrieval"
    clustering = "clustering"
    copies = "copies"
    transfer = "transfer"


class Probe(StrEnum):
    """How the linear layer is fitted."""

    sgd = "sgd"
    logistic = "logistic"


def command(
    task: Annotated[Task, typer.Argument(help="The protocol; docs/evaluation.md describes each.", show_default=False)],
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA…",
            help="Folders with a subfolder a class, CSV files (path, label, and split if you like; for copies also "
            "path_a, path_b, same), or .npz tables (embeddings, labels).",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        list[Path] | None,
        typer.Option(
            "--encoder",
            envvar="MASSL_ENCODER",
            help="An encoder.onnx, a run, an .npz table with paths, or `builtin`; give several to compare. The "
            "built-in one if left out.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[
        Path | None, typer.Option("--train", help="Training images, a folder or CSV, in place of DATA.")
    ] = None,
    test: Annotated[Path | None, typer.Option("--test", help="Test images, a folder or CSV, in place of DATA.")] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", min=1, help="knn: neighbours that vote; 10 and 20 if left out.", show_default=False),
        Harmless(),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.001, help="knn: of the votes."), Harmless()
    ] = 0.07,
    shots: Annotated[
        list[int] | None,
        typer.Option("--shots", min=1, help="fewshot: images a class; 1 2 5 10 20 if left out.", show_default=False),
        Harmless(),
    ] = None,
    share: Annotated[
        list[float] | None,
        typer.Option(
            "--share",
            min=0.0001,
            max=0.9999,
            help="low-shot: of the training images; 0.01 and 0.1 if left out.",
            show_default=False,
        ),
        Harmless(),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", min=2, help="Of the labelled images: fewshot 100, low-shot 10.", show_default=False),
        Harmless(),
    ] = None,
    probe: Annotated[
        Probe, typer.Option("--probe", help="linear: by SGD or by logistic regression."), Harmless()
    ] = Probe.sgd,
    steps: Annotated[
        int, typer.Option("--steps", min=10, help="linear: of SGD, of 128 images each."), Harmless()
    ] = 12_500,
    edited: Annotated[
        int, typer.Option("--edited", min=2, help="copies: images to edit, twelve ways each."), Harmless()
    ] = 200,
    ground_truth: Annotated[
        Path | None,
        typer.Option("--ground-truth", help="retrieval: gnd_roxford5k.pkl or gnd_rparis6k.pkl, DATA being its images."),
    ] = None,
    min_images: Annotated[
        int, typer.Option("--min-images", min=1, help="Leave out classes of fewer images than this."), Harmless()
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of splits, draws and edits."), Harmless()] = 0,
    runtime: RuntimeOption = Runtime.auto,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown."), Harmless()] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Also write a page: figures, confusions, neighbours with their pictures."),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure encoders on labelled images, by the field's protocols.

    Examples: massl eval knn ./labelled · massl eval linear ./labelled --encoder builtin --encoder runs/photos ·
    massl eval transfer ./birds ./tools ./stamps --markdown · massl eval copies ./photos --report report.html
    """
    from cli.encoders import load_judges
    from cli.report import write_report
    from cli.scores import as_markdown, as_text, figures
    from cli.terminal import print_json, print_line, say
    from massl.core.files.atomic_writing import check_output
    from massl.evaluation.tasks import Choices

    if as_json and markdown:
        raise typer.BadParameter("--json and --markdown exclude each other")
    if (train is None) != (test is None):
        raise typer.BadParameter("--train and --test go together")
    if (train is None) == (not data):
        raise typer.BadParameter("give either DATA or --train and --test")
    if train and task is Task.copies:
        raise typer.BadParameter("copies takes DATA: images to edit, or a list of pairs; not --train and --test")
    if ground_truth and (task is not Task.retrieval or not data or len(data) != 1):
        raise typer.BadParameter("--ground-truth goes with `retrieval` and one folder of images")
    choices = Choices(
        ks=tuple(k or (10, 20)),
        temperature=temperature,
        shots=tuple(sorted(set(shots))) if shots else None,
        draws=draws or 100,
        shares=tuple(sorted(set(share))) if share else (0.01, 0.1),
        low_shot_draws=draws or 10,
        logistic=probe is Probe.logistic,
        steps=steps,
        seed=seed,
    )
    if report:
        check_output(report)
    with load_judges([str(path) for path in encoder or []], data or [], runtime.value) as judges:
        results: list[Result] = []
        if train and test:
            from indexer.ingest.labelled_images import read_halves

            files = read_halves(train, test).without_small(min_images)
            results += [_measure(task, files, judge, choices, quiet) for judge in judges]
        for path in data or []:
            results += _of_data(task, path, judges, choices, ground_truth, edited, min_images, quiet)

    told = [figures(task.value, result.measured.metrics) for result in results]
    if as_json:
        print_json(_described(task, results))
    else:
        print_line(as_markdown(task.value, results, told) if markdown else as_text(task.value, results, told))
    for line in dict.fromkeys(_remarks(result) for result in results):
        say(line, quiet)
    if report:
        write_report(report, task.value, results, told)
        say(f"report: {report}", quiet)


def _of_data(
    task: Task,
    path: Path,
    judges: list[Judge],
    choices: Choices,
    ground_truth: Path | None,
    edited: int,
    min_images: int,
    quiet: bool,
) -> list[Result]:
    """What every encoder makes of one set of images, or of one table of embeddings."""
    from cli.encoders import Judge
    from cli.report import Result
    from indexer.ingest.labelled_images import is_pair_list, read_labelled, read_table
    from massl.core.errors import MasslError

    if ground_truth:
        return [_revisited(path, judge, ground_truth, quiet) for judge in judges]
    if task is Task.copies:
        if path.suffix.lower() == ".npz":
            raise MasslError(f"{path}: copies are made from pictures; give a folder of images, or a list of pairs")
        how = _pairs if is_pair_list(path) else _copies
        return [how(path, judge, edited, choices.seed, quiet) for judge in judges]
    if path.suffix.lower() == ".npz":
        table = read_table(path)
        found = table.labelled(min_images)
        return [Result(table.name, Judge(table.name, table), _run(task, found, choices, table.name, quiet), found)]
    if is_pair_list(path):
        raise MasslError(f"{path} is a list of pairs, which `massl eval copies` measures; {task.value} needs labels")
    files = read_labelled(path).without_small(min_images)
    return [_measure(task, files, judge, choices, quiet) for judge in judges]


def _measure(task: Task, files: Any, judge: Judge, choices: Choices, quiet: bool) -> Result:
    from cli.report import Result

    found = judge.embed(files, quiet)
    return Result(files.name, judge, _run(task, found, choices, judge.name, quiet), found, files.root)


def _run(task: Task, found: Any, choices: Choices, name: str, quiet: bool) -> Any:
    from cli.terminal import ProgressLine
    from massl.evaluation.tasks import Labelled, measure

    data = Labelled(found.vectors, found.labels, found.classes, found.train)
    with ProgressLine(f"Measuring {name}", "rounds", quiet) as line:
        return measure(task.value, data, choices, line.update)


def _copies(path: Path, judge: Judge, edited: int, seed: int, quiet: bool) -> Result:
    """Edited copies of some of the images, looked for among all of them."""
    import numpy as np

    from cli.report import Result, Sought
    from cli.terminal import ProgressLine
    from indexer.ingest.edited_copies import embed_edited, open_to_edit
    from indexer.ingest.labelled_images import read_images, read_labelled
    from massl.core.errors import MasslError
    from massl.evaluation.copies import copy_detection
    from massl.evaluation.edits import EDITS
    from massl.evaluation.edits import edited as edit
    from massl.evaluation.knn import nearest
    from massl.evaluation.tasks import Measured, describe_copies

    files = read_labelled(path) if path.suffix.lower() == ".csv" else read_images(path)
    references, rows, skipped = judge.embed_paths(files.root, files.paths, quiet)
    if len(rows) < 2:
        raise MasslError(f"{path} holds a single image; among others is where a copy has to be found")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:edited])
    encoder = judge.encoder(len(chosen) * len(EDITS), "copies are made from pictures")
    with ProgressLine(f"Editing for {judge.name}", "images", quiet) as line:
        edits = [lambda picture, row, name=name: edit(picture, name, seed, row) for name in EDITS]
        paths = [files.paths[rows[row]] for row in chosen]
        queries = embed_edited(files.root, paths, encoder, edits, line.update).reshape(-1, encoder.dim)
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
            lambda: edit(open_to_edit(files.root / original, encoder.resize), name, seed, number),
        )  # fmt: skip

    return Result(
        files.name, judge, Measured(metrics, protocol, nothing, nothing), None, files.root, len(rows), None,
        (*files.skipped, *skipped), [sought(query) for query in range(len(queries))],
    )  # fmt: skip


def _pairs(path: Path, judge: Judge, edited: int, seed: int, quiet: bool) -> Result:
    """Whether the images of a pair are the same, for a list of pairs."""
    import numpy as np

    from cli.report import Result
    from indexer.ingest.labelled_images import read_pairs
    from massl.core.errors import MasslError
    from massl.evaluation.copies import pairs
    from massl.evaluation.tasks import Measured, describe_copies

    listed = read_pairs(path)
    vectors, rows, skipped = judge.embed_paths(listed.root, listed.paths, quiet)
    if skipped:
        raise MasslError(f"{path} names {skipped[0].path!r}, which can't be used: {skipped[0].reason}")
    scores = (vectors[listed.first] * vectors[listed.second]).sum(1)
    found, area = pairs(scores, listed.same)
    metrics = {**describe_copies(found), "roc_auc": area, "pairs": len(scores), "same": int(listed.same.sum())}
    nothing = np.empty(0, np.int64)
    protocol = f"{len(scores):,} pairs of {len(rows):,} images, {int(listed.same.sum()):,} of them the same"
    return Result(listed.name, judge, Measured(metrics, protocol, nothing, nothing), None, listed.root, len(rows), None)


def _revisited(path: Path, judge: Judge, ground_truth: Path, quiet: bool) -> Result:
    """The published benchmark, on the user's copy of its images."""
    from cli.report import Result
    from massl.evaluation.revisited import read_ground_truth
    from massl.evaluation.tasks import measure_revisited

    truth = read_ground_truth(ground_truth)
    images, queries = judge.embed_landmarks(path, truth, quiet)
    landmarks = len({name.rstrip("0123456789").rstrip("_") for name in truth.query_images})
    measured = measure_revisited(queries, images, truth)
    return Result(ground_truth.stem, judge, measured, None, path, len(images), landmarks)


def _described(task: Task, results: list[Result]) -> dict[str, Any]:
    """The JSON: the first result in full, and all of them under `results` where there are several."""
    told = [
        {
            "metrics": result.measured.metrics,
            "images": result.image_count,
            "classes": result.class_count,
            "encoder": result.judge.described,
            "data": result.data,
            "protocol": result.measured.protocol,
            "skipped": [{"path": item.path, "reason": item.reason} for item in result.skipped_files],
        }
        for result in results
    ]
    return {"task": task.value, **told[0], **({"results": told} if len(told) > 1 else {})}


def _remarks(result: Result) -> str:
    """What a person should know beside the figures: one line."""
    import numpy as np

    classes = f" of {result.class_count:,} classes" if result.class_count else ""
    line = f"{result.data}: {result.image_count:,} images{classes}; {result.measured.protocol}"
    metrics = result.measured.metrics
    if result.skipped_files:
        line += f"; skipped files: {len(result.skipped_files):,} (--json lists them)"
    if left_out := metrics.get("left_out_shots"):
        line += f"; the smallest class is too small for {', '.join(map(str, left_out))} shots"
    if (found := result.embedded) and (k := metrics.get("k")):
        voting = found.labels if found.train is None else found.labels[found.train]
        least = np.bincount(voting, minlength=len(found.classes)).min()
        if least < k:
            line += f"; the smallest class has {least:,} images, and {k} neighbours vote: a smaller -k is fairer to it"
    if lonely := metrics.get("queries_without_match"):
        line += f"; {lonely:,} images without another of their class are no queries"
    return line
