"""8-bit arithmetic for a transformer's linear layers: how large their inputs get, and what is done about large ones.

The scale of an input is fixed when a network is exported, by pictures that it is shown then. If it were taken from each
batch, as `DynamicQuantizeLinear` does, an embedding would depend on the other pictures of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

SAMPLE = 192  # views by which ranges are found: the same pictures at each size
JUDGED = 16  # pictures on which a layer's inputs are tried in 8 bits
# The migration strength, alpha in Xiao et al., "SmoothQuant", ICML 2023, equation 4. On DINOv2's ViT-S/14 0.65 to 0.85
# made no difference, 0.5 a small one.
MIGRATION = 0.7
LEAST = 0.01  # of the channels' mean: a smaller one counts as this large
# How far an input in 8 bits may lower the mean cosine with the network in float. A layer that lowers it more keeps its
# input in float. Ranges reach to the largest value seen: a few large values carry much.
MAX_LOSS = 1e-3
LEVELS = 255


@dataclass(frozen=True)
class Range:
    """The least and the largest value that each channel of a layer's input had, float32 `[d]`."""

    low: Tensor
    high: Tensor

    @property
    def largest(self) -> Tensor:
        return torch.maximum(-self.low, self.high)

    @property
    def scale(self) -> tuple[float, int]:
        """Of one unsigned byte for all channels: the value of a step, and the byte that stands for zero."""
        low, high = min(float(self.low.min()), 0.0), max(float(self.high.max()), 0.0)
        step = max(high - low, 1e-9) / LEVELS
        return step, round(-low / step)


def observe(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Range]:
    """The ranges of the inputs of all linear layers by the layers' names, over the batches that a network is shown."""
    found: dict[str, Range] = {}

    def seen(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def note(layer: nn.Module, given: tuple[Tensor]) -> None:
            values = given[0].flatten(0, -2)
            low, high = values.amin(0), values.amax(0)
            if name in found:
                low, high = torch.minimum(low, found[name].low), torch.maximum(high, found[name].high)
            found[name] = Range(low, high)

        return note

    hooks = [layer.register_forward_pre_hook(seen(name)) for name, layer in linear_layers(network).items()]
    try:
        with torch.no_grad():
            for pixels in batches:
                network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def linear_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The linear layers by their names."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}


def smooth(network: nn.Module, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Makes the channels of layers' inputs more alike in size, and scales the layers' weights the other way.

    The network computes what it did: the scales go into the weights of what comes before, a normalisation or the values
    of the attention (Xiao et al., "SmoothQuant", ICML 2023, section 4).

    Args:
        network: changed in place, where it has blocks of a plain vision transformer.
        ranges: of `observe`.

    Returns:
        the ranges from then on.
    """
    changed = dict(ranges)

    def scale(name: str, layer: nn.Linear, before: Callable[[Tensor], None]) -> None:
        inputs, weights = ranges[name].largest, layer.weight.abs().amax(0)
        # A channel that was silent by chance may speak on other pictures.
        inputs, weights = (each.clamp(min=LEAST * float(each.mean()) + 1e-12) for each in (inputs, weights))
        scales = inputs**MIGRATION / weights ** (1 - MIGRATION)
        before(scales)
        layer.weight.mul_(scales)
        changed[name] = Range(ranges[name].low / scales, ranges[name].high / scales)

    def of(norm: nn.LayerNorm) -> Callable[[Tensor], None]:
        def divide(scales: Tensor) -> None:
            norm.weight.div_(scales)
            norm.bias.div_(scales)

        return divide

    def values_of(layer: nn.Linear) -> Callable[[Tensor], None]:
        def divide(scales: Tensor) -> None:
            layer.weight[-len(scales) :].div_(scales[:, None])
            if layer.bias is not None:
                layer.bias[-len(scales) :].div_(scales)

        return divide

    with torch.no_grad():
        for name, block in network.named_modules():
            if not _is_plain(block) or f"{name}.attn.qkv" not in ranges:
                continue
            scale(f"{name}.attn.qkv", block.attn.qkv, of(block.norm1))
            scale(f"{name}.attn.proj", block.attn.proj, values_of(block.attn.qkv))
            scale(f"{name}.mlp.fc1", block.mlp.fc1, of(block.norm2))
    return changed


def _is_plain(block: Any) -> bool:
    """Whether the scales of a block's inputs can go into what comes before them, and nothing else has these inputs."""
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and isinstance(block.attn.norm, nn.Identity)
        and getattr(block.attn, "gate", None) is None  # unknown to earlier versions of timm
        and all(isinstance(norm, nn.LayerNorm) and norm.weight is not None for norm in (block.norm1, block.norm2))
        and all(norm.bias is not None for norm in (block.norm1, block.norm2))
        and isinstance(getattr(block.mlp, "fc1", None), nn.Linear)
    )


def fit_for_eight_bits(network: nn.Module, ranges: Mapping[str, Range], pixels: Tensor) -> dict[str, Range]:
    """The ranges of those layers whose inputs can be in 8 bits without much loss.

    Args:
        network: uint8 `[N, S, S, 3]` to embeddings, float32 `[N, D]`, as the first of its outputs.
        ranges: of its linear layers.
        pixels: to try each layer on, by itself.
    """

    def in_bytes(step: float, zero: int) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        def round_input(layer: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            return (((given[0] / step).round() + zero).clamp(0, LEVELS).sub(zero) * step,)

        return round_input

    fit = {}
    with torch.no_grad():
        wanted = network(pixels)[0]
        for name, layer in linear_layers(network).items():
            if name not in ranges:
                continue
            hook = layer.register_forward_pre_hook(in_bytes(*ranges[name].scale))
            try:
                cosine = functional.cosine_similarity(network(pixels)[0], wanted).mean()
            finally:
                hook.remove()
            if cosine >= 1 - MAX_LOSS:
                fit[name] = ranges[name]
    return fit
