"""Transformers of two blocks, by names of their own: what export and 8 bits do to a block shows in two as in twelve.

To put a network out takes half a second of a core a block. `test_vit` and real ones of twelve stay where a name or a
depth is what matters, and where a command runs in a process of its own.
"""

from __future__ import annotations

from typing import Any

import timm
from timm.models import register_model
from torch import nn

DEPTH = 2


@register_model
def vit_shallow_patch16(pretrained: bool = False, **options: Any) -> nn.Module:
    """`test_vit`, 64 wide."""
    return timm.create_model("test_vit", pretrained=pretrained, depth=DEPTH, **options)


@register_model
def vit_shallow_tiny_patch16(pretrained: bool = False, **options: Any) -> nn.Module:
    """`vit_tiny_patch16_224`, 192 wide."""
    return timm.create_model("vit_tiny_patch16_224", pretrained=pretrained, depth=DEPTH, **options)


@register_model
def vit_shallow_patch14_reg4_dinov2(pretrained: bool = False, **options: Any) -> nn.Module:
    """DINOv2's ViT-S with registers, whose position embedding has none for the class token."""
    return timm.create_model("vit_small_patch14_reg4_dinov2", pretrained=pretrained, depth=DEPTH, **options)
