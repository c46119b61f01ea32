"""`massl info`."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.formatting import brought, deep_range, moment, of_several, other_sizes, picked, size, unseen
from cli.options import IndexDir, Json, Quiet, Verbose, or_builtin
from massl.core.printable import visible

if TYPE_CHECKING:
    from indexer.store.damage import CatalogDamaged

_LONGEST = 10**9  # seconds that are shown of a time, half a life: a file may say any number


def command(
    thing: Annotated[
        Path, typer.Argument(metavar="THING", help="An encoder, `builtin`, an indexed folder, a picture, or a run.")
    ],
    index_dir: IndexDir = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Of a run: also write an HTML page with figures by step, and nearest neighbours before and now.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what an encoder, a collection, a picture or a run is.

    Examples: massl info builtin · massl info encoder.onnx · massl info ./photos · massl info photo.jpg · massl info
    runs/photos --report report.html
    """
    from cli.terminal import print_json, print_line
    from indexer.store.damage import CatalogDamaged

    if report:
        _write_report(thing, report, quiet)
    try:
        described = _describe(thing, index_dir)
    except CatalogDamaged as error:
        _tell_readable(error, as_json)
        raise
    if as_json:
        print_json(described)
        return
    kinds = {"encoder": _encoder, "collection": _collection, "picture": _picture, "run": _run}
    told = kinds[described["kind"]](described)
    width = max(len(name) for name, _ in told) + 2
    for name, value in told:
        print_line(visible(f"{name:{width}}{value}".rstrip()))


def _write_report(run: Path, report: Path, quiet: bool) -> None:
    from cli.terminal import say
    from massl.core.errors import MasslError
    from massl.core.files.atomic_writing import check_output
    from massl.core.files.run_folder import is_run
    from massl.training.run_report import write_run_report

    if not is_run(run):
        raise MasslError(f"--report is of a run, and {run} is none; give the folder that massl train wrote")
    check_output(report)
    write_run_report(report, run)
    say(f"report: {report}", quiet)


def _tell_readable(error: CatalogDamaged, as_json: bool) -> None:
    """What of a damaged collection can be read."""
    from cli.terminal import print_json, print_line
    from indexer.recovery import repair
    from indexer.store import journal, salvage

    try:
        found, said = salvage.read(error.path), journal.read(error.path.parent)
    except OSError:
        return
    if as_json:
        counts = {"images": len(found.images), "embedded": found.embedded, "labels": len(found.labels)}
        print_json({"kind": "collection", "damaged": error.detail, **counts, "journal_labels": len(said.labels)})
        return
    print_line(f"damaged    {repair.in_words(found)}")
    print_line(
        f"journal    {len(said.labels):,} labels" + (f"; {said.damaged:,} lines damaged" if said.damaged else "")
    )
    print_line("labels     massl label export prints the readable ones")


def _encoder(told: dict[str, Any]) -> list[tuple[str, str]]:
    facts = told["metadata"]
    whitened = f", whitened at {facts['whitening']}" if facts.get("whitening", "0.0") != "0.0" else ""
    lines = [
        ("encoder", told["name"]),
        (
            "file",
            f"{told['path']}, {size(told['bytes'])}" + (f", {facts['precision']}" if "precision" in facts else ""),
        ),
        *_classes(facts),
        ("input", f"pictures of {told['image_size']} x {told['image_size']} pixels"),
        *_sizes(told),
        ("output", f"{told['dim']} numbers per picture" + (", and per patch" if told["patches"] else "")),
        *_training(told["training"], told["image_sizes"]),
    ]
    if "pooling" in facts:
        lines.append(("pooling", facts["pooling"].replace("last", "the last layer") + whitened))
    if "source" in facts:
        lines.append(("weights", facts["source"] + (f" ({facts['licence']})" if "licence" in facts else "")))
    return [*lines, ("SHA-256", told["sha256"])]


def _classes(facts: dict[str, str]) -> list[tuple[str, str]]:
    """Of a classifier's file, which is an encoder with a head behind it."""
    if facts.get("kind") != "classifier" or "labels" not in facts:
        return []
    try:
        names = ", ".join(str(name) for name in json.loads(facts["labels"]))
    except (ValueError, TypeError):  # another program's file may hold anything
        return []
    return [("classes", f"{names}; {facts['head']}" if "head" in facts else names)]


def _training(told: dict[str, Any] | None, sizes: list[int]) -> list[tuple[str, str]]:
    lines = []
    if told and told["architecture"]:
        parameters = f", {told['parameters'] / 1e6:,.1f} million parameters" if told["parameters"] else ""
        lines.append(("network", told["architecture"] + parameters))
    if told and told["method"]:
        images = f" on {told['images']:,} images" if told["images"] else ""
        time = f" in {_time(told['seconds'])}" if told["seconds"] else ""
        lines.append(("trained", f"by {told['method']}{images}{time}"))
    if told and told["figures"]:
        shares = (f"{name} {100 * share:.1f} %" for name, share in told["figures"].items())
        at = f" (at {sizes[0]} px)" if len(sizes) > 1 else ""
        lines.append(("elsewhere", "k-NN accuracy on public sets: " + ", ".join(shares) + at))
    return lines


