"""The head keeps what it is asked to keep apart."""

from __future__ import annotations

import pytest
import torch

from massl.network import Head
from massl.probe import spread


@pytest.mark.parametrize("alike", [0.5, 0.01])
def test_projections_of_like_images_are_kept_apart(alike: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(64) + alike * torch.randn(32, 64)
    plain, kept_apart = Head(64, 128), Head(64, 128, spread=True)
    kept_apart.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        assert spread(plain(features).numpy()) < 0.5
        assert spread(kept_apart(features).numpy()) > 0.9


def test_the_scale_of_projections_is_not_learnt() -> None:
    assert not list(Head(8, 8, spread=True).mlp[-1].parameters())
