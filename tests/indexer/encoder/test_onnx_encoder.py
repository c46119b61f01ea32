"""The encoder contract, and what happens with files that don't keep it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from indexer import Encoder
from massl.core.errors import MasslError
from massl.core.images.decoding import open_image
from tests.indexer.tiny import write_copy, write_encoder


def test_the_built_in_encoder_keeps_the_contract(encoder: Encoder, pictures: Path) -> None:
    files = sorted(pictures.glob("fruit/*.jpg"))[:5]
    pixels = np.stack([encoder.prepare(open_image(path)) for path in files])
    assert pixels.shape == (5, encoder.image_size, encoder.image_size, 3)
    assert pixels.dtype == np.uint8
    embeddings = encoder.embed(pixels)
    assert embeddings.shape == (5, encoder.dim)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    patches = encoder.embed_patches(pixels)
    assert patches.shape[0] == 5
    assert patches.shape[3] == encoder.dim
    np.testing.assert_allclose(np.linalg.norm(patches, axis=3), 1, atol=1e-5)


def test_an_image_embeds_alike_alone_and_in_a_batch(encoder: Encoder, pictures: Path) -> None:
    pixels = np.stack([encoder.prepare(open_image(path)) for path in sorted(pictures.glob("bug/*.jpg"))[:4]])
    together = encoder.embed(pixels)
    alone = np.concatenate([encoder.embed(pixels[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_built_in_encoder_says_what_it_is(encoder: Encoder) -> None:
    told = {"format", "name", "architecture", "dim", "image_size", "resize", "crop", "interpolation", "parameters"}
    told |= {"image_sizes", "source", "licence", "creator", "evaluation"}
    assert told <= set(encoder.metadata)
    assert encoder.path.stat().st_size < 25e6


def model(
    input_type: int, shape: list[object], outputs: dict[str, list[object]], name: str = "pixels"
) -> onnx.ModelProto:
    """A network that averages its input to `[N, 3]`, under the names, types and shapes given."""
    flow = [helper.make_node("Cast", [name], ["x"], to=TensorProto.FLOAT)]
    flow += [helper.make_node("ReduceMean", ["x", "axes"], [output], keepdims=0) for output in outputs]
    graph = helper.make_graph(
        flow,
        "g",
        [helper.make_tensor_value_info(name, input_type, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape) for output, shape in outputs.items()],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def greedy(side: int, width: int, a_picture: bool) -> onnx.ModelProto:
    """A network that makes `width` numbers on the way, and if `a_picture` that many for each picture."""
    flow = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("ConstantOfShape", ["width"], ["row"]),
        helper.make_node("ReduceSum", ["mean", "last"], ["first"], keepdims=1),
        helper.make_node("Add", ["first" if a_picture else "one", "row"], ["wide"]),
        helper.make_node("ReduceMax", ["wide", "last"], ["nothing"], keepdims=1),
        helper.make_node("Add", ["mean", "nothing"], ["sum"]),
        helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        flow,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("last", TensorProto.INT64, [1], [1]),
            helper.make_tensor("one", TensorProto.FLOAT, [1, 1], [1.0]),
            helper.make_tensor("width", TensorProto.INT64, [2], [1, width]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("a_picture", [True, False])
def test_an_encoder_that_asks_for_more_memory_than_there_is_says_so(tmp_path: Path, a_picture: bool) -> None:
    onnx.save(greedy(8, 10**12, a_picture), tmp_path / "greedy.onnx")
    with pytest.raises(MasslError, match=r"greedy\.onnx asks for more than the .* GB of memory that are free.*smaller"):
        Encoder.load(tmp_path / "greedy.onnx")


def test_pictures_that_do_not_fit_into_memory_together_are_embedded_one_after_another(tmp_path: Path) -> None:
    # In a process of its own, as the memory for encoders is laid down with the first.
    onnx.save(greedy(8, 20_000_000, True), tmp_path / "large.onnx")  # 80 MB a picture, and as much again
    code = (
        "import sys, numpy as np; from indexer import Encoder; from indexer.encoder import sessions; "
        "sessions.available_memory = lambda: 0; "
        "sessions.LEAST_MEMORY = 500 << 20; made = Encoder.load(sys.argv[1], threads=1); "
        "print(made.embed(np.full((8, 8, 8, 3), 9, np.uint8)).shape)"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "large.onnx"], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("(8, 3)\n", "")


def test_embeddings_of_very_many_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MasslError, match="its embeddings have 16,385 numbers, and 16,384 is the most"):
        Encoder.load(write_encoder(tmp_path / "e.onnx", dim=16_385))


@pytest.mark.parametrize("told", ["1000000000", "-5", "0", "9" * 5_000, "wide", "8193", ""])
def test_a_resize_of_no_size_is_refused(tmp_path: Path, told: str) -> None:
    made = onnx.load(write_encoder(tmp_path / "e.onnx"))
    helper.set_model_props(made, {"massl.resize": told})
    onnx.save(made, tmp_path / "e.onnx")
    with pytest.raises(MasslError, match="not a number of pixels up to 8,192") as error:
        Encoder.load(tmp_path / "e.onnx")
    assert len(str(error.value)) < 200 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (model(TensorProto.UINT8, ["N", 8, 8, 3], {"embedding": ["N", 3]}, name="x1"), "its inputs are x1"),
        (model(TensorProto.FLOAT, ["N", 8, 8, 3], {"embedding": ["N", 3]}), "not uint8"),
        (model(TensorProto.UINT8, ["N", 8, 9, 3], {"embedding": ["N", 3]}), "not uint8 \\[N, S, S, 3\\]"),
        (model(TensorProto.UINT8, [4, 8, 8, 3], {"embedding": [4, 3]}), "N must be dynamic"),
        (model(TensorProto.UINT8, ["N", 8, 8, 3], {"logits": ["N", 3]}), "without one called embedding"),
        (model(TensorProto.UINT8, ["N", 8, 8, 3], {"embedding": ["N", 3]}), "not of unit length"),
        (
            model(TensorProto.UINT8, ["N", 60_000, 60_000, 3], {"embedding": ["N", 3]}),
            "60,000 pixels a side, and 2,048",
        ),
        (model(TensorProto.UINT8, ["N", 0, 0, 3], {"embedding": ["N", 3]}), "0 pixels a side"),
    ],
)
def test_a_model_that_does_not_fit_says_what_does_not(tmp_path: Path, made: onnx.ModelProto, message: str) -> None:
    onnx.save(made, tmp_path / "e.onnx")
    with pytest.raises(MasslError, match=message):
        Encoder.load(tmp_path / "e.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" + bytes(100)])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e.onnx").write_bytes(content)
    with pytest.raises(MasslError, match=r"e\.onnx"):
        Encoder.load(tmp_path / "e.onnx")


def test_a_truncated_encoder_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    data = encoder.path.read_bytes()
    (tmp_path / "e.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(MasslError, match="is not an ONNX model"):
        Encoder.load(tmp_path / "e.onnx")


def test_weights_in_another_file_are_refused(tmp_path: Path, encoder: Encoder) -> None:
    loaded = onnx.load(write_copy(encoder.path, tmp_path / "copy.onnx"))
    onnx.save(loaded, tmp_path / "e.onnx", save_as_external_data=True, location="secret.bin", size_threshold=0)
    assert (tmp_path / "secret.bin").exists()
    with pytest.raises(MasslError, match="must be one file"):
        Encoder.load(tmp_path / "e.onnx")


def test_weights_in_another_file_are_refused_however_that_is_spelt(tmp_path: Path) -> None:
    def part(tag: int, content: bytes) -> bytes:
        return bytes([tag, 0x80 | len(content), 0]) + content  # a length may take more bytes than it needs

    location = part(0x6A, part(0x0A, b"location") + part(0x12, b"secret.bin"))
    tensor = b"\x08\x01\x10\x01" + part(0x42, b"spare") + location + b"\x70\x01"
    data = write_encoder(tmp_path / "e.onnx").read_bytes()
    (tmp_path / "e.onnx").write_bytes(data + part(0x3A, part(0x2A, tensor)))  # one message after the other is their sum
    assert onnx.load(tmp_path / "e.onnx", load_external_data=False).graph.initializer[-1].name == "spare"
    with pytest.raises(MasslError, match="must be one file"):
        Encoder.load(tmp_path / "e.onnx")


def test_a_part_that_is_merely_called_location_is_no_other_file(tmp_path: Path) -> None:
    model = onnx.load(write_encoder(tmp_path / "e.onnx"))
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["location" if name == "flat" else name for name in names]
    onnx.save(model, tmp_path / "e.onnx")
    assert Encoder.load(tmp_path / "e.onnx").dim == 16


def test_a_missing_encoder_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(MasslError, match="no such encoder"):
        Encoder.load(tmp_path / "e.onnx")
    with pytest.raises(MasslError, match="is a folder"):
        Encoder.load(tmp_path)
