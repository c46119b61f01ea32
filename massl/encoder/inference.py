"""How a trained network embeds images where it is used: by its last layer, or by all its stages, whitened."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from timm.layers import PatchEmbed
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from massl.encoder import weights
from massl.encoder.whitening import Moments, Whitening
from massl.method.network import resize_positions

WHITENED = 384  # components kept by whitening, unless told otherwise
EVEN = 0.01  # of a mean: deviations below count as none
CELLS = 4  # a side, of the grid over which a stage's layout is told
LAID_OUT = 3  # stages whose layout is told; the last one's few positions are too coarse for it
FEW_TO_WHITEN = 96  # images below which a run's encoder is left as it is


class Deployed(nn.Module):
    """What is exported: uint8 pixels in, unit embedding and unit patch tokens out.

    Args:
        source: the backbone and what it expects.
        stages: embed by all four stages of a convolutional network instead of by the last alone, see `all_stages`: the
            earlier ones know of colour and texture. Else by the last layer, and by the head of `source` where
            that is projected.
        whitening: applied to embedding and patch tokens.
    """

    mean: Tensor
    std: Tensor
    first_positions: Tensor
    centre: Tensor
    matrix: Tensor

    def __init__(
        self, source: weights.PretrainedBackbone, stages: bool = False, whitening: Whitening | None = None
    ) -> None:
        super().__init__()
        self.backbone: Any = source.backbone
        self.positions = source.positions
        self.stages = stages
        self.whitens = whitening is not None
        self.head = source.head if source.projected and not stages else None
        first = torch.zeros(0)
        if takes_any_size(self.backbone):
            # Of tokens that are no patch: class token and registers. Where they have none, they get an empty one.
            grid = self.backbone.patch_embed.grid_size
            first = self.backbone.pos_embed.detach()[:, : self.backbone.pos_embed.shape[1] - grid[0] * grid[1]]
        self.register_buffer("first_positions", first.clone())
        self.register_buffer("mean", 255.0 * torch.tensor(source.mean))
        self.register_buffer("std", 255.0 * torch.tensor(source.std))
        self.register_buffer("centre", whitening.centre if whitening else torch.zeros(0))
        self.register_buffer("matrix", whitening.matrix if whitening else torch.zeros(0))

    def forward(self, pixels: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """uint8 `[N, S, S, 3]` to float32 `[N, D]` and `[N, h, w, D]`, each vector of unit length.

        `positions`, for a network that `takes_any_size`: the position embeddings of the patches, float32
        `[1, d, h, w]`; those of `grid_of` if left out.
        """
        images = ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        if not self.stages:
            last = self._last(images, positions)
            told = last if self.head is None else map(self.head, last)
            embedding, patches = (functional.normalize(features, dim=-1) for features in told)
            return self._whitened(embedding), self._whitened(patches)
        features, parts = all_stages(self.backbone, images)
        # A place has no deviation or layout of its own: it is taken to be what it is on average, and so says nothing.
        said = parts.shape[-1]
        usual = self.centre[said:] if self.whitens else torch.zeros_like(features[0, said:])
        patches = torch.cat([parts, usual.expand(*parts.shape[:3], -1)], -1)
        return self._whitened(features), self._whitened(patches)

    def grid_of(self, size: int) -> Tensor:
        """The position embeddings of the patches of a picture, `[1, d, h, w]`, for a side of `size` pixels."""
        had = self.backbone.patch_embed.grid_size
        wanted = (size // self.backbone.patch_embed.patch_size[0],) * 2
        positions = self.backbone.pos_embed
        prefix = positions.shape[1] - had[0] * had[1]
        resized = resize_positions(positions, had, wanted, prefix, self.positions)
        return resized[:, prefix:].transpose(1, 2).unflatten(2, wanted)

    def _last(self, images: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        if takes_any_size(self.backbone):
            grid = self.grid_of(images.shape[-1]) if positions is None else positions
            placed = torch.cat([self.first_positions, grid.flatten(2).transpose(1, 2)], 1)
            features, embedding = functional_call(_Features(self.backbone), {"backbone.pos_embed": placed}, (images,))
            rows, columns = grid.shape[2:]
            return embedding, features[:, self.backbone.num_prefix_tokens :].unflatten(1, (rows, columns))
        features, embedding = _Features(self.backbone)(images)
        if features.ndim == 3:  # [N, prefix + h·w, D]: another sort of vision transformer
            rows, columns = self.backbone.patch_embed.grid_size
            return embedding, features[:, -rows * columns :].unflatten(1, (rows, columns))
        channels_last = features.shape[-1] == self.backbone.num_features
        places = features if channels_last else features.permute(0, 2, 3, 1)
        if places.shape[-1] != embedding.shape[-1]:
            # MobileNetV3 and others have one more layer after pooling: it takes each place as a map of one cell.
            cells = self.backbone.forward_head(places.flatten(0, 2)[:, :, None, None], pre_logits=True)
            places = cells.reshape(-1, *places.shape[1:3], embedding.shape[-1])
        return embedding, places

    def _whitened(self, features: Tensor) -> Tensor:
        """To unit length, of features of unit length where they are whitened."""
        return functional.normalize((features - self.centre) @ self.matrix if self.whitens else features, dim=-1)


class _Features(nn.Module):
    """A network's last layer, and what it makes of it: its embedding."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone.forward_features(images)
        return features, self.backbone.forward_head(features, pre_logits=True)


