"""Weights from elsewhere: the authors' checkpoints as their code writes them, our runs, our encoders."""

from __future__ import annotations

import argparse
import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from indexer import Encoder
from massl.core.errors import MasslError
from massl.data.sources import find_source
from massl.encoder import weights
from massl.encoder.export import export
from massl.encoder.inference import all_stages
from massl.encoder.onnx_graph import TRANSPOSED
from massl.method.network import ProjectionHead, build_backbone, build_pair
from massl.method.views import normalise
from massl.training.batch_normalisation import spread_normalisation
from massl.training.loop import train
from tests.massl.conftest import small_settings
from tests.massl.encoder.test_export import real_pixels, untrained
from tests.massl.method.test_golden import THEIRS

BUILTIN = Path(__file__).parents[3] / "indexer" / "encoder" / "builtin" / "encoder.onnx"
PLAIN = {"int": 1, "float": 0.5, "str": "x", "bool": False, "NoneType": None, "tuple": (0.9, 0.999), "list": [0.5]}


def like(kind: str) -> Any:
    """A value of the kind that the golden file names; tensors are random, as weights are."""
    if found := re.fullmatch(r"(float32|int64)\[(.*)\]", kind):
        shape = [int(side) for side in found[2].split(",") if side]
        return torch.randn(shape) * 0.05 if found[1] == "float32" else torch.ones(shape, dtype=torch.int64)
    return np.float64(0.1) if kind == "numpy.float64" else PLAIN[kind]


def authors_checkpoint(path: Path, variant: str) -> dict[str, Tensor]:
    """Writes a file with every key, shape and type that their own code saved; returns the teacher, without prefix."""
    torch.manual_seed(0)
    told = THEIRS["runs"][variant]["checkpoint"]
    teacher: dict[str, Tensor] = {}
    for name, kind in told["tensors"].items():
        for block in range(told["depth"] if "*" in name else 1):
            teacher[name.replace("*", str(block))] = like(kind)
    groups = [
        {name: list(range(kind)) if name == "params" else like(kind) for name, kind in group.items()}
        for group in told["optimiser_groups"]
    ]
    state = {name: like(kind) for name, kind in told["optimiser_state"].items()}
    checkpoint = {
        "student": {told["student_prefix"] + name: torch.zeros_like(tensor) for name, tensor in teacher.items()},
        "teacher": {told["teacher_prefix"] + name: tensor for name, tensor in teacher.items()},
        "optimizer": {"state": {0: state}, "param_groups": groups},
        "memory_bank": {name: like(kind) for name, kind in told["memory_bank"].items()},
        "epoch": told["epoch"],
        "args": argparse.Namespace(**{name: like(kind) for name, kind in told["args"].items()}),
        "fp16_scaler": told["fp16_scaler"],
    }
    assert list(checkpoint) == told["keys"]
    torch.save(checkpoint, path)
    return teacher


@pytest.mark.parametrize(("variant", "pooling"), [("cls", "token"), ("pooled", "avg")])
def test_the_authors_checkpoints_are_taken(tmp_path: Path, pictures: Path, variant: str, pooling: str) -> None:
    teacher = authors_checkpoint(tmp_path / "authors.pth", variant)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool=pooling).eval()
    bare = {name.removeprefix("backbone."): teacher[name] for name in teacher if name.startswith("backbone.")}
    network.load_state_dict(bare)

    export(str(tmp_path / "authors.pth"), tmp_path / "e.onnx")
    encoder = Encoder.load(tmp_path / "e.onnx")
    assert (encoder.dim, encoder.image_size, encoder.resize) == (192, 224, 256)
    pixels = real_pixels(encoder, pictures)
    with torch.no_grad():
        wanted = functional.normalize(network(normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))), dim=1)
    np.testing.assert_allclose(encoder.embed(pixels), wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("variant", ["cls", "pooled"])
def test_a_training_can_begin_with_the_authors_weights(tmp_path: Path, variant: str) -> None:
    teacher = authors_checkpoint(tmp_path / "authors.pth", variant)
    found = weights.read_initial(str(tmp_path / "authors.pth"))
    pooled = variant == "pooled"
    assert (found.architecture, found.patch_size, found.image_size) == ("vit_tiny_patch16_224", 16, 224)
    assert found.mean_pooled == pooled
    backbone = build_backbone(found.architecture, found.image_size, found.patch_size, mean_pooled=found.mean_pooled)
    student, _ = build_pair(backbone, ProjectionHead(backbone.num_features, normed=pooled))
    student.backbone.load_state_dict(found.backbone)
    assert found.head is not None
    student.head.load_state_dict(found.head)
    loaded = student.state_dict()
    assert set(loaded) == set(teacher)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in teacher.items())


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """The allow-list is their command line's class and NumPy's numbers, nothing more."""
    torch.save({"teacher": {}, "args": re.compile("x")}, tmp_path / "other.pth")
    with pytest.raises(MasslError, match=r"more than tensors and plain values \(re\._compile\)"):
        weights.read_initial(str(tmp_path / "other.pth"))


def test_a_training_can_begin_with_a_run_of_ours(run: Path) -> None:
    found = weights.read_initial(str(run))
    assert (found.architecture, found.patch_size, found.image_size) == ("vit_shallow_patch16", 16, 32)
    build_backbone(found.architecture, found.image_size, found.patch_size).load_state_dict(found.backbone)
    assert found.head is not None
    ProjectionHead(64, 32, normed=True).load_state_dict(found.head)


