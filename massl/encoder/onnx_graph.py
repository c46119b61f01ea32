"""What is done to an ONNX graph after torch wrote it: positions of any size, names of the weights, fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from massl.method.network import PositionResizing

# What is added to the name of a weight that is stored in fewer bits, or transposed.
HALF, EIGHT_BITS, SCALE, TRANSPOSED = ".half", ".int8", ".int8.scale", ".transposed"
PAIR = 128  # what two neighbouring bytes of a matrix add up to at most; see `quantise_weights`
GRID = "positions.grid"  # the position embeddings of the patches, `[1, D, h, w]`, as the weights have them
OFFSET = "positions.offset"  # see `massl.method.network.PositionResizing`
SIDE = "S"  # the dimension of `pixels` that says how large pictures are


def remove_notes(model: onnx.ModelProto) -> None:
    """Removes what the exporter notes at every node and value: which lines of which files made it."""
    for noted in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del noted.metadata_props[:]
        noted.doc_string = ""


def resize_positions_by(
    model: onnx.ModelProto, given: str, grid: NDArray[np.float32], patch: int, way: PositionResizing
) -> None:
    """Computes an input that holds position embeddings from the side of `pixels`, so that the input goes.

    It computes what `massl.method.network.resize_positions` does. A runtime that knows the side when it loads the
    file does it once, then.

    Args:
        model: changed in place; its `pixels` and outputs get symbolic sides.
        given: the name of the input, float32 `[1, D, h, w]`.
        grid: the embeddings as the weights have them, float32 `[1, D, H, W]`.
        patch: side of a patch, in pixels.
        way: how they are resized.
    """
    graph = model.graph
    constants: dict[str, NDArray[Any]] = {
        GRID: grid,
        "positions.any": np.zeros(1, np.int64),
        "positions.patch": np.array([patch], np.int64),
        OFFSET: np.array([way.offset], np.float32),
        "positions.had": np.array(grid.shape[2:], np.int64),
        "positions.first": np.array(grid.shape[:2], np.int64),
        "positions.whole": np.ones(2, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    nodes = [
        # Of one picture: the sides of a batch, whose size isn't known, are not computed ahead by ONNX Runtime.
        helper.make_node("Gather", ["pixels", "positions.any"], ["positions.picture"]),
        helper.make_node("Shape", ["positions.picture"], ["positions.side"], start=1, end=3),
        helper.make_node("Div", ["positions.side", "positions.patch"], ["positions.wanted"]),
    ]
    if way.offset:
        # Scales, as torch takes them: their product with the grid's side is no whole number of patches.
        nodes += [
            helper.make_node("Cast", ["positions.wanted"], ["positions.new"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["positions.had"], ["positions.old"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["positions.new", OFFSET], ["positions.more"]),
            helper.make_node("Div", ["positions.more", "positions.old"], ["positions.ratio"]),
            helper.make_node("Equal", ["positions.wanted", "positions.had"], ["positions.same"]),
            helper.make_node("Where", ["positions.same", "positions.whole", "positions.ratio"], ["positions.scale"]),
            helper.make_node("Concat", ["positions.whole", "positions.scale"], ["positions.scales"], axis=0),
        ]
        sizes = [GRID, "", "positions.scales"]
    else:
        nodes += [helper.make_node("Concat", ["positions.first", "positions.wanted"], ["positions.sizes"], axis=0)]
        sizes = [GRID, "", "", "positions.sizes"]
    # The coefficient of the cubic, and what lies beyond the edge, as torch has them with and without antialiasing.
    smooth: dict[str, Any] = (
        {"antialias": 1, "cubic_coeff_a": -0.5, "exclude_outside": 1} if way.antialias else {"cubic_coeff_a": -0.75}
    )
    nodes += [
        helper.make_node("Resize", sizes, [given], mode="cubic", coordinate_transformation_mode="half_pixel", **smooth)
    ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    graph.input.remove(next(value for value in graph.input if value.name == given))
    del graph.value_info[:]  # sizes that a runtime infers by itself
    name_side(graph.input[0], (1, 2), (SIDE, SIDE))
    for output in graph.output:
        if len(output.type.tensor_type.shape.dim) == 4:
            name_side(output, (1, 2), ("h", "w"))


def name_side(value: onnx.ValueInfoProto, dimensions: tuple[int, ...], names: tuple[str, ...]) -> None:
    """Calls some dimensions of an input or output by a name in place of a number or a formula."""
    for dimension, name in zip(dimensions, names, strict=True):
        value.type.tensor_type.shape.dim[dimension].dim_param = name


def name_weights(model: onnx.ModelProto, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Calls each weight by its name in torch, so that the network can be read out of the file again.

    The exporter keeps names of what it leaves as it is. A matrix that it transposes gets a number for a name: here it
    gets its own, and `TRANSPOSED`.

    Args:
        model: changed in place.
        state: of the module that was exported.

    Returns:
        names of weights that are equal to another one, which alone is stored, and that one's.
    """
    matrices = {name: tensor.detach().numpy() for name, tensor in state.items() if tensor.ndim == 2}
    named: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.name in state or len(tensor.dims) != 2:
            continue
        values = numpy_helper.to_array(tensor)
        for name, matrix in matrices.items():
            if matrix.shape == values.shape[::-1] and np.array_equal(matrix.T, values):
                named[tensor.name] = name + TRANSPOSED
                tensor.name = named[tensor.name]
                break
    for node in model.graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
    stored = {tensor.name.removesuffix(TRANSPOSED) for tensor in model.graph.initializer} & state.keys()
    others = [name for name in stored if state[name].ndim != 2]
    return {
        name: same
        for name, tensor in state.items()
        if name not in stored and tensor.ndim != 2
        for same in [next((each for each in others if torch.equal(state[each], tensor)), None)]
        if same
    }


