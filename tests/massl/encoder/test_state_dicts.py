"""Weights of other people's networks: told by their names and shapes, and computing what they did."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked
from timm.models import VisionTransformer, register_model
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional

from indexer import Encoder
from massl.core.errors import MasslError
from massl.data.sources import find_source
from massl.encoder import checkpoint, weights
from massl.encoder.export import export
from massl.encoder.state_dicts import Recognised, architecture_of, recognise
from massl.encoder.weight_files import WeightsFile
from massl.method.network import AS_DINO, AS_TIMM, build_backbone, embed
from massl.method.views import normalise
from massl.planning import plan
from massl.training.loop import Interrupted, train
from tests.massl.conftest import SMALL
from tests.massl.encoder.test_export import real_pixels
from tests.massl.method.test_network import dinov2s

State = dict[str, Tensor]


@register_model
def vit_trial_patch14_dinov2(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """A network as DINOv2's giant is, of three narrow layers."""
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        options.pop(name, None)
    shape = {"patch_size": 14, "embed_dim": 48, "depth": 3, "num_heads": 2, "mlp_layer": SwiGLUPacked, "mlp_ratio": 4}
    return VisionTransformer(**{**shape, "init_values": 1e-5, "act_layer": nn.SiLU, **options})


@register_model
def vit_trial_patch14_reg4_dinov2(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """The same with registers."""
    return vit_trial_patch14_dinov2(**options, reg_tokens=4, no_embed_class=True)


def network(name: str, size: int, **options: Any) -> Any:
    """One of timm's with random weights, all of which matter."""
    torch.manual_seed(0)
    with torch.device("meta"):  # where its own first weights, which take time, are not drawn
        made = timm.create_model(name, num_classes=options.pop("num_classes", 0), **options, img_size=size).eval()
    made.to_empty(device="cpu")
    with torch.no_grad():
        for part, parameter in made.named_parameters():
            parameter.normal_(1.0 if re.search(r"norm\w*\.weight$", part) else 0.0, 0.05)
    return made


def dinov2_names(state: State) -> State:
    """What timm's names and tensors were before timm converted them."""
    state = {**state, "mask_token": torch.zeros(1, state["norm.weight"].shape[0])}
    if "reg_token" in state:
        place = torch.randn_like(state["cls_token"])
        state["register_tokens"] = state.pop("reg_token")
        state["cls_token"] = state["cls_token"] - place
        state["pos_embed"] = torch.cat([place, state["pos_embed"]], 1)
    gated = state["blocks.0.mlp.fc1.weight"].shape[0] == 2 * state["blocks.0.mlp.fc2.weight"].shape[1]
    new = {"fc1": "w12", "fc2": "w3"} if gated else {}
    return {re.sub(r"fc[12]", lambda found: new.get(found[0], found[0]), name): state[name] for name in state}


def chunked(state: State) -> State:
    """DINOv2's names where it was trained in chunks of two blocks."""
    return {re.sub(r"^blocks\.(\d+)", lambda n: f"blocks.{int(n[1]) // 2}.{n[1]}", name): state[name] for name in state}


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def dinos_checkpoint(state: State) -> dict[str, Any]:
    """As DINO's and iBOT's training saves it."""
    head = {"head.mlp.0.weight": torch.ones(8, 8), "head.last_layer.weight_g": torch.ones(8, 1)}
    student = {**prefixed("module.backbone.")(zeros(state)), **prefixed("module.")(head)}
    teacher = {**prefixed("backbone.")(state), **head, "backbone.masked_embed": torch.zeros(1, 192)}
    return {"student": student, "teacher": teacher, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}


def in_one_flat_dict(state: State) -> State:
    return {**prefixed("student.backbone.")(zeros(state)), **prefixed("teacher.backbone.")(state)}


def taken(state: Any, name: str = "weights.pth", backbone: str | None = None) -> Recognised:
    return recognise(WeightsFile(Path(name), state, {}), backbone)


def loaded(found: Recognised, size: int) -> Any:
    made = build_backbone(found.architecture, size, found.patch_size, dynamic=False, mean_pooled=found.mean_pooled)
    weights.load_backbone(made, found.tensors, "weights.pth", found.positions)
    return made.eval()


@torch.no_grad()
def same(one: Any, other: Any, size: int) -> None:
    images = torch.randn(2, 3, size, size)
    torch.testing.assert_close(one(images), other(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "options", "rename", "positions"),
    [
        ("vit_tiny_patch16_224", 64, {}, dict, AS_DINO),
        ("vit_tiny_patch16_224", 64, {"patch_size": 8}, dinos_checkpoint, AS_DINO),
        ("vit_tiny_patch16_224", 64, {}, in_one_flat_dict, AS_DINO),
        ("vit_tiny_patch16_224", 64, {}, lambda state: {"model": {"state_dict": prefixed("module.")(state)}}, AS_DINO),
        ("vit_tiny_patch16_224", 64, {"num_classes": 5}, lambda state: {"state_dict_ema": state}, AS_TIMM),
        ("vit_tiny_patch16_224", 64, {"global_pool": "avg"}, dict, AS_DINO),
        ("vit_small_patch14_dinov2", 98, {}, dinov2_names, AS_DINO),
        ("vit_small_patch14_reg4_dinov2", 98, {}, lambda state: chunked(dinov2_names(state)), AS_TIMM),
        ("vit_small_patch14_reg4_dinov2", 98, {}, dict, AS_TIMM),  # as timm stores them
        ("deit3_small_patch16_224", 64, {"num_classes": 5}, dict, AS_TIMM),
        ("deit_tiny_distilled_patch16_224", 64, {"num_classes": 5}, lambda state: {"model": state}, AS_TIMM),
    ],
)
def test_networks_are_told_by_their_keys(
    name: str, size: int, options: dict[str, Any], rename: Callable[[State], Any], positions: object
) -> None:
    wanted = network(name, size, **options)
    found = taken(rename(wanted.state_dict()))
    side = wanted.patch_embed.patch_size[0]
    assert (found.architecture, found.patch_size, found.image_size) == (name, side, size)
    assert found.positions == positions
    assert found.mean_pooled == (options.get("global_pool") == "avg")
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert found.crop == (1 if side == 14 else 0.875)
    wanted.reset_classifier(0)
    same(loaded(found, size), wanted, size)


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("wrap", [dict, chunked, in_one_flat_dict, lambda state: in_one_flat_dict(chunked(state))])
def test_dinov2s_gated_networks_compute_what_they_did_at_any_grid(
    registers: bool, wrap: Callable[[State], State]
) -> None:
    name = f"vit_trial_patch14_{'reg4_' if registers else ''}dinov2"
    wanted = network(name, 98)
    theirs = dinov2_names(wanted.state_dict())
    assert "blocks.2.mlp.w12.weight" in theirs
    found = taken(wrap(theirs), backbone=name)
    same(loaded(found, 98), wanted, 98)
    for size in (42, 154):
        other = network(name, size)
        resized = dinov2s(theirs["pos_embed"], 14, size, size, *((0.0, True) if registers else (0.1, False)))
        other.load_state_dict(checkpoint_filter_fn({**theirs, "pos_embed": resized}, other))
        same(loaded(found, size), other, size)


def test_positions_of_timms_weights_are_resized_as_timm_does_it() -> None:
    theirs = network("test_vit2", 160, num_classes=5).state_dict()
    for size in (96, 224):
        other = network("test_vit2", size)
        other.load_state_dict(
            {name: t for name, t in checkpoint_filter_fn(theirs, other).items() if "head" not in name}
        )
        same(loaded(taken(theirs, backbone="test_vit2"), size), other, size)


def test_the_giant_and_other_sizes_are_known_by_their_shapes() -> None:
    for name in ("vit_giant_patch14_dinov2", "vit_large_patch14_reg4_dinov2", "vit_huge_patch14_224"):
        with torch.device("meta"):
            state = timm.create_model(name).state_dict()
        assert architecture_of(state) == name


def test_dinov2s_own_file_is_shown_224_pixels_and_tells_whose_it_is() -> None:
    state = dinov2_names(network("vit_small_patch14_dinov2", 518).state_dict())
    found = taken(state, "dinov2_vits14_pretrain.pth")
    assert found.image_size == 224  # it learnt at 518 only at the end
    assert found.origin == {"source": "DINOv2 ViT-S/14", "licence": "Apache-2.0"}
    assert taken(state, "mine.pth").origin == {"source": "mine.pth"}  # others train networks of this shape too
    told = recognise(WeightsFile(Path("x.safetensors"), state, {"source": "a\nschool", "license": "MIT"}))
    assert told.origin == {"source": "a school", "licence": "MIT"}


def test_a_files_name_alone_does_not_tell_whose_it_is() -> None:
    state = network("vit_tiny_patch16_224", 64).state_dict()
    assert taken(state, "dino_deitsmall16_pretrain.pth").origin == {"source": "dino_deitsmall16_pretrain.pth"}


@pytest.mark.parametrize("name", ["resnet10t", "test_convnext", "swin_tiny_patch4_window7_224", "test_efficientnet"])
def test_networks_of_other_families_are_taken_by_name(name: str) -> None:
    torch.manual_seed(0)
    wanted = timm.create_model(name, num_classes=3).eval()
    state = {"state_dict": prefixed("module.")(wanted.state_dict()), "epoch": 1}
    with pytest.raises(MasslError, match=r"say which with --backbone NAME, as timm calls it"):
        taken(state)
    found = taken(state, backbone=name)
    assert found.patch_size is None
    wanted.reset_classifier(0)
    same(loaded(found, found.image_size), wanted, found.image_size)


def test_a_tag_tells_what_pictures_the_weights_expect() -> None:
    found = taken(network("test_vit", 160).state_dict(), backbone="test_vit.r160_in1k")
    assert (found.mean, found.crop, found.positions) == ((0.5, 0.5, 0.5), 0.95, AS_TIMM)
    assert found.origin == {"source": "timm:test_vit.r160_in1k", "licence": "Apache-2.0"}


def changed(name: str, tensor: Tensor | None) -> State:
    state = dict(TINY)
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    return state


TINY = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0).state_dict()
SHALLOW = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=2).state_dict()


