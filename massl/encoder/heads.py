"""Projection heads that an encoder embeds by, read from a checkpoint of ours or an encoder file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from massl.method.network import ProjectionHead, folded_head
from massl.settings import Settings


def head_of_checkpoint(state: Mapping[str, Tensor], settings: Settings) -> nn.Sequential:
    """Of a `ProjectionHead`'s state; see `folded_head`.

    Raises:
        ValueError: it is none of these settings.
    """
    try:
        *_, last = (tensor for tensor in state.values() if tensor.ndim == 2)
        width = state["mlp.0.weight"].shape[1]
        head = ProjectionHead(width, settings.head_width, len(last), settings.head_norm, settings.projection_norm)
        head.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split())[:160]) from None
    return folded_head(head).requires_grad_(False)


def head_of_file(state: Mapping[str, Tensor]) -> nn.Sequential:
    """Of a folded head's state, as an encoder file holds it.

    Raises:
        ValueError: it is none.
    """
    try:
        hidden, width = state["0.weight"].shape
        head = folded_head(ProjectionHead(width, hidden, len(state["4.weight"])))
        head.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split())[:160]) from None
    return head.requires_grad_(False)
