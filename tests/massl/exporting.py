"""torch's exporter, asked less often: it takes three seconds of a core for the smallest network."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from massl.core.errors import MasslError
from massl.core.files import atomic_writing
from massl.encoder import export
from massl.encoder.inference import Deployed, takes_any_size
from massl.encoder.onnx_graph import GRID, TRANSPOSED

Graph = tuple[onnx.ModelProto, dict[str, str]]
to_onnx = export._to_onnx  # the product's
_LARGEST = 32 << 20  # bytes of a graph that is kept


def keep_the_table_of_operators(replace: Callable[[Any, str, Any], None]) -> None:
    """Has torch read its table of ONNX operators once, not at every export, which takes half a second of a core.

    `replace` is `setattr`, or one that undoes it later.
    """
    with contextlib.suppress(ImportError, AttributeError):  # it is where torch says nothing of, and may go
        registry = importlib.import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
        replace(registry, "from_torchlib", staticmethod(functools.cache(registry.from_torchlib)))


def reuse_graphs(replace: Callable[[Any, str, Any], None], folder: Path) -> None:
    """Exports a network by the graph of an earlier one that differs in its weights alone.

    Graphs are kept in `folder`, for all processes that run tests beside each other. The weights are put into that
    graph, which makes the same file to the byte: a test in `test_export` holds that. `export` holds each file to torch
    in any case; here it does once more, and the exporter is asked where they differ. Of convolutional networks only
    one with the same weights is used again, as batch normalisations are folded into them.
    """
    exported = to_onnx

    def reused(deployed: Deployed, size: int) -> Graph:
        key = (repr(deployed), size, deployed.stages, deployed.whitens, str(deployed.positions), _pattern(deployed))
        digest = hashlib.sha256(repr(key).encode())
        any_weights = folder / f"{digest.hexdigest()}.onnx"
        for tensor in deployed.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        these_weights = folder / f"{digest.hexdigest()}.onnx"
        if any_weights.exists() and (graph := _with_weights(*_read(any_weights), deployed, size)):
            return graph
        if these_weights.exists():
            return _read(these_weights)
        model, shared = exported(deployed, size)
        if model.ByteSize() < _LARGEST:
            as_they_are = all(_is_as_in(deployed, tensor) for tensor in model.graph.initializer)
            _write(any_weights if as_they_are else these_weights, model, shared)
        return model, shared

    replace(export, "_to_onnx", reused)


def _pattern(deployed: Deployed) -> tuple[tuple[str, tuple[int, ...], int], ...]:
    """Names and shapes, and which weights are equal, as the exporter stores those once."""
    first: dict[bytes, int] = {}
    return tuple(
        (name, tuple(tensor.shape), first.setdefault(tensor.numpy().tobytes(), number))
        for number, (name, tensor) in enumerate(deployed.state_dict().items())
    )


def _with_weights(model: onnx.ModelProto, shared: dict[str, str], deployed: Deployed, size: int) -> Graph | None:
    """The same graph with the weights of another network; None where it doesn't compute what that does."""
    for tensor in model.graph.initializer:
        values = _values(deployed, tensor.name)
        if values is not None:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    try:
        export._compare(deployed, model, size, "fp32")
    except MasslError:
        return None
    return model, shared


def _is_as_in(deployed: Deployed, tensor: onnx.TensorProto) -> bool:
    """Whether what is stored by the name of a weight is that weight, and not what the exporter made of it."""
    values = _values(deployed, tensor.name)
    return values is None or np.array_equal(values, numpy_helper.to_array(tensor))


def _values(deployed: Deployed, name: str) -> np.ndarray | None:
    """A weight by its name in the file; None if it is a constant."""
    if name == GRID and takes_any_size(deployed.backbone):
        patches = deployed.backbone.patch_embed
        return deployed.grid_of(patches.patch_size[0] * patches.grid_size[0]).detach().numpy()
    tensor = deployed.state_dict().get(name.removesuffix(TRANSPOSED))
    if tensor is None:
        return None
    return tensor.numpy().T if name.endswith(TRANSPOSED) else tensor.numpy()


def _write(file: Path, model: onnx.ModelProto, shared: dict[str, str]) -> None:
    with contextlib.suppress(OSError):  # as where a test lets no file grow
        atomic_writing.write(file, json.dumps(shared).encode() + b"\n" + model.SerializeToString())


def _read(file: Path) -> Graph:
    shared, _, model = file.read_bytes().partition(b"\n")
    return onnx.load_from_string(model), json.loads(shared)
