"""`massl eval`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.configuration import Harmless
from cli.deep_images import ShownChannels, ShownPlane, ShownRange, chosen, shown_as
from cli.options import Json, Quiet, RuntimeName, RuntimeOption, Verbose

if TYPE_CHECKING:
    from massl.evaluation.results import EvaluationResult


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


class ProbeMethod(StrEnum):
    """How the linear layer is fitted."""

    sgd = "sgd"
    logistic = "logistic"


def command(
    task: Annotated[
        Task, typer.Argument(help="The protocol; docs/reference/evaluation.md describes each.", show_default=False)
    ],
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
            help="An encoder.onnx, a run, an .npz table with paths, or `builtin`; repeat to compare. "
            "Default: the built-in encoder.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[
        Path | None, typer.Option("--train", help="Training images, a folder or CSV, instead of DATA.")
    ] = None,
    test: Annotated[Path | None, typer.Option("--test", help="Test images, a folder or CSV, instead of DATA.")] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", min=1, help="knn: number of neighbours. Default: 10 and 20.", show_default=False),
        Harmless(),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.001, help="knn: temperature of the votes."), Harmless()
    ] = 0.07,
    shots: Annotated[
        list[int] | None,
        typer.Option("--shots", min=1, help="fewshot: images per class. Default: 1 2 5 10 20.", show_default=False),
        Harmless(),
    ] = None,
    share: Annotated[
        list[float] | None,
        typer.Option(
            "--share",
            min=0.0001,
            max=0.9999,
            help="low-shot: share of the training images. Default: 0.01 and 0.1.",
            show_default=False,
        ),
        Harmless(),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws", min=2, help="Number of random draws. Default: fewshot 100, low-shot 10.", show_default=False
        ),
        Harmless(),
    ] = None,
    probe: Annotated[
        ProbeMethod, typer.Option("--probe", help="linear: SGD or logistic regression."), Harmless()
    ] = ProbeMethod.sgd,
    steps: Annotated[
        int, typer.Option("--steps", min=10, help="linear: steps of SGD, of 128 images each."), Harmless()
    ] = 12_500,
    edited: Annotated[
        int, typer.Option("--edited", min=2, help="copies: number of images to edit, in twelve ways each."), Harmless()
    ] = 200,
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            "--ground-truth", help="retrieval: gnd_roxford5k.pkl or gnd_rparis6k.pkl; DATA is the folder of its images."
        ),
    ] = None,
    min_images: Annotated[
        int, typer.Option("--min-images", min=1, help="Leave out classes with fewer images than this."), Harmless()
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of splits, draws and edits."), Harmless()] = 0,
    range_: ShownRange = None,
    channels: ShownChannels = None,
    plane: ShownPlane = None,
    runtime: RuntimeOption = RuntimeName.auto,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown."), Harmless()] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Also write an HTML page with figures, confusions and nearest neighbours."),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure encoders on labelled images, by the field's protocols.

    Examples: massl eval knn ./labelled · massl eval linear ./labelled --encoder builtin --encoder runs/photos ·
    massl eval transfer ./birds ./tools ./stamps --markdown · massl eval copies ./photos --report report.html
    """
    from cli.encoders import load_encoders
    from cli.terminal import ProgressLine, print_json, print_line, say
    from massl.core.files.atomic_writing import check_output
    from massl.evaluation.datasets import read_halves
    from massl.evaluation.evaluate import evaluate, evaluate_files
    from massl.evaluation.figure_table import as_markdown, as_text, figures
    from massl.evaluation.report import write_report
    from massl.evaluation.results import described, remarks
    from massl.evaluation.tasks import ProtocolOptions

    _check(task, data, train, test, ground_truth, as_json and markdown)
    choice = chosen(range_, channels, plane)
    choices = ProtocolOptions(
        ks=tuple(k or (10, 20)),
        temperature=temperature,
        shots=tuple(sorted(set(shots))) if shots else None,
        draws=draws or 100,
        shares=tuple(sorted(set(share))) if share else (0.01, 0.1),
        low_shot_draws=draws or 10,
        logistic=probe is ProbeMethod.logistic,
        steps=steps,
        seed=seed,
    )
    if report:
        check_output(report)

    def progress(what: str, unit: str) -> ProgressLine:
        return ProgressLine(what, unit, quiet)

    with load_encoders([str(path) for path in encoder or []], data or [], runtime.value) as encoders:
        results: list[EvaluationResult] = []
        if train and test:
            shown = shown_as(train, choice)
            files = read_halves(train, test, shown).without_small(min_images)
            results += evaluate_files(task.value, files, encoders, choices, progress, shown)
        for path in data or []:
            results += evaluate(
                task.value, path, encoders, choices, ground_truth, edited, min_images, progress, shown_as(path, choice)
            )

    told = [figures(task.value, result.measured.metrics) for result in results]
    if as_json:
        print_json(described(task.value, results))
    else:
        print_line(as_markdown(task.value, results, told) if markdown else as_text(task.value, results, told))
    for line in dict.fromkeys(remarks(result) for result in results):
        say(line, quiet)
    if report:
        write_report(report, task.value, results, told)
        say(f"report: {report}", quiet)


def _check(
    task: Task, data: list[Path] | None, train: Path | None, test: Path | None, ground_truth: Path | None, both: bool
) -> None:
    """Raises `BadParameter` where arguments don't go together; `both` kinds of output don't."""
    if both:
        raise typer.BadParameter("--json and --markdown exclude each other")
    if (train is None) != (test is None):
        raise typer.BadParameter("--train and --test go together")
    if (train is None) == (not data):
        raise typer.BadParameter("give either DATA or --train and --test")
    if train and task is Task.copies:
        raise typer.BadParameter("copies takes DATA (images to edit, or a list of pairs), not --train and --test")
    if ground_truth and (task is not Task.retrieval or not data or len(data) != 1):
        raise typer.BadParameter("--ground-truth goes with `retrieval` and one folder of images")
