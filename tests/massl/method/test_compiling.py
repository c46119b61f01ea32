"""What compiling sees of a network: the whole of a forward pass as one graph."""

from __future__ import annotations

import pytest
import torch

from massl.training.distributed import World
from massl.training.learner import Learner
from tests.massl.conftest import small_settings

LARGE, SMALL = torch.zeros(2, 2, 3, 64, 64), torch.zeros(2, 2, 3, 32, 32)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_forward_pass_is_one_graph(backbone: str) -> None:
    """Of views of two sizes, as the student sees them, and of one, as the teacher does. A break would be an error."""
    learner = Learner(small_settings(backbone=backbone, image_size="64", compile="true"), World(LARGE.device))
    learner.drop_compiling()  # to machine code, which takes long
    traced = torch.compile(learner.student, backend="eager", fullgraph=True)
    for views in ((LARGE, SMALL), (LARGE,)):
        with torch.autocast("cpu", torch.bfloat16):
            assert traced(*views).shape[:2] == (2 * len(views), 2)
