#!/usr/bin/env python3
"""An experiment: views of two sizes through a vision transformer in one forward pass in place of two.

    benchmarks/packed.py [BACKBONE] [BATCH] [ROUNDS] [DEVICE] [PRECISION]

A step of training takes one forward pass for the global views and one for the local ones. Here the tokens of both go
through the linear layers together, in two forms that differ in attention:

    split    each size of views by itself, all else together
    mask     the views of an image are one sequence, and a mask lets tokens see those of their own view alone

Prints how far each form's outputs and gradients are off from two passes, and the processor seconds, on a GPU seconds,
of a forward and a backward pass, as multiples of those of two passes taken in turns. Stochastic depth is off: timm
drops whole sequences, which would be whole images in `mask`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from massl.method.network import build_backbone, embed, resize_positions
from massl.planning import plan
from massl.settings import Settings
from massl.training.utilisation import wait_for

Views = list[Tensor]  # float [V, B, 3, S, S] of each size
Attention = Callable[[Tensor], Tensor]  # of queries, keys and values [..., 3 * d] to [..., d]


def two_passes(backbone: Any, views: Views) -> Tensor:
    """Embeddings `[B, all V, d]` as a step of training computes them, a pass a size."""
    return torch.cat([embed(backbone, group.flatten(0, 1)).view(*group.shape[:2], -1) for group in views]).transpose(
        0, 1
    )


def split(backbone: Any, views: Views) -> Tensor:
    """The same by one pass, with attention a size of views at a time."""
    sequences = [_tokens(backbone, group.flatten(0, 1)) for group in views]
    shapes = [each.shape[:2] for each in sequences]

    def attention(qkv: Tensor) -> Tensor:
        parts = qkv.split([count * length for count, length in shapes])
        seen = [_attend(backbone, part.view(*shape, -1)) for part, shape in zip(parts, shapes, strict=True)]
        return torch.cat([each.flatten(0, 1) for each in seen])

    x = _blocks(backbone, torch.cat([each.flatten(0, 1) for each in sequences]), attention)
    parts = x.split([count * length for count, length in shapes])
    pooled = [_pooled(backbone, part.view(*shape, -1)) for part, shape in zip(parts, shapes, strict=True)]
    return torch.cat([each.view(*g.shape[:2], -1) for each, g in zip(pooled, views, strict=True)]).transpose(0, 1)


def mask(backbone: Any, views: Views) -> Tensor:
    """The same by one pass, with an image's views in one sequence and a mask."""
    lengths, sequences = [], []
    for group in views:
        tokens = _tokens(backbone, group.transpose(0, 1).flatten(0, 1))  # [B * V, n, d]
        lengths += [tokens.shape[1]] * len(group)
        sequences.append(tokens.view(group.shape[1], -1, tokens.shape[-1]))
    view = torch.arange(len(lengths), device=views[0].device).repeat_interleave(
        torch.tensor(lengths, device=views[0].device)
    )
    allowed = view[:, None] == view
    x = _blocks(backbone, torch.cat(sequences, 1), lambda qkv: _attend(backbone, qkv, allowed))
    return torch.stack([_pooled(backbone, part) for part in x.split(lengths, 1)], 1)


FORMS: dict[str, Callable[[Any, Views], Tensor]] = {"split": split, "mask": mask}


def _tokens(backbone: Any, images: Tensor) -> Tensor:
    """`[N, 3, S, S]` to `[N, 1 + patches, d]`, with positions. Of transformers with a class token and no registers."""
    rows, columns = backbone.patch_embed.patch_size
    grid = (images.shape[-2] // rows, images.shape[-1] // columns)
    positions = resize_positions(backbone.pos_embed, backbone.patch_embed.grid_size, grid, 1)
    patches = backbone.patch_embed(images)
    return torch.cat([backbone.cls_token.expand(len(patches), -1, -1), patches], 1) + positions


def _blocks(backbone: Any, x: Tensor, attention: Attention) -> Tensor:
    x = backbone.norm_pre(x)
    for block in backbone.blocks:
        x = x + block.ls1(block.attn.proj(attention(block.attn.qkv(block.norm1(x)))))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return x


def _attend(backbone: Any, qkv: Tensor, allowed: Tensor | None = None) -> Tensor:
    heads = backbone.blocks[0].attn.num_heads
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2).flatten(-2)


def _pooled(backbone: Any, tokens: Tensor) -> Tensor:
    return backbone.forward_head(backbone.norm(tokens), pre_logits=True)


def prepare(name: str, batch: int, device: torch.device, settings: Settings) -> tuple[Any, Views]:
    """A network with random weights, and views without a picture in them, in the sizes and numbers of a run's."""
    torch.manual_seed(0)
    backbone = build_backbone(name, settings.image_size, settings.patch_size, 0.0).to(device).train()
    sizes = ((2, settings.image_size), (settings.local_views, settings.local_size))
    return backbone, [torch.randn(count, batch, 3, side, side, device=device) for count, side in sizes]


def apart(backbone: Any, views: Views, form: Callable[[Any, Views], Tensor]) -> tuple[float, float]:
    """How far a form is from two passes: of outputs at most, and of gradients the norm of the difference in theirs."""
    found = []
    for each in (two_passes, form):
        backbone.zero_grad()
        out = each(backbone, views)
        out.square().mean().backward()
        slopes = [part.grad.flatten() for part in backbone.parameters() if part.grad is not None]
        found.append((out.detach(), torch.cat(slopes)))
    (wanted, slope), (out, other) = found
    return float((out - wanted).abs().max()), float((other - slope).norm() / slope.norm())


def times(backbone: Any, views: Views, rounds: int, precision: torch.dtype, forms: list[str]) -> dict[str, list[float]]:
    """Seconds of a forward and a backward pass of two passes and of forms, in turns; on a CPU of all its threads."""
    device = views[0].device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    taken: dict[str, list[float]] = {"two passes": [], **{name: [] for name in forms}}
    for number in range(rounds + 1):
        for name in taken:
            form = FORMS.get(name, two_passes)
            backbone.zero_grad()
            wait_for(device)
            began = clock()
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                loss = form(backbone, views).float().square().mean()
            loss.backward()
            wait_for(device)
            if number:  # the first one doesn't count
                taken[name].append(clock() - began)
    return taken


def main(
    name: str = "vit_tiny_patch16_224",
    batch: str = "2",
    rounds: str = "5",
    device: str = "cpu",
    precision: str = "fp32",
) -> None:
    """Prints a line a form."""
    place, kind = torch.device(device), {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    settings, _ = plan("gpu", 1000, {"backbone": name})
    backbone, views = prepare(name, int(batch), place, settings)
    taken = times(backbone, views, int(rounds), kind, list(FORMS))
    whole = min(taken["two passes"])
    print(
        f"{name}, {batch} images, {precision} on {device}, {torch.get_num_threads()} threads: two passes {whole:.3g} s"
    )
    for form, function in FORMS.items():
        off, bent = apart(backbone, views, function)
        print(f"{form}: {min(taken[form]) / whole:.2f}, outputs off by {off:.1g}, gradients by {bent:.1g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
