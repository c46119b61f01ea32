"""A real encoder of a few kilobytes, and pictures to go with it, for tests that index a thousand times."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE, DIM = 8, 16


def write_encoder(path: Path, name: str = "tiny", dim: int = DIM) -> Path:
    """A linear map of 8 x 8 pixels to `dim` numbers of unit length: the contract of `docs/encoder.md`, in full."""
    chance = np.random.default_rng(0)
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


def picture(number: int, kind: str = "BMP") -> bytes:
    """The file of a picture unlike those of other numbers. Of BMPs all have the same size in bytes."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, kind)
        return buffer.getvalue()
