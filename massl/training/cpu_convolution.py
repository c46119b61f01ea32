"""Convolutions that learn faster on a CPU: where their maps are small, and beside other work."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Beyond these torch's own gradient is as fast (ResNet-18's and ResNet-10-T's layers, two cores with AVX2).
LARGEST_MAP = 64  # cells of a map that comes out
FEWEST_CHANNELS = 128  # going in


class CpuConv2d(nn.Conv2d):
    """A convolution whose weights' gradient is taken another way than torch's where it lies on a CPU.

    In float32, where a map has few cells: tap by tap. There torch's own takes up to a hundred times as long as the
    multiplications that are left when each tap of the kernel passes over the padding: of a kernel of 3 x 3 on a map of
    one cell, one in nine. Maps like that are what the last stages of a convolutional network make of small views.

    In bfloat16 under autocast, once `compute_in_parts` was called: in parts of the batch. Torch's own (oneDNN's) has
    threads that wait for each other without giving up their core. Beside other work, they may wait for one that has
    none: a few milliseconds each time, up to a hundred times a convolution. On a free machine torch's own is faster.
    """

    in_parts = False

    def forward(self, input: Tensor) -> Tensor:
        learning = torch.is_grad_enabled() and self.weight.requires_grad
        if not learning or input.device.type != "cpu" or input.ndim != 4:
            return super().forward(input)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            if torch.get_autocast_dtype("cpu") != torch.bfloat16 or not self.in_parts:
                return super().forward(input)
            input, weight = input.bfloat16(), weight.bfloat16()
            bias = bias if bias is None else bias.bfloat16()
        elif not self._makes_small(input):
            return super().forward(input)
        result: Tensor = _Convolution.apply(input, weight, self.stride, self.padding)
        return result if bias is None else result + bias[:, None, None]

    def _makes_small(self, maps: Tensor) -> bool:
        cells = (maps.shape[2] // self.stride[0]) * (maps.shape[3] // self.stride[1])
        return self.in_channels >= FEWEST_CHANNELS and cells <= LARGEST_MAP


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(maps, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        maps, weight = ctx.saved_tensors
        of_maps = of_weight = None
        if ctx.needs_input_grad[0]:
            of_maps = _gradients(gradient, maps, weight, ctx.stride, ctx.padding, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            if maps.dtype == torch.bfloat16:
                of_weight = weight_gradient_in_parts(maps, gradient, weight, ctx.stride, ctx.padding)
            else:
                of_weight = weight_gradient(maps, gradient, weight.shape[2:], ctx.stride, ctx.padding)
        return of_maps, of_weight, None, None


def _gradients(
    gradient: Tensor,
    maps: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Torch's own gradients of maps, weight and bias, those `wanted` of them."""
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, stride, padding, (1, 1), False, (0, 0), 1, wanted
    )
    return result


def weight_gradient_in_parts(
    maps: Tensor, gradient: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient of a convolution's weights, `[O, C, *kernel]`, from as many parts of the batch as torch has threads.

    Each part is one thread's alone, so none waits for another before its end. Parts are summed in float32.

    Args:
        maps: what it was given, `[B, C, H, W]`.
        gradient: that of what it gave, `[B, O, h, w]`.
        weight: its weights, `[O, C, *kernel]`.
        stride: its steps, down and across.
        padding: rows and columns of zeros around the maps.
    """
    count = min(torch.get_num_threads(), len(maps))
    if count < 2:
        return _gradients(gradient, maps, weight, stride, padding, (False, True, False))[1]

    @torch.no_grad()
    def of_part(part: tuple[Tensor, Tensor]) -> Tensor:
        return _gradients(part[1], part[0], weight, stride, padding, (False, True, False))[1].float()

    parts = zip(maps.tensor_split(count), gradient.tensor_split(count), strict=True)
    first, *others = _threads(count).map(of_part, parts)
    for other in others:
        first += other
    return first.to(weight.dtype)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Threads that compute by themselves, each without further ones of OpenMP."""
    pool = ThreadPoolExecutor(count, "gradient")
    of_all = torch.get_num_threads()
    all_there = threading.Barrier(count)

    def compute_alone(_: int) -> None:
        torch.get_num_threads()  # the first question gives a thread the number of all, so it comes before the change
        torch.set_num_threads(1)
        all_there.wait()

    list(pool.map(compute_alone, range(count)))
    torch.set_num_threads(of_all)  # which is kept by thread, and once more for threads to come
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of its parent's threads


def weight_gradient(
    maps: Tensor, gradient: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient of a convolution's weights, `[O, C, *kernel]`, one multiplication of matrices a tap.

    Args:
        maps: what it was given, `[B, C, H, W]`; fastest with channels last.
        gradient: that of what it gave, `[B, O, h, w]`.
        kernel: its height and width.
        stride: its steps, down and across.
        padding: rows and columns of zeros around the maps.
    """
    inputs, outputs = maps.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    # Laid out as weights with channels last are, so that nothing copies it.
    result = maps.new_zeros(outputs.shape[3], *kernel, inputs.shape[3])
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            down = _meeting(row - padding[0], stride[0], inputs.shape[1], outputs.shape[1])
            across = _meeting(column - padding[1], stride[1], inputs.shape[2], outputs.shape[2])
            given = outputs[:, down[1], across[1]].flatten(0, 2)
            torch.mm(given.T, inputs[:, down[0], across[0]].flatten(0, 2), out=result[:, row, column])
    return result.permute(0, 3, 1, 2)


def _meeting(offset: int, stride: int, inputs: int, outputs: int) -> tuple[slice, slice]:
    """Which inputs a tap meets along one side, and the outputs that it gives them to; both empty where it meets none.

    It meets input `output * stride + offset`, which is padding where it lies outside.
    """
    first = max(0, -(offset // stride))
    last = min(outputs, (inputs - 1 - offset) // stride + 1)
    if last <= first:
        return slice(0), slice(0)
    begin = first * stride + offset
    return slice(begin, begin + (last - first - 1) * stride + 1, stride), slice(first, last)


def quicken(network: nn.Module) -> None:
    """Makes those convolutions of a network `CpuConv2d`, in place, that it can compute."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_common(module):
            module.__class__ = CpuConv2d


def compute_in_parts(network: nn.Module) -> None:
    """Has the gradients of a network's convolutions in bfloat16 computed by threads that don't wait for each other."""
    for module in network.modules():
        if isinstance(module, CpuConv2d):
            module.in_parts = True


def _is_common(layer: nn.Conv2d) -> bool:
    as_written = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return as_written and layer.groups == 1 and layer.dilation == (1, 1)
