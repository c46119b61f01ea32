"""A real encoder of a few kilobytes, and pictures to go with it, for tests that index a thousand times."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE, DIM = 8, 16


def write_encoder(path: Path, name: str = "tiny", dim: int = DIM, seed: int = 0) -> Path:
    """A linear map of 8 x 8 pixels to `dim` numbers: all that `docs/reference/encoder-file.md` asks for."""
    chance = np.random.default_rng(seed)
    weights = chance.normal(size=(SIDE * SIDE * 3, dim)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["flat"]),
        helper.make_node("Add", ["flat", "one"], ["shifted"]),
        helper.make_node("MatMul", ["shifted", "weights"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dim])],
        [
            numpy_helper.from_array(np.array([-1, SIDE * SIDE * 3], np.int64), "shape"),
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"massl.name": name})
    onnx.save(model, path)
    return path


def write_copy(source: Path, path: Path, **told: str) -> Path:
    """A copy of an encoder file that says something else of itself, and so has another identity."""
    model = onnx.load(source)
    facts = {prop.key: prop.value for prop in model.metadata_props if prop.key != "massl.digest"}
    helper.set_model_props(model, facts | {f"massl.{key}": value for key, value in told.items()})
    onnx.save(model, path)
    return path


def write_sizes_encoder(path: Path, sizes: Sequence[int], name: str = "sized", dim: int = DIM) -> Path:
    """A convolution over patches of 4 x 4 pixels, with patch tokens, for pictures of any of these sizes."""
    weights = np.random.default_rng(0).normal(size=(dim, 3, 4, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels", "weights"], ["maps"], strides=[4, 4]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("Transpose", ["active"], ["tokens"], perm=[0, 2, 3, 1]),
        helper.make_node("LpNormalization", ["tokens"], ["patches"], axis=3, p=2),
        helper.make_node("ReduceMean", ["active"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "S", "S", 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dim]),
            helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["N", "h", "w", dim]),
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"massl.name": name, "massl.image_sizes": ",".join(map(str, sizes))})
    onnx.save(model, path)
    return path


def write_quantised_encoder(path: Path) -> Path:
    """Two layers in 8 bits as static quantisation has them: the ranges of activations are in the file."""
    chance = np.random.default_rng(0)
    constants = {
        "shape": np.array([-1, SIDE * SIDE * 3], np.int64),
        "middle": np.float32(100),
        "zero": np.uint8(100),
        "none": np.uint8(0),
        "in": np.float32(1),
        "between": np.float32(12),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["flat"]),
        helper.make_node("Sub", ["flat", "middle"], ["input"]),
    ]
    for layer, (wide, narrow) in {"1": (SIDE * SIDE * 3, 64), "2": (64, DIM)}.items():
        weights = chance.normal(size=(wide, narrow)) / wide**0.5
        scales = np.abs(weights).max(0) / 127
        constants |= {
            f"weights{layer}": np.rint(weights / scales).astype(np.int8),
            f"scales{layer}": scales.astype(np.float32),
            f"zeros{layer}": np.zeros(narrow, np.int8),
        }
        stored = [f"weights{layer}", f"scales{layer}", f"zeros{layer}"]
        source, scale, zero = ("input", "in", "zero") if layer == "1" else ("kept", "between", "none")
        nodes += [
            helper.make_node("QuantizeLinear", [source, scale, zero], [f"quantised{layer}"]),
            helper.make_node("DequantizeLinear", [f"quantised{layer}", scale, zero], [f"read{layer}"]),
            helper.make_node("DequantizeLinear", stored, [f"factors{layer}"], axis=1),
            helper.make_node("MatMul", [f"read{layer}", f"factors{layer}"], [f"product{layer}"]),
        ]
        if layer == "1":
            nodes.append(helper.make_node("Relu", ["product1"], ["kept"]))
    nodes.append(helper.make_node("LpNormalization", ["product2"], ["embedding"], axis=1, p=2))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIM])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def picture(number: int, kind: str = "BMP") -> bytes:
    """The file of a picture unlike those of other numbers. Of BMPs all have the same size in bytes."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, kind)
        return buffer.getvalue()
