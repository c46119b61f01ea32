"""Convolutions that learn faster on a CPU where their maps are small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Beyond these torch's own gradient is as fast (ResNet-18's and ResNet-10-T's layers, two cores with AVX2).
LARGEST_MAP = 64  # cells of a map that comes out
FEWEST_CHANNELS = 128  # going in


class SmallMapConv2d(nn.Conv2d):
    """A convolution that takes its weights' gradient tap by tap where a map has few cells and lies on a CPU.

    There torch's own takes up to a hundred times as long as the multiplications that are left when each tap of the
    kernel passes over the padding: of a kernel of 3 x 3 on a map of one cell, one in nine. Maps like that are what the
    last stages of a convolutional network make of small views.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self._is_small(input):
            return super().forward(input)
        result: Tensor = _TapByTap.apply(input, self.weight, self.stride, self.padding)
        return result if self.bias is None else result + self.bias[:, None, None]

    def _is_small(self, maps: Tensor) -> bool:
        learning = torch.is_grad_enabled() and self.weight.requires_grad
        if not learning or maps.device.type != "cpu" or torch.is_autocast_enabled("cpu") or maps.ndim != 4:
            return False
        cells = (maps.shape[2] // self.stride[0]) * (maps.shape[3] // self.stride[1])
        return cells <= LARGEST_MAP


class _TapByTap(torch.autograd.Function):
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
            of_maps, _, _ = torch.ops.aten.convolution_backward(
                gradient, maps, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, (True, False, False)
            )
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(maps, gradient, weight.shape[2:], ctx.stride, ctx.padding)
        return of_maps, of_weight, None, None


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
    """Makes those convolutions of a network `SmallMapConv2d`, in place, for which that is worth the while."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.in_channels >= FEWEST_CHANNELS and _is_common(module):
            module.__class__ = SmallMapConv2d


def _is_common(layer: nn.Conv2d) -> bool:
    as_written = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return as_written and layer.groups == 1 and layer.dilation == (1, 1)
