"""Gradients that are taken another way than torch's are torch's."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from massl.planning import plan
from massl.training.cpu_convolution import (
    FEWEST_CHANNELS,
    CpuConv2d,
    compute_in_parts,
    quicken,
    weight_gradient,
    weight_gradient_in_parts,
)
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
    assert [type(layer) for layer in quick] == [CpuConv2d, CpuConv2d]
    maps = torch.randn(3, FEWEST_CHANNELS, side, side, dtype=torch.float64)
    gradients = []
    for network in (plain, quick):
        given = maps.clone().requires_grad_()
        network(given).square().sum().backward()
        gradients.append([given.grad, *(parameter.grad for parameter in network.parameters())])

    torch.testing.assert_close(gradients[1], gradients[0])


@settings(deadline=None, max_examples=40)
@given(
    images=st.integers(1, 7),
    sides=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    stride=st.integers(1, 3),
    threads=st.integers(1, 4),
    channels_last=st.booleans(),
    seed=st.integers(0, 9),
)
def test_gradient_in_parts(images, sides, stride, threads, channels_last, seed):
    draws = torch.Generator().manual_seed(seed)
    maps, weight = torch.randn(images, 3, *sides, generator=draws), torch.randn(4, 3, 3, 3, generator=draws)
    maps, weight = maps.bfloat16(), weight.bfloat16()
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    gradient = torch.randn_like(torch.conv2d(maps, weight, None, stride, 1))
    exact = weight.double().requires_grad_()
    torch.conv2d(maps.double(), exact, None, stride, 1).backward(gradient.double())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = weight_gradient_in_parts(maps, gradient, weight, (stride, stride), (1, 1))
        again = weight_gradient_in_parts(maps, gradient, weight, (stride, stride), (1, 1))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, again)
    # A number of bfloat16 has 8 bits.
    assert (found - exact.grad).norm() <= exact.grad.norm() / 128


def test_one_thread_computes_each_part():
    seen = set()

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution_backward.default or "convolution_backward" in str(func):
                seen.add((threading.current_thread().name, torch.get_num_threads()))
            return super().__torch_function__(func, types, args, kwargs or {})

    maps = torch.randn(4, 3, 5, 5).bfloat16().as_subclass(Watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        weight_gradient_in_parts(
            maps, torch.randn(4, 8, 5, 5).bfloat16(), torch.randn(8, 3, 3, 3).bfloat16(), (1, 1), (1, 1)
        )
    finally:
        torch.set_num_threads(before)

    assert seen
    assert all(name.startswith("gradient") and threads == 1 for name, threads in seen)


def test_under_autocast_a_step_learns_as_in_float32():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 3, 1, 1, bias=False))
    maps = torch.randn(6, 3, 12, 12)

    def gradients():
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(maps).float().square().mean()
        loss.backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    plain = gradients()
    quicken(network)
    assert all(torch.equal(one, other) for one, other in zip(plain, gradients(), strict=True))
    compute_in_parts(network)
    quick = gradients()

    assert [gradient.dtype for gradient in quick] == [torch.float32] * len(plain)
    for one, other in zip(plain, quick, strict=True):
        assert (one - other).norm() <= one.norm() / 50


def test_what_is_not_quickened():
    wide = FEWEST_CHANNELS
    layers = [nn.Conv2d(wide, wide, 3, groups=wide), nn.Conv2d(wide, wide, 3, dilation=2)]
    layers += [nn.Conv2d(wide, wide, 3, padding="same"), nn.Conv2d(wide, wide, 3, padding_mode="reflect", padding=1)]
    quicken(nn.ModuleList(layers))

    assert {type(layer) for layer in layers} == {nn.Conv2d}


def test_student_on_a_cpu_is_quickened():
    settings, _ = plan("cpu", 100, {"backbone": "resnet10t", "memory": "64", "block": "32", "precision": "fp32"})
    learner = Learner(settings, World(torch.device("cpu")))
    quick = [name for name, layer in learner.student.named_modules() if isinstance(layer, CpuConv2d)]

    assert "backbone.layer4.0.conv2" in quick
    assert not any(isinstance(layer, CpuConv2d) for layer in learner.teacher.modules())