def takes_any_size(backbone: nn.Module) -> bool:
    """Whether a network is a vision transformer that was built to be shown pictures of several sizes."""
    return (
        isinstance(backbone, VisionTransformer)
        and type(backbone.patch_embed) is PatchEmbed
        and backbone.pos_embed is not None
        and not backbone.patch_embed.strict_img_size
    )


def all_stages(backbone: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a convolutional network's four stages say of normalised images `[N, 3, S, S]`.

    Of each stage the mean over the image, which tells what there is, and the standard deviation, which tells how evenly
    (statistics pooling, as in Snyder et al., "X-vectors", ICASSP 2018, section 2.1; for images Lyu et al., "SRM",
    ICCV 2019, section 3.1). Of the first three also the layout, which tells where: see `layout`. Each of the eleven is
    scaled to the same length, so that side by side they have length one.

    Returns:
        the features, `[N, d]`: the means, the last stage's last, then the deviations and the layouts likewise; and for
        every position of the last stage what takes the place of the means there, `[N, h, w, m]`.
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
    layouts = [layout(stage) for stage in maps[:LAID_OUT]]
    parts = [pooled(stage, side) for stage in maps]
    share = (len(means) + len(deviations) + len(layouts)) ** -0.5

    def joined(blocks: list[Tensor]) -> Tensor:
        return torch.cat([share * functional.normalize(block, dim=1) for block in blocks], 1)

    return joined([*means, *deviations, *layouts]), joined(parts).permute(0, 2, 3, 1)


def layout(stage: Tensor) -> Tensor:
    """A map `[N, C, H, W]` over a grid of `CELLS` by `CELLS`, folded at its upright middle: `[N, C · cells]`.

    The means of cells (a spatial pyramid's level, Lazebnik et al., CVPR 2006, section 3). A cell on the left and its
    counterpart on the right count as one, so that a mirrored picture has the same layout.
    """
    down, across = (_cells(length, CELLS).to(stage) for length in stage.shape[2:])
    half = (CELLS + 1) // 2
    folded = (across[:half] + across.flip(0)[:half]) / 2
    return (down @ stage @ folded.T).flatten(1)


def pooled(stage: Tensor, side: int) -> Tensor:
    """The means of the cells of a square map `[N, C, S, S]`: `[N, C, side, side]`, of whatever size the map is."""
    if stage.shape[-1] % side == 0:
        return functional.avg_pool2d(stage, stage.shape[-1] // side)
    cells = _cells(stage.shape[-1], side).to(stage)
    return cells @ stage @ cells.T


def _cells(length: int, cells: int) -> Tensor:
    """The share that each of `length` positions has in the mean of each of as many cells, `[cells, length]`."""
    edges = np.linspace(0, length, cells + 1)
    position = np.arange(length)
    overlap = np.minimum(edges[1:, None], position + 1) - np.maximum(edges[:-1, None], position)
    return torch.tensor((overlap.clip(0) * cells / length).tolist())


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
    `before`. A small network's stages say more than its last layer alone (docs/measurements/small-collections.md).
    """
    enough = before is not None or images >= FEW_TO_WHITEN
    return components(images, before) if has_stages(backbone) and enough else 0