@pytest.mark.parametrize(
    ("state", "backbone", "message"),
    [
        ({}, None, "by names that MaSSL knows a vision transformer by; if they are another"),
        ({"embeddings.cls_token": torch.ones(1)}, None, r"\(it has embeddings\.cls_token\); .* --backbone NAME"),
        (SHALLOW, None, r"blocks\.2\.norm1\.weight and 119 more of vit_tiny_patch16_224 are missing; if .* --backbone"),
        (changed("norm.bias", None), None, "norm.bias of vit_tiny_patch16_224 is missing"),
        (changed("norm.bias", torch.ones(7)), None, "norm.bias is 7, where vit_tiny_patch16_224 has 192"),
        (changed("adapter.weight", torch.ones(7)), None, "vit_tiny_patch16_224 has no adapter.weight"),
        (changed("pos_embed", torch.ones(1, 141, 192)), None, "pos_embed is 1 x 141 x 192; .* square grids"),
        (changed("pos_embed", torch.ones(1).expand(1, 1 + 10**8, 192)), None, "pos_embed is not stored in full"),
        (changed("norm.bias", torch.full((192,), torch.nan)), None, "values that are no numbers, in norm.bias"),
        (changed("norm.bias", torch.ones(192).to_sparse()), None, "norm.bias is not stored in full"),
        (
            changed("patch_embed.proj.weight", torch.ones(200, 3, 16, 16)),
            None,
            r"\(200 wide, patches of 16 x 16\); say",
        ),
        (TINY, "vit_small_patch16_224", "by its names and shapes it is vit_tiny_patch16_224: leave --backbone out"),
        (TINY, "resnet18", "conv1.weight and 99 more of resnet18 are missing; .*: leave --backbone out"),
        (TINY, "swin_tiny_patch4_window7_224", "leave --backbone out|which network it is of"),
        (TINY, "vit_nonsense", "timm has no network called 'vit_nonsense'"),
        (TINY, "test_vit.nonsense", r"timm has no weights called 'test_vit\.nonsense'; it has test_vit\.r160_in1k"),
    ],
)
def test_weights_that_are_not_a_networks_say_what_to_do(state: Any, backbone: str | None, message: str) -> None:
    with pytest.raises(MasslError, match=message) as raised:
        taken(state, backbone=backbone)
    assert "\n" not in str(raised.value)