def store_in_half(model: onnx.ModelProto) -> None:
    """Keeps float32 weights as float16 with a cast behind each, which ONNX Runtime folds away when it loads them."""
    casts = []
    for tensor in model.graph.initializer:
        name = tensor.name
        small = int(np.prod(tensor.dims)) < 256 or name.endswith(SCALE)
        if tensor.data_type == TensorProto.FLOAT and not small:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, name + HALF))
            casts.append(helper.make_node("Cast", [name + HALF], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def store_in_bytes(model: onnx.ModelProto) -> None:
    """Keeps convolutions' weights in 8 bits, a scale for each output channel; ONNX Runtime unfolds them on loading.

    Unlike `DequantizeLinear`, which it leaves for kernels that compute in 8 bits, a product of constants is folded.
    """
    filters = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for tensor in [each for each in model.graph.initializer if each.name in filters]:
        values, name = numpy_helper.to_array(tensor), tensor.name
        scale = np.abs(values).max((1, 2, 3), keepdims=True).clip(1e-12) / 127
        tensor.CopyFrom(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), name + EIGHT_BITS))
        model.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), name + SCALE))
        for node in reversed(_dequantised_on_loading(name)):
            model.graph.node.insert(0, node)


def quantise(model: onnx.ModelProto, inputs: Mapping[str, tuple[float, int]]) -> None:
    """Computes linear layers in 8 bits, a scale for each output channel; what else is left is kept in half.

    A layer's product is put between `QuantizeLinear` and `DequantizeLinear`, which runtimes replace by one of bytes. A
    layer with no scale in `inputs` has its weights in 8 bits, and is computed in float.

    Args:
        model: changed in place; its weights are named by `name_weights`.
        inputs: by the name of a layer's weight, the value of a step of its input and the byte that stands for zero.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.endswith(TRANSPOSED)}
    constants: dict[str, NDArray[Any]] = {}
    nodes: list[onnx.NodeProto] = []
    on_loading: list[onnx.NodeProto] = []
    for node in model.graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        if name not in weights:
            nodes.append(node)
            continue
        values, scale = quantise_weights(numpy_helper.to_array(weights[name]))
        weights[name].CopyFrom(numpy_helper.from_array(values, name + EIGHT_BITS))
        constants[name + SCALE] = scale
        plain = name.removesuffix(TRANSPOSED)
        if plain not in inputs:
            on_loading += _dequantised_on_loading(name)
            nodes.append(node)
            continue
        step, zero = inputs[plain]
        steps, zeros = f"{name}.step", f"{name}.zero"
        constants |= {steps: np.array(step, np.float32), zeros: np.array(zero, np.uint8)}
        given, narrow, rounded = node.input[0], f"{name}.bytes", f"{name}.rounded"
        nodes += [
            helper.make_node("QuantizeLinear", [given, steps, zeros], [narrow]),
            helper.make_node("DequantizeLinear", [narrow, steps, zeros], [rounded]),
            helper.make_node("DequantizeLinear", [name + EIGHT_BITS, name + SCALE], [name], axis=1),
        ]
        node.input[0] = rounded
        nodes.append(node)
    kept = [*on_loading, *nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    store_in_half(model)


def _dequantised_on_loading(name: str) -> list[onnx.NodeProto]:
    """A weight from its bytes; unlike `DequantizeLinear`, a product of constants is computed once, on loading."""
    wide = f"{name}.wide"
    return [
        helper.make_node("Cast", [name + EIGHT_BITS], [wide], to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, name + SCALE], [name]),
    ]


def quantise_weights(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A matrix `[K, N]` as int8 `[K, N]` and a scale a column, float32 `[N]`.

    Processors without VNNI multiply an unsigned by a signed byte and add two such products in 16 bits (`vpmaddubsw`).
    A sum above 32,767 is cut off there, and nowhere else. So two neighbours of a column (rows 2k and 2k + 1) that have
    the same sign add up to `PAIR` at most: 255 · 128 = 32,640. Each column takes the one of several scales that changes
    it least. The last of these, 7 bits for all, is the usual remedy.
    """
    usual = np.abs(matrix).max(0).clip(1e-12) / 127
    best = np.full(matrix.shape[1], np.inf)
    values, scale = np.zeros(matrix.shape, np.int8), usual.copy()
    for factor in (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 127 / 64):
        tried = usual * factor
        narrow = _without_overflow(np.rint(matrix / tried).astype(np.int32))
        error = np.square(narrow * tried - matrix).sum(0)
        nearer = error < best
        values[:, nearer], scale[nearer], best[nearer] = narrow[:, nearer], tried[nearer], error[nearer]
    return values, scale.astype(np.float32)


