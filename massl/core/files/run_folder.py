"""A run's folder, described without torch."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from massl.core.errors import MasslError
from massl.core.files.path_notation import of_text
from massl.core.images.rendering_facts import ShownAs


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
        return "settings" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return path.is_file()  # damaged: reading it says so


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
    """Settings, progress and last metrics of a run, in plain values.

    Raises:
        MasslError: its `config.toml` or `metrics.jsonl` can't be read.
    """
    try:
        tables = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MasslError(f"{folder / 'config.toml'} can't be read: {error}") from None
    metrics: dict[str, Any] = {}
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""  # no step finished
    except OSError as error:
        raise MasslError(f"{folder / 'metrics.jsonl'} can't be read: {error.strerror or error}") from None
    for line in reversed(text.splitlines()):
        try:
            metrics = json.loads(line)
            break
        except ValueError:  # a line that was being written when the run was killed
            continue
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("step-*.pt"))
    return {
        "kind": "run",
        "path": str(folder),
        **{name: of_text(value) if isinstance(value, str) else value for name, value in tables.get("run", {}).items()},
        "shown_as": tables.get("shown_as", {}),
        "settings": tables.get("settings", {}),
        "last": metrics,
        "checkpoints": len(checkpoints),
        "encoder": str(folder / "encoder.onnx") if (folder / "encoder.onnx").exists() else None,
    }