def test_one_part_of_several_says_so() -> None:
    with pytest.raises(MasslError, match="one of several parts, and MaSSL takes one file"):
        taken(SHALLOW, "model-00001-of-00002.safetensors")


def test_a_weights_file_becomes_an_encoder_that_tells_where_it_is_from(tmp_path: Path, pictures: Path) -> None:
    wanted = network("vit_shallow_patch16", 160)
    save_file(wanted.state_dict(), tmp_path / "w.safetensors", {"source": "a school", "licence": "MIT"})
    export(str(tmp_path / "w.safetensors"), tmp_path / "e.onnx", backbone="vit_shallow_patch16")
    encoder = Encoder.load(tmp_path / "e.onnx")
    assert (encoder.image_size, encoder.resize) == (160, 183)
    pixels = real_pixels(encoder, pictures)
    with torch.no_grad():
        embedding = functional.normalize(wanted(normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))), dim=1)
    np.testing.assert_allclose(encoder.embed(pixels), embedding.numpy(), atol=1e-4)
    told = {entry.key: entry.value for entry in onnx.load(tmp_path / "e.onnx").metadata_props}
    assert (told["massl.source"], told["massl.licence"]) == ("a school", "MIT")


def test_a_run_keeps_how_positions_are_resized_and_where_its_weights_began(tmp_path: Path, pictures: Path) -> None:
    """Stopped and resumed it goes on to the same numbers, bit by bit, as one that never stopped."""
    torch.save({"state_dict": network("test_vit", 64, num_classes=3).state_dict()}, tmp_path / "w.pth")
    initial = weights.read_initial(str(tmp_path / "w.pth"), "test_vit")
    assert initial.positions == AS_TIMM
    source, _ = find_source(pictures / "flag")
    given = {**SMALL, "steps": "4", "checkpoint_every": "2"}
    chosen = plan("cpu", len(source), given, precision="fp32", begins=initial.begins)[0]
    train(source, tmp_path / "whole", chosen, initial=initial)
    steps: list[int] = []
    with pytest.raises(Interrupted):
        train(
            source, tmp_path / "parts", chosen, initial=initial, report=lambda progress: steps.append(progress.step),
            stop=lambda: len(steps) == 2,
        )  # fmt: skip
    train(source, tmp_path / "parts", chosen, resume=True)
    whole, parts = (checkpoint.load(checkpoint.latest(tmp_path / run / "checkpoints")) for run in ("whole", "parts"))
    assert all(torch.equal(whole["student"][name], tensor) for name, tensor in parts["student"].items())

    again = weights.read_initial(str(tmp_path / "parts"))
    assert (again.positions, again.origin) == (AS_TIMM, {"source": "w.pth"})
    found = weights.read(str(tmp_path / "parts"), 96)
    assert (found.positions, found.facts["source"], found.facts["training_method"]) == (AS_TIMM, "w.pth", "MaSSL")

    path = checkpoint.latest(tmp_path / "parts" / "checkpoints")
    for name in ("positions", "origin"):
        del parts[name]
    torch.save(parts, path)  # as earlier versions wrote them
    assert (weights.read_initial(str(path)).positions, weights.read_initial(str(path)).origin) == (AS_DINO, {})
    train(source, tmp_path / "parts", chosen, resume=True)


