"""The non-parametric memory: the teacher's most recent embeddings, first in, first out (paper, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Memory(nn.Module):
    """`slots` rows of unit length, overwritten in the order in which they were written.

    It begins as random unit vectors and is part of every checkpoint. No gradient ever flows into it.

    Attributes:
        rows: float32 `[K, D]`, each of length 1.
        position: int64 scalar, the row that is overwritten next.
        written: int64 scalar, how many embeddings were pushed in all; below K, part of the memory is still random.
    """

    rows: Tensor
    position: Tensor
    written: Tensor

    def __init__(self, slots: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("rows", functional.normalize(torch.randn(slots, width, generator=generator), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, embeddings: Tensor, wanted: Tensor | None = None) -> None:
        """Replaces the oldest rows by `embeddings`, float `[B, D]` of unit length; any B, also above K.

        With `wanted`, a bool scalar on the device, nothing happens where it is false.
        """
        slots = self.rows.shape[0]
        count = embeddings.shape[0]
        kept = embeddings[-slots:].to(self.rows.dtype)
        # Arithmetic on the device: neither position nor `wanted` is copied to the host, so nothing waits for it.
        places = (self.position + torch.arange(count - kept.shape[0], count, device=self.rows.device)) % slots
        wanted = torch.ones((), dtype=torch.bool, device=self.rows.device) if wanted is None else wanted
        self.rows[places] = torch.where(wanted, kept, self.rows[places])
        self.position.copy_((self.position + count * wanted) % slots)
        self.written += count * wanted
