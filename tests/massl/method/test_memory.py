"""First in, first out, whatever the sizes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from massl.method.memory import Memory


@given(slots=st.integers(1, 20), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_it_holds_the_newest_embeddings(slots: int, sizes: list[int]) -> None:
    memory = Memory(slots, 2, torch.Generator().manual_seed(0))
    pushed = torch.arange(sum(sizes), dtype=torch.float32)
    for batch in pushed.split(sizes):
        memory.push(torch.stack([batch, batch], 1))
    held = set(memory.rows[:, 0].tolist())
    newest = set(pushed[-slots:].tolist())
    assert newest <= held
    assert int(memory.written) == sum(sizes)
    assert int(memory.position) == sum(sizes) % slots


def test_it_begins_as_random_unit_vectors() -> None:
    rows = Memory(50, 16, torch.Generator().manual_seed(0)).rows
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(50))
    assert float((rows @ rows.T - torch.eye(50)).abs().max()) < 0.95
