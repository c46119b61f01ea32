"""`massl eval`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options import EncoderFile, Json, Quiet, Verbose


class Task(StrEnum):
    """What is measured."""

    knn = "knn"


def command(
    task: Annotated[Task, typer.Argument(help="knn: weighted 20-nearest-neighbour accuracy, leave-one-out.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with one subfolder a class.")],
    encoder: EncoderFile = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours that vote.")] = 20,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure an encoder on labelled images.

    Examples: massl eval knn ./labelled · massl eval knn ./labelled --encoder my-run/encoder.onnx --json
    """
    from cli.terminal import ProgressLine, print_json, print_line, say
    from indexer import Encoder
    from indexer.labelled import embed_folder
    from massl.evaluation import knn_top1

    loaded = Encoder.load(encoder)
    with ProgressLine("Embedding", "images", quiet) as line:
        table = embed_folder(data, loaded, line.update)
    top1 = knn_top1(table.vectors, table.labels, table.vectors, table.labels, k, leave_one_out=True)
    described = {
        "task": task.value,
        "metrics": {"top1": round(top1, 4), "k": k},
        "images": len(table.labels),
        "classes": len(table.classes),
        "encoder": {"name": loaded.name, "sha256": loaded.sha256, "dim": loaded.dim},
        "skipped": [{"path": item.path, "reason": item.reason} for item in table.skipped],
    }
    if as_json:
        print_json(described)
        return
    print_line(f"knn top-1  {top1:.1%}  (k = {k}, leave-one-out)")
    say(f"{len(table.labels):,} images of {len(table.classes):,} classes, {loaded.name}", quiet)
