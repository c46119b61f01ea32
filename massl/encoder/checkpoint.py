"""Checkpoints: written whole or not at all, read without running anything that they contain."""

from __future__ import annotations

import errno
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from massl.core.disk_errors import cannot_write
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import remove_forgotten, whole

_NAME = re.compile(r"step-(\d+)\.pt")


BEST = "best.pt"
FULL = 64 << 20  # bytes free under which a failed write is put down to a full disk


def save(folder: Path, step: int, state: dict[str, Any], keep: int, best: bool = False) -> Path:
    """Writes `step-N.pt`, whole or not at all, then removes all but the last `keep`.

    With `best`, it is also kept as `best.pt`, in place of an earlier one.

    Raises:
        MasslError: it can't be written, as on a full disk; earlier checkpoints stay.
    """
    path = folder / f"step-{step:08d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_forgotten(folder)
        with whole(path) as written, written.open("wb") as file:
            torch.save(state, file)
        if best:
            with whole(folder / BEST) as written:
                try:
                    os.link(path, written)  # a second name for the same bytes
                except OSError:  # a file system without such names
                    shutil.copyfile(path, written)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        if not isinstance(error, OSError):
            full = shutil.disk_usage(folder if folder.exists() else folder.parent).free < FULL
            number = errno.ENOSPC if full else None
            error = OSError(number, os.strerror(number) if number else " ".join(str(error).split())[:160])
        raise MasslError(f"{cannot_write(path, error)}; earlier checkpoints are kept") from error
    for old in _all(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def latest(folder: Path) -> Path:
    """The newest checkpoint in a run's `checkpoints` folder.

    Raises:
        MasslError: there is none.
    """
    found = _all(folder)
    if not found:
        raise _nothing(folder)
    return found[-1]


def latest_sound(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The newest checkpoint that can be read, and a line about each newer one that can't.

    Raises:
        MasslError: there is none.
    """
    damaged: list[str] = []
    for path in reversed(_all(folder)):
        try:
            return load(path), damaged
        except MasslError as error:
            damaged.append(str(error))
    raise MasslError(damaged[0] if damaged else str(_nothing(folder)))


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU, tensors and plain values only.

    Raises:
        MasslError: missing, truncated, or it holds something other than tensors and plain values.
    """
    try:
        _compare_checksums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MasslError(f"{path}: there is no such file") from None
    except Exception as error:  # on damaged data torch's reader raises nearly anything: RuntimeError, IndexError…
        # Whose words advise to load it with nothing checked.
        raise MasslError(f"{path} is damaged, or not a checkpoint of tensors and plain values only") from error
    if not isinstance(state, dict):
        raise MasslError(f"{path} is not a checkpoint: it holds a {type(state).__name__}")
    return state


def _compare_checksums(path: Path) -> None:
    """Compares what a checkpoint holds with the checksums in it, which torch writes and doesn't read.

    Raises:
        ValueError: one differs.
    """
    if not zipfile.is_zipfile(path):  # of a torch before 1.6, without any
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} in it has another checksum")


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))


def _nothing(folder: Path) -> MasslError:
    return MasslError(f"{folder} holds no checkpoint; give the folder that `massl train` wrote")
