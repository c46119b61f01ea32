"""The contract of an encoder file (`docs/reference/encoder-file.md`), and what is said of one that breaks it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from massl.core.encoder_contract import FORMAT, LARGEST_SIDE, MOST_SIZES
from massl.core.errors import MasslError

HOW = "make one with `massl export`"
WIDEST = 16_384  # numbers of an embedding
UNIT = 0.02  # that the length of an embedding may differ from 1 by; bfloat16 rounds by up to 0.004

_SIZES = re.compile(r"[0-9]{1,5}(,[0-9]{1,5})*")


class SizeNotListed(MasslError):
    """An encoder file is to be used at a size that it doesn't list."""


def check_contract(path: Path, session: Any) -> tuple[int | None, int]:
    """S, None where the file lists several, and D, or what doesn't fit."""

    def refuse(what: str) -> MasslError:
        return MasslError(f"{path} doesn't fit the encoder contract: {what}; {HOW}")

    inputs = {value.name: value for value in session.get_inputs()}
    if list(inputs) != ["pixels"]:
        raise refuse(f"its inputs are {', '.join(inputs) or 'none'}, not one called pixels")
    shape, kind = inputs["pixels"].shape, inputs["pixels"].type
    if kind != "tensor(uint8)" or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise refuse(f"pixels is {kind} {shape}, not uint8 [N, S, S, 3]")
    told = session.get_modelmeta().custom_metadata_map
    if isinstance(shape[0], int):
        raise refuse(f"pixels is {shape}: N must be dynamic")
    if not isinstance(shape[1], int) and "massl.image_sizes" not in told:
        raise refuse(f"pixels is {shape}: S must be fixed, or massl.image_sizes list what it can be")
    if isinstance(shape[1], int) and not 0 < shape[1] <= LARGEST_SIDE:
        raise refuse(f"it takes pictures of {shape[1]:,} pixels a side, and {LARGEST_SIDE:,} is the most")
    outputs = {value.name: value for value in session.get_outputs()}
    if "embedding" not in outputs:
        raise refuse(f"its outputs are {', '.join(outputs)}, without one called embedding")
    out = outputs["embedding"]
    if out.type != "tensor(float)" or len(out.shape) != 2 or not isinstance(out.shape[1], int):
        raise refuse(f"embedding is {out.type} {out.shape}, not float32 [N, D]")
    if not 0 < out.shape[1] <= WIDEST:
        raise refuse(f"its embeddings have {out.shape[1]:,} numbers, and {WIDEST:,} is the most")
    return shape[1] if isinstance(shape[1], int) else None, out.shape[1]


def check_format(path: Path, metadata: Mapping[str, str]) -> None:
    """Compares the version of the contract that a file was written for.

    Raises:
        MasslError: it is not known here.
    """
    told = metadata.get("format", FORMAT)
    if told != FORMAT:
        raise MasslError(
            f"{path} was written for another version of massl: its massl.format is {told[:40]!r}, not {FORMAT}; "
            f"install the newest massl, or {HOW}"
        )


def image_sizes(path: Path, metadata: Mapping[str, str], fixed: int | None) -> tuple[int, ...]:
    """All that S can be in pixels, the usual one first."""
    told = metadata.get("image_sizes", str(fixed))
    # Not by int() alone, which takes the digits of all scripts, signs and underscores.
    sizes = tuple(int(size) for size in told.split(",")) if _SIZES.fullmatch(told) else ()
    if not sizes or not 0 < min(sizes) <= max(sizes) <= LARGEST_SIDE or len(set(sizes)) < len(sizes):
        raise MasslError(
            f"{path}: its massl.image_sizes is {told[:40]!r}, not a list of pixels up to {LARGEST_SIDE:,}; {HOW}"
        )
    if len(sizes) > MOST_SIZES:
        raise MasslError(f"{path}: its massl.image_sizes lists {len(sizes):,} sizes, and {MOST_SIZES} is the most")
    return sizes


def size_to_use(path: Path, metadata: Mapping[str, str], fixed: int | None, wanted: int | None) -> tuple[int, ...]:
    """The size in pixels that a file is used at, then all that it lists, the usual one first.

    Args:
        path: the file.
        metadata: its `massl.*` properties, without that prefix.
        fixed: the only size that it takes; None where it takes several.
        wanted: the size asked for; the usual one if None.

    Raises:
        SizeNotListed: it doesn't list the size.
        MasslError: what it tells of sizes is wrong.
    """
    sizes = image_sizes(path, metadata, fixed)
    size = wanted or sizes[0]
    if size not in sizes:
        name = metadata.get("name", path)
        raise SizeNotListed(f"the encoder {name} takes pictures of {listed(sorted(set(sizes)))} pixels, not of {size}")
    if fixed is not None and fixed != size:
        raise MasslError(f"{path} doesn't fit the encoder contract: it takes {fixed} pixels alone; {HOW}")
    return size, *sizes


def shorter_side(path: Path, metadata: Mapping[str, str], size: int, usual: int) -> int:
    """To how many pixels the shorter side of a picture is resized before its centre of `size` is cut out.

    Raises:
        MasslError: what the file tells of it is wrong.
    """
    told = metadata.get("resize", str(usual))
    try:
        resize = round(int(told) * size / usual)
    except ValueError:
        resize = -1
    if not 0 < resize <= 4 * LARGEST_SIDE:
        most = f"{4 * LARGEST_SIDE:,}"
        raise MasslError(f"{path}: its massl.resize is {told[:40]!r}, not a number of pixels up to {most}")
    return max(resize, size)


def check_embeddings(path: Path, embedded: NDArray[np.float32], dim: int) -> None:
    """Compares the embeddings of two pictures with what they must be.

    Raises:
        MasslError: they are not float32 `[2, dim]` of unit length.
    """
    if embedded.shape != (2, dim):
        found = list(embedded.shape)
        raise MasslError(f"{path} doesn't fit the encoder contract: it gives {found} for [2, {dim}]; {HOW}")
    lengths = np.linalg.norm(embedded, axis=1)
    if not np.allclose(lengths, 1, atol=1e-2):
        raise MasslError(f"{path} doesn't fit the encoder contract: its embeddings are not of unit length; {HOW}")


def are_unit(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows of `[N, D]` are embeddings: numbers of unit length. A file that keeps the contract on grey may not
    keep it on every picture.
    """
    lengths = np.linalg.norm(embeddings, axis=1)
    return np.asarray(np.abs(lengths - 1) <= UNIT)  # also false where a length is not a number


def listed(sizes: Sequence[int]) -> str:
    *most, last = map(str, sizes)
    return f"{', '.join(most)} or {last}" if most else last