def _collection(told: dict[str, Any]) -> list[tuple[str, str]]:
    from massl.core.files.scan import left_out_line
    from massl.core.images.decoding import megapixels

    encoder, search, scores, drift = told["encoder"], told["search"], told["scores"], told["drift"]
    lines = [
        ("collection", told["root"]),
        ("index", f"{told['folder']}, {size(told['bytes'])}"),
        ("images", f"{told['indexed']:,}, {told['labels']:,} of them labelled"),
        *_unembedded(told),
        ("last updated", moment(told["checked"] or told["updated"]) + f"; created {moment(told['created'])}"),
        ("encoder", f"{encoder['name']}, {encoder['dim']} numbers per picture" + _used_at(encoder)),
        *_sizes(encoder),
        *_training(told["training"], encoder["image_sizes"]),
    ]
    if search:
        by = f"of the ten nearest, for {search['queries']:,} pictures" if search["queries"] else " of the nearest"
        lines.append(("search", f"{search['engine']}; recall {100 * search['recall']:.1f} %{by}"))
    if scores:
        lines.append(("scores", f"“same” from {scores['same']:.2f}, “alike” from {scores['alike']:.2f}"))
    if drift["familiar"]:
        low, high = drift["bounds"]
        lines.append(
            (
                "familiarity",
                f"{drift['familiar']}: the mean score of two images is {drift['mean_score']:z.2f}, of two training "
                f"images 0 (known up to {low}, foreign from {high})",
            )
        )
    if newest := drift["newest"]:
        came = f"{newest['images']:,} added {moment(newest['since'])} or later"
        lines.append(("newest", f"{came}; {newest['unlike']:,} of them differ from the {newest['older']:,} others"))
    lines += _of_range(told["range"])
    lines += _of_pictures(told)
    lines += [
        ("limit", f"{megapixels(round(told['max_megapixels'] * 1e6))} megapixels per picture"),
        ("excluded", ", ".join(map(repr, told["exclude"])) or "nothing"),
        ("skipped", f"{len(told['skipped']):,} file{'s' if len(told['skipped']) != 1 else ''}"),
    ]
    if told["include"]:
        lines.insert(-1, ("included", ", ".join(map(repr, told["include"]))))
    if left_out := left_out_line(told["left_out"]):
        lines.insert(-1, ("left out", left_out))
    return lines + [("", f"{item['path']}: {item['reason']}") for item in told["skipped"]]


def _of_range(told: dict[str, Any]) -> list[tuple[str, str]]:
    """What is black and white in deep files."""
    from indexer.store.kind_ranges import KindRange

    lines = deep_range(told["of"], {kind: KindRange(**known) for kind, known in told["kinds"].items()})
    found = [("" if row else "range", line) for row, line in enumerate(lines)]
    if read := picked(told["channels"], told["plane"]):
        found.append(("stacks", read))
    return found


def _of_pictures(told: dict[str, Any]) -> list[tuple[str, str]]:
    """What of the pictures is not looked at, and how many may be of little use."""
    lines = []
    if tiles := told["tiles"]:
        overlap = f", overlapping by {tiles['overlap']}" if tiles["overlap"] else ""
        lines.append(("tiles", f"{tiles['count']:,} of {tiles['size']} pixels{overlap}"))
    if line := unseen(told["unseen_share"]):
        lines.append(("not seen", line))
    if line := of_several(told["several_planes"], picked(told["range"]["channels"], told["range"]["plane"])):
        lines.append(("planes", line))
    if planes := told["planes_of_stacks"]["planes"]:
        stacks = told["planes_of_stacks"]["stacks"]
        lines.append(
            ("planes", f"{planes:,} planes of {stacks:,} stack{'s' * (stacks != 1)} are pictures of their own")
        )
    if hints := told["quality"]:
        lines.append(("quality", ", ".join(f"{each['images']:,} {name}" for name, each in hints.items())))
    return lines


def _used_at(encoder: dict[str, Any]) -> str:
    return f", at {encoder['image_size']} px" if encoder["image_size"] else ""  # else its file can't be read


def _sizes(told: dict[str, Any]) -> list[tuple[str, str]]:
    others = other_sizes(told["image_sizes"], told["image_size"])
    return [("other sizes", others)] if others else []


def _unembedded(told: dict[str, Any]) -> list[tuple[str, str]]:
    if not told["unembedded"]:
        return []
    from indexer.storage.index_command import index_command

    done = told["indexed"] - told["unembedded"]
    command = index_command(Path(told["root"]), Path(told["folder"]))
    return [("embedded", f"{done:,} of them, by the new encoder; go on with: {command}")]


