"""A graph that computes embeddings alone gives the same embeddings, and does less."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from indexer import Encoder
from indexer.encoder.embedding_graph import embedding_alone
from indexer.encoder.encoder_file import builtin_encoder
from indexer.encoder.sessions import session_of
from tests.indexer.tiny import write_encoder

TOKENS, DIM = 5, 8


def test_the_last_block_treats_the_class_token_alone(encoder: Encoder) -> None:
    data = builtin_encoder().read_bytes()
    less = embedding_alone(data)
    graph = onnx.load_from_string(less).graph
    assert [output.name for output in graph.output] == ["embedding"]
    products = [node.output[0] for node in graph.node if node.op_type == "MatMul"][
        -3:
    ]  # projection, and both of the MLP
    session = session_of(encoder.path, with_outputs(less, products), 1, 112)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    embedding, *computed = session.run(["embedding", *products], {"pixels": pixels})
    assert [array.shape[:2] for array in computed] == [(3, 1)] * 3
    np.testing.assert_array_equal(
        embedding, session_of(encoder.path, data, 1, 112).run(["embedding"], {"pixels": pixels})[0]
    )


def with_outputs(model: bytes, names: list[str]) -> bytes:
    network = onnx.load_from_string(model)
    network.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return network.SerializeToString()


@pytest.mark.parametrize(("index", "axis", "moved"), [(0, 1, True), (1, 1, False), (0, 2, False)])
def test_only_the_first_token_is_taken_early(index: int, axis: int, moved: bool) -> None:
    model = head(index, axis)
    less = embedding_alone(model)
    operations = [node.op_type for node in onnx.load_from_string(less).graph.node]
    assert (operations.index("Gather") < operations.index("MatMul")) == moved
    np.testing.assert_array_equal(run(less), run(model))


def head(index: int, axis: int) -> bytes:
    """Tokens, a layer with its residual, and one token (or one feature of all) as the embedding."""
    weights = np.random.default_rng(1).normal(size=(DIM, DIM)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["tokens"], perm=[0, 1, 2]),
        helper.make_node("MatMul", ["tokens", "weights"], ["mixed"]),
        helper.make_node("Add", ["tokens", "mixed"], ["added"]),
        helper.make_node("Gather", ["added", "index"], ["embedding"], axis=axis),
        helper.make_node("Erf", ["added"], ["patches"]),
    ]
    shape = ["N", TOKENS, DIM]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("embedding", "patches")],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array(index), "index")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def run(model: bytes) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    tokens = np.random.default_rng(0).normal(size=(3, TOKENS, DIM)).astype(np.float32)
    return session.run(["embedding"], {"pixels": tokens})[0]


def test_what_has_nothing_to_leave_out_stays_as_it_is(tmp_path) -> None:
    assert embedding_alone(b"no network") == b"no network"
    model = write_encoder(tmp_path / "e.onnx").read_bytes()  # its embedding is a mean of all tokens
    assert embedding_alone(embedding_alone(model)) == embedding_alone(model)


def test_an_encoder_that_would_embed_otherwise_keeps_its_graph(encoder: Encoder, monkeypatch) -> None:
    def broken(model: bytes) -> bytes:
        network = onnx.load_from_string(model)
        next(node for node in network.graph.node if node.op_type == "Softmax").op_type = "Relu"
        del network.graph.output[1:]
        return network.SerializeToString()

    monkeypatch.setattr("indexer.encoder.onnx_encoder.embedding_alone", broken)
    pixels = np.random.default_rng(0).integers(0, 256, (5, encoder.image_size, encoder.image_size, 3), np.uint8)
    np.testing.assert_array_equal(encoder.for_many(10**9, "onnxruntime").embed(pixels), encoder.embed(pixels))