def _without_overflow(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Lowers the larger of two neighbours of one sign, so that together they have `PAIR` at most."""
    pairs = np.concatenate([values, np.zeros_like(values[: len(values) % 2])]).reshape(-1, 2, values.shape[1])
    excess = (np.abs(pairs.sum(1)) - PAIR).clip(0) * (pairs[:, 0] * pairs[:, 1] > 0)
    first = np.abs(pairs[:, 0]) >= np.abs(pairs[:, 1])
    for place, larger in ((0, first), (1, ~first)):
        pairs[:, place] -= np.sign(pairs[:, place]) * excess * larger
    return pairs.reshape(-1, values.shape[1])[: len(values)]


def weights_of(model: onnx.ModelProto, shared: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
    """The weights of a file that `massl export` wrote, by their names in torch, in float32 however they are stored.

    `shared` is what `name_weights` returned.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found: dict[str, NDArray[np.float32]] = {}
    for name, values in stored.items():
        if name.endswith(EIGHT_BITS):
            plain = name.removesuffix(EIGHT_BITS)
            found[plain] = values.astype(np.float32) * stored[plain + SCALE]
        elif values.dtype in (np.float16, np.float32) and not name.endswith(SCALE):
            found[name.removesuffix(HALF)] = values.astype(np.float32)
    plain_names = {
        name.removesuffix(TRANSPOSED): np.ascontiguousarray(values.T) if name.endswith(TRANSPOSED) else values
        for name, values in found.items()
    }
    return plain_names | {name: plain_names[same] for name, same in shared.items()}
