"""Encoders that somebody trained on this machine: the runs of `massl train` that lie where one would look for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from indexer.encoder.onnx_encoder import Encoder
from indexer.monitoring.health import Training, training
from indexer.store.filters import modified
from massl.core.errors import MasslError
from massl.core.files.run_folder import describe_run
from massl.core.files.scan import storable

MOST = 3  # encoders that are shown
_TRIED = 12  # newest runs that are opened for that: some may hold the collection's own encoder, or a damaged one


@dataclass(frozen=True)
class Trained:
    """The encoder of a run.

    Attributes:
        path: its file.
        sha256: of that file, in hexadecimal.
        name: what it calls itself.
        written: when the file was, in local time.
        training: what the file says of how it came about.
        on_these: whether it was trained on the collection's own folder.
        folder: what it was trained on, as the run has it; empty if it doesn't say.
        epochs, seconds: of the training; None if the run doesn't say.
        labels, right: the labelled folder that the run measured on, and the share of it that nearest neighbours named
            right, 0 to 1; empty and None where there was none.
    """

    path: Path
    sha256: str
    name: str
    written: datetime
    training: Training
    on_these: bool
    folder: str
    epochs: float | None
    seconds: float | None
    labels: str
    right: float | None


def places(here: Path, root: Path) -> tuple[Path, ...]:
    """Folders that runs lie in: where somebody works, `runs` there, and `runs` beside the images."""
    return tuple(dict.fromkeys(Path(os.path.abspath(place)) for place in (here / "runs", here, root.parent / "runs")))


def state(folders: Sequence[Path]) -> tuple[tuple[str, int], ...]:
    """Differs whenever `find` might find something else. Opens nothing."""
    return tuple((str(path), mtime_ns) for mtime_ns, path in _files(folders))


def find(folders: Sequence[Path], root: Path, without: str, most: int = MOST) -> tuple[Trained, ...]:
    """The newest encoders of the runs in some folders; what can't be read is passed over.

    Args:
        folders: see `places`.
        root: the collection's folder.
        without: SHA-256 of an encoder to leave out: the collection's own.
        most: how many.
    """
    found: dict[str, Trained] = {}
    for mtime_ns, path in _files(folders)[:_TRIED]:
        if len(found) == most:
            break
        try:
            encoder = Encoder.load(path, threads=1)
            run = describe_run(path.parent)
        except MasslError:
            continue
        if encoder.sha256 == without or encoder.sha256 in found:
            continue
        folder, last = str(run.get("root") or ""), run["last"] if isinstance(run["last"], dict) else {}
        found[encoder.sha256] = Trained(
            path,
            encoder.sha256,
            encoder.name,
            modified(mtime_ns),
            training(encoder),
            bool(folder) and os.path.realpath(folder) == os.path.realpath(root),
            folder,
            _number(last.get("epoch")),
            _number(last.get("seconds")),
            str(run.get("labels") or ""),
            _number(last.get("knn_top1")),
        )
    return tuple(found.values())


def _files(folders: Sequence[Path]) -> list[tuple[int, Path]]:
    """The encoders of runs in some folders, with their times in nanoseconds, newest first."""
    return sorted({entry for folder in folders for entry in _runs(folder)}, reverse=True)


def _runs(folder: Path) -> Iterator[tuple[int, Path]]:
    try:
        with os.scandir(folder) as entries:
            runs = [entry.path for entry in entries if entry.is_dir()]
    except OSError:
        return
    for run in runs:
        path = Path(run, "encoder.onnx")
        try:
            if os.path.isfile(os.path.join(run, "config.toml")):
                yield storable(path.stat().st_mtime_ns), path
        except OSError:
            continue


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