def _picture(told: dict[str, Any]) -> list[tuple[str, str]]:
    from massl.core.images.metadata import Metadata

    said = told["metadata"]
    known = Metadata(**(said | {"keywords": tuple(said["keywords"])}))
    lines = [
        ("picture", f"{told['path']}, {size(told['bytes'])}"),
        ("size", f"{told['width']:,} by {told['height']:,} pixels"),
        *((name.lower(), text) for name, text in brought(known)),
    ]
    if told["sidecar"] and not known.trouble:
        lines.append(("sidecar", told["sidecar"]))
    return lines


def _run(told: dict[str, Any]) -> list[tuple[str, str]]:
    settings, last = told["settings"], told["last"]
    lines = [("run", told["path"])]
    if "images" in told:
        lines.append(("images", f"{told['images']:,} of {told.get('root') or 'a place that is not known'}"))
    if "teacher" in told:
        lines.append(("teacher", told["teacher"]))
    if last:
        lines += _progress(last, settings)
    else:
        lines.append(("progress", "no step finished"))
    lines += [
        ("checkpoints", str(told["checkpoints"])),
        ("encoder", told["encoder"] or "none yet; massl export makes one of the last checkpoint"),
    ]
    settled = [f"{name} = {value}" for name, value in settings.items()]
    return lines + [("settings" if row == 0 else "", text) for row, text in enumerate(settled)]


def _progress(last: dict[str, Any], settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What a run last logged, of which figures may be missing."""
    steps = settings.get("steps", 0)
    epochs = f", {last['epoch']:.1f} epochs" if last.get("epoch") is not None else ""
    lines = [("progress", f"step {last['step']:,} of {steps:,}{epochs}")]
    if None not in (last.get("images_per_second"), last.get("seconds")):
        unknown = last["step"] >= steps or last.get("seconds_left") is None
        left = "" if unknown else f", {_time(last['seconds_left'])} left at that pace"
        lines.append(("pace", f"{last['images_per_second']:.1f} images/s, {_time(last['seconds'])} so far{left}"))
    if "loss" in last:
        lines.append(("loss", "not finite" if last["loss"] is None else f"{last['loss']:.3f}"))
    return lines


def _time(seconds: float) -> str:
    return str(timedelta(seconds=max(0, min(round(seconds), _LONGEST))))


def _describe(thing: Path, index_dir: Path | None) -> dict[str, Any]:
    from massl.core.errors import MasslError
    from massl.core.files.run_folder import describe_run, is_run

    if is_run(thing):
        return describe_run(thing)
    looked_at = thing.is_dir() and os.access(thing, os.R_OK) and not index_dir and not (thing / ".massl").exists()
    if looked_at and (runs := [run for run in sorted(thing.iterdir()) if is_run(run)]):
        raise MasslError(f"{thing} holds runs; name one of them, as {runs[-1]}")
    if thing.is_dir() or (index_dir and str(thing) != "builtin" and not thing.is_file()):
        from indexer import Collection
        from indexer.json_results import of_collection

        return of_collection(Collection.open(thing, index_dir))
    thing = Path(or_builtin(str(thing)))
    if not thing.exists():
        raise MasslError(f"{thing}: there is no such file or folder")
    from dataclasses import asdict

    from massl.core.files.scan import kind_of_file
    from massl.core.images.formats import PICTURE

    if kind_of_file(thing) == PICTURE:
        return _describe_picture(thing)
    from indexer import Encoder
    from indexer.monitoring import health

    encoder = Encoder.load(thing)
    return {
        "kind": "encoder",
        "path": str(thing),
        "name": encoder.name,
        "sha256": encoder.sha256,
        "dim": encoder.dim,
        "image_size": encoder.image_size,
        "image_sizes": list(encoder.image_sizes),
        "patches": encoder.has_patches,
        "bytes": thing.stat().st_size,
        "training": asdict(health.training(encoder)),
        "metadata": dict(encoder.metadata),
    }


def _describe_picture(path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from massl.core.errors import MasslError
    from massl.core.files import sidecars
    from massl.core.images import metadata
    from massl.core.images.decoding import decode, within_memory
    from massl.core.images.file_reading import read_bytes
    from massl.core.images.image_errors import ImageError

    try:
        with within_memory():
            data = read_bytes(path)
            decoded = decode(data)
    except ImageError as error:
        raise MasslError(f"{path} can't be read as a picture: {error}") from None
    name = sidecars.beside(os.listdir(path.parent)).get(path.name)
    said = metadata.read_beside(data, path.parent / name if name else None, path.name)
    return {
        "kind": "picture",
        "path": str(path),
        "bytes": len(data),
        "width": decoded.width,
        "height": decoded.height,
        "metadata": asdict(said),
        "sidecar": name,
    }
