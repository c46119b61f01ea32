"""How a trained network embeds images where it is used: by its last layer, or by all its stages, whitened."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from massl import weights
from massl.whitening import Moments, Whitening

WHITENED = 384  # components kept by whitening, unless told otherwise
EVEN = 0.01  # of a mean: deviations below count as none
FEW_TO_WHITEN = 96  # images below which a run's encoder is left as it is


class Deployed(nn.Module):
    """What is exported: uint8 pixels in, unit embedding and unit patch tokens out.

    Args:
        source: the backbone and what it expects.
        stages: embed by all four stages of a convolutional network instead of by the last alone, see `all_stages`: the
            earlier ones know of colour and texture.
        whitening: applied to embedding and patch tokens.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    matrix: Tensor

    def __init__(self, source: weights.Source, stages: bool = False, whitening: Whitening | None = None) -> None:
        super().__init__()
        self.backbone: Any = source.backbone
        self.stages = stages
        self.whitens = whitening is not None
        self.register_buffer("mean", 255.0 * torch.tensor(source.mean))
        self.register_buffer("std", 255.0 * torch.tensor(source.std))
        self.register_buffer("centre", whitening.mean if whitening else torch.zeros(0))
        self.register_buffer("matrix", whitening.matrix if whitening else torch.zeros(0))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `[N, S, S, 3]` to float32 `[N, D]` and `[N, h, w, D]`, each vector of unit length."""
        images = ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        if not self.stages:
            embedding, patches = (functional.normalize(features, dim=-1) for features in self._last(images))
            return self._whitened(embedding), self._whitened(patches)
        means, deviations, parts = all_stages(self.backbone, images)
        # A place has no deviation of its own: it is taken to be what it is on average, and so says nothing.
        usual = self.centre[means.shape[1] :] if self.whitens else torch.zeros_like(deviations[0])
        patches = torch.cat([parts, usual.expand(*parts.shape[:3], -1)], -1)
        return self._whitened(torch.cat([means, deviations], 1)), self._whitened(patches)

    def _last(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone.forward_features(images)
        embedding = self.backbone.forward_head(features, pre_logits=True)
        if features.ndim == 3:  # [N, prefix + h·w, D]: a vision transformer
            rows, columns = self.backbone.patch_embed.grid_size
            return embedding, features[:, -rows * columns :].unflatten(1, (rows, columns))
        channels_last = features.shape[-1] == self.backbone.num_features
        return embedding, features if channels_last else features.permute(0, 2, 3, 1)

    def _whitened(self, features: Tensor) -> Tensor:
        """To unit length, of features of unit length where they are whitened."""
        return functional.normalize((features - self.centre) @ self.matrix if self.whitens else features, dim=-1)


def all_stages(backbone: Any, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a convolutional network's four stages say of normalised images `[N, 3, S, S]`.

    Of each stage the mean over the image, which tells what there is, and the standard deviation, which tells how evenly
    (statistics pooling, as in Snyder et al., "X-vectors", ICASSP 2018, section 2.1; for images Lyu et al., "SRM",
    ICCV 2019, section 3.1). Each of the eight is scaled to the same length, so that side by side they have length one.

    Returns:
        the means, `[N, d]`, the last stage's last; the deviations, likewise; and the means of every position of the
        last stage, `[N, h, w, d]`.
    """
    maps = [
        stage.float() for stage in backbone.forward_intermediates(images, indices=[1, 2, 3, 4], intermediates_only=True)
    ]
    side = maps[-1].shape[-1]
    centred = [stage - stage.mean((2, 3), keepdim=True) for stage in maps]
    means = [stage.mean((2, 3)) for stage in maps]
    # What is as good as even counts as even: the last digits of a deviation that is next to nothing are noise.
    least = [(EVEN * mean).square() + 1e-12 for mean in means]
    deviations = [(stage.square().mean((2, 3)) + even).sqrt() for stage, even in zip(centred, least, strict=True)]
    parts = [functional.avg_pool2d(stage, stage.shape[-1] // side) for stage in maps]
    share = (2 * len(maps)) ** -0.5

    def joined(stages: list[Tensor]) -> Tensor:
        return torch.cat([share * functional.normalize(stage, dim=1) for stage in stages], 1)

    return joined(means), joined(deviations), joined(parts).permute(0, 2, 3, 1)


def has_stages(backbone: nn.Module) -> bool:
    """Whether a network has four stages to embed by."""
    return hasattr(backbone, "layer4")


def components(images: int, before: Moments | None = None) -> int:
    """How many components whitening keeps unless told otherwise.

    A third as many as images, and at least as many as `before` has; at most `WHITENED`.
    """
    return min(WHITENED, max(1, images // 3, before.factor.shape[1] if before else 0))


def whitened_stages(backbone: nn.Module, images: int, before: Moments | None = None) -> int:
    """By how many components of its whitened stages a network embeds that was trained on so many images.

    0: by its last layer alone, as it has no stages, or there are too few images to whiten on, and no features of others
    `before`. A small network's stages say more than its last layer alone (docs/small.md).
    """
    enough = before is not None or images >= FEW_TO_WHITEN
    return components(images, before) if has_stages(backbone) and enough else 0