def test_timms_weights_are_resized_the_way_they_were_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    wanted = network("test_vit", 160, num_classes=1000)
    stored = tmp_path / "models--timm--test_vit.r160_in1k"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text("0" * 40)
    (stored / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(wanted.state_dict(), stored / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    wanted.reset_classifier(0)
    found = weights.read("timm:test_vit.r160_in1k")
    assert (found.image_size, found.positions, found.facts["licence"]) == (160, AS_TIMM, "Apache-2.0")
    same(found.backbone, wanted, 160)
    found = weights.read("timm:test_vit.r160_in1k", 96)
    other = network("test_vit", 96)
    other.load_state_dict(checkpoint_filter_fn(wanted.state_dict(), other))
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(embed(found.backbone, images, found.positions), other(images), atol=1e-5, rtol=1e-5)
    assert weights.read_initial("timm:test_vit.r160_in1k", "test_vit").positions == AS_TIMM


def test_a_source_that_tells_its_network_is_not_taken_for_another(run: Path) -> None:
    own = "vit_shallow_patch16"
    for read in (weights.read, weights.read_initial):
        with pytest.raises(MasslError, match=f"is of the network {own}, not resnet18; leave --backbone out"):
            read(str(run), backbone="resnet18")
        read(str(run), backbone=own)
