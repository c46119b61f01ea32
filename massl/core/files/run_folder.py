"""A run's folder, described without torch."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from massl.core.disk_errors import reason_of
from massl.core.errors import MasslError
from massl.core.files.path_notation import of_text
from massl.core.images.rendering_facts import ShownAs
from massl.core.regular_files import read_regular

MOST_CONFIGURATION = 1 << 20  # bytes of `config.toml`
MOST_METRICS = 256 << 20  # bytes of `metrics.jsonl`: a quarter of a million logged steps
_FAR = 1e15  # no figure is that far from nothing; what is no number is not less


def check_new(folder: Path) -> None:
    """Raises a `MasslError` if a folder holds a run already."""
    if (folder / "config.toml").exists():
        if any(folder.glob("checkpoints/*.pt")):
            raise MasslError(
                f"{folder} already holds a run; continue it with --resume {folder}, or choose another --out"
            )
        raise MasslError(
            f"{folder} holds a run without a checkpoint so far; if it has ended, remove the folder, else choose another"
            " --out"
        )


def check_place(folder: Path) -> None:
    """Raises a `MasslError` where no folder can be made, as there is a file in its place or above."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise MasslError(f"{folder} can't be a run's folder, as {place} is a file; choose another --out")
            return


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: a folder of images may hold a `config.toml` of something else."""
    path = folder / "config.toml"
    try:
        return "settings" in _tables(path)
    except (OSError, ValueError):
        return path.is_file()  # damaged: reading it says so


def _tables(path: Path) -> dict[str, Any]:
    """A TOML file, of which nothing is known.

    Raises:
        OSError: it can't be read, or is none that massl wrote by its kind or size.
        ValueError: it is no TOML.
    """
    try:
        return tomllib.loads(read_regular(path, MOST_CONFIGURATION).decode())
    except RecursionError:
        raise ValueError("its values lie too deep within each other") from None


def run_shown_as(folder: Path) -> ShownAs:
    """How a run's deep files and stacks are shown: in one of an earlier version each by its own numbers.

    Raises:
        MasslError: its `config.toml` can't be read, or doesn't tell it.
    """
    try:
        return ShownAs.read(describe_run(folder)["shown_as"])
    except (ValueError, AttributeError) as error:
        raise MasslError(f"{folder / 'config.toml'} doesn't say how its images are shown: {error}") from None


def describe_run(folder: Path) -> dict[str, Any]:
    """Settings, progress and last metrics of a run, in plain values. It may be somebody else's: nothing is believed.

    Raises:
        MasslError: its `config.toml` or `metrics.jsonl` can't be read.
    """
    path = folder / "config.toml"
    try:
        tables = _tables(path)
    except (OSError, ValueError) as error:
        why = reason_of(error, "there is no such file") if isinstance(error, OSError) else error
        raise MasslError(f"{path} can't be read: {why}") from None
    run, shown_as, settings = parts = [tables.get(name, {}) for name in ("run", "shown_as", "settings")]
    if not all(isinstance(part, dict) for part in parts):
        raise MasslError(f"{path} can't be read: run, shown_as and settings are tables in what massl train writes")
    numbers = {"steps": settings.get("steps", 0), "images": run.get("images", 0)}
    texts = {name: run.get(name, "") for name in ("root", "labels", "teacher", "tracker", "start")}
    for kind, what, values in ((int, "whole number", numbers), (str, "text", texts)):
        for name, value in values.items():
            if not isinstance(value, kind):
                raise MasslError(f"{path} can't be read: {name} is no {what}")
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("step-*.pt"))
    return {
        **{name: of_text(value) if isinstance(value, str) else value for name, value in run.items()},
        "kind": "run",
        "path": str(folder),
        "shown_as": shown_as,
        "settings": settings,
        "last": next(reversed(read_metrics(folder)), {}),
        "checkpoints": len(checkpoints),
        "encoder": str(folder / "encoder.onnx") if (folder / "encoder.onnx").exists() else None,
    }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """What a run logged: of each step `step`, a whole number, and figures, None where one was not finite.

    What is no number is left out, and so are lines without a step, as one that was being written when the run was
    killed.

    Raises:
        MasslError: its `metrics.jsonl` can't be read.
    """
    path = folder / "metrics.jsonl"
    try:
        text = read_regular(path, MOST_METRICS).decode(errors="replace")
    except FileNotFoundError:
        return []  # no step finished
    except OSError as error:
        raise MasslError(f"{path} can't be read: {reason_of(error, 'there is no such file')}") from None
    return [row for line in text.splitlines() if (row := _figures(line))]


def _figures(line: str) -> dict[str, Any]:
    """The figures of a line of `metrics.jsonl`; nothing where it holds something else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or type(found.get("step")) is not int or not 0 <= found["step"] < _FAR:
        return {}
    numbers = {name: value for name, value in found.items() if isinstance(value, int | float | None)}
    return {name: value if value is None or abs(value) < _FAR else None for name, value in numbers.items()}
