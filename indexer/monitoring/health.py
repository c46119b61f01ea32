"""How a collection is: what it knows of itself, what its folder has become since, and which command would help."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.encoder.onnx_encoder import Encoder
from indexer.monitoring.drift import Drift
from indexer.storage.index_command import index_command
from indexer.store.catalog import Catalog, to_bytes
from indexer.store.images import Images
from massl.core.files.scan import Contents, LeftOut, Skipped, walk

if TYPE_CHECKING:
    from indexer.monitoring.trained_encoders import Trained

FEW_TO_TRAIN = 1_000  # images; training on fewer has not been measured (docs/measurements/small-collections.md)
_EVERY = 1_000  # files between two reports


@dataclass(frozen=True)
class Behind:
    """What happened in the folder since it was indexed, in files, by their sizes and times alone."""

    new: int = 0
    changed: int = 0
    gone: int = 0

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone)


@dataclass(frozen=True)
class Training:
    """What an encoder's file says of how it came about; None for what it doesn't say.

    Attributes:
        architecture, method: names.
        parameters, images: how many.
        seconds: that it took.
        figures: data set to share of right nearest neighbours, 0 to 1.
        source: whose weights it is made of, with their licence where that is known.
    """

    architecture: str | None
    method: str | None
    parameters: int | None
    images: int | None
    seconds: int | None
    figures: dict[str, float]
    source: str | None


@dataclass(frozen=True)
class Advice:
    """Commands that would help, one after the other, and why."""

    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Health:
    """What takes a moment to find out about a collection.

    Attributes:
        drift: see `indexer.monitoring.drift`.
        training: of its encoder; None if its copy can't be read.
        image_size: input side of its encoder in pixels; None if it is not known.
        image_sizes: all that its file lists; empty if its copy can't be read.
        behind: what happened in the folder since; None if it isn't there.
        bytes: of the collection's folder.
        advice: what would help; often nothing.
        trained: other encoders that somebody trained, the newest first.
        quality: how many images each hint is about, see `indexer.store.quality`; without those that are about none.
    """

    drift: Drift
    training: Training | None
    image_size: int | None
    image_sizes: tuple[int, ...]
    behind: Behind | None
    bytes: int
    advice: tuple[Advice, ...]
    trained: tuple[Trained, ...] = ()
    quality: Mapping[str, int] = field(default_factory=dict)


def training(encoder: Encoder) -> Training:
    """Reads an encoder's metadata, of which anything may be missing or of another form."""
    facts = encoder.metadata
    try:
        sets = json.loads(facts.get("evaluation", "{}"))
    except ValueError:
        sets = {}
    figures = {}
    for name, values in sets.items() if isinstance(sets, dict) else ():
        # Ours stands under the encoder's own name, beside what it was compared with.
        figure = values.get(encoder.name) if isinstance(values, dict) else values
        figure = figure.get("knn") if isinstance(figure, dict) else figure
        if isinstance(figure, float) and 0 <= figure <= 1:
            figures[str(name)] = figure
    return Training(
        facts.get("architecture"),
        facts.get("training_method"),
        _whole(facts.get("parameters")),
        _whole(facts.get("training_images")),
        _whole(facts.get("training_seconds")),
        figures,
        _source(facts),
    )


def _source(facts: Mapping[str, str]) -> str | None:
    licence = f" ({facts['licence']})" if "licence" in facts else ""
    return facts["source"] + licence if "source" in facts else None


def behind(
    root: Path,
    catalog: Catalog,
    exclude: Sequence[str],
    include: Sequence[str],
    contents: Contents,
    report: Callable[[str, int, int], None],
) -> Behind | None:
    """Walks the folder beside the catalog as `massl.core.files.scan.walk` does; None if the folder isn't there."""
    if not root.is_dir():
        return None
    rows = Images(catalog).rows()
    new = changed = 0
    for seen, item in enumerate(walk(root, exclude, include, contents)):
        if seen % _EVERY == 0:
            report("folder", seen, len(rows))
        if isinstance(item, LeftOut):
            continue
        row = rows.pop(to_bytes(item.path), None)
        if isinstance(item, Skipped):
            continue
        if row is None or row.state == "gone":
            new += 1
        # -1 is of one that could not be read: it is so still, unless its size or the other time says otherwise.
        elif not row._replace(mtime_ns=item.mtime_ns if row.mtime_ns == -1 else row.mtime_ns).is_as(item):
            changed += 1
    return Behind(new, changed, sum(row.state == "ready" for row in rows.values()))


def advise(
    root: Path,
    folder: Path,
    drift: Drift,
    since: Behind | None,
    waiting: int,
    images: int,
    builtin: bool,
    trained: bool = False,
) -> tuple[Advice, ...]:
    """What would help a collection.

    Args:
        root: where its images are.
        folder: where its index is.
        drift: how unlike its images are.
        since: what happened in its folder.
        waiting: images that have no embedding yet.
        images: how many it has.
        builtin: its encoder is the built-in one.
        trained: somebody trained another one on these images already.
    """
    where = shlex.quote(str(root))
    found = []
    if since or waiting:
        parts = [(since.new, "new"), (since.changed, "changed"), (since.gone, "gone")] if since else []
        parts.append((waiting, "not embedded yet"))
        listed = ", ".join(f"{count:,} {what}" for count, what in parts if count)
        found.append(Advice(f"The folder has changed since it was indexed: {listed}", (index_command(root, folder),)))
    if images < FEW_TO_TRAIN or trained:
        return tuple(found)
    name = root.resolve().name or "images"
    then = index_command(root, folder, Path("runs", name, "encoder.onnx"))
    if drift.familiar in ("narrow", "foreign"):
        why = (
            "An encoder that is trained on these very images may tell them apart better. It did on one of the four "
            "sets that we measured; labels stay, and massl eval knn compares encoders on labelled images"
        )
        start = " --init builtin" if builtin else ""
        found.append(Advice(why, (f"massl train {where}{start}", then)))
    elif drift.newest and drift.newest.at_least >= images / 10 and not builtin:
        why = "Many of the newest images look different from the encoder's training images"
        found.append(Advice(why, (f"massl train {where}", then)))
    return tuple(found)


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
