"""Reads files of weights, PyTorch's and safetensors', without running anything that they contain."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from massl.core.errors import MasslError
from massl.encoder import checkpoint

_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
_NOT_ALLOWED = re.compile(r"GLOBAL ([\w.]+)")  # how torch's reader names what it refuses to make
_PART = re.compile(r"-\d{5}-of-\d{5}\.")


class WeightsFile(NamedTuple):
    """What a file of weights holds."""

    path: Path
    state: Mapping[str, Any]  # tensors, and of PyTorch's files also plain values and further mappings, by name
    notes: Mapping[str, str]  # what a safetensors file says of itself


def read_weights(path: Path) -> WeightsFile:
    """Reads a state dict or a checkpoint to the CPU.

    Args:
        path: a run's folder, of which the newest checkpoint is read, or a file of PyTorch's or of safetensors.

    Raises:
        MasslError: missing, damaged, of another kind, or it holds more than tensors and plain values.
    """
    try:
        if path.is_dir():
            path = _newest_checkpoint(path)
        elif path.exists() and not path.is_file():
            raise MasslError(f"{path} is not a file; give the weights file itself")
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise MasslError(f"{path}: there is no such file") from None
    except OSError as error:
        raise MasslError(f"{path} could not be read: {error.strerror or error}") from None
    _refuse_other_kinds(path, head)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"PK"):
        _refuse_other_archives(path)
    elif not head.startswith(b"\x80"):
        raise MasslError(f"{path} is not a weights file; give a .pth or a .safetensors with a network's tensors")
    if path.suffix == ".safetensors":
        raise MasslError(f"{path} is a PyTorch file; rename it to end in .pth")
    return WeightsFile(path, _read_torch(path), {})


def is_part(path: Path) -> bool:
    """Whether a file is, by its name, one of several that hold a network's weights together."""
    return bool(_PART.search(path.name))


def _newest_checkpoint(folder: Path) -> Path:
    if not (folder / "checkpoints").is_dir():
        files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
        if files:
            raise MasslError(f"{folder} is not a run; give the weights file itself, as {files[0]}")
    return checkpoint.latest(folder / "checkpoints")


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Names what is often found in the place of weights."""
    start = head.lstrip().lower()
    if not head:
        raise MasslError(f"{path} is empty; fetch it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise MasslError(
            f"{path} is a web page, not weights: open its address in a browser to see how to fetch the file"
        )
    if start.startswith(b"version https://git-lfs"):
        raise MasslError(
            f"{path} only points to the weights, which Git LFS keeps elsewhere; fetch them by: git lfs pull"
        )
    if start.startswith(b"{") and (path.name.endswith(".index.json") or b'"weight_map"' in start):
        raise MasslError(
            f"{path} is the index of weights that lie in several files; MaSSL takes one file, so save them as one"
        )
    if start.startswith((b"{", b"[")):
        raise MasslError(f"{path} is a text in JSON, not weights; give the file of weights")


def _refuse_other_archives(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise _damaged(path) from None
    if "constants.pkl" in names:
        raise MasslError(f"{path} is a program of TorchScript, not weights; give the state dict that it was made of")
    if "data.pkl" not in names:
        raise MasslError(f"{path} is an archive, but not of PyTorch's; give a .pth or a .safetensors of the weights")


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            notes = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError):
        raise _damaged(path) from None
    return WeightsFile(path, state, notes)


def _read_torch(path: Path) -> dict[str, Any]:
    # The files of DINO and of MaSSL's authors hold their command line and, in the optimiser's groups, rates as NumPy's
    # numbers.
    number: Any = np.float64(0).__reduce__()
    scalar, dtype = number[0], number[1][0]
    allowed = [argparse.Namespace, np.dtype, type(dtype), scalar, (scalar, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other protocols
            return checkpoint.load(path)
    except MasslError as error:
        # torch's own words advise to load it with nothing checked.
        cause = error.__cause__
        if cause is None:
            raise
        if isinstance(cause, pickle.UnpicklingError):
            refused = _NOT_ALLOWED.search(str(cause))
            raise MasslError(
                f"{path} holds more than tensors and plain values{f' ({refused[1]})' if refused else ''}, and reading "
                "that could run code; ask whoever made it for the state dict alone, best as .safetensors"
            ) from None
        raise _damaged(path) from None


def _damaged(path: Path) -> MasslError:
    return MasslError(f"{path} is damaged or was cut short on its way; fetch it again")
