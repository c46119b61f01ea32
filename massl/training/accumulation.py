"""A batch in parts, one after the other: what that does where a network normalises over a batch."""

from __future__ import annotations

import torch
from torch import nn

from massl.core.errors import MasslError
from massl.method.network import build_backbone
from massl.settings import Settings


def part_sizes(images: int, parts: int) -> list[int]:
    """How many images each part has of `images` that are cut into up to `parts`, as `torch.chunk` cuts them."""
    size = -(-images // parts)
    return [min(size, images - start) for start in range(0, images, size)]


def check_ranks(settings: Settings, ranks: int) -> None:
    """Raises a `MasslError` where so many ranks can't share the steps of these settings, or none can take them."""
    if settings.adapter and ranks > 1:
        raise MasslError("an encoder is adapted on one device; leave --devices out, or give --preset gpu")
    if settings.teacher_dim and ranks > 1:
        raise MasslError("a network learns from a --teacher on one device; leave --devices out")
    if settings.teacher_dim and settings.local_views and _backbone_normalises(settings):
        # What is exported is shown no images while it learns, and takes over what the student counts of all views.
        raise MasslError(
            f"{settings.backbone} normalises over batches, whose figures local views would change; leave local_views "
            "out"
        )
    if settings.batch % ranks:
        raise MasslError(f"batch ({settings.batch}) must be a multiple of the {ranks} devices that share it")


def normalises_batches(settings: Settings) -> bool:
    """Whether the networks of these settings take statistics over a batch. Builds the backbone, without its weights."""
    s = settings
    return s.head_norm or s.projection_norm or _backbone_normalises(s)


def _backbone_normalises(s: Settings) -> bool:
    with torch.device("meta"):
        backbone = build_backbone(s.backbone, s.image_size, s.patch_size, s.drop_path, mean_pooled=s.mean_pooled)
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())


def check_parts(settings: Settings, ranks: int = 1, synchronised: bool = False) -> None:
    """Refuses a head that would normalise the views of one image among themselves.

    That takes away what they have in common, which is what is to be learnt.

    Args:
        settings: of the run; `batch` counts the images of all ranks.
        ranks: that learn together.
        synchronised: whether ranks normalise together.

    Raises:
        MasslError: there is a part of one image, and the head normalises over it.
    """
    s = settings
    fewest = min(part_sizes(s.batch // ranks, s.accumulate)) * (ranks if synchronised else 1)
    if fewest > 1 or not (s.head_norm or s.projection_norm):
        return
    cut = f" cut into {s.accumulate} parts" if s.accumulate > 1 else ""
    shared = f" on {ranks} devices" if ranks > 1 else ""
    raise MasslError(
        f"a batch of {s.batch}{shared}{cut} has parts of one image, whose views the head would normalise among "
        "themselves (head_norm, projection_norm): give a lower --accumulate or a larger --set batch"
    )


def parts_note(settings: Settings, ranks: int = 1) -> str:
    """A line for a person where `accumulate` is not the same gradient as one batch; "" where it is."""
    s = settings
    if s.accumulate == 1 or not normalises_batches(s):
        return ""
    return (
        f"batch normalisation takes its statistics over parts of {max(part_sizes(s.batch // ranks, s.accumulate))} "
        f"images, not over the batch: with --accumulate {s.accumulate} this network learns otherwise than without"
    )
