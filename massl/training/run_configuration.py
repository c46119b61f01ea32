"""A run's folder and its `config.toml`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

import massl
from massl.core.disk_errors import cannot_write
from massl.core.files.atomic_writing import whole
from massl.core.files.path_notation import as_text
from massl.evaluation.datasets import LabelledFiles
from massl.settings import Settings, write_toml
from massl.training.distributed import World
from massl.training.probe import OF_A_COLLECTION
from massl.training.run_state import RunState
from massl.training.teaching import Teacher


def write_configuration(
    state: RunState, settings: Settings, world: World, labelled: Path | LabelledFiles | None, tracker: str,
    teacher: Teacher | None, start: str,
) -> None:  # fmt: skip
    """Writes `config.toml`: all settings, and what else a run that goes on has to know.

    Args:
        state: of the run.
        settings: those to write.
        world: the ranks that train together.
        labelled: what judges it.
        tracker: as of `massl.training.loop.train`.
        teacher: what it learns from.
        start: SHA-256 of the encoder file that it adapts; empty where it adapts none.
    """
    folder = as_text(os.path.abspath(labelled)) if isinstance(labelled, Path) else ""
    about = {
        "massl": massl.__version__,
        "torch": torch.__version__,
        "images": len(state.source),
        "root": as_text(os.path.abspath(state.source.where)),
        "labels": OF_A_COLLECTION if labelled and not folder else folder,
        "tracker": tracker,
        **({"teacher": as_text(teacher.named)} if teacher else {}),
        **({"start": start} if start else {}),
        "devices": world.size,
    }
    with whole(state.out / "config.toml") as written:
        shown = state.source.shown_as.facts()
        write_toml(written, {"run": about, "shown_as": shown, "settings": dataclasses.asdict(settings)})


def make_folder(out: Path) -> None:
    """Makes a run's folder. Raises a `MasslError` where it can't be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error, "choose another --out") from None
