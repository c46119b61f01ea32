"""The gradient that is taken tap by tap is torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from massl.settings import plan
from massl.training.cpu_convolution import FEWEST_CHANNELS, SmallMapConv2d, quicken, weight_gradient
from massl.training.distributed import World
from massl.training.learner import Learner


@settings(deadline=None)  # the first call waits for threads
@given(
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    seed=st.integers(0, 9),
)
def test_gradient_of_any_convolution(sides, kernel, stride, padding, seed):
    assume(all(side + 2 * pad >= size for side, pad, size in zip(sides, padding, kernel, strict=True)))
    draws = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 3, *sides, generator=draws, dtype=torch.float64)
    weight = torch.randn(4, 3, *kernel, generator=draws, dtype=torch.float64, requires_grad=True)
    result = torch.conv2d(maps, weight, None, stride, padding)
    gradient = torch.randn(result.shape, generator=draws, dtype=torch.float64)
    (expected,) = torch.autograd.grad(result, weight, gradient)

    torch.testing.assert_close(weight_gradient(maps, gradient, kernel, stride, padding), expected)


@pytest.mark.parametrize("side", [1, 2, 7, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_quickened_convolution_learns_as_before(side, bias):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(FEWEST_CHANNELS, 8, 3, 2, 1, bias=bias), nn.Conv2d(8, 4, 1)).double()
    quick = nn.Sequential(nn.Conv2d(FEWEST_CHANNELS, 8, 3, 2, 1, bias=bias), nn.Conv2d(8, 4, 1)).double()
    quick.load_state_dict(plain.state_dict())
    quicken(quick)
    assert [type(layer) for layer in quick] == [SmallMapConv2d, nn.Conv2d]
    maps = torch.randn(3, FEWEST_CHANNELS, side, side, dtype=torch.float64)
    gradients = []
    for network in (plain, quick):
        given = maps.clone().requires_grad_()
        network(given).square().sum().backward()
        gradients.append([given.grad, *(parameter.grad for parameter in network.parameters())])

    torch.testing.assert_close(gradients[1], gradients[0])


def test_what_is_not_quickened():
    wide = FEWEST_CHANNELS
    layers = [nn.Conv2d(wide, wide, 3, groups=wide), nn.Conv2d(3, wide, 3), nn.Conv2d(wide, wide, 3, dilation=2)]
    layers += [nn.Conv2d(wide, wide, 3, padding="same"), nn.Conv2d(wide, wide, 3, padding_mode="reflect", padding=1)]
    quicken(nn.ModuleList(layers))

    assert {type(layer) for layer in layers} == {nn.Conv2d}


def test_student_on_a_cpu_is_quickened():
    settings, _ = plan("cpu", 100, {"backbone": "resnet10t", "memory": "64", "block": "32", "precision": "fp32"})
    learner = Learner(settings, World(torch.device("cpu")))
    quick = [name for name, layer in learner.student.named_modules() if isinstance(layer, SmallMapConv2d)]

    assert "backbone.layer4.0.conv2" in quick
    assert not any(isinstance(layer, SmallMapConv2d) for layer in learner.teacher.modules())