def test_a_training_can_begin_with_the_built_in_encoder(pictures: Path) -> None:
    """What comes back out of the file computes what the file computes, but for its 8 bits."""
    found = weights.read_initial(str(BUILTIN))
    assert (found.architecture, found.patch_size, found.head) == ("vit_small_patch14_dinov2", 14, None)
    assert found.origin["licence"] == "Apache-2.0"
    encoder = Encoder.load(BUILTIN)
    backbone = build_backbone(found.architecture, encoder.image_size, found.patch_size).eval()
    weights.load_backbone(backbone, found.backbone, "the built-in encoder", found.positions)
    pixels = real_pixels(encoder, pictures)
    with torch.no_grad():
        got = functional.normalize(backbone(normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))))
    cosine = (encoder.embed(pixels) * got.numpy()).sum(1)
    assert cosine.mean() > 0.98
    assert cosine.min() > 0.95


def test_a_training_can_begin_with_a_convolutional_encoder_in_8_bits(tmp_path: Path, pictures: Path) -> None:
    """What comes back out of the file computes what the file computes, whitening and all."""
    file = tmp_path / "e.onnx"
    run = untrained(tmp_path / "run", "resnet18", 16, 64)
    export(str(run), file, stages=True, whiten=find_source(pictures)[0], dim=48, precision="int8")
    found = weights.read_initial(str(file))
    assert (found.architecture, found.patch_size, found.head) == ("resnet18", None, None)
    backbone = build_backbone("resnet18", 64).eval()
    backbone.load_state_dict(found.backbone)
    pixels = torch.from_numpy(real_pixels(Encoder.load(file), pictures))
    images = normalise(pixels.permute(0, 3, 1, 2))

    told = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}
    centre, matrix = (torch.from_numpy(told[f"{name}.half"].astype(np.float32)) for name in ("centre", "matrix"))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(["embedding"], {"pixels": pixels.numpy()})
    with torch.no_grad():
        features, _ = all_stages(backbone, images)
        got = functional.normalize((features - centre) @ matrix)
        np.testing.assert_allclose(got.numpy(), wanted, atol=1e-4)

        before = backbone(images)
        shared = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(backbone))  # as several GPUs have it
        for network in (backbone, shared):
            spread_normalisation(network, images)
        for name, tensor in backbone.state_dict().items():
            torch.testing.assert_close(shared.state_dict()[name], tensor, msg=name)
        torch.testing.assert_close(backbone(images), before, atol=1e-3, rtol=1e-3)
        # On a batch like those that the statistics are of, training computes what evaluation does.
        trained = backbone.train()(images)
        assert float(functional.cosine_similarity(trained, before).min()) > 0.999


def test_an_encoder_of_larger_pictures_tells_how_large_the_views_were(tmp_path: Path, pictures: Path) -> None:
    images, _ = find_source(pictures / "flag")
    sizes = {"image_size": "32", "local_size": "16", "export_size": "64"}
    run = tmp_path / "run"
    train(images, run, small_settings(len(images), backbone="resnet10t", steps="2", **sizes))
    export(str(run), tmp_path / "e.onnx")
    assert Encoder.load(tmp_path / "e.onnx").image_size == 64
    for source in (run, tmp_path / "e.onnx"):
        begins = weights.read_initial(str(source)).begins
        assert (begins.image_size, begins.export_size) == (32, 64)
    export(str(run), tmp_path / "e.onnx", image_sizes=(48,))
    begins = weights.read_initial(str(tmp_path / "e.onnx")).begins
    assert (begins.image_size, begins.export_size) == (32, 48)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_training_can_begin_with_an_encoder_of_any_precision(tmp_path: Path, precision: str) -> None:
    run = untrained(tmp_path / "run", "resnet10t", 16, 32)
    export(str(run), tmp_path / "e.onnx", precision=precision)
    wanted = weights.read(str(run)).backbone
    found = weights.read_initial(str(tmp_path / "e.onnx"))
    backbone = build_backbone(found.architecture, 32, dynamic=False).eval()
    backbone.load_state_dict(found.backbone)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert float(functional.cosine_similarity(backbone(images), wanted(images)).min()) > 0.9995


def test_encoders_that_do_not_name_their_weights_are_refused(run: Path, tmp_path: Path) -> None:
    """As earlier versions wrote those of transformers."""
    export(str(run), tmp_path / "vit.onnx")
    model = onnx.load(tmp_path / "vit.onnx")
    for number, tensor in enumerate(model.graph.initializer):
        if tensor.name.endswith(TRANSPOSED):
            tensor.name = f"val_{number}"
    told = {entry.key: entry.value for entry in model.metadata_props if entry.key != "massl.digest"}
    onnx.helper.set_model_props(model, told)
    onnx.save(model, tmp_path / "vit.onnx")
    with pytest.raises(MasslError, match=r"does not hold all weights by their names .* earlier version of massl"):
        weights.read_initial(str(tmp_path / "vit.onnx"))
    with pytest.raises(MasslError, match="no such file"):
        weights.read_initial(str(tmp_path / "nowhere.onnx"))
    (tmp_path / "broken.onnx").write_bytes(BUILTIN.read_bytes()[:5000])
    with pytest.raises(MasslError, match="damaged or was not written by massl export"):
        weights.read_initial(str(tmp_path / "broken.onnx"))
