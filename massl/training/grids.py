"""Pictures for TensorBoard: the views of some images, and the nearest neighbours of others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

from massl.method.augment import pixels_of

ROWS = 8  # images
CELL = 64  # side of a cell, pixels
NEIGHBOURS = 7  # shown beside an image


def views_grid(views: Sequence[Tensor]) -> Tensor:
    """A row an image: its two global views, then the local ones, enlarged to the same size.

    Args:
        views: as the student is given them, normalised float `[v, B, 3, S, S]`.

    Returns:
        uint8 `[3, H, W]`.
    """
    cells = torch.cat([_cells(pixels_of(group[:, :ROWS].float())) for group in views])
    return make_grid(cells.transpose(0, 1).flatten(0, 1), nrow=len(cells))


def neighbours_grid(pixels: Tensor, z: Tensor) -> Tensor:
    """A row an image: itself, then its nearest neighbours, the nearest first.

    Args:
        pixels: uint8 `[N, 3, S, S]`.
        z: `[N, D]`, their embeddings, unit rows.

    Returns:
        uint8 `[3, H, W]`.
    """
    asked = torch.linspace(0, len(z) - 1, min(ROWS, len(z))).long()  # here and there, as the first may be of one class
    likeness = z[asked] @ z.T
    likeness[torch.arange(len(asked)), asked] = 2  # each finds itself, also among its copies
    found = likeness.topk(min(NEIGHBOURS + 1, len(z))).indices
    cells = _cells(pixels[found.flatten()][None])[0]
    return make_grid(cells, nrow=found.shape[1])


def _cells(groups: Tensor) -> Tensor:
    """uint8 `[v, B, 3, S, S]` as `[v, B, 3, CELL, CELL]`."""
    small = interpolate(groups.flatten(0, 1).float(), CELL, mode="bilinear", antialias=True)
    return small.round_().clamp_(0, 255).to(torch.uint8).cpu().unflatten(0, groups.shape[:2])
