"""`massl index`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import EncoderFile, Images, IndexDir, Json, Quiet, Verbose

if TYPE_CHECKING:
    from indexer import Collection, IndexReport


def command(
    images: Images,
    encoder: EncoderFile = None,
    index_dir: IndexDir = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Embed everything anew; labels stay.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a file was skipped.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Build the index of a folder of images, or bring it up to date.

    Examples: massl index ./photos · massl index ./photos --encoder my-run/encoder.onnx --rebuild
    """
    from cli.terminal import print_json, say
    from indexer import Collection, Encoder

    given = Encoder.load(encoder) if encoder else None
    collection = Collection.create(images, given, index_dir, rebuild)
    report = update(collection, quiet)
    if as_json:
        print_json(describe(collection, report))
    say(summary(report), quiet)
    for item in report.skipped[: None if verbose else 5]:
        say(f"  skipped {item.path!r}: {item.reason}", quiet)
    if len(report.skipped) > 5 and not verbose:
        say(f"  … and {len(report.skipped) - 5:,} more: massl info {images}", quiet)
    if strict and report.skipped:
        raise typer.Exit(1)


def update(collection: Collection, quiet: bool) -> IndexReport:
    """Brings a collection up to date under a progress line."""
    from cli.terminal import ProgressLine

    with ProgressLine("Indexing", "images", quiet) as line:
        return collection.update(lambda progress: line.update(progress.done, progress.total))


def describe(collection: Collection, report: IndexReport) -> dict[str, Any]:
    """The JSON of a run of the indexer."""
    encoder = collection.encoder
    return {
        "indexed": report.indexed,
        "added": report.added,
        "changed": report.changed,
        "moved": report.moved,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "skipped": [{"path": item.path, "reason": item.reason} for item in report.skipped],
        "encoder": {"name": encoder.name, "sha256": encoder.sha256, "dim": encoder.dim},
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 1),
    }


def summary(report: IndexReport) -> str:
    """One line about a run of the indexer."""
    parts = [
        f"{count:,} {name}"
        for name in ("added", "changed", "moved", "removed", "unchanged")
        if (count := getattr(report, name))
    ]
    speed = f", {report.images_per_second:,.0f} images/s" if report.embedded else ""
    skipped = f"; {len(report.skipped):,} skipped" if report.skipped else ""
    what = f" ({', '.join(parts)})" if parts else ""
    return f"{report.indexed:,} images indexed{what} in {report.seconds:.1f} s{speed}{skipped}"
