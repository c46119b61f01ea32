"""8 bits: the network computes what it did, alone and in a batch, and on processors of every kind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from typer.testing import CliRunner

from cli.commands import app
from indexer import Encoder
from indexer.encoder.encoder_file import builtin_encoder
from massl.core.errors import MasslError
from massl.data.sampling import sampled
from massl.data.sources import find_source
from massl.encoder import quantisation, weights
from massl.encoder.export import export
from massl.encoder.inference import Deployed
from massl.encoder.onnx_graph import PAIR, quantise_weights
from tests.massl.encoder.test_export import untrained
from tests.massl.shallow import DEPTH


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint's folder of a small transformer. Not to be changed."""
    return untrained(tmp_path_factory.mktemp("vit") / "run", "vit_shallow_tiny_patch16", 16, 64)


def shown(pictures: Path, count: int) -> torch.Tensor:
    return next(sampled(find_source(pictures)[0], count, 64, 64))


def embedded(network: Deployed, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(pixels)[0]


def test_channels_are_evened_out_and_the_network_computes_what_it_did(vit: Path, pictures: Path) -> None:
    network, pixels = Deployed(weights.read(str(vit))).eval(), shown(pictures, 16)
    uneven = torch.linspace(0.1, 10, 192)
    for block in network.backbone.blocks:
        with torch.no_grad():
            for bias in (block.norm1.bias, block.norm2.bias, block.attn.qkv.bias, block.mlp.fc1.bias):
                bias.normal_()
            block.norm1.weight.mul_(uneven)
            block.attn.qkv.weight.div_(uneven)
    before = embedded(network, pixels)
    ranges = quantisation.observe(network, [pixels[:8], pixels[8:]])
    after = quantisation.smooth(network, ranges)
    torch.testing.assert_close(embedded(network, pixels), before, atol=1e-5, rtol=0)
    seen = quantisation.observe(network, [pixels])
    assert after.keys() == ranges.keys() == seen.keys()
    for name, found in seen.items():
        torch.testing.assert_close(found.high, after[name].high, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found.low, after[name].low, atol=1e-4, rtol=1e-3)

    def unevenness(of: quantisation.Range) -> float:
        return float(of.largest.max() / of.largest.mean())

    name = "backbone.blocks.0.attn.qkv"
    assert unevenness(after[name]) < 0.7 * unevenness(ranges[name])


def test_a_layer_that_a_single_large_value_spoils_stays_in_float(vit: Path, tmp_path: Path, pictures: Path) -> None:
    network = Deployed(weights.read(str(vit))).eval()
    with torch.no_grad():
        mlp = network.backbone.blocks[1].mlp
        mlp.fc2.weight.mul_(50)
        mlp.fc1.bias[7], mlp.fc2.weight[:, 7] = 5_000, 0
    pixels = shown(pictures, 8)
    ranges = quantisation.observe(network, [pixels])
    fit = quantisation.fit_for_eight_bits(network, ranges, pixels)
    assert ranges.keys() - fit.keys() == {"backbone.blocks.1.mlp.fc2"}

    torch.save(network.backbone.state_dict(), tmp_path / "weights.pth")
    written = tmp_path / "e.onnx"
    export(
        str(tmp_path / "weights.pth"), written, backbone="vit_shallow_tiny_patch16", precision="int8",
        image_sizes=(64,), calibrate=find_source(pictures)[0],
    )  # fmt: skip
    products = [node for node in onnx.load(written).graph.node if node.op_type == "MatMul"]
    layers = [node for node in products if node.input[1].endswith(".weight.transposed")]
    in_float = [node.input[1] for node in layers if not node.input[0].endswith(".rounded")]
    assert in_float == ["backbone.blocks.1.mlp.fc2.weight.transposed"]
    assert len(layers) == 4 * DEPTH


def test_an_embedding_depends_on_no_other_picture_of_its_batch(vit: Path, tmp_path: Path, pictures: Path) -> None:
    export(str(vit), tmp_path / "e.onnx", precision="int8", calibrate=find_source(pictures)[0])
    encoder = Encoder.load(tmp_path / "e.onnx")
    pixels = shown(pictures, 8).numpy()
    pixels[5:] = 255  # which would move a scale that is taken from the batch
    together = encoder.embed(pixels)
    for alone, wanted in zip(pixels, together, strict=True):
        np.testing.assert_array_equal(encoder.embed(alone[None])[0], wanted)


@given(st.integers(0, 2**32 - 1), st.integers(1, 33), st.floats(0.2, 3), st.booleans())
def test_sums_of_two_products_of_bytes_fit_into_16_bits(seed: int, rows: int, tail: float, outlier: bool) -> None:
    random = np.random.default_rng(seed)
    matrix = (np.sign(x := random.normal(size=(rows, 9))) * np.abs(x) ** tail).astype(np.float32)
    if outlier:
        matrix[rows // 2] *= 30
    matrix[:, 0] = 1  # equal neighbours of the largest value: the worst case
    matrix[:, 1] = 0
    values, scale = quantise_weights(matrix)
    padded = np.concatenate([values, np.zeros((rows % 2, 9), np.int8)]).astype(np.int64)
    pairs = padded.reshape(-1, 2, 9)
    for first in (0, 255):
        for second in (0, 255):
            assert np.abs(first * pairs[:, 0] + second * pairs[:, 1]).max() <= 255 * PAIR < 2**15
    # Never further from the matrix than 7 bits are, which fit in any case.
    seven = np.abs(matrix).max(0).clip(1e-12) / 64
    worst = np.square(np.rint(matrix / seven) * seven - matrix).sum(0)
    assert (np.square(values * scale - matrix).sum(0) <= worst * 1.001 + 1e-9).all()


def test_the_built_in_encoder_gives_the_same_numbers_on_processors_of_every_kind() -> None:
    matrices = [
        numpy_helper.to_array(tensor).astype(np.int64)
        for tensor in onnx.load(builtin_encoder()).graph.initializer
        if tensor.name.endswith(".weight.transposed.int8")
    ]
    assert len(matrices) == 48
    for matrix in matrices:
        pairs = matrix.reshape(-1, 2, matrix.shape[1])
        for sign in (1, -1):  # the largest sums are of neighbours with one sign, and nothing of the other's
            assert 255 * (sign * pairs).clip(0).sum(1).max() < 2**15


def test_eight_bits_take_images_and_the_command_has_the_demos(vit: Path, tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "e.onnx"
    with pytest.raises(MasslError, match="give some with --calibrate"):
        export(str(vit), out, precision="int8")
    empty = tmp_path / "broken"
    empty.mkdir()
    (empty / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(MasslError, match=re.escape(f"none of the images of {empty} can be read")):
        export(str(vit), out, precision="int8", calibrate=find_source(empty)[0])
    assert not out.exists()
    told = CliRunner().invoke(app, ["export", str(vit), "--precision", "int8", "-o", str(out)])
    assert told.exit_code == 0, told.output
    own = CliRunner().invoke(
        app, ["export", str(vit), "--precision", "int8", "-o", str(out), "--calibrate", str(empty)]
    )
    assert own.exit_code == 1
    assert "none of the images" in str(own.exception)
    assert out.exists()
