"""An encoder's graph for embeddings alone: what only its patches need is left out.

An embedding is the class token of the last block. What that block does to each token by itself (its second half, and
the projection behind its attention) is then done to the class token alone.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# What treats each token by itself, where the other inputs are constants.
_EACH_TOKEN = frozenset(
    ("Add", "Cast", "DequantizeLinear", "Erf", "Gelu", "LayerNormalization", "MatMul", "Mul", "QuantizeLinear")
)
_FIRST = "massl.first_token"


def embedding_alone(model: bytes) -> bytes:
    """The same network with the output `embedding` alone, in ONNX.

    Args:
        model: an encoder's file.

    Returns:
        A file whose embeddings are the same, up to the order in which floats are added; `model` itself where there is
        nothing to leave out, or where it can't be read.
    """
    import onnx

    try:
        network = onnx.load_model_from_string(model)
    except Exception:  # of protocol buffers, another class for each of their implementations
        return model
    graph = network.graph
    embedding = [output for output in graph.output if output.name == "embedding"]
    if len(embedding) != 1:
        return model
    del graph.output[:]
    graph.output.extend(embedding)
    nodes = _needed(list(graph.node))
    before = len(nodes)
    nodes = _class_token_early(graph, nodes)
    if before == len(nodes) == len(graph.node):
        return model
    del graph.node[:]
    graph.node.extend(nodes)
    return network.SerializeToString()


def _needed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Those on which the embedding depends."""
    wanted = {"embedding"}
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            for attribute in node.attribute:  # a branch may use what stands outside of it
                wanted.update(name for inner in attribute.g.node for name in inner.input)
            kept.append(node)
    return kept[::-1]


def _class_token_early(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, with the class token taken as early as only it is needed; the same ones where none takes it."""
    from onnx import TensorProto, helper

    constants = {each.name: each for each in graph.initializer}
    fixed = set(constants)
    for node in nodes:  # weights that are stored in 8 bits
        if node.input and fixed.issuperset(filter(None, node.input)):
            fixed.update(node.output)
    users: defaultdict[str, set[int]] = defaultdict(set)
    for place, node in enumerate(nodes):
        for name in node.input:
            users[name].add(place)
    alone = {place for place, node in enumerate(nodes) if _takes_first(node, constants)}
    takers = set(alone)
    for place in range(len(nodes) - 1, -1, -1):  # users stand behind what they use
        node = nodes[place]
        reached = users[node.output[0]] if len(node.output) == 1 else set()
        if reached and reached <= alone and node.op_type in _EACH_TOKEN and place not in takers:
            alone.add(place)
    moved = alone - takers
    if not moved:
        return nodes
    graph.initializer.append(helper.make_tensor(_FIRST, TensorProto.INT64, [1], [0]))
    by_output = {name: place for place, node in enumerate(nodes) for name in node.output}
    arranged: list[onnx.NodeProto] = []
    taken: set[str] = set()
    for place, node in enumerate(nodes):
        for which, name in enumerate(node.input if place in moved else []):
            if not name or name in fixed or by_output.get(name) in moved:
                continue
            if name not in taken:
                taken.add(name)
                inputs, outputs = [name, _FIRST], [f"{name}.{_FIRST}"]
                arranged.append(helper.make_node("Gather", inputs, outputs, axis=1))
            node.input[which] = f"{name}.{_FIRST}"
        arranged.append(node)
    return arranged


def _takes_first(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether it takes the first token of `[N, tokens, D]`."""
    from onnx import numpy_helper

    if node.op_type != "Gather" or node.input[1] not in constants:
        return False
    axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
    return axis == 1 and not numpy_helper.to_array(constants[node.input[1]]).any()
