"""What `massl train` says of a step, of a measurement and at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cli.planned_run import PlannedRun


def step_figures(now: Mapping[str, float], adapts: bool) -> str:
    """How a step went and how fast; an adapter's steps take embeddings that are there, so images have no rate."""
    from cli.planned_run import size

    told = [f"loss {now['loss']:.3f}", f"{now['rank']:.0f} effective dimensions"]
    if not adapts:
        told.append(f"{now['images_per_second']:.0f} images/s")
    waiting = "" if adapts else f", {now['data_wait_share']:.0%} of it waiting for images"
    told.append(f"{1000 * now['step_seconds']:,.0f} ms a step{waiting}")
    told.append(f"peak memory {size(now['peak_bytes'])}")
    if "utilisation" in now:
        told.append(f"{now['utilisation']:.0%} of the device's arithmetic used")
    return ", ".join(told)


def accuracy(now: Mapping[str, float]) -> str:
    """The accuracy on labels, beside that before training where it is known."""
    before = f" (before training {now['knn_start']:.1%})" if now.get("knn_start") is not None else ""
    student = f", of the student {now['knn_student']:.1%}" if "knn_student" in now else ""
    rank = f" (before training {now['rankme_start']:.0f})" if now.get("rankme_start") is not None else ""
    return f"k-NN accuracy {now['knn_top1']:.1%}{before}{student}, {now['rankme']:.0f} effective dimensions{rank}"


def agreement(now: Mapping[str, float]) -> str:
    """The measure of an adapter without labels, beside that before training."""
    return (
        f"different views of an image share {now['agreement']:.0%} of their nearest other images "
        f"(before training {now['agreement_start']:.0%})"
    )


def outcome(
    run: PlannedRun,
    summary: Mapping[str, Any],
    images: Path,
    labels: Path | None,
    profile: int,
    encoder: Path,
    report: Path | None,
) -> Iterator[str]:
    """What a person reads at the end, line by line."""
    yield f"Trained in {summary['seconds']:.0f} s: {encoder}"
    if report:
        yield f"  report: {report}"
    if summary["trace"]:
        yield f"  trace of {profile} steps, for https://ui.perfetto.dev: {summary['trace']}"
    for item in summary["skipped"][:5]:
        yield f"  skipped {item['path']!r}: {item['reason']}"
    if "why" in summary:
        yield f"  massl {summary['why']}"
    best, last = summary["best"], summary["metrics"]
    if best.get("metric") == "knn_top1" and "knn_top1" in last:
        linear = f", linear probe {last['linear_top1']:.1%}" if "linear_top1" in last else ""
        where = labels if labels and str(labels) != "none" else "the labelled images"
        yield f"  k-NN accuracy on {where}: {last['knn_top1']:.1%}{linear}"
        if not run.settings.adapter and best["step"] < run.settings.steps and best["value"] > last["knn_top1"] + 0.01:
            by_stages = "knn_last" in last and not run.settings.export_projection
            as_here = f" --stages --whiten {images}" if by_stages else ""
            yield (
                f"  it was better at step {best['step']:,} ({best['value']:.1%}); to use that one: "
                f"massl export {run.folder / 'checkpoints' / 'best.pt'}{as_here} --out {encoder}"
            )
    yield f"Use it: massl index {images if images.is_dir() else 'IMAGES'} --encoder {encoder} --rebuild"
