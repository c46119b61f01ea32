"""The head keeps what it is asked to keep apart; positions are resized the way that they were trained for."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from massl.core.errors import MasslError
from massl.method.network import (
    AS_DINO,
    AS_TIMM,
    Network,
    PositionResizing,
    ProjectionHead,
    build_backbone,
    embed,
    output_width,
    resize_positions,
    synchronise_normalisation,
)
from massl.training.probe import spread

SIDES = st.integers(1, 24)


@pytest.mark.parametrize("alike", [0.5, 0.01])
def test_projections_of_like_images_are_kept_apart(alike: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(64) + alike * torch.randn(32, 64)
    plain, kept_apart = ProjectionHead(64, 128), ProjectionHead(64, 128, spread=True)
    kept_apart.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        assert spread(plain(features).numpy()) < 0.5
        assert spread(kept_apart(features).numpy()) > 0.9


def test_the_scale_of_projections_is_not_learnt() -> None:
    assert not list(ProjectionHead(8, 8, spread=True).mlp[-1].parameters())


def dinov2s(pos_embed: Tensor, patch_size: int, w: int, h: int, offset: float, antialias: bool) -> Tensor:
    """`interpolate_pos_encoding` as DINOv2's authors publish it, for a class token and w x h pixels."""
    patches = pos_embed.shape[1] - 1
    if (w // patch_size) * (h // patch_size) == patches and w == h:
        return pos_embed
    class_pos_embed, patch_pos_embed = pos_embed[:, 0], pos_embed[:, 1:]
    dim = pos_embed.shape[-1]
    w0, h0 = w // patch_size, h // patch_size
    side = int(math.sqrt(patches))
    kwargs: dict[str, object] = {}
    if offset:
        kwargs["scale_factor"] = (float(w0 + offset) / side, float(h0 + offset) / side)
    else:
        kwargs["size"] = (w0, h0)
    grid = patch_pos_embed.reshape(1, side, side, dim).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(grid, mode="bicubic", antialias=antialias, **kwargs)
    assert (w0, h0) == resized.shape[-2:]
    return torch.cat((class_pos_embed.unsqueeze(0), resized.permute(0, 2, 3, 1).view(1, -1, dim)), dim=1)


@settings(max_examples=40, deadline=None)
@given(old=SIDES, new=st.tuples(SIDES, SIDES), with_registers=st.booleans())
def test_positions_are_resized_as_dinov2_does_it(old: int, new: tuple[int, int], with_registers: bool) -> None:
    positions = torch.randn((1, 1 + old * old, 3), generator=torch.Generator().manual_seed(old))
    way = AS_TIMM if with_registers else AS_DINO  # the arguments that its hub gives
    wanted = dinov2s(positions, 14, 14 * new[0], 14 * new[1], way.offset, way.antialias)
    got = resize_positions(positions, (old, old), new, 1, way)
    if new == (old, old):
        assert torch.equal(got, positions)
    torch.testing.assert_close(got, wanted)


@settings(max_examples=40, deadline=None)
@given(old=st.tuples(SIDES, SIDES), new=st.tuples(SIDES, SIDES), prefix=st.integers(0, 5))
def test_positions_are_resized_as_timm_does_it(old: tuple[int, int], new: tuple[int, int], prefix: int) -> None:
    positions = torch.randn((1, prefix + old[0] * old[1], 3), generator=torch.Generator().manual_seed(prefix))
    wanted = resample_abs_pos_embed(positions, [*new], [*old], prefix)
    torch.testing.assert_close(resize_positions(positions, old, new, prefix, AS_TIMM), wanted)


@settings(max_examples=40, deadline=None)
@given(
    old=st.tuples(SIDES, SIDES), new=st.tuples(SIDES, SIDES), prefix=st.integers(0, 5),
    offset=st.sampled_from([0.0, 0.1]), antialias=st.booleans(),
)  # fmt: skip
def test_positions_of_one_value_stay_so_and_tokens_that_are_no_patch_stay_as_they_are(
    old: tuple[int, int], new: tuple[int, int], prefix: int, offset: float, antialias: bool
) -> None:
    first = torch.randn(1, prefix, 2)
    positions = torch.cat([first, torch.tensor([3.0, -5.0]).expand(1, old[0] * old[1], 2)], 1)
    resized = resize_positions(positions, old, new, prefix, PositionResizing(offset, antialias))
    assert torch.equal(resized[:, :prefix], first)
    torch.testing.assert_close(resized[:, prefix:], positions[:, prefix : prefix + 1].expand(1, new[0] * new[1], 2))


def test_views_of_another_size_get_positions_resized_the_way_told() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("test_vit", 64, 16).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        for way in (AS_DINO, AS_TIMM):
            other = build_backbone("test_vit", 96, 16, dynamic=False).eval()
            positions = resize_positions(backbone.pos_embed, (4, 4), (6, 6), 1, way)
            other.load_state_dict({**backbone.state_dict(), "pos_embed": positions})
            torch.testing.assert_close(embed(backbone, images, way), other(images))
        assert not torch.allclose(embed(backbone, images, AS_DINO), embed(backbone, images, AS_TIMM), atol=1e-5)


def test_a_network_without_stochastic_depth_says_how_to_go_without() -> None:
    build_backbone("densenet121", 64)
    with pytest.raises(MasslError, match=r"densenet121 has no stochastic depth; give --set drop_path=0$"):
        build_backbone("densenet121", 64, drop_path=0.1)


def test_a_size_that_a_network_can_not_take_is_refused() -> None:
    with pytest.raises(MasslError, match="a multiple of 14 pixels, not 100; try 98"):
        build_backbone("vit_small_patch14_dinov2", 100, dynamic=False)
    with pytest.raises(MasslError, match="takes only pictures of 224 pixels, not 112"):
        build_backbone("eva02_tiny_patch14_224", 112, dynamic=False)


FAMILIES = (
    "resnet10t", "efficientnet_lite0", "regnetx_002", "mobilenetv3_small_050", "resnetv2_50", "densenet121",
    "test_byobnet", "ghostnet_050", "vit_tiny_patch16_224",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_for_several_gpus_computes_what_it_does_on_one(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, 64, 16 if name.startswith("vit") else None)
    network = Network(backbone, ProjectionHead(output_width(backbone), 32, 16, normed=True, spread=True))
    for parameter in network.parameters():  # biases that begin at zero would hide an activation that is missing
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.5)
    converted = synchronise_normalisation(copy.deepcopy(network))
    plain = [module for module in converted.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert plain
    assert all(isinstance(module, nn.SyncBatchNorm) for module in plain)
    assert network.state_dict().keys() == converted.state_dict().keys()
    pixels = torch.randn(1, 4, 3, 64, 64)
    for mode in (True, False):  # one process has nothing to synchronise with, so this runs on a CPU
        torch.manual_seed(0)
        wanted = network.train(mode)(pixels)
        torch.manual_seed(0)
        torch.testing.assert_close(converted.train(mode)(pixels), wanted)
