"""What a run will take, told before it begins: counted by the shapes of its networks, with nothing in memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from massl.method.network import Network, build_pair, build_parts, freeze_blocks
from massl.settings import Settings
from massl.training.accumulation import part_sizes
from massl.training.learner import ACTIVATIONS

FLOAT = 4  # bytes of a parameter


@dataclass(frozen=True)
class Cost:
    """What a run of given settings takes; bytes where nothing else is said.

    Attributes:
        parameters: of the student, its head included.
        images_seen: over the whole run, one counted each time.
        fixed: on each device, whatever the batch: both networks, gradients, Adam's moments, the memory.
        image: that one image of a part keeps on a device for the backward pass, of all its views. Temporaries come on
            top. None where it can't be counted.
        part: images in the largest part that a device computes at a time.
        checkpoint: one file.
        disk: of the run's folder at its fullest: the checkpoints kept, the best, one being written, and the encoder.
    """

    parameters: int
    images_seen: int
    fixed: int
    image: int | None
    part: int
    checkpoint: int
    disk: int

    @property
    def device(self) -> int | None:
        """Memory of a device that a step takes, without temporaries."""
        return None if self.image is None else self.fixed + self.image * self.part


def cost_of(settings: Settings, ranks: int = 1, kind: str = "cpu", teacher_bytes: int = 0) -> Cost:
    """Counts what a run takes. Takes about a second.

    Args:
        settings: of the run; `batch` counts the images of all ranks.
        ranks: that learn together.
        kind: of the devices, as `cuda`.
        teacher_bytes: of a frozen teacher's weights, which stay on each device where it works at each step.

    Raises:
        MasslError: the network can't be built.
    """
    s = settings
    student, teacher = _pair(s)
    parameters = sum(parameter.numel() for parameter in student.parameters())
    weights = _bytes(student) + _bytes(teacher)
    memory = s.memory * student.head.out * FLOAT
    checkpoint = weights + memory + 2 * parameters * FLOAT  # both moments
    disk = (s.keep_checkpoints + 2) * checkpoint + _bytes(student.backbone)
    return Cost(
        parameters,
        s.steps * s.batch,
        weights + memory + 3 * parameters * FLOAT + (teacher_bytes if s.teacher_crops else 0),
        bytes_of_an_image(s, kind),
        max(part_sizes(s.batch // ranks, s.accumulate)),
        checkpoint,
        disk,
    )


def bytes_of_an_image(settings: Settings, kind: str = "cpu") -> int | None:
    """What one image's views keep on a device of that kind for the backward pass; None where it can't be counted.

    By a forward pass on tensors without content. Attention counts by its plain form, more than a GPU's kernels keep.
    """
    if settings.checkpoint_activations:
        return None
    kind = "cuda" if kind == "cuda" else "cpu"
    try:
        two, four = (_kept(settings, kind, images) for images in (2, 4))
    except Exception:  # a network may ask for numbers, which tensors without content don't have
        return None
    return (four - two) // 2


def operations_of_an_image(settings: Settings, teacher_operations: int = 0) -> int | None:
    """Floating-point operations that a step takes for each image; None where they can't be counted.

    Of matrix products, convolutions and attention, forward and backward, a multiplication and an addition being two.
    What `checkpoint_activations` computes again is not counted: a run is not the better for it.

    Args:
        settings: of the run.
        teacher_operations: in which a frozen teacher embeds one picture, counted where it embeds each global view.
    """
    s = settings
    images = 2
    student, teacher = _pair(s)
    large = torch.empty(2, images, 3, s.image_size, s.image_size, device="meta")
    small = torch.empty(s.local_views, images, 3, s.local_size, s.local_size, device="meta")
    try:
        with FlopCounterMode(display=False) as counted:
            if not s.teacher_dim:  # a frozen one embeds each image once, before the first step
                with torch.no_grad():
                    teacher(large)
            student(large, *([small] if s.local_views else [])).sum().backward()
    except Exception:  # a network may ask for numbers, which tensors without content don't have
        return None
    # Of the loss: two products of the queries with the memory.
    compared = 2 * 2 * (2 + s.local_views + 2) * s.memory * student.head.out
    return counted.get_total_flops() // images + compared + (2 * teacher_operations if s.teacher_crops else 0)


def free_space(folder: Path) -> int:
    """Bytes that are free where `folder` is or is going to be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def _pair(s: Settings) -> tuple[Network, Network]:
    with torch.device("meta"):
        backbone, head, adapter = build_parts(s)
        student, teacher = build_pair(backbone, head, adapter=adapter)
        freeze_blocks(student.backbone, s.frozen_blocks)
        return student, teacher


def _bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in network.state_dict().values())


def _kept(s: Settings, kind: str, images: int) -> int:
    """Bytes that a student's forward pass of so many images keeps, weights aside."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    student, _ = _pair(s)
    with FakeTensorMode(allow_non_fake_inputs=True):
        student.to_empty(device=kind).train()
        own = {tensor.untyped_storage()._cdata for tensor in (*student.parameters(), *student.buffers())}
        views = [torch.empty(2, images, 3, s.image_size, s.image_size, device=kind)]
        if s.local_views:
            views.append(torch.empty(s.local_views, images, 3, s.local_size, s.local_size, device=kind))
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(kind, ACTIVATIONS[s.precision], enabled=s.precision != "fp32"),
        ):
            student(*views)
        return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)
