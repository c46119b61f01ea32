"""What to say where a step takes more memory than there is: into how many parts a batch should be cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from massl.core.errors import MasslError
from massl.core.memory_budget import available_memory
from massl.settings import Settings
from massl.training.accumulation import part_sizes
from massl.training.cost import FLOAT, bytes_of_an_image, cost_of
from massl.training.distributed import World

SHARE = 0.8  # of the free memory that is counted on; the rest is for temporaries


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch said so, on any device: on some it is a plain `RuntimeError`."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)


@contextmanager
def held_by(device: torch.device, what: str, remedy: str) -> Iterator[None]:
    """Around what `device` has to hold besides the parts of a batch.

    Raises:
        MasslError: its memory does not hold it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        others = "; nvidia-smi shows what else takes of it" if device.type == "cuda" else ""
        raise MasslError(f"{_memory_of(device)} does not hold {what}: {remedy}{others}") from None


def remedy(settings: Settings, world: World, parameters: int) -> tuple[str, str]:
    """What to do once a step ran out of memory.

    Args:
        settings: of the run.
        world: the ranks that train, and this one's device.
        parameters: of the student.

    Returns:
        A line that says what happened, and the flag that mends it; "" where no number of parts does.
    """
    s = settings
    device = world.device
    # What is there for a part, once gradients and moments are there, too.
    room = SHARE * (_free(device) - 3 * FLOAT * parameters)
    each = bytes_of_an_image(s, device.type)
    share = s.batch // world.size
    current = max(part_sizes(share, s.accumulate))
    where = _memory_of(device)
    parts = parts_that_fit(share, current, int(room // each) if each else None, s.head_norm or s.projection_norm)
    if parts is None:
        few = f"{current} image{'s' * (current != 1)}"
        return f"{where} is too small even for parts of {few}; give a smaller --backbone or --set image_size", ""
    size = max(part_sizes(share, parts))
    also = "" if s.checkpoint_activations else ", and so should --checkpoint-activations, which computes more"
    return (
        f"{where} does not hold a step of {current * world.size} images at a time; parts of {size} should fit"
        f"{' on each device' if world.size > 1 else ''} (--accumulate {parts}, or a smaller batch: --set "
        f"batch={size * world.size}){also}",
        f"--accumulate {parts}",
    )


def largest_batch(settings: Settings, device: torch.device, ranks: int = 1) -> int:
    """Images of a step, those of all ranks, that a GPU's free memory should hold; 0 where that can't be computed.

    Args:
        settings: of the run; its batch is not looked at.
        device: one of the GPUs, which are taken for alike.
        ranks: that share a batch.
    """
    cost = cost_of(settings, ranks, device.type)
    room = SHARE * (torch.cuda.mem_get_info(device)[0] - cost.fixed)
    return int(room // cost.image) * ranks if cost.image else 0


def parts_that_fit(share: int, current: int, fitting: int | None, normed: bool) -> int | None:
    """Into how many parts to cut a device's `share` of a batch; None where parts can't be smaller.

    Args:
        share: images of the batch on a device.
        current: images of the part that did not fit.
        fitting: images that are computed to fit; None where that is not known.
        normed: whether a part needs two images.
    """
    least = 2 if normed else 1
    # What did not fit didn't, whatever was computed.
    most = max(least, min(current // 2, fitting if fitting is not None else current))
    wanted = range(1, share + 1)
    fits = (parts for parts in wanted if max(sizes := part_sizes(share, parts)) <= most and min(sizes) >= least)
    return next(fits, None) if most < current else None


def _memory_of(device: torch.device) -> str:
    return "the memory" if device.type == "cpu" else "the GPU's memory"


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return available_memory()
